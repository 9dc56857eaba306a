//! `kitbag user`: the same beside a running server and without one.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Ended, Server, directory, kitbag, run, run_with_input};

fn user(dir: &Path, arguments: &[&str], input: &str) -> Ended {
    let command = &mut kitbag(dir);
    run_with_input(
        command.args(["user", "--data", "data"]).args(arguments),
        input,
    )
}

#[track_caller]
fn assert_done(ended: &Ended, said: &str) {
    assert_eq!(
        (ended.code, ended.stdout.trim_end()),
        (Some(0), said),
        "{ended:?}"
    );
}

#[track_caller]
fn assert_refused(ended: &Ended, because: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(because), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {ended:?}");
    assert_eq!(ended.stdout, "");
}

/// One life of an account; all that differs with a server is that the devices show.
fn a_life(dir: &Path, server: Option<&Server>) {
    let stdin = "--password-stdin";
    assert_done(&user(dir, &["list"], ""), "no accounts");
    assert_done(&user(dir, &["list", "--json"], ""), "");
    assert_done(
        &user(dir, &["add", "alice", stdin], "first\n"),
        "added @alice:localhost",
    );
    assert_done(
        &user(dir, &["add", "@bob:localhost"], "x"),
        "added @bob:localhost",
    );
    let session = server.map(|server| server.client().login("alice", "first"));
    if let Some(answer) = &session {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let list = user(dir, &["list"], "").stdout;
    let rows: Vec<Vec<&str>> = list
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let devices = if server.is_some() { "1" } else { "0" };
    assert_eq!(rows[0], ["USER", "DEVICES", "STATE"]);
    assert_eq!(rows[1], ["@alice:localhost", devices, "active"]);
    assert_eq!(rows[2], ["@bob:localhost", "0", "active"]);

    let changed = user(dir, &["password", "alice", stdin], "second\r\n");
    assert_eq!(changed.code, Some(0), "{changed:?}");
    assert!(changed.stdout.contains("@alice:localhost"), "{changed:?}");
    if let (Some(server), Some(answer)) = (server, session) {
        let mut alice = server.client();
        alice.token = answer.json()["access_token"].as_str().map(str::to_owned);
        assert_eq!(alice.whoami().status, 401, "the devices were logged out");
        assert_eq!(alice.login("alice", "first").status, 403);
        assert_eq!(
            alice.login("alice", "second").status,
            200,
            "without the line's end"
        );
    }
    let gone = user(dir, &["deactivate", "bob", "--yes"], "");
    assert_done(&gone, "deactivated @bob:localhost");
    let list = user(dir, &["list", "--json"], "").stdout;
    let rows: Vec<Value> = list
        .lines()
        .map(|row| serde_json::from_str(row).unwrap())
        .collect();
    assert_eq!(rows[0]["user_id"], "@alice:localhost");
    let alice = rows[0].as_object().unwrap();
    assert!(!alice.contains_key("deactivated_ts"), "{alice:?}");
    assert_eq!((&alice["entries"], &alice["bytes"]), (&json!(0), &json!(0)));
    assert!(rows[1]["deactivated_ts"].as_u64() >= rows[1]["created_ts"].as_u64());
    assert_eq!(rows.len(), 2);
}

#[test]
fn it_works_beside_a_running_server() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    a_life(dir.path(), Some(&server));
    server.stop();
}

#[test]
fn it_works_without_a_server_and_what_it_did_is_there_for_one() {
    let dir = directory();
    let first = user(dir.path(), &["add", "zoe", "--password-stdin"], "x");
    assert_done(&first, "added @zoe:localhost");
    assert_done(
        &user(dir.path(), &["deactivate", "zoe", "--yes"], ""),
        "deactivated @zoe:localhost",
    );
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    server.stop();
    a_life(dir.path(), None);
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.client().login("alice", "second").status, 200);
    assert_eq!(server.client().login("bob", "x").status, 403);
    server.stop();
}

/// After a crash the socket is there, and nobody behind it.
#[test]
fn it_works_behind_a_killed_server() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    server.kill();
    assert!(dir.path().join("data/admin.sock").try_exists().unwrap());
    let added = user(dir.path(), &["add", "alice", "--password-stdin"], "x");
    assert_done(&added, "added @alice:localhost");
    let server = Server::start(dir.path(), &[]);
    assert_eq!(server.client().login("alice", "x").status, 200);
    server.stop();
}

