//! `kitbag backup` and `kitbag restore`: beside a running server and without one.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::support::{Client, Ended, PATIENCE, Server, directory, kitbag, run};

const SYNC: &str = "/_matrix/client/v3/sync";
/// Contents of this size make a backup take its time.
const CONTENT_BYTES: usize = 900_000;

fn command(dir: &Path, name: &str, arguments: &[&str]) -> Ended {
    run(dir, &[&[name, "--data", "data"], arguments].concat())
}

#[track_caller]
fn assert_refused(ended: &Ended, because: &str) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(ended.stderr.contains(because), "{ended:?}");
    assert_eq!(ended.stderr.lines().count(), 1, "one line: {ended:?}");
    assert_eq!(ended.stdout, "");
}

fn names(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap();
    let mut names: Vec<_> = names
        .map(|name| name.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// Syncs at once and returns the types of the entries with the next token.
fn sync(client: &Client, since: Option<&str>) -> (Vec<String>, String) {
    let path = since.map_or(SYNC.to_owned(), |since| format!("{SYNC}?since={since}"));
    let answer = client.send("GET", &path, "");
    assert_eq!(answer.status, 200, "{answer:?}");
    let json = answer.json();
    let none = Vec::new();
    let events = json["account_data"]["events"].as_array().unwrap_or(&none);
    let types = events.iter().map(|event| event["type"].as_str().unwrap());
    let mut types: Vec<_> = types.map(str::to_owned).collect();
    types.retain(|event_type| event_type != "m.push_rules");
    types.sort();
    (types, json["next_batch"].as_str().unwrap().to_owned())
}

#[test]
fn a_backup_says_what_it_did_beside_a_server_and_without_one() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    server.client().register("alice", "wordpass");
    for server in [Some(server), None] {
        let ended = command(dir.path(), "backup", &["copy.db"]);
        assert_eq!(
            (ended.code, ended.stderr.as_str()),
            (Some(0), ""),
            "{ended:?}"
        );
        let file = fs::canonicalize(dir.path()).unwrap().join("copy.db");
        let told = file.display();
        assert!(ended.stdout.starts_with("backed up "), "{ended:?}");
        let data = file.with_file_name("data");
        let data = data.display();
        let restore = format!("  kitbag restore '{told}' --data '{data}' --replace\n");
        assert!(ended.stdout.ends_with(&restore), "{ended:?}");
        let metadata = fs::metadata(&file).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o600);

        let again = command(dir.path(), "backup", &["copy.db"]);
        assert_refused(&again, "copy.db` exists already; --force replaces it");
        let ended = command(dir.path(), "backup", &["copy.db", "--force", "--json"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        let json: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert_eq!(json["file"], told.to_string());
        assert_eq!(json["bytes"], metadata.len());
        let own = command(dir.path(), "backup", &["data/kitbag.db", "--force"]);
        assert_refused(&own, "the store itself keeps files of such names there");
        let directory = command(dir.path(), "backup", &["other.db/"]);
        assert_refused(&directory, "it names a directory");
        let nowhere = command(dir.path(), "backup", &["nowhere/copy.db"]);
        assert_refused(&nowhere, "No such file");
        fs::remove_file(file).unwrap();
        assert_eq!(names(dir.path()), ["data"]);
        if let Some(server) = server {
            server.stop();
        }
    }
}

#[test]
fn the_line_that_puts_a_backup_back_is_one_that_a_shell_reads() {
    let dir = directory();
    Server::start(dir.path(), &[]).stop();
    let ended = command(dir.path(), "backup", &["it's a.db"]);
    let line = ended.stdout.lines().last().unwrap().trim();
    let mut shell = Command::new("sh");
    let words = line.replacen("kitbag", "printf '%s\n'", 1);
    let said = shell.args(["-c", &words]).output().unwrap();
    let dir = fs::canonicalize(dir.path()).unwrap();
    let dir = dir.display();
    let expected = format!("restore\n{dir}/it's a.db\n--data\n{dir}/data\n--replace\n");
    assert_eq!(String::from_utf8(said.stdout).unwrap(), expected);
}

#[test]
fn without_data_there_is_no_backup_and_none_are_made() {
    let dir = directory();
    let ended = command(dir.path(), "backup", &["copy.db"]);
    assert_refused(&ended, "there is no data directory `data`");
    fs::create_dir(dir.path().join("data")).unwrap();
    let ended = command(dir.path(), "backup", &["copy.db"]);
    assert_refused(&ended, "there is no store in `data`");
    assert_eq!(names(&dir.path().join("data")), [""; 0]);
    assert_eq!(names(dir.path()), ["data"]);
}

#[test]
fn after_a_restore_a_client_gets_everything_once_and_goes_on() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    let alice = server.client().register("alice", "wordpass");
    assert_eq!(alice.put("alice", "app.before", "{\"n\":1}").status, 200);
    let ended = command(dir.path(), "backup", &["copy.db"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(alice.put("alice", "app.before", "{\"n\":2}").status, 200);
    assert_eq!(alice.put("alice", "app.after", "{}").status, 200);
    let later = server.client().register("bob", "wordpass");
    let mut device = server.client();
    let login = alice.login("alice", "wordpass").json();
    device.token = login["access_token"].as_str().map(str::to_owned);
    let (types, since) = sync(&alice, None);
    assert_eq!(types, ["app.after", "app.before"]);

    let refused = command(dir.path(), "restore", &["copy.db", "--replace"]);
    assert_refused(&refused, "`data` is in use by another process");
    server.stop();
    let refused = command(dir.path(), "restore", &["copy.db"]);
    assert_refused(&refused, "with --replace it is set aside");
    let ended = command(dir.path(), "restore", &["copy.db", "--replace"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("of server localhost into `data`"),
        "{ended:?}"
    );
    let aside = names(&dir.path().join("data"));
    let aside = aside.iter().find(|name| name.contains("before-restore"));
    assert!(ended.stdout.contains(aside.unwrap().as_str()), "{ended:?}");
    let lost = "What was written since the backup is not in the new one.\n";
    assert!(ended.stdout.contains(lost), "{ended:?}");

    let server = Server::start(dir.path(), &[]);
    let alice = alice.at(server.address);
    assert_eq!(alice.get("alice", "app.before").body, "{\"n\":1}");
    assert_eq!(alice.get("alice", "app.after").status, 404);
    assert_eq!(later.at(server.address).whoami().status, 401);
    assert_eq!(device.at(server.address).whoami().status, 401);
    // Its token names a position that the restored server gives out a second time: behind it lies
    // the new entry alone, but the other one is not what the client has.
    for _ in 0..10 {
        assert_eq!(alice.put("alice", "app.new", "{}").status, 200);
    }
    let (types, since) = sync(&alice, Some(&since));
    assert_eq!(types, ["app.before", "app.new"]);
    assert_eq!(alice.put("alice", "app.newer", "{}").status, 200);
    let (types, since) = sync(&alice, Some(&since));
    assert_eq!(types, ["app.newer"]);
    assert_eq!(sync(&alice, Some(&since)).0, [""; 0]);
    server.stop();
    let checked = command(dir.path(), "check", &[]);
    assert_eq!(checked.code, Some(0), "{checked:?}");

    // And again, into another place too.
    let elsewhere = run(dir.path(), &["restore", "copy.db", "--data", "elsewhere"]);
    assert_eq!(elsewhere.code, Some(0), "{elsewhere:?}");
    let whole = "into `elsewhere`\nEach client syncs in full, once.\n";
    assert!(elsewhere.stdout.ends_with(whole), "{elsewhere:?}");
    fs::write(dir.path().join("copy.db"), "no backup").unwrap();
    let refused = command(dir.path(), "restore", &["copy.db", "--replace"]);
    assert_refused(&refused, "`copy.db` is not a database of Kitbag");
    let server = Server::start(dir.path(), &[]);
    assert_eq!(
        alice.at(server.address).get("alice", "app.newer").status,
        200
    );
    server.stop();
}

/// Starts a server with so much in its store that a backup takes a while.
fn server_with_much(dir: &Path) -> (Server, Client) {
    let server = Server::start(dir, &[]);
    let alice = server.client().register("alice", "wordpass");
    let content = format!("{{\"\":\"{}\"}}", "x".repeat(CONTENT_BYTES));
    for number in 0..40 {
        let put = alice.put("alice", &format!("app.{number}"), &content);
        assert_eq!(put.status, 200);
    }
    (server, alice)
}

/// Starts a backup and returns when it is under way, or has ended already.
fn start_backup(dir: &Path) -> Child {
    let mut command = kitbag(dir);
    command.args(["backup", "--data", "data", "copies/copy.db"]);
    start_as_backup(dir, command)
}

fn start_as_backup(dir: &Path, mut command: Command) -> Child {
    let command = command.stdout(Stdio::null()).stderr(Stdio::null());
    fs::create_dir(dir.join("copies")).unwrap();
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let started = Instant::now();
    while names(&dir.join("copies")).is_empty() && child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < PATIENCE, "no backup begins");
    }
    child
}

fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    let sent = Command::new("kill").args(["-s", name, &pid]).status();
    assert!(sent.unwrap().success());
}

/// A name is given to a whole copy, if at all: the backup may have been quicker than the signal.
#[track_caller]
fn assert_no_half_copy(dir: &Path) {
    if dir.join("copies/copy.db").try_exists().unwrap() {
        let restored = run(dir, &["restore", "copies/copy.db", "--data", "of-the-copy"]);
        assert_eq!(restored.code, Some(0), "{restored:?}");
    }
}

#[test]
fn a_server_killed_during_a_backup_leaves_sound_data_and_no_half_copy() {
    let dir = directory();
    let (server, alice) = server_with_much(dir.path());
    let mut backup = start_backup(dir.path());
    server.kill();
    backup.wait().unwrap();
    assert_no_half_copy(dir.path());
    let checked = command(dir.path(), "check", &[]);
    assert_eq!(checked.code, Some(0), "{checked:?}");
    let server = Server::start(dir.path(), &[]);
    assert_eq!(alice.at(server.address).get("alice", "app.39").status, 200);
    server.stop();
}

#[test]
fn a_backup_whose_caller_leaves_is_given_up() {
    let dir = directory();
    let (server, alice) = server_with_much(dir.path());
    let mut backup = start_backup(dir.path());
    signal(&backup, "INT");
    backup.wait().unwrap();
    let started = Instant::now();
    while names(&dir.path().join("copies"))
        .iter()
        .any(|name| name != "copy.db")
    {
        assert!(started.elapsed() < PATIENCE, "its file stays");
    }
    assert_no_half_copy(dir.path());
    assert_eq!(alice.put("alice", "app.new", "{}").status, 200);
    server.stop();
}

#[test]
fn a_server_that_stops_gives_its_backup_up() {
    let dir = directory();
    let (server, _) = server_with_much(dir.path());
    let mut backup = start_backup(dir.path());
    server.stop();
    backup.wait().unwrap();
    let left = names(&dir.path().join("copies"));
    assert!(left.iter().all(|name| name == "copy.db"), "{left:?}");
    assert_no_half_copy(dir.path());
}

#[test]
fn an_interrupted_backup_without_a_server_leaves_nothing() {
    let dir = directory();
    let (server, _) = server_with_much(dir.path());
    server.stop();
    for name in ["INT", "TERM", "HUP"] {
        let mut backup = start_backup(dir.path());
        signal(&backup, name);
        let status = backup.wait().unwrap();
        assert!(status.code().is_some(), "{name}: {status}");
        let left = names(&dir.path().join("copies"));
        assert!(
            left.iter().all(|name| name == "copy.db"),
            "{name}: {left:?}"
        );
        assert_no_half_copy(dir.path());
        for name in ["copies", "of-the-copy"] {
            fs::remove_dir_all(dir.path().join(name)).ok();
        }
    }
}

#[test]
fn a_backup_that_was_started_to_outlive_its_terminal_goes_on() {
    let dir = directory();
    let (server, _) = server_with_much(dir.path());
    server.stop();
    let kitbag = kitbag(dir.path());
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$@\"", "sh"]);
    command.arg(kitbag.get_program()).current_dir(dir.path());
    command.args(["backup", "--data", "data", "copies/copy.db"]);
    let mut backup = start_as_backup(dir.path(), command);
    signal(&backup, "HUP");
    assert_eq!(backup.wait().unwrap().code(), Some(0));
    assert_eq!(names(&dir.path().join("copies")), ["copy.db"]);
}
