//! The admin API of the program: on the private address, with a token of the settings.

use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use serde_json::json;

use crate::support::{Client, PATIENCE, Server, directory, kitbag, run};

const TOKEN: &str = "adm-0123456789abcdef-adm";
const V1: &str = "/_kitbag/admin/v1";

/// Starts a server with a private address and, from the environment, an admin token.
fn start(dir: &Path) -> (Server, Client) {
    let mut command = kitbag(dir);
    command.args(["serve", "--ephemeral", "--private", "127.0.0.1:0"]);
    command.env("KITBAG_ADMIN__TOKENS__OPS", TOKEN);
    let server = Server::start_as(&mut command);
    let base = server.line("admin API:");
    let address = base.trim_start_matches("http://").trim_end_matches(V1);
    let mut client = Client::new(address.parse().unwrap());
    client.token = Some(TOKEN.to_owned());
    (server, client)
}

#[test]
fn an_operator_reads_and_writes_what_users_have() {
    let dir = directory();
    let (server, admin) = start(dir.path());
    let alice = server.client().register("alice", "correct horse");
    assert_eq!(alice.put("alice", "app.test", "{\"a\":  1}").status, 200);
    let entry = format!("{V1}/users/@alice:localhost/account_data/app.test");
    assert_eq!(admin.send("GET", &entry, "").body, "{\"a\":  1}");
    assert_eq!(admin.send("PUT", &entry, "{\"b\":2}").status, 200);
    assert_eq!(alice.get("alice", "app.test").body, "{\"b\":2}");
    assert_eq!(
        alice.send("GET", &entry, "").status,
        404,
        "not on the public address"
    );
    let stranger = Client {
        token: alice.token.clone(),
        ..admin
    };
    assert_eq!(stranger.send("GET", &entry, "").status, 401);
    let ended = server.stop();
    let lines: Vec<&str> = ended
        .stderr
        .lines()
        .filter(|line| line.contains("kitbag::audit"))
        .collect();
    assert_eq!(lines.len(), 3, "{ended:?}");
    assert!(lines[0].contains("admin=\"ops\""), "{}", lines[0]);
    assert!(lines[2].contains("WARN"), "{}", lines[2]);
    assert!(!ended.stderr.contains(TOKEN));
}

#[test]
fn a_follower_gets_its_last_page_when_the_server_stops() {
    let dir = directory();
    let (server, admin) = start(dir.path());
    let page = admin.send("GET", &format!("{V1}/changes"), "").json();
    let since = page["next_batch"].as_str().unwrap();
    let path = format!("{V1}/changes?since={since}&timeout=300000");
    let mut stream = admin.connect().unwrap();
    let request = admin.request("GET", &path, "");
    stream.write_all(request.as_bytes()).unwrap();
    // It waits once it is counted.
    let started = Instant::now();
    let is_waiting = || {
        let page = admin.send("GET", "/metrics", "");
        page.body.contains("\nkitbag_sync_waiting 1")
    };
    while !is_waiting() {
        assert!(started.elapsed() < PATIENCE, "the request does not wait");
    }
    server.signal("TERM");
    let last = Client::read(&mut stream).unwrap();
    assert_eq!(last.status, 200);
    let empty = json!({
        "next_batch": since, "starts_anew": false, "changes": [], "has_more": false,
    });
    assert_eq!(last.json(), empty);
    assert_eq!(server.ended().code, Some(0));
}

#[test]
fn how_to_switch_it_on_is_said_where_it_is_off() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &["--private", "127.0.0.1:0"]);
    let ended = server.stop();
    assert!(
        ended.stderr.contains("set `admin.tokens.NAME`"),
        "{ended:?}"
    );
    assert!(!ended.stdout.contains("admin API"), "{ended:?}");
    let token = format!("admin.tokens.ops={TOKEN}");
    let ended = Server::ephemeral(dir.path(), &["--set", &token]).stop();
    assert!(
        ended
            .stderr
            .contains("does nothing without a private address"),
        "{ended:?}"
    );
    assert!(!ended.stderr.contains(TOKEN), "{ended:?}");
}

#[test]
fn a_short_token_ends_the_start_and_is_not_repeated() {
    let dir = directory();
    let ended = run(
        dir.path(),
        &["serve", "--ephemeral", "--set", "admin.tokens.ops=s3cret"],
    );
    assert_eq!(ended.code, Some(1), "{ended:?}");
    let expected = "setting `admin.tokens.ops`: a token must have at least 16 characters";
    assert!(ended.stderr.contains(expected), "{ended:?}");
    assert!(!ended.stderr.contains("s3cret"), "{ended:?}");
}
