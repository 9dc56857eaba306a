//! `kitbag serve`: what it says, and that it keeps serving.

use std::fs::OpenOptions;
use std::net::TcpListener;
use std::process::Stdio;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::{Client, PATIENCE, Server, directory, kitbag, run};

#[test]
fn the_first_line_names_the_address_that_answers() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &[]);
    assert_ne!(server.address.port(), 0, "a free port was taken");
    assert_eq!(server.client().versions().status, 200);
    assert_eq!(server.line("server name:"), "localhost");
    assert_eq!(server.line("data:"), "nothing is kept (--ephemeral)");
    assert_eq!(server.line("may register:"), "everybody on this machine");
    let expected = format!("curl http://{}/_matrix/client/versions", server.address);
    assert_eq!(server.line("try:"), expected);
    let ended = server.stop();
    assert_eq!(ended.stdout, "", "nothing more on standard output");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        0,
        "and nothing is left"
    );
}

#[test]
fn who_may_register_is_said() {
    let dir = directory();
    let rows: [(&[&str], &str); 4] = [
        (&["registration.mode=open"], "everybody"),
        (
            &["registration.mode=closed"],
            "nobody; use `kitbag user add NAME`",
        ),
        (
            &["registration.mode=token", "registration.tokens=[\"x=y\"]"],
            "whoever has a token",
        ),
        (
            &["trusted_proxies=[\"10.0.0.0/8\"]"],
            "nobody; set `registration.tokens`",
        ),
    ];
    for (settings, who) in rows {
        let arguments: Vec<&str> = settings.iter().flat_map(|pair| ["--set", pair]).collect();
        let server = Server::ephemeral(dir.path(), &arguments);
        assert_eq!(server.line("may register:"), who);
        server.stop();
    }
}

#[test]
fn the_private_address_answers_about_health() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &["--private", "127.0.0.1:0"]);
    let private = server.line("private:");
    let address = private
        .trim_start_matches("http://")
        .trim_end_matches("/health");
    let client = Client::new(address.parse().unwrap());
    let health = client.send("GET", "/health", "");
    assert_eq!((health.status, health.body.as_str()), (200, "{}"));
    assert_eq!(
        client.versions().status,
        404,
        "nothing of the public is there"
    );
    assert_eq!(server.client().send("GET", "/health", "").status, 200);
    server.stop();
}

#[test]
fn a_taken_address_is_told_and_leaves_nothing_behind() {
    let dir = directory();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--private"] {
        let mut arguments = vec!["serve", "--data", "data", flag, &address];
        if flag == "--private" {
            arguments.extend(["--listen", "127.0.0.1:0"]);
        }
        let ended = run(dir.path(), &arguments);
        assert_eq!(ended.code, Some(1));
        assert!(ended.stderr.contains(&address), "{}", ended.stderr);
        assert_eq!(ended.stdout, "", "it does not say that it listens");
        if flag == "--listen" {
            assert!(!dir.path().join("data").try_exists().unwrap());
        }
    }
}

/// Whoever started it may have read the first line and left, or may have no room for more.
#[test]
#[cfg(target_os = "linux")]
fn it_serves_also_where_nobody_reads_its_output() {
    let dir = directory();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut command = kitbag(dir.path());
    command.args(["serve", "--ephemeral", "--listen", &address.to_string()]);
    let mut child = command.stdout(full).stderr(Stdio::null()).spawn().unwrap();
    let (_never, pause) = channel::<()>();
    let started = Instant::now();
    let answered = loop {
        match Client::new(address).try_send("GET", "/_matrix/client/versions", "") {
            Ok(answer) => break Some(answer.status),
            Err(_) if child.try_wait().unwrap().is_some() => break None,
            Err(_) => assert!(started.elapsed() < PATIENCE, "it does not start"),
        }
        assert!(pause.recv_timeout(Duration::from_millis(20)).is_err());
    };
    drop(child.kill());
    child.wait().unwrap();
    assert_eq!(answered, Some(200));
}
