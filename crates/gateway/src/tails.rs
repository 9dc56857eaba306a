//! Paths beside the route table that Synapse takes for some of it.
//!
//! Its patterns of account data and of `/delete_devices` have no end, and dots of a prefix stand for
//! any mark. The table knows better, so that such a write would go on past what the gateway does to
//! it: limits, turns, and the end of device account data.

use axum::http::Method;

/// Ends devices whatever stands behind it, also without a slash between.
const DELETE_DEVICES: &str = "delete_devices";

/// The prefix that has dots, as Synapse's pattern has it.
const DOTTED_PREFIX: &str = "unstable/org.matrix.msc3391/user/";

/// Tells whether a request must not go on since homeservers could take its path for one of the table,
/// of whose end they do not look at all, or whose dots they read as any mark.
pub(crate) fn is_misread(method: &Method, path: &str) -> bool {
    let Some(rest) = path.strip_prefix("/_matrix/client/") else {
        return false;
    };
    if matches!(*method, Method::GET | Method::HEAD) {
        return false;
    }
    if !rest.starts_with(DOTTED_PREFIX) && fits(rest, DOTTED_PREFIX) {
        return true;
    }
    // Prefixes have one segment or two.
    let behind_one = rest.split_once('/').map(|(_, below)| below);
    let behind_two = behind_one.and_then(|below| Some(below.split_once('/')?.1));
    [behind_one, behind_two]
        .into_iter()
        .flatten()
        .any(goes_on_behind)
}

/// Tells whether a path begins as a pattern whose dots stand for any mark.
fn fits(path: &str, pattern: &str) -> bool {
    let mut marks = path.chars();
    let mut pattern = pattern.chars();
    pattern.all(|expected| {
        marks
            .next()
            .is_some_and(|mark| expected == '.' || expected == mark)
    })
}

/// Tells whether what stands below a prefix goes on where the table's path ends.
fn goes_on_behind(below: &str) -> bool {
    if let Some(behind) = below.strip_prefix(DELETE_DEVICES) {
        return !behind.is_empty();
    }
    let Some(below_user) = below.strip_prefix("user/") else {
        return false;
    };
    let mut segments = below_user.split('/').skip(1);
    let mut next = segments.next();
    let is_of_room = next == Some("rooms");
    if is_of_room {
        next = segments.nth(1);
    }
    let is_named = match next {
        Some("account_data") => true,
        Some("tags") => is_of_room,
        _ => false,
    };
    // The type or the tag, and what is not to be there.
    is_named && segments.nth(1).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIXES: [&str; 4] = ["v3", "r0", "api/v1", "unstable"];

    #[test]
    fn what_goes_on_behind_a_path_without_an_end_is_too_long() {
        for below in [
            "delete_devices/x",
            "delete_devices/",
            "delete_devicesx",
            "delete_devices%2F",
            "user/@a:b/account_data/m.direct/x",
            "user/@a:b/account_data/m.direct/",
            "user/@a:b/rooms/!r:b/account_data/m.tag/x/y",
            "user/@a:b/rooms/!r:b/tags/u.x/y",
            "user/@a:b/rooms/!r:b/tags/u.x/",
        ] {
            for prefix in PREFIXES {
                let path = format!("/_matrix/client/{prefix}/{below}");
                for method in [Method::PUT, Method::POST, Method::DELETE] {
                    assert!(is_misread(&method, &path), "{method} {path}");
                }
                assert!(!is_misread(&Method::GET, &path), "{path}");
            }
        }
    }

    #[test]
    fn a_dot_of_a_prefix_is_no_other_mark() {
        for (prefix, expected) in [
            ("unstable/org.matrix.msc3391", false),
            ("unstable/org/matrix/msc3391", true),
            ("unstable/orgXmatrix.msc3391", true),
            ("unstable/org.matrix%msc3391", true),
            ("unstable/org.matrix.msc3391x", false),
            ("unstable/orgXXmatrix.msc3391", false),
            ("unstable/org/matrix/msc3814", false),
            ("v3/org/matrix/msc3391", false),
        ] {
            for below in ["account_data/m.direct", "rooms/!r:b/account_data/m.direct"] {
                let path = format!("/_matrix/client/{prefix}/user/@a:b/{below}");
                for method in [Method::PUT, Method::POST, Method::DELETE] {
                    assert_eq!(is_misread(&method, &path), expected, "{method} {path}");
                }
                assert!(!is_misread(&Method::GET, &path), "{path}");
            }
        }
    }

    #[test]
    fn the_paths_of_the_table_and_their_neighbours_are_not() {
        for below in [
            "delete_devices",
            "devices/delete_devices",
            "logout/all",
            "user/@a:b/account_data/m.direct",
            "user/@a:b/account_data/a%2Fb",
            "user/@a:b/rooms/!r:b/account_data/m.tag",
            "user/@a:b/rooms/!r:b/tags/account_data",
            "user/@a:b/devices/D/account_data/m.direct",
            "rooms/!r:b/send/user/account_data/m.direct/x",
        ] {
            for prefix in PREFIXES {
                let path = format!("/_matrix/client/{prefix}/{below}");
                assert!(!is_misread(&Method::PUT, &path), "{path}");
            }
        }
    }
}
