//! What the admin API answers with, and the command line prints with `--json`.
//!
//! Times (`…_ts`) are milliseconds since 1970, sizes are bytes. A member that is `None` is not
//! written.

use std::fmt;

use bytes::Bytes;
use kitbag_domain::{
    Account, Content, DeviceChange, DeviceEntry, Entry, EntryDescription, EventType, LackingDevice,
    Pointer, Scope, Tally, UnixMs, UserId, Writer,
};
use serde::de::Error as _;
use serde::ser::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// A JSON value that is written byte for byte as it is stored; `Debug` shows its size only.
///
/// Can be written by `serde_json` alone, and fails there where what is stored is not JSON.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredJson(Bytes);

impl StoredJson {
    /// Takes the text of a JSON value.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text.into())
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("it was made of a string or of a content")
    }
}

impl From<Content> for StoredJson {
    fn from(content: Content) -> Self {
        Self(content.bytes().clone())
    }
}

impl fmt::Debug for StoredJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredJson({} bytes)", self.0.len())
    }
}

impl Serialize for StoredJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: Result<&RawValue, _> = serde_json::from_str(self.as_str());
        let raw = raw.map_err(|_| S::Error::custom("what is stored is not JSON"))?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for StoredJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer);
        let raw = raw.map_err(|_| D::Error::custom("not a JSON value"))?;
        Ok(Self::new(String::from(Box::<str>::from(raw))))
    }
}

#[cfg(test)]
impl schemars::JsonSchema for StoredJson {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "StoredJson".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"description": "A JSON value, byte for byte as it is stored."})
    }
}

/// A page of accounts.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UsersPage {
    /// The accounts, in the order of their IDs.
    pub users: Vec<UserRow>,
    /// The `from` of the next page, where there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

/// An account and what it takes.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct UserRow {
    /// The user ID.
    pub user_id: String,
    /// When the account was made.
    pub created_ts: UnixMs,
    /// When it was deactivated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deactivated_ts: Option<UnixMs>,
    /// How many devices it has.
    pub devices: u64,
    /// How many entries of account data it has, over all scopes.
    pub entries: u64,
    /// What these count towards the quota.
    pub bytes: u64,
}

impl UserRow {
    /// Describes an account.
    #[must_use]
    pub fn new(account: &Account) -> Self {
        Self {
            user_id: account.user.to_string(),
            created_ts: account.created_at,
            deactivated_ts: account.deactivated_at,
            devices: account.devices,
            entries: account.usage.entries,
            bytes: account.usage.bytes,
        }
    }
}

/// The entries of a user.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EntriesPage {
    /// The entries, in the order of their keys.
    pub entries: Vec<EntryRow>,
}

/// An entry without its content.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct EntryRow {
    /// Where it lives.
    pub scope: ScopeKind,
    /// The room of a `room` scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room_id: Option<String>,
    /// The device of a `device` scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// What it counts towards the quota: content, type and room or device ID.
    pub size_bytes: u64,
    /// When it was written last.
    pub written_ts: UnixMs,
    /// By whom.
    pub writer: WriterRow,
}

impl EntryRow {
    /// Describes an entry.
    #[must_use]
    pub fn new(entry: &EntryDescription) -> Self {
        let (scope, room_id, device_id) = match &entry.key.scope {
            Scope::Global => (ScopeKind::Global, None, None),
            Scope::Room(room) => (ScopeKind::Room, Some(room.to_string()), None),
            Scope::Device(device) => (ScopeKind::Device, None, Some(device.to_string())),
        };
        Self {
            scope,
            room_id,
            device_id,
            event_type: entry.key.event_type.to_string(),
            size_bytes: entry.size_bytes,
            written_ts: entry.written_at,
            writer: WriterRow::new(&entry.writer),
        }
    }
}

/// The kind of a scope.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ScopeKind {
    /// One device.
    Device,
    /// The account itself.
    Global,
    /// One room.
    Room,
}

/// Who wrote an entry last.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct WriterRow {
    /// What wrote it.
    pub kind: WriterKind,
    /// The device, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_id: Option<String>,
    /// What that device called itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_agent: Option<String>,
}

impl WriterRow {
    fn new(writer: &Writer) -> Self {
        let (kind, device_id, user_agent) = match writer {
            Writer::Admin => (WriterKind::Admin, None, None),
            Writer::Device { id, user_agent } => {
                let user_agent = user_agent.as_ref().map(ToString::to_string);
                (WriterKind::Device, Some(id.to_string()), user_agent)
            }
            Writer::Server => (WriterKind::Server, None, None),
        };
        Self {
            kind,
            device_id,
            user_agent,
        }
    }
}

/// What can write an entry.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WriterKind {
    /// The operator.
    Admin,
    /// A device of the user.
    Device,
    /// The server itself.
    Server,
}

/// A page of entries of one type at device scope, of all users.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeviceEntriesPage {
    /// The entries, account by account as these were made, and of an account by device ID.
    pub entries: Vec<DeviceEntryRow>,
    /// The `from` of the next page, where there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

/// An entry at device scope, with its content.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeviceEntryRow {
    /// The user.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The device's name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// The type of the entry.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The content, as it was put.
    pub content: StoredJson,
    /// What the entry counts towards the quota: content, type and device ID.
    pub size_bytes: u64,
    /// When it was written last.
    pub written_ts: UnixMs,
}

