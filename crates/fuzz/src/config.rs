//! The configuration file and `--set`.

use std::io::Write as _;

use http::Method;
use kitbag_server::{Reading, read};
use tempfile::NamedTempFile;

use crate::world::{LOOPBACK, World};

/// Reads a configuration file and, behind a NUL, a `--set KEY=VALUE` a line, twice.
///
/// The second time must come to the same. What is refused is refused by the name of a key or with
/// a line; with what is taken, a server must work.
pub fn config(input: &[u8]) {
    let mut parts = input.splitn(2, |byte| *byte == 0);
    let file = parts.next().unwrap_or_default();
    let Ok(set) = std::str::from_utf8(parts.next().unwrap_or_default()) else {
        return; // an argument of the command line is UTF-8
    };
    let set: Vec<String> = set.lines().map(str::to_owned).collect();
    let mut stored = NamedTempFile::new().unwrap();
    stored.write_all(file).unwrap();
    let first = read(stored.path(), &set).map_err(|error| format!("{error:#}"));
    let second = read(stored.path(), &set).map_err(|error| format!("{error:#}"));
    match (first, second) {
        (Ok(first), Ok(second)) => {
            assert_eq!(first.all, second.all);
            serve(first);
        }
        (Err(first), Err(second)) => {
            assert_eq!(first, second);
            assert!(names_its_place(&first), "{first}");
        }
        (first, second) => assert_eq!(first.err(), second.err()),
    }
}

/// Tells whether an error says where to look.
fn names_its_place(error: &str) -> bool {
    let places = ["setting `", "`--set ", " at line ", "UTF-8"];
    places.iter().any(|place| error.contains(place)) && !error.contains(": setting ``:")
}

/// Asks a server for what settings bear on: numbers that do not fit show here.
fn serve(settings: Reading) {
    let mut api = settings.api;
    // So that the limits are met too.
    api.is_loopback_only = true;
    let world = World::new(api, settings.limits, LOOPBACK);
    let data = "/_matrix/client/v3/user/@alice:localhost/account_data/org.example.a";
    let deletion = data.replace("v3", "unstable/org.matrix.msc3391");
    let login = r#"{"type":"m.login.password","refresh_token":true,"password":"wordpass",
        "identifier":{"type":"m.id.user","user":"alice"}}"#;
    let requests = [
        (Method::PUT, data, r#"{"a":[[1]]}"#),
        (Method::GET, data, ""),
        (Method::GET, "/_matrix/client/v3/sync", ""),
        (Method::DELETE, &deletion, ""),
        (Method::POST, "/_matrix/client/v3/login", login),
        (
            Method::POST,
            "/_matrix/client/v3/refresh",
            r#"{"refresh_token":"x"}"#,
        ),
        (Method::POST, "/_matrix/client/v3/register", "{}"),
        (Method::GET, "/.well-known/matrix/client", ""),
    ];
    for (method, path, body) in requests {
        let reply = world.send_as_alice(&method, path, body);
        assert!(reply.status < 500, "{method} {path}: {:?}", reply.body);
    }
}
