//! `kitbag data`: the same beside a running server and without one.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Answer, Client, Ended, Server, directory, kitbag, run_with_input};

const ENTRY: &str = "org.example.entry";

fn data(dir: &Path, arguments: &[&str]) -> Ended {
    data_of(dir, arguments, "")
}

fn data_of(dir: &Path, arguments: &[&str], input: &str) -> Ended {
    let command = &mut kitbag(dir);
    let command = command.args(["data", "--data", "data"]).args(arguments);
    run_with_input(command, input)
}

#[track_caller]
fn assert_said(ended: &Ended, said: &str) {
    let told = (ended.code, &*ended.stdout, &*ended.stderr);
    assert_eq!(told, (Some(0), said, ""), "{ended:?}");
}

#[track_caller]
fn assert_refused(ended: &Ended, because: &str) {
    assert_eq!((ended.code, &*ended.stdout), (Some(1), ""), "{ended:?}");
    assert_eq!(ended.stderr, format!("kitbag: {because}\n"));
}

/// Alice, with the devices PHONE and LAPTOP.
struct Alice {
    phone: Client,
    laptop: Client,
}

impl Alice {
    fn new(server: &Server) -> Self {
        let phone = device(&server.client(), "/register", "PHONE");
        let laptop = device(&server.client(), "/login", "LAPTOP");
        Self { phone, laptop }
    }

    fn put_all(&self) {
        for (client, path, text) in [
            (
                &self.phone,
                "account_data/m.direct",
                r#"{"@bob:localhost":["!r"]}"#,
            ),
            (
                &self.laptop,
                "rooms/!r/account_data/m.tag",
                r#"{"tags":{}}"#,
            ),
            (
                &self.laptop,
                "devices/LAPTOP/account_data/org.example.client",
                "{}",
            ),
        ] {
            assert_eq!(put(client, path, text).status, 200, "{path}");
        }
    }
}

fn put(client: &Client, path: &str, text: &str) -> Answer {
    let path = format!("/_matrix/client/v3/user/@alice:localhost/{path}");
    client.send("PUT", &path, text)
}

fn device(client: &Client, path: &str, device: &str) -> Client {
    let auth = json!({"type": "m.login.dummy"});
    let body = json!({"username": "alice", "user": "alice", "password": "x", "auth": auth,
        "type": "m.login.password", "device_id": device});
    let path = format!("/_matrix/client/v3{path}");
    let answer = client.send("POST", &path, &body.to_string());
    assert_eq!(answer.status, 200, "{answer:?}");
    let mut device = client.clone();
    device.token = answer.json()["access_token"].as_str().map(str::to_owned);
    device
}

/// Runs the test beside a server, and with one that was stopped before.
fn both(begin: impl Fn(&Alice), test: impl Fn(&Path, Option<&Alice>)) {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    let alice = Alice::new(&server);
    begin(&alice);
    test(dir.path(), Some(&alice));
    server.stop();

    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    begin(&Alice::new(&server));
    server.stop();
    test(dir.path(), None);
}

#[test]
fn entries_are_listed_with_place_size_age_and_writer() {
    both(Alice::put_all, |dir, _| {
        let put = data(dir, &["put", "alice", ENTRY, "{}"]);
        assert_said(&put, "put `org.example.entry` of @alice:localhost\n");
        let ended = data(dir, &["list", "@alice:localhost"]);
        let lines = ended.stdout.lines();
        // Ages differ by the second.
        let cells = lines.map(|line| {
            let cells = line
                .split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty());
            let cells: Vec<&str> = cells.collect();
            let age = cells[3];
            let is_age = age == "AGE" || age == "now" || age.ends_with(" s");
            assert!(is_age, "{line}");
            [cells[0], cells[1], cells[2], cells[4]].join("|")
        });
        let expected = [
            "TYPE|PLACE|SIZE|WRITER",
            "m.direct|global|33 bytes|PHONE",
            "org.example.entry|global|19 bytes|admin",
            "m.tag|room !r|18 bytes|LAPTOP",
            "org.example.client|device LAPTOP|26 bytes|LAPTOP",
        ];
        assert_eq!(cells.collect::<Vec<_>>(), expected, "{ended:?}");
    });
}

