//! Settings: from where they come, and what is said of wrong ones.

use std::fs;
use std::path::Path;

use crate::support::{Ended, Server, directory, kitbag, run, run_with_input};

#[track_caller]
fn assert_refused(ended: &Ended, because: &[&str]) {
    assert_eq!(ended.code, Some(1), "{ended:?}");
    for part in because {
        assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
    }
    assert_eq!(
        ended.stderr.lines().count(),
        1,
        "one line: {}",
        ended.stderr
    );
    assert!(
        !ended.stderr.contains("::"),
        "no names of Rust: {}",
        ended.stderr
    );
    assert_eq!(ended.stdout, "");
}

fn serve(dir: &Path, arguments: &[&str]) -> Ended {
    run(dir, &[&["serve", "--ephemeral"], arguments].concat())
}

#[test]
fn wrong_settings_are_told_with_what_was_probably_meant() {
    let dir = directory();
    let rows: [(&str, &[&str]); 13] = [
        (
            "rate_limits.enable=false",
            &["`rate_limits.enable`", "did you mean `enabled`?"],
        ),
        (
            "serve_name=x",
            &["`serve_name`", "did you mean `server_name`?"],
        ),
        (
            "rate_limit.enabled=false",
            &["`rate_limit`", "did you mean `rate_limits`?"],
        ),
        ("zzz=1", &["`zzz`", "known here are server_name, listen"]),
        ("log.format=xml", &["`log.format`", "xml", "json"]),
        ("log.level=!!", &["`log.level`", "!!"]),
        ("listen=nowhere", &["`listen`"]),
        ("server_name=a b", &["server_name"]),
        (
            "registration.tokens=x",
            &["`registration.tokens`", "expected a sequence"],
        ),
        ("limits.entries_max=-1", &["`limits.entries_max`", "-1"]),
        (
            "limits.device_content_bytes_max=1000000000",
            &[
                "setting `limits.device_content_bytes_max`",
                "1000000000 is too much, 4194304 is the most",
            ],
        ),
        ("novalue", &["`--set novalue`", "KEY=VALUE"]),
        ("=1", &["`--set `", "the key is empty"]),
    ];
    for (pair, because) in rows {
        assert_refused(&serve(dir.path(), &["--set", pair]), because);
    }
}

#[test]
fn wrong_variables_and_files_are_told() {
    let dir = directory();
    for (name, value, because) in [
        (
            "KITBAG_LOG__LEVL",
            "x",
            &["`log.levl`", "did you mean `level`?"][..],
        ),
        ("KITBAG_NOTHING", "x", &["`nothing`"]),
        (
            "KITBAG_SYNC__TIMEOUT_MS_MAX",
            "soon",
            &["`sync.timeout_ms_max`", "environment"],
        ),
        (
            "KITBAG_SYNC__TIMEOUT_MS_MAX",
            "86400001",
            &["is too much, 86400000 is the most (in the environment)"],
        ),
        (
            "KITBAG_CONFIG",
            "missing.toml",
            &["there is no configuration file `missing.toml`"],
        ),
    ] {
        let mut command = kitbag(dir.path());
        let ended = run_with_input(command.args(["serve", "--ephemeral"]).env(name, value), "");
        assert_refused(&ended, because);
    }
    let missing = serve(dir.path(), &["--config", "missing.toml"]);
    assert_refused(&missing, &["there is no configuration file `missing.toml`"]);
    for (text, because) in [
        ("[log]\nlevl = \"x\"", "did you mean `level`?"),
        ("server_name = 5", "`server_name`"),
        ("server_name = [", "configuration"),
    ] {
        fs::write(dir.path().join("kitbag.toml"), text).unwrap();
        let ended = serve(dir.path(), &["--config", "kitbag.toml"]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(because), "{}", ended.stderr);
    }
}

/// The file, then the environment, then the command line.
#[test]
fn the_later_source_wins() {
    let dir = directory();
    let file = "server_name = \"file.example\"\nlisten = \"127.0.0.1:1\"\n";
    fs::write(dir.path().join("kitbag.toml"), file).unwrap();
    let start = |change: &dyn Fn(&mut std::process::Command)| {
        let mut command = kitbag(dir.path());
        command.args(["serve", "--ephemeral"]);
        change(&mut command);
        let server = Server::start_as(&mut command);
        let name = server.line("server name:");
        server.stop();
        name
    };
    let by_file = start(&|command| {
        command.args(["--config", "kitbag.toml"]);
    });
    assert_eq!(by_file, "file.example");
    let by_environment = start(&|command| {
        command
            .env("KITBAG_CONFIG", "kitbag.toml")
            .env("KITBAG_SERVER_NAME", "env.example");
    });
    assert_eq!(by_environment, "env.example");
    let by_flag = start(&|command| {
        command
            .env("KITBAG_SERVER_NAME", "env.example")
            .args(["--server-name", "flag.example"]);
    });
    assert_eq!(by_flag, "flag.example");
    let by_set = start(&|command| {
        command.env("KITBAG_SERVER_NAME", "env.example");
        command.args(["--set", "server_name=set.example"]);
    });
    assert_eq!(by_set, "set.example");
}

#[test]
fn values_of_all_forms_can_be_set() {
    let dir = directory();
    let server = Server::ephemeral(
        dir.path(),
        &[
            "--set",
            "registration.tokens=[\"a=b\", \"c,d\"]",
            "--set",
            "public_base_url=https://kitbag.example/?a=b",
            "--set",
            "registration.mode=\"token\"",
            "--set",
            "log.level=warn,kitbag_http=debug",
            "--set",
            "rate_limits.enabled=false",
            "--set",
            "sync.timeout_ms_max = 5",
        ],
    );
    let client = server.client();
    let validity = "/_matrix/client/v1/register/m.login.registration_token/validity";
    for (token, valid) in [("a=b", true), ("c,d", true), ("a", false)] {
        let answer = client.send("GET", &format!("{validity}?token={token}"), "");
        assert_eq!(answer.json()["valid"], valid, "{token}");
    }
    let well_known = client.send("GET", "/.well-known/matrix/client", "").json();
    assert_eq!(
        well_known["m.homeserver"]["base_url"],
        "https://kitbag.example/?a=b"
    );
    let ended = server.stop();
    assert!(
        ended.stderr.contains("answered"),
        "the level was set: {}",
        ended.stderr
    );
    assert!(!ended.stderr.contains("INFO"), "{}", ended.stderr);
}

#[test]
fn tables_can_be_set_by_the_environment() {
    let dir = directory();
    let mut command = kitbag(dir.path());
    command.args(["serve", "--ephemeral"]);
    command.env("KITBAG_REGISTRATION__TOKENS", "[\"x\"]");
    command.env("KITBAG_REGISTRATION__MODE", "token");
    let server = Server::start_as(&mut command);
    assert_eq!(server.line("may register:"), "whoever has a token");
    server.stop();
}

/// The example lists every setting at its default.
#[test]
fn the_example_is_read() {
    let example = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/kitbag.example.toml"
    );
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &["--config", example]);
    assert_eq!(server.client().versions().status, 200);
    server.stop();
}

#[test]
fn flags_that_exclude_each_other_are_refused() {
    let dir = directory();
    let both = serve(dir.path(), &["--data", "data"]);
    assert_eq!(both.code, Some(2));
    assert!(
        both.stderr
            .contains("'--ephemeral' cannot be used with '--data <DIR>'"),
        "{both:?}"
    );
}
