//! The snippets of docs/gateway that send the gateway only what it handles, held against the table.

use std::fs;
use std::path::Path;

use percent_encoding::percent_decode_str;
use regex::Regex;

use super::{
    CLIENT, CLIENT_PREFIXES, DELETION, DELETION_PREFIXES, DEVICE, DEVICE_DATA, DEVICE_OBJECTS,
    DEVICE_PREFIXES, Row, STABLE_DEVICE_DATA, VERSIONS,
};

/// Each routed snippet, and what stands before its regular expression.
const ROUTED: [(&str, &str); 3] = [
    ("nginx-routed.conf", "location ~ \""),
    ("routed.Caddyfile", "@kitbag path_regexp "),
    ("haproxy-routed.cfg", "acl kitbag path,url_dec -m reg '"),
];

/// The same of the expression that refuses targets.
const REFUSED: [(&str, &str); 3] = [
    ("nginx-routed.conf", "if ($request_uri ~ \""),
    ("routed.Caddyfile", "@odd vars_regexp {http.request.uri} "),
    (
        "haproxy-routed.cfg",
        "http-request return status 404 if { pathq -m reg '",
    ),
];

/// Targets that a homeserver reads as what is handled, and a proxy that resolves them as another.
const ODD: [&str; 12] = [
    "/_matrix/client/v3/user/@a:b/account_data/m.push_rules/../../../../sync",
    "/_matrix/client/v3/user/@a:b/account_data/m.push_rules%2F..%2f..%2f..%2F..%2Fsync",
    "/_matrix/client/v3/user/@a:b/account_data/m.push_rules/%2E%2e/%2e%2e/%2E./.%2e/sync?a=b",
    "/_matrix/client/v3/user/@a:b/account_data/m.push_rules/../../../..",
    "/_matrix/client/v3/user/@a:b/account_data/m.push_rules/../../../..?a",
    "/_matrix/client/v3/user/@a:b/account_data/m.push_rules//../..//../../x",
    "/_matrix/client/v3/user/@a:b/account_data/..",
    "/_matrix/client/v3/delete_devices/../sync",
    "/_matrix/client/v3/delete_devices/..%2Fsync",
    "/_matrix/client/v3/user/@a:b/rooms/!r#:b/account_data/m.fully_read",
    "/_matrix/client/v3/x/./delete_devices",
    "/./_matrix/client/v3/delete_devices",
];

/// Targets with dots that mean nothing.
const PLAIN: [&str; 7] = [
    "/.well-known/matrix/client",
    "/_matrix/client/v3/user/@a:b/account_data/.a",
    "/_matrix/client/v3/user/@a:b/account_data/a..b",
    "/_matrix/client/v3/user/@a:b/account_data/...",
    "/_matrix/client/v3/user/@a:b/account_data/a%2Fb",
    "/_matrix/client/v3/sync?filter=/../x#",
    "/_matrix/client/v3/rooms/!r:b/state/m.room.name/",
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
const SPELLINGS: [&str; 9] = [
    "/_matrix/client/v3/delete_devices/x",
    "/_matrix/client/v3/delete_devicesx",
    "/_matrix/client/v3/devices/A\nB",
    "/_matrix/client/v3/user/@a:b/rooms/!r\n:b/account_data/m.fully_read",
    "/_matrix/client/v3/logout/",
    "/_matrix/client/v3/user/@a:b/account_data/m.push_rules/x",
    "/_matrix/client/v3/user/@a:b//account_data/m.push_rules",
    "/_matrix/client/v3/./user/@a:b/account_data/m.push_rules",
    "/_matrix/client/v3/user/@a:b/x/../account_data/m.push_rules",
];

/// The expression that chooses the gateway, of each snippet.
fn expressions() -> Vec<(&'static str, Regex)> {
    written("(?s)^/_matrix/client/(", ROUTED)
}

/// The expression that refuses a target, of each snippet.
fn refusals() -> Vec<(&'static str, Regex)> {
    written("(?i)^", REFUSED)
}

fn written(start: &str, places: [(&'static str, &str); 3]) -> Vec<(&'static str, Regex)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway");
    let expressions = places.into_iter().map(|(file, before)| {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let (_, rest) = text.split_once(before).expect(file);
        let line = rest.lines().next().unwrap();
        let line = line.trim_end_matches(['{', '}', ' ', '"', '\'']);
        // Of nginx the bracket around all of it.
        let line = line.strip_suffix("\")").unwrap_or(line);
        assert!(line.starts_with(start), "{file}: {line}");
        (file, Regex::new(line).expect(file))
    });
    expressions.collect()
}

/// Returns the path that a proxy sees which decodes a target, merges slashes and resolves dots.
fn resolved(target: &str) -> String {
    let path = target.split(['?', '#']).next().unwrap();
    let path = percent_decode_str(path).decode_utf8_lossy().into_owned();
    let mut kept = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(kept.pop()),
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
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
            let path = path.replace("{tag}", "u.a");
            // A device's ID may have a slash, which proxies decode.
            let path = path.replace("{device}", "A/B").replace("{type}", "a.b");
            assert!(!path.contains('{'), "{path}");
            paths.push(format!("{prefix}{path}"));
        }
    }
    paths
}