impl DeviceEntryRow {
    /// Describes a live entry.
    #[must_use]
    pub fn new(found: &DeviceEntry) -> Self {
        let entry = &found.entry;
        let content = entry.content.clone().unwrap_or_else(Content::empty);
        Self {
            user_id: found.user.to_string(),
            device_id: entry.key.scope.place().to_owned(),
            display_name: found.display_name.clone(),
            event_type: entry.key.event_type.to_string(),
            content: content.into(),
            size_bytes: entry.size_bytes(),
            written_ts: entry.written_at,
        }
    }
}

/// How many devices have which value at a place of one type.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Summary {
    /// The type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The place in the content, a JSON pointer (RFC 6901).
    pub pointer: String,
    /// Devices that have the type.
    pub devices: u64,
    /// The most frequent values first.
    pub values: Vec<SummaryValue>,
    /// Devices with further values, which are too many or too long to be listed.
    pub others: u64,
    /// Devices whose content has nothing at that place.
    pub absent: u64,
}

impl Summary {
    /// Describes what was counted.
    #[must_use]
    pub fn new(event_type: &EventType, pointer: &Pointer, tally: Tally) -> Self {
        let value = |(text, devices)| SummaryValue {
            value: StoredJson::new(text),
            devices,
        };
        Self {
            event_type: event_type.to_string(),
            pointer: pointer.as_str().to_owned(),
            devices: tally.devices,
            values: tally.values.into_iter().map(value).collect(),
            others: tally.others,
            absent: tally.absent,
        }
    }
}

/// A value and how often it is there.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct SummaryValue {
    /// The value, as JSON.
    pub value: StoredJson,
    /// Devices that have it.
    pub devices: u64,
}

/// A page of devices.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DevicesPage {
    /// The devices, account by account as these were made, and of an account by device ID.
    pub devices: Vec<DeviceRow>,
    /// The `from` of the next page, where there may be one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_batch: Option<String>,
}

/// A device of a user.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct DeviceRow {
    /// The user.
    pub user_id: String,
    /// The device.
    pub device_id: String,
    /// The device's name for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
}

impl DeviceRow {
    /// Describes a device.
    #[must_use]
    pub fn new(found: &LackingDevice) -> Self {
        Self {
            user_id: found.user.to_string(),
            device_id: found.device.to_string(),
            display_name: found.display_name.clone(),
        }
    }
}

/// A part of the stream of changes of all users' device account data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct ChangesPage {
    /// The `since` of the next request.
    pub next_batch: String,
    /// Whether this is the beginning of everything: what the caller knows is to be forgotten.
    pub starts_anew: bool,
    /// The changes, each entry once, at its latest one.
    pub changes: Vec<ChangeRow>,
    /// Whether more is there already.
    pub has_more: bool,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(untagged)]
pub enum ChangeRow {
    /// An entry has a new content.
    Put {
        /// The user.
        user_id: String,
        /// The device.
        device_id: String,
        /// The type of the entry.
        #[serde(rename = "type")]
        event_type: String,
        /// The content, as it was put.
        content: StoredJson,
        /// When it was written.
        written_ts: UnixMs,
    },
    /// An entry was deleted, alone or with its device.
    Deleted {
        /// The user.
        user_id: String,
        /// The device.
        device_id: String,
        /// The type of the entry.
        #[serde(rename = "type")]
        event_type: String,
        /// Always true.
        deleted: bool,
        /// When it was deleted.
        written_ts: UnixMs,
    },
    /// The account was deactivated: none of its devices has an entry any more.
    AccountEnded {
        /// The user.
        user_id: String,
        /// Always true.
        account_ended: bool,
    },
}

impl ChangeRow {
    /// Describes a change.
    #[must_use]
    pub fn new(change: &DeviceChange) -> Self {
        match change {
            DeviceChange::AccountEnded(user) => Self::AccountEnded {
                user_id: user.to_string(),
                account_ended: true,
            },
            DeviceChange::Entry(user, entry) => Self::of_entry(user, entry),
        }
    }

    fn of_entry(user: &UserId, entry: &Entry) -> Self {
        let user_id = user.to_string();
        let device_id = entry.key.scope.place().to_owned();
        let event_type = entry.key.event_type.to_string();
        let written_ts = entry.written_at;
        match entry.content.clone() {
            Some(content) => Self::Put {
                user_id,
                device_id,
                event_type,
                content: content.into(),
                written_ts,
            },
            None => Self::Deleted {
                user_id,
                device_id,
                event_type,
                deleted: true,
                written_ts,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_json_is_written_as_it_is() {
        let text = r#"{"a":  1.0, "a":2}"#;
        let value = SummaryValue {
            value: StoredJson::new(text.to_owned()),
            devices: 3,
        };
        let written = serde_json::to_string(&value).unwrap();
        assert_eq!(written, format!(r#"{{"value":{text},"devices":3}}"#));
        let read: SummaryValue = serde_json::from_str(&written).unwrap();
        assert_eq!(read, value);
        assert!(!format!("{value:?}").contains("1.0"), "{value:?}");
    }

    #[test]
    fn what_is_not_json_is_not_written() {
        for text in ["{", "{} {}", ""] {
            let stored = StoredJson::new(text.to_owned());
            assert!(serde_json::to_string(&stored).is_err(), "{text:?}");
        }
    }
}
