//! The description itself: a table of operations, and schemas of the rows.

use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use crate::admin::{
    ADMIN_TOKEN_CHARACTERS_MIN, ChangesPage, DeviceEntriesPage, DevicesPage, EntriesPage, Summary,
    UsersPage, changes, device_data, users,
};

/// One method of one path.
struct Operation {
    method: &'static str,
    path: &'static str,
    id: &'static str,
    summary: &'static str,
    /// Parameters of the query.
    query: &'static [Parameter],
    answer: Answer,
    /// Refusals beside those of the token: status, errcode and when.
    errors: &'static [Refusal],
}

type Refusal = (u16, &'static str, &'static str);

/// A parameter: name, whether it is needed, what it may be, text.
type Parameter = (&'static str, bool, Kind, &'static str);

/// What a parameter may be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    OneOf(&'static [&'static str]),
    Milliseconds,
    /// Rows on a page: the default and the most, which more is taken as.
    Rows(usize, usize),
}

impl Kind {
    fn schema(self) -> Value {
        match self {
            Self::Text => json!({"type": "string"}),
            Self::OneOf(names) => json!({"type": "string", "enum": names}),
            Self::Milliseconds => json!({"type": "integer", "minimum": 0, "default": 0}),
            Self::Rows(default, rows_max) => json!({
                "type": "integer", "minimum": 1, "maximum": rows_max, "default": default,
            }),
        }
    }
}

/// What a 200 has in its body.
#[derive(Clone, Copy)]
enum Answer {
    /// A content, byte for byte as it was put.
    Content,
    /// The empty object, where the body of the request is a content.
    Put,
    /// The empty object.
    Empty,
    /// Any object, as the text says.
    Object,
    /// A page or a summary of ours.
    Row(fn(&mut SchemaGenerator) -> Schema),
}

fn row<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

const V1: &str = "/_kitbag/admin/v1";

const TYPE: Parameter = ("type", true, Kind::Text, "The type of the entries.");
const POINTER: Parameter = (
    "pointer",
    true,
    Kind::Text,
    "A place in the contents, as a JSON pointer (RFC 6901).",
);
const FROM: Parameter = (
    "from",
    false,
    Kind::Text,
    "The `next_batch` of the page before.",
);
const EXPECTATIONS: &[Parameter] = &[
    (
        "expect_revision_id",
        false,
        Kind::Text,
        "Writes only where the stored content has this `m.revision_id`, or with an empty value \
         where there is none (MSC4547).",
    ),
    (
        "com.beeper.expect_revision_id",
        false,
        Kind::Text,
        "The same, of `com.beeper.revision_id`.",
    ),
];

const INVALID: Refusal = (
    400,
    "M_INVALID_PARAM",
    "An ID or a parameter is not well-formed.",
);
const MISSING: Refusal = (400, "M_MISSING_PARAM", "A parameter is missing.");
const NO_ENTRY: Refusal = (
    404,
    "M_NOT_FOUND",
    "There is no such account, device or entry.",
);
const NO_PLACE: Refusal = (404, "M_NOT_FOUND", "There is no such account or device.");
const MANAGED: Refusal = (405, "M_BAD_JSON", "The type is the server's.");

const GET_ERRORS: &[Refusal] = &[INVALID, NO_ENTRY];
const DELETE_ERRORS: &[Refusal] = &[INVALID, NO_PLACE, MANAGED];
const PUT_ERRORS: &[Refusal] = &[
    (
        400,
        "M_BAD_JSON",
        "The body is not an object, or nested too deeply.",
    ),
    INVALID,
    (400, "M_NOT_JSON", "The body is not JSON."),
    (
        403,
        "M_USER_LIMIT_EXCEEDED",
        "The user's quota is full: it counts what operators write too.",
    ),
    NO_PLACE,
    MANAGED,
    (408, "M_UNKNOWN", "The body did not arrive in time."),
    (
        409,
        "COM.BEEPER.REVISION_ID_MISMATCH",
        "The stored content has another revision.",
    ),
    (
        409,
        "M_REVISION_ID_MISMATCH",
        "The stored content has another revision.",
    ),
    (
        413,
        "M_TOO_LARGE",
        "The content is larger than its scope allows.",
    ),
];

