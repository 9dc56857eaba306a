//! The paths of the API, with every variable segment percent-encoded.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The prefix of the current client-server API.
pub const V3: &str = "/_matrix/client/v3";

/// The prefix of deletion as MSC3391 proposed it.
pub const MSC3391: &str = "/_matrix/client/unstable/org.matrix.msc3391";

/// All but the unreserved characters of RFC 3986: then no server can take a part for a delimiter.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// Whose account data: the account's, a room's or a device's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope<'a> {
    /// Of the whole account.
    Global,
    /// Of the account in one room, by room ID.
    Room(&'a str),
    /// Of one device (MSC4331), by device ID.
    Device(&'a str),
}

/// Which of the two names that a proposal has while it is not merged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Naming {
    /// The name it will have.
    #[default]
    Stable,
    /// The name with a vendor prefix.
    Unstable,
}

/// Percent-encodes one path segment or one value of a query.
///
/// The segments `.` and `..` cannot be encoded: URL parsers resolve them also as `%2e`.
#[must_use]
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

/// The path of one entry. Only device scope has an unstable name.
#[must_use]
pub fn account_data(user_id: &str, scope: Scope<'_>, naming: Naming, kind: &str) -> String {
    under(V3, user_id, scope, naming, kind)
}

/// The path at which MSC3391 deletes one entry.
#[must_use]
pub fn account_data_deletion(
    user_id: &str,
    scope: Scope<'_>,
    naming: Naming,
    kind: &str,
) -> String {
    under(MSC3391, user_id, scope, naming, kind)
}

/// The path of one device.
#[must_use]
pub fn device(device_id: &str) -> String {
    format!("{V3}/devices/{}", segment(device_id))
}

/// The path of one push rule, by kind and rule ID.
#[must_use]
pub fn push_rule(kind: &str, rule_id: &str) -> String {
    format!(
        "{V3}/pushrules/global/{}/{}",
        segment(kind),
        segment(rule_id)
    )
}

fn under(prefix: &str, user_id: &str, scope: Scope<'_>, naming: Naming, kind: &str) -> String {
    let name = match (scope, naming) {
        (Scope::Device(_), Naming::Unstable) => "net.zemos.account_data",
        _ => "account_data",
    };
    let place = match scope {
        Scope::Global => String::new(),
        Scope::Room(room_id) => format!("/rooms/{}", segment(room_id)),
        Scope::Device(device_id) => format!("/devices/{}", segment(device_id)),
    };
    format!(
        "{prefix}/user/{}{place}/{name}/{}",
        segment(user_id),
        segment(kind)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segment_keeps_only_unreserved_characters() {
        assert_eq!(segment("m.direct-1_~"), "m.direct-1_~");
        assert_eq!(segment("a/b%2F c?#&+"), "a%2Fb%252F%20c%3F%23%26%2B");
    }

    #[test]
    fn segment_encodes_unicode_as_utf8() {
        assert_eq!(segment("é🦀"), "%C3%A9%F0%9F%A6%80");
    }

    #[test]
    fn global_path_has_the_user_encoded() {
        assert_eq!(
            account_data("@a:b", Scope::Global, Naming::Stable, "m.x/y"),
            "/_matrix/client/v3/user/%40a%3Ab/account_data/m.x%2Fy"
        );
    }

    #[test]
    fn room_path_has_the_room_encoded() {
        assert_eq!(
            account_data("@a:b", Scope::Room("!r:b"), Naming::Unstable, "t"),
            "/_matrix/client/v3/user/%40a%3Ab/rooms/%21r%3Ab/account_data/t"
        );
    }

    #[test]
    fn only_device_scope_has_an_unstable_name() {
        assert_eq!(
            account_data("@a:b", Scope::Device("D"), Naming::Unstable, "t"),
            "/_matrix/client/v3/user/%40a%3Ab/devices/D/net.zemos.account_data/t"
        );
        assert_eq!(
            account_data("@a:b", Scope::Global, Naming::Unstable, "t"),
            account_data("@a:b", Scope::Global, Naming::Stable, "t")
        );
    }

    #[test]
    fn push_rule_has_its_id_encoded() {
        assert_eq!(
            push_rule("room", "!r:b/ж"),
            "/_matrix/client/v3/pushrules/global/room/%21r%3Ab%2F%D0%B6"
        );
    }

    #[test]
    fn deletion_has_its_own_prefix() {
        assert_eq!(
            account_data_deletion("@a:b", Scope::Device("D"), Naming::Stable, "t"),
            "/_matrix/client/unstable/org.matrix.msc3391/user/%40a%3Ab/devices/D/account_data/t"
        );
    }
}
