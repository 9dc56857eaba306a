//! `kitbag doctor`: what it says of a homeserver, and what it leaves behind.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::Value;

use crate::gateway::Lab;
use crate::support::{Client, Ended, Server, directory, kitbag, run_with_input};

const PASSWORD: &str = "wordpass";

fn doctor(dir: &Path, server: &Server, arguments: &[&str]) -> Ended {
    let mut command = kitbag(dir);
    let upstream = format!("http://{}", server.address);
    command.args(["doctor", "--upstream", &upstream]);
    run_with_input(command.args(arguments), PASSWORD)
}

/// Returns what the homeserver does, by what was looked at.
fn checks(ended: &Ended) -> BTreeMap<String, String> {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["is_fit"], true);
    let checks = report["checks"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let checks = checks.map(|check| (text(&check["what"]), text(&check["homeserver"])));
    checks.collect()
}

/// Returns all account data of a user by type, without push rules.
fn account_data(client: &Client) -> Vec<String> {
    let sync = client.send("GET", "/_matrix/client/v3/sync?timeout=0", "");
    let events = sync.json()["account_data"]["events"].clone();
    let events = events.as_array().unwrap().iter();
    let types = events.map(|event| event["type"].as_str().unwrap().to_owned());
    types.filter(|name| name != "m.push_rules").collect()
}

#[test]
fn without_an_account_it_says_what_it_sees_and_what_it_does_not() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &[]);
    let ended = doctor(dir.path(), &server, &[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        "WHAT  ",
        "r0.6.1 to v1.18",
        "401 M_MISSING_TOKEN",
        "Not looked at, as there is no --user",
        "The gateway can stand before it.",
    ] {
        assert!(ended.stdout.contains(part), "{part}: {}", ended.stdout);
    }
    server.stop();
}

#[test]
fn with_an_account_it_tries_and_leaves_nothing_behind() {
    let dir = directory();
    let lab = Lab::start(dir.path(), &[]);
    let alice = lab.register("alice");
    alice.put("alice", "m.direct", "{}");
    let devices = || alice.send("GET", "/_matrix/client/v3/devices", "").body;
    let before = devices();
    let rules = "/_matrix/client/v3/pushrules/";
    let rules_before = alice.send("GET", rules, "").body;
    for server in [&lab.homeserver, &lab.gateway] {
        let arguments = ["--user", "alice", "--password-stdin", "--json"];
        let ended = doctor(dir.path(), server, &arguments);
        let checks = checks(&ended);
        for (what, expected) in [
            ("whoami with a token", "user and device"),
            ("an entry under a long type", "kept byte for byte"),
            (
                "a sync with a filter",
                "lists entries by the start of their type",
            ),
            ("device account data (MSC4331)", "yes (401 M_MISSING_TOKEN)"),
            ("GET of m.push_rules", "told"),
            ("PUT of m.push_rules", "refused (405 M_BAD_JSON)"),
            ("DELETE of an entry (MSC3391)", "yes"),
            ("an entry that is {}", "kept"),
        ] {
            assert_eq!(
                checks.get(what).map(String::as_str),
                Some(expected),
                "{what}"
            );
        }
        assert!(
            !ended.stdout.contains(PASSWORD) && ended.stderr.is_empty(),
            "{ended:?}"
        );
    }
    assert_eq!(devices(), before, "its own are logged out");
    assert_eq!(account_data(&alice), ["m.direct"]);
    assert_eq!(alice.send("GET", rules, "").body, rules_before);
    lab.stop();
}

#[test]
fn what_cannot_be_looked_at_has_a_code_of_its_own() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &[]);
    server.client().register("alice", "another");
    let refused = doctor(
        dir.path(),
        &server,
        &["--user", "alice", "--password-stdin"],
    );
    assert_eq!(refused.code, Some(2), "{refused:?}");
    let because = "the login of alice was refused: 403 M_FORBIDDEN";
    assert!(refused.stderr.contains(because), "{refused:?}");
    // What anybody can see is told all the same, and no verdict.
    assert!(refused.stdout.contains("r0.6.1 to v1.18"), "{refused:?}");
    assert!(
        refused.stdout.ends_with("nothing is told of the rest.\n"),
        "{refused:?}"
    );
    server.stop();
    let mut command = kitbag(dir.path());
    let nobody = run_with_input(
        command.args(["doctor", "--upstream", "http://127.0.0.1:1"]),
        "",
    );
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(
        nobody
            .stderr
            .contains("127.0.0.1:1 does not answer: connection refused"),
        "{nobody:?}"
    );
    let unnamed = run_with_input(kitbag(dir.path()).arg("doctor"), "");
    assert_eq!(unnamed.code, Some(2), "{unnamed:?}");
    assert!(unnamed.stderr.contains("which homeserver?"), "{unnamed:?}");
}

/// A private listener answers, but is no homeserver.
#[test]
fn what_is_no_homeserver_is_not_fit() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &["--private", "127.0.0.1:0"]);
    let private = format!("http://{}", server.private().address);
    let mut command = kitbag(dir.path());
    let ended = run_with_input(command.args(["doctor", "--upstream", &private]), "");
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert!(
        ended
            .stdout
            .contains("does not work: the gateway needs this"),
        "{ended:?}"
    );
    assert!(
        ended.stdout.contains("The gateway cannot stand before it."),
        "{ended:?}"
    );
    server.stop();
}