/// Refusals of the guard, which stands before every operation that needs a token.
const GUARD_ERRORS: &[Refusal] = &[
    (
        401,
        "M_MISSING_TOKEN",
        "There is no `Authorization: Bearer`.",
    ),
    (
        401,
        "M_UNKNOWN_TOKEN",
        "The token is none of `admin.tokens`.",
    ),
    (
        429,
        "M_LIMIT_EXCEEDED",
        "This address has tried too many wrong tokens.",
    ),
];

/// What each can end with where the server itself fails.
const SERVER_ERRORS: &[Refusal] = &[
    (
        500,
        "M_UNKNOWN",
        "What is stored is damaged, or the server has a fault.",
    ),
    (
        503,
        "M_UNKNOWN",
        "The store cannot answer now; a write may or may not be there.",
    ),
];

/// Returns the three methods of an entry's path.
const fn entry(path: &'static str, ids: [&'static str; 3]) -> [Operation; 3] {
    [
        Operation {
            method: "get",
            path,
            id: ids[0],
            summary: "Returns the content of an entry, byte for byte.",
            query: &[],
            answer: Answer::Content,
            errors: GET_ERRORS,
        },
        Operation {
            method: "put",
            path,
            id: ids[1],
            summary: "Replaces the content of an entry, within the user's limits and quota.",
            query: EXPECTATIONS,
            answer: Answer::Put,
            errors: PUT_ERRORS,
        },
        Operation {
            method: "delete",
            path,
            id: ids[2],
            summary: "Deletes an entry, also where there is none.",
            query: &[],
            answer: Answer::Empty,
            errors: DELETE_ERRORS,
        },
    ]
}

/// The entry in each of its scopes.
const ENTRIES: [[Operation; 3]; 3] = [
    entry(
        "/_kitbag/admin/v1/users/{user}/account_data/{type}",
        ["getEntry", "putEntry", "deleteEntry"],
    ),
    entry(
        "/_kitbag/admin/v1/users/{user}/devices/{device}/account_data/{type}",
        ["getDeviceEntry", "putDeviceEntry", "deleteDeviceEntry"],
    ),
    entry(
        "/_kitbag/admin/v1/users/{user}/rooms/{room}/account_data/{type}",
        ["getRoomEntry", "putRoomEntry", "deleteRoomEntry"],
    ),
];

