//! Filters of /sync, through /sync.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::Method;
use kitbag_domain::{Limits, RoomId, UserId};
use kitbag_http::Settings;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use crate::naive_json::{members_in, members_of};
use crate::world::{LOOPBACK, World};

/// Types of entries that are there to be filtered, beside `m.push_rules`.
const TYPES: [&str; 8] = [
    "m.direct",
    "im.vector.setting.breadcrumbs",
    "org.example.a.b.c",
    "a*b",
    "*",
    "\u{43a}\u{43b}\u{44e}\u{447}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "abababababababababababababababababababababababababababababababababababababababababababababababab",
];
/// Patterns that one list may have.
const PATTERNS_MAX: usize = 256;
/// A filter of this size takes microseconds; a pattern that is tried in every way takes years.
const TIME_MAX: Duration = Duration::from_secs(5);
/// So that it fits into a URL, percent-encoded.
const FILTER_BYTES_MAX: usize = 16 * 1024;

/// Syncs with a filter: it is refused where it is wrong, and otherwise lets pass exactly what a
/// plain reading of the specification lets pass, in no time.
pub fn filter(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    // What does not start so is the ID of an uploaded filter.
    if !text.starts_with('{') || text.len() > FILTER_BYTES_MAX {
        return;
    }
    let encoded = utf8_percent_encode(text, NON_ALPHANUMERIC);
    let path = format!("/_matrix/client/v3/sync?filter={encoded}");
    let started = Instant::now();
    let reply = WORLD.with(|world| world.send_as_alice(&Method::GET, &path, ""));
    assert!(started.elapsed() < TIME_MAX, "{:?}", started.elapsed());
    let answer: Value = serde_json::from_slice(&reply.body).unwrap();
    match reply.status {
        200 => {
            let Ok(filter) = serde_json::from_str::<Value>(text) else {
                return; // passed-over parts may hold what no `Value` can
            };
            assert!(is_sound(&filter), "a wrong filter is refused: {filter}");
            check_passing(&filter, &answer);
        }
        400 => {
            if let Ok(filter) = serde_json::from_str::<Value>(text) {
                // A `Value` has the last of two members of one name, and does not show the other.
                let is_refused = !is_sound(&filter) || members_in(&filter) < members_of(text);
                assert!(is_refused, "a sound filter is taken: {answer} {filter}");
            }
        }
        status => assert_eq!(status, 200, "{answer}"),
    }
}

fn check_passing(filter: &Value, answer: &Value) {
    let told = |events: &Value| -> BTreeSet<String> {
        let events = events["events"].as_array();
        let types = events.into_iter().flatten();
        types
            .map(|event| event["type"].as_str().unwrap().to_owned())
            .collect()
    };
    let passing = |types: &[&str]| -> BTreeSet<String> {
        let passing = types.iter().filter(|name| passes(filter, name));
        passing.map(|name| (*name).to_owned()).collect()
    };
    let global = [&TYPES[..], &["m.push_rules"]].concat();
    assert_eq!(told(&answer["account_data"]), passing(&global), "{filter}");
    let device = &answer["org.matrix.msc4331.device_account_data"]["PHONE"];
    assert_eq!(told(device), passing(&["m.direct"]), "{filter}");
}

thread_local! {
    /// It is only read, so that all inputs can have one.
    static WORLD: World = {
        let world = World::new(Settings::default(), Limits::default(), LOOPBACK);
        let put = |path: &str| {
            let path = format!("/_matrix/client/v3/user/@alice:localhost/{path}");
            assert_eq!(world.send_as_alice(&Method::PUT, &path, "{}").status, 200);
        };
        for name in TYPES {
            put(&format!("account_data/{}", utf8_percent_encode(name, NON_ALPHANUMERIC)));
        }
        put("devices/PHONE/account_data/m.direct");
        world
    };
}

/// Tells whether account data of this type passes.
fn passes(filter: &Value, event_type: &str) -> bool {
    let part = &filter["account_data"];
    let any = |list: &Value| {
        let patterns = list.as_array().into_iter().flatten();
        patterns
            .filter_map(Value::as_str)
            .any(|pattern| matches(pattern.as_bytes(), event_type.as_bytes()))
    };
    let excludes_all = part["not_senders"]
        .as_array()
        .is_some_and(|senders| senders.iter().any(|sender| sender == "*"));
    part["senders"].is_null()
        && !excludes_all
        && (part["types"].is_null() || any(&part["types"]))
        && !any(&part["not_types"])
}

/// Matches by filling a table, row by row of the pattern.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let mut row = vec![false; text.len() + 1];
    row[0] = true;
    for byte in pattern {
        let before = row.clone();
        for at in 0..row.len() {
            let behind = at.checked_sub(1);
            row[at] = if *byte == b'*' {
                before[at] || behind.is_some_and(|behind| row[behind])
            } else {
                behind.is_some_and(|behind| before[behind] && text[behind] == *byte)
            };
        }
    }
    row[text.len()]
}

/// Tells whether every part of a filter that the specification names is of its form.
fn is_sound(filter: &Value) -> bool {
    let object = |value: &Value, is_sound: fn(&Value) -> bool| {
        value.is_null() || (value.is_object() && is_sound(value))
    };
    let event_format = &filter["event_format"];
    let is_format = matches!(event_format.as_str(), Some("client" | "federation"));
    (event_format.is_null() || is_format)
        && is_list(&filter["event_fields"], |_| true)
        && object(&filter["account_data"], is_sound_event_filter)
        && object(&filter["presence"], is_sound_event_filter)
        && object(&filter["room"], |room| {
            let parts = ["account_data", "ephemeral", "state", "timeline"];
            let is_sound = |part| {
                room[part].is_null()
                    || (room[part].is_object() && is_sound_room_filter(&room[part]))
            };
            parts.into_iter().all(is_sound)
                && is_flag(&room["include_leave"])
                && is_list(&room["rooms"], is_room)
                && is_list(&room["not_rooms"], is_room)
        })
}

fn is_sound_room_filter(filter: &Value) -> bool {
    let flags = [
        "contains_url",
        "include_redundant_members",
        "lazy_load_members",
        "unread_thread_notifications",
    ];
    is_sound_event_filter(filter)
        && flags.into_iter().all(|flag| is_flag(&filter[flag]))
        && is_list(&filter["rooms"], is_room)
        && is_list(&filter["not_rooms"], is_room)
}

fn is_sound_event_filter(filter: &Value) -> bool {
    let is_user = |id: &str| id == "*" || UserId::parse(id).is_ok();
    let is_short = |list: &Value| list.as_array().is_none_or(|l| l.len() <= PATTERNS_MAX);
    (filter["limit"].is_null() || filter["limit"].is_u64())
        && ["types", "not_types"]
            .into_iter()
            .all(|name| is_list(&filter[name], |_| true) && is_short(&filter[name]))
        && is_list(&filter["senders"], is_user)
        && is_list(&filter["not_senders"], is_user)
}

fn is_flag(value: &Value) -> bool {
    value.is_null() || value.is_boolean()
}

fn is_list(value: &Value, is_member: impl Fn(&str) -> bool) -> bool {
    let is_member = |member: &Value| member.as_str().is_some_and(&is_member);
    value.is_null() || value.as_array().is_some_and(|l| l.iter().all(is_member))
}

fn is_room(id: &str) -> bool {
    RoomId::parse(id).is_ok()
}
