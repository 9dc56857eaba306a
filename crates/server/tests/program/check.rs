//! `kitbag check`: what it says, and with which code it ends.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Ended, Server, directory, kitbag, run, run_with_input};

fn check(dir: &Path, arguments: &[&str]) -> Ended {
    run(dir, &[&["check", "--data", "data"], arguments].concat())
}

/// Makes data with one account in `dir`, and stops.
fn data(dir: &Path) {
    let add = &mut kitbag(dir);
    let add = add.args(["user", "--data", "data", "add", "alice"]);
    assert_eq!(run_with_input(add, "wordpass\n").code, Some(0));
}

#[test]
fn sound_data_are_told_as_sound() {
    let dir = directory();
    data(dir.path());
    let ended = check(dir.path(), &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let said = "`data` is sound: 1 account with 0 entries of 0 bytes\n";
    assert_eq!((ended.stdout.as_str(), ended.stderr.as_str()), (said, ""));
    let ended = check(dir.path(), &["--json"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let expected = json!({
        "sound": true, "server_name": "localhost", "format": 2, "users": 1, "entries": 0,
        "bytes": 0, "findings": [], "findings_left_out": 0,
    });
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(said, expected);
    let ended = check(dir.path(), &["--repair", "--json"]);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(said["repair"], json!({"copy": null, "mended": []}));
}

/// Runs a command whose output nobody reads; returns its code.
fn unheard(dir: &Path, arguments: &[&str]) -> Option<i32> {
    let mut command = kitbag(dir);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = command.args(arguments).stdout(writer).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&ended.stderr), "");
    ended.status.code()
}

#[test]
fn a_result_that_nobody_reads_has_its_code_all_the_same() {
    let dir = directory();
    data(dir.path());
    let path = dir.path();
    for arguments in [&[][..], &["--json"]] {
        let arguments = [&["check", "--data", "data"], arguments].concat();
        assert_eq!(unheard(path, &arguments), Some(0));
    }
    let restore = ["restore", "data/kitbag.db", "--data", "other"];
    assert_eq!(unheard(path, &restore), Some(0));
    let backup = ["backup", "copy.db", "--data", "data"];
    assert_eq!(unheard(path, &backup), Some(0));
    fs::write(path.join("data/kitbag.db"), "").unwrap();
    assert_eq!(unheard(path, &["check", "--data", "data"]), Some(1));
}

#[test]
fn a_damaged_file_is_told_and_left_alone() {
    let dir = directory();
    data(dir.path());
    let file = dir.path().join("data/kitbag.db");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 4096;
    bytes[last..].fill(0);
    fs::write(&file, &bytes).unwrap();
    for arguments in [&[][..], &["--repair"]] {
        let ended = check(dir.path(), arguments);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stdout.starts_with("damage "), "{ended:?}");
        let advice = "kitbag restore FILE --replace";
        assert!(ended.stdout.contains(advice), "{ended:?}");
        assert_eq!(fs::read(&file).unwrap(), bytes);
    }
    let ended = check(dir.path(), &["--json"]);
    let said: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(said["sound"], false);
    assert_eq!(said["findings"][0]["kind"], "damage");
    assert_eq!(said["findings"][0]["mendable"], false);
}

#[test]
fn what_cannot_be_checked_has_a_code_of_its_own() {
    let dir = directory();
    let ended = check(dir.path(), &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert_eq!(ended.stderr, "kitbag: there is no store in `data`\n");
    assert!(!dir.path().join("data").try_exists().unwrap());
    let server = Server::start(dir.path(), &[]);
    let ended = check(dir.path(), &["--repair"]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(ended.stderr.contains("stop it first"), "{ended:?}");
    server.stop();
    fs::write(dir.path().join("data/kitbag.db"), [b'x'; 5_000]).unwrap();
    let ended = check(dir.path(), &[]);
    assert_eq!(ended.code, Some(2), "{ended:?}");
    assert!(
        ended.stderr.contains("data/kitbag.db` is not a database"),
        "{ended:?}"
    );
    let advice = "`kitbag restore FILE --replace` puts a backup in its place";
    assert!(ended.stderr.contains(advice), "{ended:?}");
}