const LISTS: &[Operation] = &[
    Operation {
        method: "get",
        path: "/_kitbag/admin/v1/users",
        id: "listUsers",
        summary: "Returns all accounts and what they take, page by page.",
        query: &[
            (
                "from",
                false,
                Kind::Text,
                "The `next_batch` of the page before, or a user ID.",
            ),
            (
                "limit",
                false,
                Kind::Rows(users::PAGE_USERS, users::PAGE_USERS_MAX),
                "Accounts on the page: 100, at most 500.",
            ),
        ],
        answer: Answer::Row(row::<UsersPage>),
        errors: &[INVALID],
    },
    Operation {
        method: "get",
        path: "/_kitbag/admin/v1/users/{user}/account_data",
        id: "listEntries",
        summary: "Returns the entries of a user without their contents.",
        query: &[
            (
                "scope",
                false,
                Kind::OneOf(&["global", "rooms", "devices"]),
                "`global`, `rooms` or `devices`; all without it.",
            ),
            (
                "room_id",
                false,
                Kind::Text,
                "The entries of this room alone.",
            ),
            (
                "device_id",
                false,
                Kind::Text,
                "The entries of this device alone.",
            ),
        ],
        answer: Answer::Row(row::<EntriesPage>),
        errors: &[INVALID, NO_PLACE],
    },
    Operation {
        method: "get",
        path: "/_kitbag/admin/v1/device_account_data",
        id: "listDeviceEntries",
        summary: "Returns the entries of one type of all devices of all users, page by page.",
        query: &[
            TYPE,
            FROM,
            (
                "limit",
                false,
                Kind::Rows(device_data::PAGE_DEVICES, device_data::PAGE_DEVICES_MAX),
                "Entries on the page: 100, at most 1000.",
            ),
        ],
        answer: Answer::Row(row::<DeviceEntriesPage>),
        errors: &[INVALID, MISSING],
    },
    Operation {
        method: "get",
        path: "/_kitbag/admin/v1/device_account_data/summary",
        id: "summarizeDeviceEntries",
        summary: "Counts the devices by the value at one place of one type.",
        query: &[TYPE, POINTER],
        answer: Answer::Row(row::<Summary>),
        errors: &[INVALID, MISSING],
    },
    Operation {
        method: "get",
        path: "/_kitbag/admin/v1/device_account_data/lacking",
        id: "listLackingDevices",
        summary: "Returns the devices that do not have a value at one place of one type.",
        query: &[
            TYPE,
            POINTER,
            (
                "lacks",
                true,
                Kind::Text,
                "The value, as JSON. A device has it where it stands at the place, is in the \
                     array that stands there, or names a member of the object that stands there.",
            ),
            FROM,
            (
                "limit",
                false,
                Kind::Rows(device_data::PAGE_DEVICES, device_data::PAGE_DEVICES_MAX),
                "Devices on the page: 100, at most 1000.",
            ),
        ],
        answer: Answer::Row(row::<DevicesPage>),
        errors: &[INVALID, MISSING],
    },
    Operation {
        method: "get",
        path: "/_kitbag/admin/v1/changes",
        id: "followDeviceEntries",
        summary: "Returns what changed of all users' device account data; waits where that is \
                      nothing.",
        query: &[
            (
                "since",
                false,
                Kind::Text,
                "The `next_batch` of the page before.",
            ),
            (
                "timeout",
                false,
                Kind::Milliseconds,
                "How long to wait, in milliseconds: 0, at most `sync.timeout_ms_max`.",
            ),
            (
                "limit",
                false,
                Kind::Rows(changes::PAGE_CHANGES, changes::PAGE_CHANGES_MAX),
                "Changes on the page: 100, at most 1000.",
            ),
            (
                "type",
                false,
                Kind::Text,
                "Changes of entries of this type alone.",
            ),
        ],
        answer: Answer::Row(row::<ChangesPage>),
        errors: &[INVALID],
    },
    Operation {
        method: "get",
        path: "/_kitbag/admin/v1/openapi.json",
        id: "getDescription",
        summary: "Returns this description; needs no token.",
        query: &[],
        answer: Answer::Object,
        errors: &[],
    },
    Operation {
        method: "get",
        path: "/_synapse/admin/v1/users/{user}/accountdata",
        id: "getSynapseAccountData",
        summary: "Returns all contents of a user at global and room scope, as Synapse does.",
        query: &[],
        answer: Answer::Object,
        errors: &[INVALID, (404, "M_NOT_FOUND", "There is no such account.")],
    },
];

/// Returns the description of the admin API.
pub(super) fn document() -> Value {
    let settings = SchemaSettings::draft2020_12()
        .for_serialize()
        .with(|settings| {
            settings.definitions_path = "/components/schemas".into();
        });
    let mut generator = settings.into_generator();
    let mut paths = Map::new();
    for operation in LISTS.iter().chain(ENTRIES.as_flattened()) {
        let methods = paths.entry(operation.path).or_insert_with(|| json!({}));
        methods[operation.method] = operation.describe(&mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.insert("Error".to_owned(), error_schema());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Kitbag admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Served on the private listener, where `admin.tokens` has a token.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {"adminToken": {
                "type": "http",
                "scheme": "bearer",
                "description": format!(
                    "A token of the settings, of at least {ADMIN_TOKEN_CHARACTERS_MIN} characters."
                ),
            }},
        },
    })
}

