//! The log of the whole program, store included, at its finest.

use serde_json::{Value, json};

use crate::support::{Client, Server, directory};

const CANARY: &str = "yellowbird";

/// Writes and fails with secrets of every kind; returns the tokens.
fn scenario(client: &Client) -> Vec<String> {
    let alice = client.register("alice", &format!("{CANARY}-password"));
    assert_eq!(
        client.login("alice", &format!("{CANARY}-wrong")).status,
        403
    );
    let content = format!("{{\"{CANARY}\":\"{CANARY}\",\"m.revision_id\":\"1\"}}");
    assert_eq!(alice.put("alice", "app.test", &content).status, 200);
    let stale = "app.test?expect_revision_id=0";
    assert_eq!(alice.put("alice", stale, &content).status, 409);
    assert_eq!(
        alice
            .put("alice", "app.test", &format!("{content}x"))
            .status,
        400
    );
    let body = json!({"auth": {"type": "m.login.password", "password": CANARY}});
    let path = "/_matrix/client/v3/devices/NONE";
    assert_eq!(alice.send("DELETE", path, &body.to_string()).status, 401);
    assert_eq!(alice.send("GET", "/_matrix/client/v3/sync", "").status, 200);
    let mut unknown = client.clone();
    unknown.token = Some(format!("kt_{CANARY}"));
    assert_eq!(unknown.whoami().status, 401);
    vec![alice.token.unwrap()]
}

#[test]
fn at_the_finest_level_it_holds_no_secret_and_each_line_is_json() {
    let dir = directory();
    let settings = [
        "log.format=json",
        "log.level=trace",
        "registration.tokens=[\"yellowbird-token\"]",
    ];
    let arguments: Vec<&str> = settings.iter().flat_map(|pair| ["--set", pair]).collect();
    let server = Server::start(dir.path(), &arguments);
    let tokens = scenario(&server.client());
    let ended = server.stop();
    let log = ended.stderr;
    let mut answered = 0;
    for line in log.lines() {
        let line: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"));
        assert!(
            line["timestamp"].is_string() && line["level"].is_string(),
            "{line}"
        );
        answered += usize::from(line["fields"]["message"] == "answered");
    }
    assert_eq!(answered, 8, "one for each request: {log}");
    assert!(!log.contains(CANARY), "{log}");
    for token in tokens {
        let secret = token.rsplit('_').nth(1).unwrap();
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn as_text_it_tells_of_the_stop_and_of_nothing_else() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    scenario(&server.client());
    let log = server.stop().stderr;
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].ends_with("stopping") && lines[1].ends_with("stopped"),
        "{log}"
    );
    assert!(!log.contains('\u{1b}'), "no colours in a file: {log}");
}
