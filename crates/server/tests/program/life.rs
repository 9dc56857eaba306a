//! Stops, crashes and starts: what was acknowledged is there.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::thread;

use crate::support::{Client, Server, directory, run};

#[test]
fn data_and_sessions_outlive_a_stop() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    let alice = server.client().register("alice", "wordpass");
    let content = "{ \"n\": 1.50, \"n\": [] }";
    assert_eq!(alice.put("alice", "app.test", content).status, 200);
    server.stop();
    let server = Server::start(dir.path(), &[]);
    let alice = alice.at(server.address);
    assert_eq!(alice.get("alice", "app.test").body, content);
    server.stop();
}

/// Reads the answer to the first of two requests, which both came in one packet: so the second one
/// is under way.
fn read_one_answer(stream: &mut TcpStream) {
    let mut read = Vec::new();
    let mut byte = [0];
    while !read.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        read.push(byte[0]);
    }
    let head = String::from_utf8(read).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    stream.read_exact(&mut body).unwrap();
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[test]
fn sigterm_and_sigint_answer_a_waiting_sync_and_exit_with_zero() {
    for signal in ["TERM", "INT"] {
        let dir = directory();
        let server = Server::start(dir.path(), &[]);
        let alice = server.client().register("alice", "wordpass");
        let sync = "/_matrix/client/v3/sync";
        let first = alice.send("GET", sync, "").json();
        let since = first["next_batch"].as_str().unwrap();
        let versions = "GET /_matrix/client/versions HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let path = format!("{sync}?timeout=60000&since={since}");
        let mut waiting = alice.connect().unwrap();
        let both = format!("{versions}{}", alice.request("GET", &path, ""));
        waiting.write_all(both.as_bytes()).unwrap();
        read_one_answer(&mut waiting);
        server.signal(signal);
        let answer = Client::read(&mut waiting).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["next_batch"], since);
        let ended = server.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(alice.try_send("GET", sync, "").is_err(), "nobody listens");
        assert!(!dir.path().join("data/admin.sock").try_exists().unwrap());
    }
}

/// Puts one number after the other until the server is gone; returns the last acknowledged one.
fn put_until_the_end(client: &Client, event_type: &str) -> u64 {
    let path = format!("/_matrix/client/v3/user/@alice:localhost/account_data/{event_type}");
    let mut acknowledged = 0;
    loop {
        let body = format!("{{\"n\":{}}}", acknowledged + 1);
        match client.try_send("PUT", &path, &body) {
            Ok(answer) => assert_eq!(answer.status, 200, "{answer:?}"),
            Err(_) => return acknowledged,
        }
        acknowledged += 1;
    }
}

#[test]
fn acknowledged_writes_outlive_sigkill() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    let alice = server.client().register("alice", "wordpass");
    let types = ["a", "b", "c", "d"];
    let writers = types.map(|event_type| {
        let alice = alice.clone();
        thread::spawn(move || put_until_the_end(&alice, event_type))
    });
    // Some of each are acknowledged by then.
    for _ in 0..50 {
        assert_eq!(alice.put("alice", "own", "{}").status, 200);
    }
    server.kill();
    let acknowledged = writers.map(|writer| writer.join().unwrap());

    let server = Server::start(dir.path(), &[]);
    let alice = alice.at(server.address);
    for (event_type, acknowledged) in types.into_iter().zip(acknowledged) {
        assert!(acknowledged > 0, "something was written");
        let n = alice.get("alice", event_type).json()["n"].as_u64().unwrap();
        // The last write may have been made without an answer.
        assert!(
            n == acknowledged || n == acknowledged + 1,
            "{n} of {acknowledged}"
        );
    }
    server.stop();
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    let second = run(
        dir.path(),
        &["serve", "--data", "data", "--listen", "127.0.0.1:0"],
    );
    assert_eq!(second.code, Some(1));
    assert_eq!(second.stdout, "");
    assert!(
        second.stderr.contains("another process"),
        "{}",
        second.stderr
    );
    assert_eq!(
        server.client().versions().status,
        200,
        "the first one goes on"
    );
    server.stop();
    let again = Server::start(dir.path(), &[]);
    again.stop();
}

#[test]
fn data_belong_to_one_server_name() {
    let dir = directory();
    Server::start(dir.path(), &["--server-name", "a.example"]).stop();
    for arguments in [
        ["--server-name", "b.example"],
        ["--set", "server_name=b.example"],
    ] {
        let serve = ["serve", "--data", "data", "--listen", "127.0.0.1:0"];
        let other = run(dir.path(), &[&serve[..], &arguments].concat());
        assert_eq!(other.code, Some(1));
        assert!(other.stderr.contains("a.example"), "{}", other.stderr);
        assert!(other.stderr.contains("b.example"), "{}", other.stderr);
    }
    Server::start(dir.path(), &["--server-name", "a.example"]).stop();
}

/// Each store draws an epoch when it is made: else the token of one would tell another one's client
/// that nothing has changed.
#[test]
fn a_token_of_another_store_is_answered_in_full() {
    let sync = "/_matrix/client/v3/sync";
    let dirs = [directory(), directory()];
    let servers = dirs.each_ref().map(|dir| Server::start(dir.path(), &[]));
    let clients = servers.each_ref().map(|server| {
        let alice = server.client().register("alice", "wordpass");
        assert_eq!(alice.put("alice", "app.test", "{}").status, 200);
        alice
    });
    let of_the_first = clients[0].send("GET", sync, "").json();
    let since = of_the_first["next_batch"].as_str().unwrap();
    let path = format!("{sync}?since={since}");
    let events = |client: &Client| {
        let told = client.send("GET", &path, "").json();
        told["account_data"]["events"].as_array().unwrap().len()
    };
    assert_eq!(
        clients.each_ref().map(events),
        [0, 2],
        "with the push rules"
    );
    for server in servers {
        server.stop();
    }
}

#[test]
fn the_store_obeys_the_limits_that_are_set() {
    let dir = directory();
    let server = Server::start(dir.path(), &["--set", "limits.entries_max=1"]);
    let alice = server.client().register("alice", "wordpass");
    assert_eq!(alice.put("alice", "app.first", "{}").status, 200);
    let refused = alice.put("alice", "app.second", "{}");
    assert_eq!(refused.status, 403, "{refused:?}");
    assert_eq!(refused.json()["errcode"], "M_USER_LIMIT_EXCEEDED");
    server.stop();
}

/// A clean stop closes the store: so a copy of the one file is a copy of all.
#[test]
fn a_clean_stop_leaves_one_file() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    let alice = server.client().register("alice", "wordpass");
    assert_eq!(alice.put("alice", "app.test", "{}").status, 200);
    server.stop();
    let files = std::fs::read_dir(dir.path().join("data")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    files.sort();
    assert_eq!(files, ["kitbag.db", "lock"]);
}
