//! Data that cannot be served: each is named with what can be done, and stays as it is.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

use crate::support::{Ended, Server, directory, kitbag, run, run_with_input};

const SERVE: [&str; 5] = ["serve", "--data", "data", "--listen", "127.0.0.1:0"];
const CHECK: [&str; 3] = ["check", "--data", "data"];
const PAGE: usize = 4_096;

/// Makes data with one account and some entries in `dir`, and returns the database.
fn database(dir: &Path) -> Vec<u8> {
    let server = Server::start(dir, &[]);
    let alice = server.client().register("alice", "wordpass");
    let content = format!("{{\"\":\"{}\"}}", "x".repeat(20_000));
    assert_eq!(alice.put("alice", "app.test", &content).status, 200);
    server.stop();
    fs::read(dir.join("data/kitbag.db")).unwrap()
}

/// Replaces the first of `from` by `to`, which is as long.
fn replace(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    assert_eq!(from.len(), to.len());
    let at = bytes.windows(from.len()).position(|part| part == from);
    let mut bytes = bytes.to_owned();
    bytes[at.unwrap()..][..to.len()].copy_from_slice(to);
    bytes
}

fn with(bytes: &[u8], at: usize, what: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_owned();
    bytes[at..at + what.len()].copy_from_slice(what);
    bytes
}

#[track_caller]
fn assert_said(ended: &Ended, code: i32, parts: &[&str]) {
    assert_eq!(ended.code, Some(code), "{ended:?}");
    for part in parts {
        let said = ended.stdout.contains(part) || ended.stderr.contains(part);
        assert!(said, "`{part}` in {ended:?}");
    }
}

const ADVICE: &str = "kitbag restore FILE --replace";

#[test]
fn what_cannot_be_opened_is_named_and_left_alone() {
    let dir = directory();
    let sound = database(dir.path());
    let file = dir.path().join("data/kitbag.db");
    let damaged = ["`data/kitbag.db` is damaged", "nothing was changed", ADVICE];
    let short = [
        "is damaged: it is cut short: ",
        "nothing was changed",
        ADVICE,
    ];
    let foreign = [
        "`data/kitbag.db` is not a database of Kitbag",
        "nothing was changed: `kitbag restore FILE --replace` puts a backup in its place",
    ];
    let newer = [
        "`data/kitbag.db` has format 3; this Kitbag knows up to 2",
        "nothing was changed",
    ];
    // What lies there, what `serve` says, and how `check` ends.
    let rows: [(&str, Vec<u8>, &[&str], i32); 9] = [
        ("empty", Vec::new(), &damaged, 1),
        ("cut to its first page", sound[..PAGE].to_owned(), &short, 1),
        (
            "cut by a page",
            sound[..sound.len() - PAGE].to_owned(),
            &short,
            1,
        ),
        (
            "without its first page",
            with(&sound, 0, &[0; PAGE]),
            &foreign,
            2,
        ),
        (
            "with a garbage header",
            with(&sound, 0, b"garbage"),
            &foreign,
            2,
        ),
        (
            "text",
            "some words ".repeat(1_000).into_bytes(),
            &foreign,
            2,
        ),
        ("of another program", with(&sound, 68, b"abcd"), &foreign, 2),
        (
            "of a newer format",
            with(&sound, 60, &[0, 0, 0, 3]),
            &newer,
            2,
        ),
        // Its name stands in the table of tables, twice in the text and once before it.
        (
            "without a table",
            replace(&sound, b"tablefiltersfilters", b"tablewiltersfilters"),
            &damaged,
            1,
        ),
    ];
    for (what, bytes, said, checked) in rows {
        fs::write(&file, &bytes).unwrap();
        let before = names(&dir.path().join("data"));
        let served = run(dir.path(), &SERVE);
        assert_said(&served, 1, said);
        // A check that can say no more is no advice.
        let is_checkable = served.stderr.contains("`kitbag check` looks through it");
        assert_eq!(is_checkable, checked == 1, "{what}: {served:?}");
        assert_eq!(served.stderr.lines().count(), 1, "{what}: {served:?}");
        assert_said(&run(dir.path(), &CHECK), checked, &[]);
        assert!(fs::read(&file).unwrap() == bytes, "{what}: it is as it was");
        assert_eq!(names(&dir.path().join("data")), before, "{what}");
    }
}

