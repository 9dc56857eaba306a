//! Whole requests through the edge.

use std::net::Ipv4Addr;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use kitbag_domain::Limits;
use kitbag_http::{RegistrationMode, Settings};
use serde_json::Value;

use crate::naive_json;
use crate::world::{LOOPBACK, Reply, World, secrets};

/// What stands between two requests of one input.
const SEPARATOR: &[u8] = b"\n---\n";
/// Requests that are looked at: enough for what one of them prepares for the next.
const REQUESTS_MAX: usize = 8;
/// What bob alone may read.
const MARK_OF_BOB: &[u8] = b"only bob may read this";

/// Sends up to eight requests to one server.
///
/// A first line that starts with `#` names switches of the server, such as `open` and `tight`. Then
/// each request is `METHOD target`, lines of `name: value`, an empty line and the body; a line `---`
/// ends it. `$alice`, `$tablet`, `$bob` and `$refresh` stand for tokens of accounts that exist.
///
/// Every answer must be one that a Matrix client understands and none a 5xx, an entry whose write
/// was acknowledged must come back byte for byte, and nobody else must learn what bob keeps.
pub fn request(input: &[u8]) {
    if contains(input, MARK_OF_BOB) {
        return;
    }
    let (switches, requests) = match input.strip_prefix(b"#") {
        Some(rest) => split_once(rest, b"\n"),
        None => (&b""[..], input),
    };
    let world = world(&String::from_utf8_lossy(switches));
    let requests = with_tokens(requests);
    let mut rest = requests.as_slice();
    for _ in 0..REQUESTS_MAX {
        let (one, behind) = split_once(rest, SEPARATOR);
        if let Some(request) = Sent::read(one) {
            request.send(&world);
        }
        rest = behind;
        if rest.is_empty() {
            break;
        }
    }
    let sync = "/_matrix/client/v3/sync?full_state=true";
    let reply = world.send_as_alice(&Method::GET, sync, "");
    check(&Method::GET, sync, &reply);
}

