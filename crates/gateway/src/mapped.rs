//! How device account data are kept in the homeserver: as global account data of a type that names
//! the device, so that the homeserver itself can read them, backs them up and tells them in /sync.

use kitbag_domain::{Content, DeviceId, EventType, UserId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What such a type begins with; the device and a dot follow, then the entry's own type.
pub(crate) const PREFIX: &str = "org.matrix.msc4331.device_account_data.";

/// What stands in place of a deleted entry: account data cannot be deleted, and `{}` is a value.
pub(crate) const TOMBSTONE: &str = "{\"org.matrix.msc4331.deleted\": true}";

/// The member of the tombstone.
const DELETED: &str = "org.matrix.msc4331.deleted";

/// What of a device ID is written out: not the dot, which ends it.
const DEVICE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'~');

/// What of a segment of a path is written out [RFC 3986, 2.3].
const SEGMENT: &AsciiSet = &DEVICE.remove(b'.');

/// Returns the type under which the homeserver keeps an entry of a device.
pub(crate) fn upstream_type(device: &DeviceId, event_type: &EventType) -> String {
    format!("{}{}", types_of(device), event_type.as_str())
}

/// Returns what the types of all entries of a device begin with, and no other's.
pub(crate) fn types_of(device: &DeviceId) -> String {
    let device = utf8_percent_encode(device.as_str(), DEVICE);
    format!("{PREFIX}{device}.")
}

/// Returns the device and the entry's own type; `None` where the type is none of these.
pub(crate) fn device_and_type(upstream_type: &str) -> Option<(DeviceId, EventType)> {
    let (device, event_type) = upstream_type.strip_prefix(PREFIX)?.split_once('.')?;
    let device = percent_decode_str(device).decode_utf8().ok()?;
    let device = DeviceId::parse(device.as_ref()).ok()?;
    Some((device, EventType::parse(event_type).ok()?))
}

/// Returns the path of a user's global account data of a type.
pub(crate) fn account_data_path(user: &UserId, upstream_type: &str) -> String {
    let (user, upstream_type) = (segment(user.as_str()), segment(upstream_type));
    format!("/_matrix/client/v3/user/{user}/account_data/{upstream_type}")
}

/// Returns the path of a user's account data of a type, in a room or outside.
pub(crate) fn entry_path(user: &UserId, room: Option<&str>, event_type: &str) -> String {
    let Some(room) = room else {
        return account_data_path(user, event_type);
    };
    let (user, room, event_type) = (segment(user.as_str()), segment(room), segment(event_type));
    format!("/_matrix/client/v3/user/{user}/rooms/{room}/account_data/{event_type}")
}

/// Returns a text as a segment of a path.
pub(crate) fn segment(text: &str) -> impl std::fmt::Display + '_ {
    utf8_percent_encode(text, SEGMENT)
}

/// Tells whether a content stands for none.
pub(crate) fn is_tombstone(content: &[u8]) -> bool {
    // Larger ones are no tombstones, and need not be read.
    let members = (content.len() <= 2 * TOMBSTONE.len())
        .then(|| serde_json::from_slice::<serde_json::Map<_, _>>(content).ok())
        .flatten();
    members.is_some_and(|members| {
        members.len() == 1 && members.get(DELETED) == Some(&serde_json::Value::Bool(true))
    })
}

/// Returns the content of a tombstone.
pub(crate) fn tombstone() -> Content {
    Content::from_stored(TOMBSTONE.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_and_a_type_are_found_again_in_the_type_of_the_homeserver() {
        for (device, event_type, expected) in [
            ("PHONE", "org.example.a", "PHONE.org.example.a"),
            ("A.B", "c", "A%2EB.c"),
            ("A%2EB", "c", "A%252EB.c"),
            ("ö/ ", ".", "%C3%B6%2F%20.."),
        ] {
            let device = DeviceId::parse(device).unwrap();
            let event_type = EventType::parse(event_type).unwrap();
            let mapped = upstream_type(&device, &event_type);
            assert_eq!(mapped, format!("{PREFIX}{expected}"));
            assert_eq!(device_and_type(&mapped), Some((device, event_type)));
        }
    }

    #[test]
    fn only_the_tombstone_stands_for_none() {
        assert!(is_tombstone(TOMBSTONE.as_bytes()));
        assert!(is_tombstone(b"{\"org.matrix.msc4331.deleted\":true}"));
        for content in [
            "{}",
            "[]",
            "{\"org.matrix.msc4331.deleted\":false}",
            "{\"org.matrix.msc4331.deleted\":true,\"a\":1}",
        ] {
            assert!(!is_tombstone(content.as_bytes()), "{content}");
        }
    }
}