fn refusals(dir: &Path) {
    let stdin = "--password-stdin";
    assert_done(
        &user(dir, &["add", "alice", stdin], "x"),
        "added @alice:localhost",
    );
    let add = |name: &str| user(dir, &["add", name, stdin], "x");
    assert_refused(&add("alice"), "taken");
    assert_refused(&add("Alice"), "a-z");
    assert_refused(&add(""), "must not be empty");
    assert_refused(
        &add("@alice:elsewhere"),
        "not a user of the server localhost",
    );
    assert_refused(&add("@alice"), "not a user name");
    for input in ["", "\n", "\r\n"] {
        assert_refused(&user(dir, &["add", "carol", stdin], input), "no password");
        assert_refused(
            &user(dir, &["password", "alice", stdin], input),
            "no password",
        );
    }
    let unknown = "there is no account @nobody:localhost";
    assert_refused(&user(dir, &["password", "nobody", stdin], "x"), unknown);
    assert_refused(&user(dir, &["deactivate", "nobody", "--yes"], ""), unknown);
    assert_refused(&user(dir, &["deactivate", "alice"], ""), "add --yes");
    assert_eq!(
        user(dir, &["deactivate", "alice", "--yes"], "").code,
        Some(0)
    );
    assert_refused(
        &user(dir, &["password", "alice", stdin], "x"),
        "is deactivated",
    );
    assert_refused(
        &user(dir, &["deactivate", "alice", "--yes"], ""),
        "is deactivated",
    );
    assert_refused(&add("alice"), "taken");
}

#[test]
fn refusals_beside_a_server_say_why() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    refusals(dir.path());
    server.stop();
}

#[test]
fn refusals_without_a_server_say_why() {
    let dir = directory();
    Server::start(dir.path(), &[]).stop();
    refusals(dir.path());
}

#[test]
fn a_directory_that_is_not_there_is_only_made_for_a_new_account() {
    let dir = directory();
    assert_refused(
        &user(dir.path(), &["list"], ""),
        "there is no data directory `data`",
    );
    assert!(!dir.path().join("data").try_exists().unwrap());
}

#[test]
fn devices_can_stay_logged_in() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    let alice = server.client().register("alice", "first");
    let arguments = ["password", "alice", "--keep-devices", "--password-stdin"];
    assert_eq!(user(dir.path(), &arguments, "second").code, Some(0));
    assert_eq!(alice.whoami().status, 200);
    assert_eq!(alice.login("alice", "first").status, 403);
    server.stop();
}

/// Only the owner may use the socket, and nobody else may look at the data.
#[test]
fn the_data_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    for path in ["data", "data/admin.sock"] {
        let mode = std::fs::metadata(dir.path().join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o077, 0, "{path}: {mode:o}");
    }
    server.stop();
    assert_eq!(
        run(dir.path(), &["user", "list", "--data", "data"]).code,
        Some(0)
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_list_that_nobody_can_read_is_an_error_and_no_panic() {
    let dir = directory();
    Server::start(dir.path(), &[]).stop();
    let full = std::fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let mut command = kitbag(dir.path());
    command
        .args(["user", "list", "--data", "data"])
        .stdout(full);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.starts_with("kitbag: ") && !stderr.contains("panicked"),
        "{stderr}"
    );
}

/// A socket's path has some hundred bytes at most; temporary directories of tests have more.
#[test]
fn a_long_path_keeps_commands_from_a_running_server_only() {
    let dir = directory();
    let deep = dir.path().join("d".repeat(70)).join("e".repeat(70));
    std::fs::create_dir_all(&deep).unwrap();
    let added = user(&deep, &["add", "alice", "--password-stdin"], "x");
    assert_done(&added, "added @alice:localhost");
    let data = deep.join("data");
    let data = data.to_str().unwrap();
    let server = Server::start_as(kitbag(&deep).args(["serve", "--data", data]));
    assert_eq!(server.client().login("alice", "x").status, 200);
    let beside = run(&deep, &["user", "list", "--data", data]);
    assert_refused(&beside, "a server uses the data and does not answer");
    let ended = server.stop();
    assert!(
        ended.stderr.contains("cannot reach this server"),
        "{ended:?}"
    );
    let without = run(&deep, &["user", "list", "--data", data]);
    assert!(without.stdout.contains("@alice:localhost"), "{without:?}");
}

#[test]
fn the_name_in_the_data_is_good_where_none_is_given() {
    let dir = directory();
    let named = ["--server-name", "x.example", "add", "alice"];
    assert_done(&user(dir.path(), &named, "x"), "added @alice:x.example");
    assert_done(
        &user(dir.path(), &["add", "bob"], "x"),
        "added @bob:x.example",
    );
    let other = ["--server-name", "y.example", "list"];
    assert_refused(&user(dir.path(), &other, ""), "x.example");
}

/// It may hold a password.
#[test]
fn what_is_no_command_is_not_repeated() {
    use std::io::{Read as _, Write as _};
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    let socket = dir.path().join("data/admin.sock");
    let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
    stream
        .write_all(b"{\"command\":\"no_such\",\"password\":\"wordpass\"}\n")
        .unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert!(reply.contains("does not know"), "{reply}");
    assert!(!reply.contains("wordpass"), "{reply}");
    let ended = server.stop();
    assert!(!ended.stderr.contains("wordpass"), "{}", ended.stderr);
}