#[test]
fn routed_snippets_have_the_same_two_expressions() {
    for written in [expressions(), refusals()] {
        let first = written[0].1.as_str();
        for (file, expression) in &written {
            assert_eq!(expression.as_str(), first, "{file}");
        }
    }
}

/// Returns what a snippet for several gateways chooses by, of a decoded path.
type ChosenBy = Box<dyn Fn(&str) -> Option<String>>;

fn chosen_by() -> [(&'static str, ChosenBy); 3] {
    let find = |file: &str, before: &str, after: &str| {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway");
        let text = fs::read_to_string(folder.join(file)).unwrap();
        let (_, rest) = text.split_once(before).expect(file);
        Regex::new(rest.split_once(after).expect(file).0).expect(file)
    };
    let first = |expression: Regex| -> ChosenBy {
        Box::new(move |path| Some(expression.captures(path)?[1].to_owned()))
    };
    let haproxy = "haproxy-several.cfg";
    let named = find(haproxy, "acl named path,url_dec -m reg '", "'\n");
    let before = find(
        haproxy,
        "'path,url_dec,regsub(",
        ",),field(1,/)' if named\n",
    );
    let chosen: ChosenBy = Box::new(move |path| {
        let rest = named.is_match(path).then(|| before.replace(path, ""))?;
        rest.split('/').next().map(str::to_owned)
    });
    [
        (
            "nginx-several.conf",
            first(find("nginx-several.conf", "\"~", "\" $named;")),
        ),
        (
            "several.Caddyfile",
            first(find("several.Caddyfile", "path_regexp named ", "\n")),
        ),
        (haproxy, chosen),
    ]
}

#[test]
fn snippets_for_several_send_all_spellings_of_a_user_to_one_gateway() {
    let entries = [
        "account_data/a",
        "account_data/a%2Fuser%2F@b:x%2Fc",
        "account_data/a%0Ab",
        "rooms/!r:x/account_data/a",
        "devices/D/net.zemos.account_data/user",
        "devices/user%2F/account_data/a",
    ];
    for (file, chosen_by) in chosen_by() {
        for (prefix, entry) in CLIENT_PREFIXES
            .iter()
            .flat_map(|prefix| entries.iter().map(move |entry| (prefix, entry)))
        {
            for user in ["@a:x", "%40a%3Ax", "@%61:x"] {
                let target = format!("{prefix}/user/{user}/{entry}");
                let path = percent_decode_str(&target).decode_utf8().unwrap();
                assert_eq!(
                    chosen_by(&path).as_deref(),
                    Some("@a:x"),
                    "{file}: {target}"
                );
            }
        }
        for path in ["/_matrix/client/v3/logout", "/_matrix/client/v3/devices/D"] {
            assert_eq!(chosen_by(path), None, "{file}: {path}");
        }
    }
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

#[test]
fn routed_snippets_refuse_targets_that_a_homeserver_reads_otherwise_than_a_proxy() {
    for (file, refusal) in refusals() {
        for target in ODD {
            assert!(refusal.is_match(target), "{file}: {target}");
        }
        for target in PLAIN.into_iter().chain(PAST) {
            assert!(!refusal.is_match(target), "{file}: {target}");
        }
        for target in handled() {
            assert!(!refusal.is_match(&target), "{file}: {target}");
        }
    }
    // It is for these alone: by the expression they would go past.
    for (file, expression) in expressions() {
        let past = |target: &&str| !expression.is_match(&resolved(target));
        assert!(
            ODD.iter().filter(|target| past(target)).count() >= 9,
            "{file}"
        );
    }
}

#[test]
fn routed_snippets_know_what_is_handled_by_its_resolved_path_too() {
    for (file, expression) in expressions() {
        for path in handled().iter().map(String::as_str).chain(SPELLINGS) {
            assert!(expression.is_match(&resolved(path)), "{file}: {path}");
        }
    }
}

#[test]
fn no_snippet_hands_on_an_address_that_a_client_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway");
    let mut seen = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let (set, taken): (&[&str], [&str; 2]) = match path.extension().unwrap().to_str() {
            Some("conf") => (
                &["X-Forwarded-For $remote_addr;", "X-Forwarded-Host $host;"],
                ["Forwarded \"\";", "X-Real-IP \"\";"],
            ),
            Some("cfg") => (
                &[
                    "X-Forwarded-For %[src]",
                    "X-Forwarded-Host %[req.hdr(Host)]",
                ],
                ["del-header Forwarded\n", "del-header X-Real-IP\n"],
            ),
            // It sets these itself.
            _ => (&[], ["header_up -Forwarded\n", "header_up -X-Real-IP\n"]),
        };
        for line in set.iter().chain(&taken) {
            assert!(text.contains(line), "{}: {line}", path.display());
        }
        for added in ["$proxy_add_x_forwarded_for", "option forwardfor"] {
            assert!(!text.contains(added), "{}: {added}", path.display());
        }
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn each_snippet_says_where_alone_it_names_the_gateway_that_can_be_taken_away() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway");
    let mut seen = 0;
    for file in fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        let file = path.display();
        let text = fs::read_to_string(&path).unwrap();
        let is_named = |line: &&str| line.contains(":8009") || line.contains(":8010");
        let of_gateways = text.lines().filter(is_named).count();
        let mut said = text
            .lines()
            .filter_map(|line| line.strip_prefix("# To take the gateway"));
        let place = said.next().and_then(|said| said.split('`').nth(1));
        let place = place.unwrap_or_else(|| panic!("{file} does not say where"));
        assert!(said.next().is_none(), "{file} says it twice");
        let is_place = |line: &&str| line.trim_start().starts_with(place);
        assert_eq!(text.lines().filter(is_place).count(), 1, "{file}: {place}");
        let from_there = text.lines().skip_while(|line| !is_place(line));
        let there = from_there.take_while(|line| !matches!(line.trim(), "" | "}"));
        assert_eq!(there.filter(is_named).count(), of_gateways, "{file}");
        assert!(of_gateways > 0, "{file}");
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn haproxy_sends_the_gateway_what_it_cannot_decode() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/gateway");
    let text = fs::read_to_string(folder.join("haproxy-routed.cfg")).unwrap();
    // A path that is not decoded matches no expression.
    let undecoded = text.find("use_backend kitbag_gateway unless { path,url_dec -m found }");
    assert!(undecoded.unwrap() < text.find("use_backend homeserver").unwrap());
}