fn error_schema() -> Value {
    json!({
        "type": "object",
        "description": "A refusal, as everywhere in Matrix.",
        "properties": {
            "errcode": {"type": "string", "description": "What went wrong, for programs."},
            "error": {"type": "string", "description": "What went wrong, for people."},
            "current_content": {
                "type": "object",
                "description": "What is stored, where `expect_revision_id` expected another one.",
            },
            "com.beeper.current_content": {
                "type": "object",
                "description": "The same for `com.beeper.expect_revision_id`.",
            },
            "info_uri": {
                "type": "string",
                "description": "Where the user reads of a full account, of `M_USER_LIMIT_EXCEEDED`.",
            },
            "retry_after_ms": {
                "type": "integer",
                "minimum": 0,
                "description": "When to try again, of `M_LIMIT_EXCEEDED`.",
            },
            "soft_logout": {
                "type": "boolean",
                "description": "Always false, of `M_UNKNOWN_TOKEN`.",
            },
        },
        "required": ["errcode", "error"],
    })
}

impl Operation {
    fn describe(&self, generator: &mut SchemaGenerator) -> Value {
        let needs_token = self.path != format!("{V1}/openapi.json");
        let mut described = json!({
            "operationId": self.id,
            "summary": self.summary,
            "parameters": self.parameters(),
            "responses": self.responses(generator, needs_token),
        });
        if let Answer::Put = self.answer {
            let body = json!({"application/json": {"schema": {"type": "object"}}});
            described["requestBody"] = json!({
                "required": true,
                "description": "The content.",
                "content": body,
            });
        }
        if needs_token {
            described["security"] = json!([{"adminToken": []}]);
        }
        described
    }

    fn parameters(&self) -> Vec<Value> {
        let segments = self.path.split('/');
        let names = segments.filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
        let in_path = names.map(|name| {
            let text = match name {
                "device" => "The device ID.",
                "room" => "The room ID.",
                "type" => "The type of the entry.",
                _ => "The user ID.",
            };
            json!({
                "name": name, "in": "path", "required": true, "description": text,
                "schema": {"type": "string"},
            })
        });
        let in_query = self.query.iter().map(|(name, required, kind, text)| {
            json!({
                "name": name, "in": "query", "required": required, "description": text,
                "schema": kind.schema(),
            })
        });
        in_path.chain(in_query).collect()
    }

    fn responses(&self, generator: &mut SchemaGenerator, needs_token: bool) -> Value {
        let object = || json!({"type": "object"});
        let (text, schema) = match self.answer {
            Answer::Content => ("The content.", object()),
            Answer::Put | Answer::Empty => (
                "Done.",
                json!({"type": "object", "additionalProperties": false}),
            ),
            Answer::Object => ("An object.", object()),
            Answer::Row(row) => ("What was asked for.", row(generator).to_value()),
        };
        let ok = json!({"description": text, "content": {"application/json": {"schema": schema}}});
        let mut responses = json!({"200": ok});
        if !needs_token {
            return responses;
        }
        for (status, errcode, text) in GUARD_ERRORS.iter().chain(self.errors).chain(SERVER_ERRORS) {
            let line = format!("`{errcode}`: {text}");
            let response = &mut responses[status.to_string()];
            let description = match response["description"].as_str() {
                Some(known) => format!("{known} {line}"),
                None => line,
            };
            let mut errcodes = response["x-errcodes"]
                .as_array()
                .cloned()
                .unwrap_or_default();
            errcodes.push((*errcode).into());
            let schema = json!({"$ref": "#/components/schemas/Error"});
            *response = json!({
                "description": description,
                "x-errcodes": errcodes,
                "content": {"application/json": {"schema": schema}},
            });
        }
        responses
    }
}
