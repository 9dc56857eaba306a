//! `kitbag doctor`: what it says of a homeserver, and what it leaves behind.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::gateway::{self, Lab, NOBODY};
use crate::support::{Client, Ended, Server, directory, kitbag, run_with_input};

const PASSWORD: &str = "wordpass";

fn doctor(dir: &Path, server: &Server, arguments: &[&str]) -> Ended {
    doctor_at(dir, &format!("http://{}", server.address), arguments)
}

fn doctor_at(dir: &Path, upstream: &str, arguments: &[&str]) -> Ended {
    let mut command = kitbag(dir);
    command.args(["doctor", "--upstream", upstream]);
    run_with_input(command.args(arguments), PASSWORD)
}

/// Returns what the homeserver does, and what it is with the gateway, by what was looked at.
fn checks(ended: &Ended) -> BTreeMap<String, [String; 2]> {
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let report: Value = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!(report["is_fit"], true);
    let checks = report["checks"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let columns = |check: &Value| ["homeserver", "gateway"].map(|column| text(&check[column]));
    checks
        .map(|check| (text(&check["what"]), columns(check)))
        .collect()
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
        "  WITH THE GATEWAY\n",
        "  yes, but its own entries are not read\n",
        "It has device account data already.",
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
        for (what, homeserver, gateway) in [
            ("whoami with a token", "user and device", "as it is"),
            (
                "an entry under a long type",
                "kept byte for byte",
                "as it is",
            ),
            (
                "a sync with a filter",
                "lists entries by the start of their type",
                "as it is",
            ),
            (
                "device account data (MSC4331)",
                "yes (401 M_MISSING_TOKEN)",
                "yes, but its own entries are not read",
            ),
            ("GET of m.push_rules", "told", "told"),
            (
                "PUT of m.push_rules",
                "refused (405 M_BAD_JSON)",
                "405 M_BAD_JSON, in every scope and spelling",
            ),
            (
                "DELETE of an entry (MSC3391)",
                "yes",
                "of device account data; else as it is",
            ),
            ("an entry that is {}", "kept", "as it is"),
        ] {
            let expected = [homeserver, gateway].map(str::to_owned);
            assert_eq!(checks.get(what), Some(&expected), "{what}");
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
    let unnamed = run_with_input(kitbag(dir.path()).arg("doctor"), "");
    assert_eq!(unnamed.code, Some(2), "{unnamed:?}");
    assert!(unnamed.stderr.contains("which homeserver?"), "{unnamed:?}");
    let nobody = doctor(dir.path(), &server, &["--user", "", "--password-stdin"]);
    assert_eq!(nobody.code, Some(2), "{nobody:?}");
    assert!(
        nobody
            .stderr
            .contains("a value is required for '--user <USER>'"),
        "{nobody:?}"
    );
    server.stop();
}

#[test]
fn a_homeserver_that_is_not_there_is_told_in_json_too() {
    let dir = directory();
    let gateway = gateway::start(dir.path(), NOBODY, &[]);
    let proxy = format!("http://{}", gateway.address);
    for (upstream, because) in [
        (
            NOBODY,
            "http://127.0.0.1:1 does not answer: connection refused",
        ),
        (
            &proxy,
            "cannot be looked at now: it answered 502 M_UNKNOWN, as where a homeserver behind it \
             is down",
        ),
    ] {
        let ended = doctor_at(dir.path(), upstream, &[]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert!(ended.stderr.contains(because), "{ended:?}");
        assert_eq!(ended.stdout, "");
        let ended = doctor_at(dir.path(), upstream, &["--json"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        let report: Value = serde_json::from_str(&ended.stdout).unwrap();
        let failure = report["failure"].as_str().unwrap();
        assert!(failure.contains(because), "{failure}");
        assert_eq!(
            (&report["is_fit"], &report["checks"]),
            (&Value::Null, &json!([]))
        );
    }
    gateway.stop();
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
