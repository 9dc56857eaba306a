//! Where a server tells device account data (MSC4331) in /sync.
//!
//! Scenarios look at one place only: what a server tells elsewhere is brought there first.

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::sync::DEVICE_KEY;

/// What the types of global account data begin with that are a device's; the device ID,
/// percent-encoded, and a dot follow, then the entry's own type.
const PREFIX: &str = "org.matrix.msc4331.device_account_data.";

/// The member that alone makes the content of a deleted entry.
const DELETED: &str = "org.matrix.msc4331.deleted";

/// Where syncs have device account data.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum DeviceData {
    /// Under a key of its own, by device ID.
    #[default]
    OwnKey,
    /// In global account data of types that name the device, as `kitbag gateway` keeps them.
    Global,
}

impl DeviceData {
    /// Brings device account data to where a server with the key of its own tells them.
    pub(crate) fn normalize(self, sync: &mut Value) {
        if self == Self::OwnKey {
            return;
        }
        let events = sync.pointer_mut("/account_data/events");
        let Some(events) = events.and_then(Value::as_array_mut) else {
            return;
        };
        let (of_devices, global): (Vec<_>, Vec<_>) = events
            .drain(..)
            .partition(|event| device_and_type(event).is_some());
        *events = global;
        for mut event in of_devices {
            let Some((device, event_type)) = device_and_type(&event) else {
                continue;
            };
            event["type"] = event_type.into();
            if event["content"] == json!({DELETED: true}) {
                event["content"] = json!({});
            }
            let told = &mut sync[DEVICE_KEY][device]["events"];
            match told.as_array_mut() {
                Some(told) => told.push(event),
                None => *told = json!([event]),
            }
        }
    }
}

/// The device and the entry's own type.
fn device_and_type(event: &Value) -> Option<(String, String)> {
    let event_type = event["type"].as_str()?.strip_prefix(PREFIX)?;
    let (device, event_type) = event_type.split_once('.')?;
    Some((decode(device)?, event_type.to_owned()))
}

fn decode(text: &str) -> Option<String> {
    let mut pieces = text.split('%');
    let mut bytes = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let (number, rest) = piece.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(number, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync() -> Value {
        json!({"account_data": {"events": [
            {"type": "org.example.a", "content": {"a": 1}},
            {"type": format!("{PREFIX}A%2EB.org.example.a"), "content": {"a": 2}},
            {"type": format!("{PREFIX}A%2EB.b"), "content": {DELETED: true}},
            {"type": format!("{PREFIX}C.b"), "content": {}},
            {"type": format!("{PREFIX}no-type"), "content": {}},
        ]}})
    }

    #[test]
    fn entries_of_devices_come_to_their_own_key() {
        let mut told = sync();
        DeviceData::Global.normalize(&mut told);
        let expected = json!({
            "account_data": {"events": [
                {"type": "org.example.a", "content": {"a": 1}},
                {"type": format!("{PREFIX}no-type"), "content": {}},
            ]},
            DEVICE_KEY: {
                "A.B": {"events": [
                    {"type": "org.example.a", "content": {"a": 2}},
                    {"type": "b", "content": {}},
                ]},
                "C": {"events": [{"type": "b", "content": {}}]},
            },
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn nothing_is_moved_where_the_server_has_the_key_or_nothing_to_tell() {
        let mut told = sync();
        DeviceData::OwnKey.normalize(&mut told);
        assert_eq!(told, sync());
        let mut told = json!({"next_batch": "1"});
        DeviceData::Global.normalize(&mut told);
        assert_eq!(told, json!({"next_batch": "1"}));
    }
}