/// Returns a server as the switches say, where bob keeps something.
fn world(switches: &str) -> World {
    let mut settings = Settings {
        is_loopback_only: true,
        public_base_url: Some("http://kitbag.test".to_owned()),
        ..Settings::default()
    };
    let mut limits = Limits::default();
    let mut peer = LOOPBACK;
    for switch in switches.split_whitespace() {
        match switch {
            "closed" => settings.registration.mode = RegistrationMode::Closed,
            "no_device_data" => settings.features.msc4331.stable_path = false,
            "no_deletion" => settings.features.msc3391.enabled = false,
            "open" => settings.registration.mode = RegistrationMode::Open,
            "put_empty_deletes" => settings.features.msc3391.put_empty_deletes = true,
            "query_access_token" => settings.compat.query_access_token = true,
            "remote" => peer = Ipv4Addr::new(203, 0, 113, 1).into(),
            "tight" => {
                limits.content_bytes_max = 64;
                limits.quota.entries_max = 2;
                limits.quota.reserve_entries = 0;
                limits.tombstones_max = 1;
            }
            "token" => {
                settings.registration.mode = RegistrationMode::Token;
                settings.registration.tokens = vec!["sesame".to_owned()];
            }
            _ => {}
        }
    }
    let world = World::new(settings, limits, peer);
    let path = "/_matrix/client/v3/user/@bob:localhost/account_data/org.example.secret";
    let body = Bytes::from_static(br#"{"text":"only bob may read this"}"#);
    let reply = world.send(&Method::PUT, path.parse().unwrap(), bearer(), body);
    assert_eq!(reply.status, 200, "bob may write");
    world
}

fn bearer() -> HeaderMap {
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", secrets().bob);
    headers.insert("authorization", bearer.parse().unwrap());
    headers
}

/// A request as the listener would hand it over.
struct Sent {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Sent {
    /// Reads a request; `None` for what hyper would refuse itself.
    fn read(text: &[u8]) -> Option<Self> {
        let (head, body) = split_once(text, b"\n\n");
        let (line, head) = split_once(head, b"\n");
        let (method, target) = split_once(line, b" ");
        let mut headers = HeaderMap::new();
        for line in head.split(|byte| *byte == b'\n') {
            let (name, value) = split_once(line, b":");
            let name = HeaderName::from_bytes(name);
            let value = HeaderValue::from_bytes(value.trim_ascii());
            if let (Ok(name), Ok(value)) = (name, value) {
                headers.append(name, value);
            }
        }
        Some(Self {
            method: Method::from_bytes(method).ok()?,
            uri: Uri::try_from(target).ok()?,
            headers,
            body: Bytes::copy_from_slice(body),
        })
    }

    fn send(self, world: &World) {
        let Self {
            method,
            uri,
            headers,
            body,
        } = self;
        let reply = world.send(&method, uri.clone(), headers.clone(), body.clone());
        check(&method, uri.path(), &reply);
        if contains(&reply.body, MARK_OF_BOB) {
            let bob = secrets().bob.as_bytes();
            let is_bob = headers.values().any(|v| contains(v.as_bytes(), bob));
            let is_bob = is_bob || contains(uri.to_string().as_bytes(), bob);
            assert!(is_bob, "{method} {uri} shows what bob keeps");
        }
        if method == Method::PUT && reply.status == 200 && is_entry(uri.path()) {
            read_back(world, uri, headers, &body);
        }
    }
}

/// Asks for the entry that was just put.
fn read_back(world: &World, uri: Uri, headers: HeaderMap, put: &[u8]) {
    let reply = world.send(&Method::GET, uri, headers, Bytes::new());
    let put = naive_json::trim(put);
    let is_empty = put[1..put.len() - 1].trim_ascii().is_empty();
    if is_empty && reply.status == 404 {
        return; // `put_empty_deletes`
    }
    assert_eq!(reply.status, 200, "{:?}", reply.body);
    assert_eq!(reply.body, put, "a content comes back byte for byte");
}

/// Tells whether a path that was found is that of an entry.
fn is_entry(path: &str) -> bool {
    let mut segments = path.rsplit('/').skip(1);
    let named = matches!(
        segments.next(),
        Some("account_data" | "net.zemos.account_data")
    );
    named && path.contains("/user/")
}

/// Checks that a Matrix client understands an answer.
fn check(method: &Method, path: &str, reply: &Reply) {
    let Reply {
        status,
        headers,
        body,
    } = reply;
    assert!(*status < 500, "{status}: {body:?}");
    for name in ["origin", "methods", "headers"] {
        let name = format!("access-control-allow-{name}");
        assert!(headers.contains_key(&name), "{status} without {name}");
    }
    assert!(headers.contains_key("x-request-id"), "{status}");
    if method == Method::OPTIONS {
        assert_eq!((*status, body.len()), (204, 0));
        return;
    }
    if method == Method::HEAD && body.is_empty() {
        return;
    }
    assert!(*status == 200 || *status >= 400, "{status}");
    let content_type = headers.get("content-type").expect("a body has a type");
    assert_eq!(content_type, "application/json");
    // Contents stand in answers as they came: also with numbers that no `Value` can hold.
    let depth = match path.contains("/pushrules/global/") && body.starts_with(b"[") {
        // The rules of a kind are the only list.
        true => naive_json::object_depth(&[b"{\"rules\":", &body[..], b"}"].concat()),
        false => naive_json::object_depth(body),
    };
    assert!(depth.is_some(), "{status}: {body:?}");
    if *status != 200 {
        check_error(*status, body);
    }
}

fn check_error(status: u16, body: &[u8]) {
    // A conflict repeats a content, which may hold what no `Value` can.
    let Ok(error) = serde_json::from_slice::<Value>(body) else {
        assert_eq!(status, 409, "{body:?}");
        return;
    };
    if status == 401 && error["flows"].is_array() && error["session"].is_string() {
        return;
    }
    let errcode = error["errcode"].as_str().unwrap_or_default();
    let allowed = |c: char| c.is_ascii_uppercase() || matches!(c, '_' | '.');
    assert!(errcode.len() > 2 && errcode.chars().all(allowed), "{error}");
    assert_ne!(error["error"].as_str().unwrap_or_default(), "", "{error}");
}

fn with_tokens(input: &[u8]) -> Vec<u8> {
    let secrets = secrets();
    let words = [
        ("$alice", &secrets.alice),
        ("$bob", &secrets.bob),
        ("$refresh", &secrets.refresh),
        ("$tablet", &secrets.tablet),
    ];
    let mut out = Vec::with_capacity(input.len());
    let mut rest = input;
    while let Some(&byte) = rest.first() {
        let word = words.iter().find(|(w, _)| rest.starts_with(w.as_bytes()));
        if let Some((word, token)) = word {
            out.extend_from_slice(token.as_bytes());
            rest = &rest[word.len()..];
        } else {
            out.push(byte);
            rest = &rest[1..];
        }
    }
    out
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// Splits at the first `separator`; without one, everything stands before it.
fn split_once<'a>(bytes: &'a [u8], separator: &[u8]) -> (&'a [u8], &'a [u8]) {
    let found = bytes
        .windows(separator.len())
        .position(|window| window == separator);
    found.map_or((bytes, &[]), |at| {
        (&bytes[..at], &bytes[at + separator.len()..])
    })
}