#[test]
fn a_list_is_narrowed_and_told_as_json() {
    both(Alice::put_all, |dir, _| {
        let types = |arguments: &[&str]| -> Vec<String> {
            let ended = data(dir, &[&["list", "alice", "--json"], arguments].concat());
            assert_eq!((ended.code, &*ended.stderr), (Some(0), ""));
            let row = |line: &str| serde_json::from_str::<Value>(line).unwrap();
            let rows = ended.stdout.lines().map(row);
            rows.map(|row| row["type"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(types(&["--scope", "global"]), ["m.direct"]);
        assert_eq!(types(&["--scope", "rooms"]), ["m.tag"]);
        assert_eq!(types(&["--scope", "devices"]), ["org.example.client"]);
        assert_eq!(types(&["--room", "!r"]), ["m.tag"]);
        assert_eq!(types(&["--room", "!other"]), [""; 0]);
        assert_eq!(types(&["--device", "LAPTOP"]), ["org.example.client"]);
        assert_eq!(types(&["--device", "PHONE"]), [""; 0]);

        let ended = data(dir, &["list", "alice", "--json", "--scope", "devices"]);
        let mut row: Value = serde_json::from_str(&ended.stdout).unwrap();
        assert!(row["written_ts"].as_u64() > Some(1_500_000_000_000));
        row["written_ts"] = Value::Null;
        let expected = json!({"scope": "device", "device_id": "LAPTOP", "size_bytes": 26,
            "type": "org.example.client", "written_ts": null,
            "writer": {"kind": "device", "device_id": "LAPTOP"}});
        assert_eq!(row, expected);

        let nothing = data(dir, &["list", "alice", "--device", "PHONE"]);
        assert_said(&nothing, "no account data\n");
    });
}

#[test]
fn contents_come_back_byte_for_byte_from_every_place() {
    let text = "{ \"a\" : 1.0,\n\t\"a\":\"\\u0041é\" }";
    both(
        |_| {},
        |dir, alice| {
            for place in [&[][..], &["--room", "!r:x"], &["--device", "PHONE"]] {
                let at = |command: &'static str| [&[command, "alice", ENTRY], place].concat();
                let put = data_of(
                    dir,
                    &[&at("put")[..], &["-"]].concat(),
                    &format!(" {text}\n"),
                );
                assert_said(&put, "put `org.example.entry` of @alice:localhost\n");
                assert_said(&data(dir, &at("get")), &format!("{text}\n"));
            }
            if let Some(alice) = alice {
                let seen = put(&alice.laptop, "devices/PHONE/account_data/x", "{}");
                assert_eq!(seen.status, 403, "it is the phone's");
                assert_eq!(alice.phone.get("alice", ENTRY).body, text);
            }
        },
    );
}

#[test]
fn what_is_deleted_is_gone() {
    both(Alice::put_all, |dir, alice| {
        let delete = ["delete", "alice", "m.direct"];
        assert_said(
            &data(dir, &delete),
            "deleted `m.direct` of @alice:localhost\n",
        );
        assert_said(
            &data(dir, &delete),
            "@alice:localhost had no `m.direct` there\n",
        );
        let gone = data(dir, &["get", "alice", "m.direct"]);
        assert_refused(&gone, "@alice:localhost has no `m.direct`");
        if let Some(alice) = alice {
            assert_eq!(alice.phone.get("alice", "m.direct").status, 404);
        }
        let delete = [
            "delete",
            "alice",
            "org.example.client",
            "--device",
            "LAPTOP",
        ];
        let ended = data(dir, &delete);
        assert_said(&ended, "deleted `org.example.client` of @alice:localhost\n");
    });
}

#[test]
fn what_is_not_there_is_named_with_what_may_have_been_meant() {
    both(Alice::put_all, |dir, _| {
        let rows: [(&[&str], &str); 8] = [
            (
                &["get", "alice", "m.directs"],
                "@alice:localhost has no `m.directs`; there is `m.direct`",
            ),
            (
                &["get", "alice", "m.tag", "--room", "!other"],
                "@alice:localhost has no `m.tag` in the room !other",
            ),
            (
                &["get", "alice", "x", "--device", "LAPTOP"],
                "@alice:localhost has no `x` on the device LAPTOP",
            ),
            (
                &["get", "alice", "x", "--device", "PHONES"],
                "@alice:localhost has no device PHONES, but LAPTOP, PHONE",
            ),
            (
                &["get", "nobody", "x"],
                "there is no account @nobody:localhost",
            ),
            (&["list", "nobody"], "there is no account @nobody:localhost"),
            (
                &["list", "alice", "--device", "PHONES"],
                "@alice:localhost has no device PHONES, but LAPTOP, PHONE",
            ),
            (
                &["list", "@alice:elsewhere"],
                "@alice:elsewhere is not a user of the server localhost",
            ),
        ];
        for (arguments, because) in rows {
            assert_refused(&data(dir, arguments), because);
        }
    });
}

#[test]
fn writes_that_break_a_rule_are_refused_in_words() {
    both(
        |_| {},
        |dir, _| {
            let managed = "account data of type `m.push_rules` is controlled by the server and cannot be set here";
            let rows: [(&[&str], &str); 9] = [
                (&["put", "alice", "m.push_rules", "{}"], managed),
                (
                    &["delete", "alice", "m.push_rules", "--room", "!r"],
                    managed,
                ),
                (
                    &["put", "alice", "x", "{\"secret\": truly}"],
                    "the content is not valid JSON: expected ident at line 1 column 15",
                ),
                (
                    &["put", "alice", "x", "[\"secret\"]"],
                    "the content must be a JSON object",
                ),
                (
                    &["put", "alice", "x", "{} {}"],
                    "the content is not valid JSON: trailing characters at line 1 column 4",
                ),
                (
                    &["put", "alice", "x", "{}", "--device", "WATCH"],
                    "@alice:localhost has no device WATCH, but LAPTOP, PHONE",
                ),
                (
                    &[
                        "put",
                        "alice",
                        "m.ignored_user_list",
                        r#"{"ignored_users":{"@alice:localhost":{}}}"#,
                    ],
                    "a user cannot ignore themselves",
                ),
                (
                    &["put", "alice", "x", "{}", "--room", "r"],
                    "`r` is not a room ID: a room ID must start with `!`",
                ),
                (
                    &["put", "nobody", "x", "{}"],
                    "there is no account @nobody:localhost",
                ),
            ];
            for (arguments, because) in rows {
                assert_refused(&data(dir, arguments), because);
            }
            let deep = format!("{{\"a\":{}{}}}", "[".repeat(128), "]".repeat(128));
            let ended = data_of(dir, &["put", "alice", "x", "-"], &deep);
            assert_refused(&ended, "the content is nested deeper than 128 levels");
            assert_said(&data(dir, &["list", "alice"]), "no account data\n");
        },
    );
}

#[test]
fn another_revision_is_not_replaced() {
    both(
        |_| {},
        |dir, _| {
            let put = |text, revision| {
                data(
                    dir,
                    &["put", "alice", ENTRY, text, "--if-revision", revision],
                )
            };
            let done = "put `org.example.entry` of @alice:localhost\n";
            assert_said(&put(r#"{"m.revision_id":"1"}"#, "0"), done);
            assert_said(&put(r#"{"m.revision_id":"2"}"#, "1"), done);
            let late = put(r#"{"m.revision_id":"3"}"#, "1");
            assert_refused(&late, "the stored content has another revision");
            let stays = data(dir, &["get", "alice", ENTRY]);
            assert_said(&stays, "{\"m.revision_id\":\"2\"}\n");
        },
    );
}

#[test]
fn a_content_of_the_largest_size_passes_and_a_larger_one_does_not() {
    let mib = 1024 * 1024;
    // Line breaks and quotes, so that it would be twice as long within JSON.
    let quotes = "\\\"".repeat(mib / 4);
    let breaks = "\n".repeat(mib - quotes.len() - "{\"a\":\"\"}".len());
    let text = format!("{{{breaks}\"a\":\"{quotes}\"}}");
    assert_eq!(text.len(), mib);
    both(
        |_| {},
        |dir, _| {
            fs::write(dir.join("large.json"), &text).unwrap();
            let put = ["put", "alice", ENTRY, "--file", "large.json"];
            assert_said(
                &data(dir, &put),
                "put `org.example.entry` of @alice:localhost\n",
            );
            let got = data(dir, &["get", "alice", ENTRY]);
            assert!(
                got.stdout == format!("{text}\n"),
                "{} bytes",
                got.stdout.len()
            );

            for more in [1, mib] {
                let larger = text.replacen('{', &format!("{{{}", " ".repeat(more)), 1);
                let ended = data_of(dir, &["put", "alice", ENTRY, "-"], &larger);
                assert_refused(&ended, "the content is larger than 1048576 bytes");
            }
            let mut put = put.to_vec();
            put.extend(["--device", "PHONE"]);
            assert_refused(&data(dir, &put), "the content is larger than 65536 bytes");
            let missing = data(dir, &["put", "alice", ENTRY, "--file", "missing.json"]);
            let because = "cannot open `missing.json`: No such file or directory (os error 2)";
            assert_refused(&missing, because);
        },
    );
}

#[test]
fn quotas_hold_for_the_operator_too() {
    let limit = ["--set", "limits.entries_max=2"];
    let dir = directory();
    let server = Server::start(dir.path(), &limit);
    Alice::new(&server);
    for event_type in ["a", "b"] {
        let ended = data(dir.path(), &["put", "alice", event_type, "{}"]);
        assert_eq!(ended.code, Some(0), "{ended:?}");
    }
    let because = "the account holds 2 entries, which is its limit";
    assert_refused(&data(dir.path(), &["put", "alice", "c", "{}"]), because);
    server.stop();
    let put = [&["put", "alice", "c", "{}"], &limit[..]].concat();
    assert_refused(&data(dir.path(), &put), because);
    assert_eq!(data(dir.path(), &["delete", "alice", "a"]).code, Some(0));
    assert_eq!(data(dir.path(), &put).code, Some(0));
}

#[test]
fn a_server_notes_who_read_and_wrote_and_no_content() {
    let dir = directory();
    let server = Server::start(dir.path(), &[]);
    Alice::new(&server);
    let put = [
        "put",
        "alice",
        ENTRY,
        r#"{"a":"secret"}"#,
        "--device",
        "PHONE",
    ];
    assert_eq!(data(dir.path(), &put).code, Some(0));
    assert_eq!(data(dir.path(), &["get", "alice", ENTRY]).code, Some(1));
    assert_eq!(data(dir.path(), &["list", "alice"]).code, Some(0));
    // Its content does not come to its end.
    let mut stream = UnixStream::connect(dir.path().join("data/admin.sock")).unwrap();
    let place = json!({"user": "alice", "room": null, "device": null, "event_type": ENTRY});
    let half = json!({"command": "put_data", "place": place, "content_bytes": 20});
    write!(stream, "{half}\n{{\"a\":\"secret").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).unwrap();
    assert_eq!(reply, "", "it is not answered");
    let add = &mut kitbag(dir.path());
    let add = add.args(["user", "--data", "data", "add", "alice", "--password-stdin"]);
    assert_eq!(run_with_input(add, "secret").code, Some(1), "she is there");
    let backup = &mut kitbag(dir.path());
    let backup = backup.args(["backup", "--data", "data", "alice.db"]);
    assert_eq!(run_with_input(backup, "").code, Some(0));
    let log = server.stop().stderr;
    let audited: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("kitbag::audit"))
        .collect();
    let expected = [
        ("INFO", "data put", "done", true),
        ("WARN", "data get", "refused", true),
        ("INFO", "data list", "done", false),
        ("WARN", "data put", "ended without an answer", true),
        ("WARN", "user add", "refused", false),
        ("INFO", "backup", "done", false),
    ];
    assert_eq!(audited.len(), expected.len(), "{log}");
    for (line, (level, command, end, has_type)) in audited.iter().zip(expected) {
        let named = line.contains(level) && line.contains(command) && line.contains(end);
        assert!(
            named && line.contains("alice") && line.contains("admin.sock"),
            "{line}"
        );
        assert_eq!(line.contains(ENTRY), has_type, "{line}");
    }
    assert!(audited[0].contains("PHONE"), "{log}");
    assert!(!log.contains("secret"), "{log}");
}

#[test]
fn without_data_there_is_nothing_to_open() {
    let dir = directory();
    let because = "there is no data directory `data`; name it with --data";
    assert_refused(&data(dir.path(), &["list", "alice"]), because);
    assert_refused(&data(dir.path(), &["put", "alice", "x", "{}"]), because);
    assert!(!dir.path().join("data").try_exists().unwrap());
}

#[test]
fn names_that_a_terminal_would_obey_are_escaped_but_for_json() {
    both(
        |_| {},
        |dir, _| {
            let named = "a\u{1b}[2J";
            assert_eq!(data(dir, &["put", "alice", named, "{}"]).code, Some(0));
            let table = data(dir, &["list", "alice"]).stdout;
            assert!(table.contains("\na\\u{1b}[2J  global"), "{table:?}");
            let json = data(dir, &["list", "alice", "--json"]).stdout;
            let row: Value = serde_json::from_str(&json).unwrap();
            assert_eq!(row["type"], named);
            let because = "@alice:localhost has no `a[2J`; there is `a\\u{1b}[2J`";
            assert_refused(&data(dir, &["get", "alice", "a[2J"]), because);
        },
    );
}
