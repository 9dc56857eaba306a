//! `kitbag push`: from files, without a server.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Ended, directory, kitbag, run_with_input};

fn explain(dir: &Path, arguments: &[&str], input: &str) -> Ended {
    let command = &mut kitbag(dir);
    let command = command.args(["push", "explain", "--user", "@alice:localhost"]);
    run_with_input(command.args(arguments), input)
}

fn event() -> String {
    let event = json!({
        "type": "m.room.message",
        "sender": "@bob:localhost",
        "content": {"body": "cake \u{1b}[31m"},
    });
    event.to_string()
}

fn rules() -> String {
    let rule = json!({
        "rule_id": "cake",
        "default": false,
        "enabled": true,
        "actions": ["notify", {"set_tweak": "sound", "value": "ring"}],
        "pattern": "cake",
    });
    json!({"global": {"content": [rule], "underride": []}}).to_string()
}

#[test]
fn explains_an_event_by_the_rules_of_a_file() {
    let dir = directory();
    fs::write(dir.path().join("event.json"), event()).unwrap();
    fs::write(dir.path().join("rules.json"), rules()).unwrap();
    let ended = explain(dir.path(), &["event.json", "--rules", "rules.json"], "");
    let mut lines = ended.stdout.lines();
    assert_eq!(
        lines.next(),
        Some("@alice:localhost is notified: content cake decides"),
        "{ended:?}"
    );
    assert_eq!(ended.code, Some(0));
    assert!(
        !ended.stdout.contains('\u{1b}'),
        "an event commands no terminal"
    );
    let ended = explain(
        dir.path(),
        &["event.json", "--rules", "-", "--json"],
        &rules(),
    );
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told["decided_by"]["rule_id"], "cake");
    assert_eq!(told["actions"][1]["value"], "ring");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
    assert_eq!(left.len(), 2, "no data are made");
}

#[test]
fn explains_by_the_rules_of_the_specification_where_none_are_given() {
    let dir = directory();
    let room = json!({"joined_members": 2}).to_string();
    fs::write(dir.path().join("room.json"), room).unwrap();
    let ended = explain(
        dir.path(),
        &["-", "--room", "room.json", "--json"],
        &event(),
    );
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told["decided_by"]["rule_id"], ".m.rule.room_one_to_one");
    let ended = explain(dir.path(), &["-", "--json"], &event());
    let told: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(told["decided_by"]["rule_id"], ".m.rule.message");
}

#[test]
fn says_which_file_is_not_what_it_has_to_be() {
    let dir = directory();
    fs::write(dir.path().join("event.json"), event()).unwrap();
    fs::write(dir.path().join("odd.json"), "{\"members\":1}").unwrap();
    for (arguments, said) in [
        (&["nowhere.json"][..], "cannot read `nowhere.json`"),
        (
            &["event.json", "--rules", "odd.json"],
            "`odd.json` has no push rules",
        ),
        (
            &["event.json", "--room", "odd.json"],
            "`odd.json` does not tell of a room",
        ),
        (&["-"], "`-` has no event"),
        (
            &["-", "--rules", "-"],
            "standard input can be read only once",
        ),
    ] {
        let ended = explain(dir.path(), arguments, "[]");
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(said), "{ended:?}");
    }
}