#[test]
fn a_database_that_is_gone_is_not_made_anew() {
    let dir = directory();
    database(dir.path());
    let file = dir.path().join("data/kitbag.db");
    fs::remove_file(&file).unwrap();
    assert_said(&run(dir.path(), &SERVE), 1, &["it is missing", ADVICE]);
    assert_said(&run(dir.path(), &CHECK), 1, &["it is missing", ADVICE]);
    assert!(!file.try_exists().unwrap());
}

#[test]
fn a_directory_in_the_place_of_the_database_is_named() {
    let dir = directory();
    let file = dir.path().join("data/kitbag.db");
    fs::create_dir_all(&file).unwrap();
    for (arguments, code) in [(&SERVE[..], 1), (&CHECK, 2)] {
        let ended = run(dir.path(), arguments);
        assert_said(
            &ended,
            code,
            &["cannot read `data/kitbag.db`: Is a directory"],
        );
    }
    assert_eq!(names(&file), [""; 0]);
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = names
        .map(|name| name.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// A page deep in the file shows only where it is read, or to a check beside the server.
#[test]
fn a_server_with_a_damaged_page_says_so_and_a_check_beside_it_finds_it() {
    let dir = directory();
    let sound = database(dir.path());
    let file = dir.path().join("data/kitbag.db");
    // Pages of a long content hold nothing else.
    let long = sound
        .chunks(PAGE)
        .rposition(|page| page[10..] == [b'x'; PAGE - 10]);
    let damaged = with(&sound, long.unwrap() * PAGE, &[0; PAGE]);
    fs::write(&file, &damaged).unwrap();
    let server = Server::start(dir.path(), &[]);
    let login = server.client().login("alice", "wordpass").json();
    let mut alice = server.client();
    alice.token = login["access_token"].as_str().map(str::to_owned);
    let got = alice.get("alice", "app.test").status;
    assert!(got >= 500, "not as if nothing were there: {got}");
    let checked = run(dir.path(), &CHECK);
    assert_said(&checked, 1, &["damage ", "kitbag restore FILE --replace"]);
    let backup = run(dir.path(), &["backup", "--data", "data", "copy.db"]);
    assert_said(&backup, 1, &["the copy is damaged"]);
    assert!(!dir.path().join("copy.db").try_exists().unwrap());
    server.stop();
}

/// What the check has the server copy is no database any more.
#[test]
fn a_file_that_is_destroyed_under_its_server_is_found_by_a_check() {
    let dir = directory();
    let sound = database(dir.path());
    let server = Server::start(dir.path(), &[]);
    let file = dir.path().join("data/kitbag.db");
    fs::write(&file, with(&sound, 0, &[0xff; PAGE])).unwrap();
    let checked = run(dir.path(), &CHECK);
    assert_said(&checked, 1, &["damage ", ADVICE]);
    assert_eq!(checked.stderr, "");
    server.stop();
}

#[test]
fn a_check_beside_a_server_leaves_nothing_behind() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    server.client().register("alice", "wordpass");
    let before = names(&dir.path().join("data"));
    let checked = run(dir.path(), &CHECK);
    assert_said(&checked, 0, &["`data` is sound: 1 account with"]);
    assert_eq!(names(&dir.path().join("data")), before);
    server.stop();
}

#[test]
fn a_second_server_is_told_which_directory_is_in_use() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    let second = run(dir.path(), &SERVE);
    let said = "the data directory `data` is in use by another process, such as a running server";
    assert_said(&second, 1, &[said, "--data"]);
    let restore = run(
        dir.path(),
        &["restore", "--data", "data", "none.db", "--replace"],
    );
    assert_said(&restore, 1, &["cannot read `none.db`"]);
    server.stop();
}

#[test]
fn a_directory_without_rights_is_named() {
    let dir = directory();
    database(dir.path());
    let data = dir.path().join("data");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    for (arguments, code) in [(&SERVE[..], 1), (&CHECK, 2)] {
        let mut command = kitbag(dir.path());
        command.args(arguments);
        if fs::metadata(dir.path()).unwrap().uid() == 0 {
            // The administrator has all rights; somebody else has not.
            command.uid(65_534).gid(65_534);
        }
        let ended = run_with_input(&mut command, "");
        assert_said(&ended, code, &["`data", "Permission denied"]);
    }
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    assert_said(&run(dir.path(), &CHECK), 0, &["is sound"]);
}
