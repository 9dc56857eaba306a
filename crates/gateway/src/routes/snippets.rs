//! The snippets of docs/gateway that send the gateway only what it handles, held against the table.

use std::fs;
use std::path::Path;

use regex::Regex;

use super::{
    CLIENT, CLIENT_PREFIXES, DELETION, DELETION_PREFIXES, DEVICE, DEVICE_DATA, DEVICE_OBJECTS,
    DEVICE_PREFIXES, Row, STABLE_DEVICE_DATA, VERSIONS,
};

/// Each routed snippet, and what stands before its regular expression.
const ROUTED: [(&str, &str); 3] = [
    ("nginx-routed.conf", "location ~ \"^/_matrix/client/("),
    ("routed.Caddyfile", "@kitbag path_regexp ^/_matrix/client/("),
    (
        "haproxy-routed.cfg",
        "acl kitbag path,url_dec -m reg '^/_matrix/client/(",
    ),
];

/// What the homeserver gets itself: most of the traffic, and neighbours of what is handled.
const PAST: [&str; 16] = [
    "/_matrix/client/v3/sync",
    "/_matrix/client/v3/account/whoami",
    "/_matrix/client/v3/account/3pid",
    "/_matrix/client/v3/login/sso/redirect",
    "/_matrix/client/v3/register/available",
    "/_matrix/client/v3/user/@a:b/filter",
    "/_matrix/client/v3/user/@a:b/filter/1",
    "/_matrix/client/v3/user/@a:b/rooms/!r:b/tags",
    "/_matrix/client/v3/rooms/!r:b/send/m.room.message/1",
    "/_matrix/client/v3/rooms/!r:b/read_markers",
    "/_matrix/client/v3/pushrules/",
    "/_matrix/client/v3/keys/upload",
    "/_matrix/client/v1/media/download/b/c",
    "/_matrix/federation/v1/user/devices/@a:b",
    "/_matrix/federation/v1/send/1",
    "/_matrix/key/v2/server",
];

/// Spellings of a protected path, as decoded once, that homeservers could understand.
const SPELLINGS: [&str; 4] = [
    "/_matrix/client/v3/user/@a:b/account_data/m.push_rules/x",
    "/_matrix/client/v3/user/@a:b//account_data/m.push_rules",
    "/_matrix/client/v3/./user/@a:b/account_data/m.push_rules",
    "/_matrix/client/v3/user/@a:b/x/../account_data/m.push_rules",
];

fn expressions() -> Vec<(&'static str, Regex)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway");
    let expressions = ROUTED.into_iter().map(|(file, before)| {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let (_, rest) = text.split_once(before).expect(file);
        let line = rest.lines().next().unwrap();
        let line = line.trim_end_matches(['{', ' ', '"', '\'']);
        let whole = format!("^/_matrix/client/({line}");
        (file, Regex::new(&whole).expect(file))
    });
    expressions.collect()
}

/// Returns a path for each row of the whole table below each of its prefixes.
fn handled() -> Vec<String> {
    let tables: [(&[&str], &[Row]); 7] = [
        (&[""], VERSIONS),
        (CLIENT_PREFIXES, CLIENT),
        (CLIENT_PREFIXES, DEVICE),
        (CLIENT_PREFIXES, DEVICE_OBJECTS),
        (DEVICE_PREFIXES, DEVICE_DATA),
        (DEVICE_PREFIXES, STABLE_DEVICE_DATA),
        (DELETION_PREFIXES, DELETION),
    ];
    let mut paths = Vec::new();
    for (prefixes, rows) in tables {
        for (prefix, (path, _)) in prefixes
            .iter()
            .flat_map(|prefix| rows.iter().map(move |row| (prefix, row)))
        {
            let path = path.replace("{user}", "@a:b").replace("{room}", "!r:b");
            // A device's ID may have a slash, which proxies decode.
            let path = path.replace("{device}", "A/B").replace("{type}", "a.b");
            assert!(!path.contains('{'), "{path}");
            paths.push(format!("{prefix}{path}"));
        }
    }
    paths
}

#[test]
fn routed_snippets_send_the_gateway_all_that_it_handles() {
    for (file, expression) in expressions() {
        for path in handled() {
            assert!(expression.is_match(&path), "{file}: {path}");
        }
        for path in SPELLINGS {
            assert!(expression.is_match(path), "{file}: {path}");
        }
    }
}

#[test]
fn routed_snippets_send_the_homeserver_the_rest() {
    for (file, expression) in expressions() {
        for path in PAST {
            assert!(!expression.is_match(path), "{file}: {path}");
        }
    }
}
