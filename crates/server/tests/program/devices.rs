//! `kitbag devices`: the same beside a running server and without one.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Client, Ended, Server, directory, kitbag, run_with_input};

const ROOMS: &str = "org.example.rooms";

fn devices(dir: &Path, arguments: &[&str]) -> Ended {
    let command = &mut kitbag(dir);
    run_with_input(
        command.args(["devices", "--data", "data"]).args(arguments),
        "",
    )
}

fn report(dir: &Path, arguments: &[&str]) -> Ended {
    devices(dir, &[&["report", "--type", ROOMS], arguments].concat())
}

#[track_caller]
fn assert_said(ended: &Ended, said: &str) {
    assert_eq!((ended.code, &*ended.stdout), (Some(0), said), "{ended:?}");
}

/// Registers a user with the device `device`, which keeps this.
fn device(server: &Server, user: &str, device: &str, name: Option<&str>, text: &str) {
    let client = silent_device(server, user, device, name);
    let path =
        format!("/_matrix/client/v3/user/@{user}:localhost/devices/{device}/account_data/{ROOMS}");
    assert_eq!(client.send("PUT", &path, text).status, 200);
}

/// Registers a user with the device `device`, which keeps nothing.
fn silent_device(server: &Server, user: &str, device: &str, name: Option<&str>) -> Client {
    let auth = json!({"type": "m.login.dummy"});
    let body = json!({"username": user, "password": "x", "auth": auth, "device_id": device,
        "initial_device_display_name": name});
    let mut client = server.client();
    let answer = client.send("POST", "/_matrix/client/v3/register", &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    client.token = answer.json()["access_token"].as_str().map(str::to_owned);
    client
}

/// Runs the test beside a server with four devices that say something and one that does not, and with one that was stopped before.
fn both(test: impl Fn(&Path)) {
    let begin = |dir: &Path| {
        let server = Server::start(dir, &[]);
        device(
            &server,
            "alice",
            "PHONE",
            Some("Alice's phone"),
            r#"{"versions":["11","12"]}"#,
        );
        device(&server, "bob", "LAPTOP", None, "{\"versions\":\n[\"11\"]}");
        device(
            &server,
            "carol",
            "WATCH",
            Some("\u{1b}[31mred"),
            r#"{"versions":["11"]}"#,
        );
        device(&server, "dave", "OLD", None, "{}");
        silent_device(&server, "erin", "SILENT", None);
        server
    };
    let dir = directory();
    let server = begin(dir.path());
    test(dir.path());
    server.stop();
    let dir = directory();
    begin(dir.path()).stop();
    test(dir.path());
}

#[test]
fn a_report_counts_devices_by_what_they_say() {
    both(|dir| {
        let table = "\
VALUE        DEVICES    SHARE
[\"11\"]             2   50.0 %
[\"11\",\"12\"]        1   25.0 %
(absent)           1   25.0 %
(all)              4  100.0 %
";
        assert_said(&report(dir, &["--pointer", "/versions"]), table);
        let json = report(dir, &["--pointer", "/versions", "--json"]).stdout;
        assert_eq!(json.lines().count(), 1);
        let json: Value = serde_json::from_str(&json).unwrap();
        let values =
            json!([{"value": ["11"], "devices": 2}, {"value": ["11", "12"], "devices": 1}]);
        let expected = json!({"type": ROOMS, "pointer": "/versions", "devices": 4,
            "values": values, "others": 0, "absent": 1});
        assert_eq!(json, expected);

        let whole = report(dir, &[]).stdout;
        assert_eq!(whole.lines().count(), 5, "{whole}");
        let nothing = devices(dir, &["report", "--type", "other", "--pointer", "/a"]);
        assert_said(&nothing, "no device has `other`\n");
    });
}

#[test]
fn who_lacks_a_value_is_told_by_name() {
    both(|dir| {
        let lacks = |value| report(dir, &["--pointer", "/versions", "--lacks", value]);
        let table = "\
USER              DEVICE  NAME
@bob:localhost    LAPTOP
@carol:localhost  WATCH   \\u{1b}[31mred
@dave:localhost   OLD
";
        let ended = lacks("\"12\"");
        assert_said(&ended, table);
        assert_eq!(ended.stderr, "");
        // What is not JSON is text.
        let everybody = lacks("v12");
        assert_eq!(everybody.stdout.lines().count(), 5, "{everybody:?}");
        let only = lacks("\"11\"");
        assert_eq!(
            only.stdout,
            "USER             DEVICE  NAME\n@dave:localhost  OLD\n"
        );

        // A number is none of the texts, which is easily overlooked.
        let number = lacks("12");
        assert_eq!(number.stdout.lines().count(), 5, "{number:?}");
        let hint = "kitbag: looking for 12 as such; for the text write --lacks '\"12\"'\n";
        assert_eq!(number.stderr, hint);

        let arguments = ["--pointer", "/versions", "--lacks", "\"12\"", "--json"];
        let rows = report(dir, &arguments).stdout;
        let rows: Vec<Value> = rows
            .lines()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect();
        assert_eq!(
            rows[0],
            json!({"user_id": "@bob:localhost", "device_id": "LAPTOP"})
        );
        assert_eq!(rows[1]["display_name"], "\u{1b}[31mred");
        assert_eq!(rows.len(), 3);

        let nobody = devices(dir, &["report", "--type", "other", "--lacks", "\"12\""]);
        assert_said(&nobody, "no device with `other` lacks \"12\"\n");
    });
}

#[test]
fn all_devices_with_a_type_are_listed() {
    both(|dir| {
        let ended = devices(dir, &["list", "--type", ROOMS]);
        let lines: Vec<&str> = ended.stdout.lines().collect();
        assert_eq!(lines.len(), 5, "{ended:?}");
        let words: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!(words, ["USER", "DEVICE", "NAME", "SIZE", "AGE"]);
        assert!(
            lines[1].starts_with("@alice:localhost  PHONE   Alice's phone"),
            "{ended:?}"
        );

        let json = devices(dir, &["list", "--type", ROOMS, "--json"]).stdout;
        let rows: Vec<Value> = json
            .lines()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect();
        assert_eq!(rows.len(), 4, "one a line: {json}");
        assert_eq!(rows[1]["content"], json!({"versions": ["11"]}));
        assert_eq!(rows[1]["device_id"], "LAPTOP");

        let nothing = devices(dir, &["list", "--type", "other"]);
        assert_said(&nothing, "no device has `other`\n");
    });
}

#[test]
fn what_is_no_pointer_is_refused() {
    both(|dir| {
        for lacks in [&[][..], &["--lacks", "1"]] {
            let ended = report(dir, &[&["--pointer", "versions"], lacks].concat());
            assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
            let because = "a JSON pointer is empty or begins with `/`";
            assert!(ended.stderr.contains(because), "{ended:?}");
        }
        let ended = devices(dir, &["list", "--type", ""]);
        assert_eq!((ended.code, &*ended.stdout), (Some(1), ""));
    });
}
