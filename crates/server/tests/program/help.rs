//! What the program says of itself: changed on purpose only.

use crate::support::{directory, run};

#[track_caller]
fn assert_help(arguments: &[&str], expected: &str) {
    let dir = directory();
    let ended = run(dir.path(), arguments);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    // Trailing spaces of clap's would not survive in a file.
    let lines: Vec<&str> = ended.stdout.lines().map(str::trim_end).collect();
    assert_eq!(lines.join("\n"), expected.trim_end(), "{}", ended.stdout);
}

#[test]
fn of_the_program() {
    assert_help(&["--help"], include_str!("help/kitbag.txt"));
}

#[test]
fn of_backup_and_restore() {
    assert_help(&["backup", "--help"], include_str!("help/backup.txt"));
    assert_help(&["restore", "--help"], include_str!("help/restore.txt"));
}

#[test]
fn of_check() {
    assert_help(&["check", "--help"], include_str!("help/check.txt"));
}

#[test]
fn of_data() {
    assert_help(&["data", "--help"], include_str!("help/data.txt"));
    for (command, expected) in [
        ("delete", include_str!("help/data_delete.txt")),
        ("get", include_str!("help/data_get.txt")),
        ("list", include_str!("help/data_list.txt")),
        ("put", include_str!("help/data_put.txt")),
    ] {
        assert_help(&["data", command, "--help"], expected);
    }
}

#[test]
fn of_devices() {
    assert_help(&["devices", "--help"], include_str!("help/devices.txt"));
    for (command, expected) in [
        ("list", include_str!("help/devices_list.txt")),
        ("report", include_str!("help/devices_report.txt")),
    ] {
        assert_help(&["devices", command, "--help"], expected);
    }
}

#[test]
fn of_doctor() {
    assert_help(&["doctor", "--help"], include_str!("help/doctor.txt"));
}

#[test]
fn of_gateway() {
    assert_help(&["gateway", "--help"], include_str!("help/gateway.txt"));
    let expected = include_str!("help/gateway_sweep.txt");
    assert_help(&["gateway", "sweep", "--help"], expected);
}

#[test]
fn of_push() {
    assert_help(&["push", "--help"], include_str!("help/push.txt"));
    assert_help(
        &["push", "explain", "--help"],
        include_str!("help/push_explain.txt"),
    );
}

#[test]
fn of_serve() {
    assert_help(&["serve", "--help"], include_str!("help/serve.txt"));
}

#[test]
fn of_user() {
    assert_help(&["user", "--help"], include_str!("help/user.txt"));
    assert_help(
        &["user", "add", "--help"],
        include_str!("help/user_add.txt"),
    );
    assert_help(
        &["user", "list", "--help"],
        include_str!("help/user_list.txt"),
    );
    assert_help(
        &["user", "password", "--help"],
        include_str!("help/user_password.txt"),
    );
    assert_help(
        &["user", "deactivate", "--help"],
        include_str!("help/user_deactivate.txt"),
    );
}

#[test]
fn of_the_version() {
    assert_help(
        &["--version"],
        concat!("kitbag ", env!("CARGO_PKG_VERSION")),
    );
}

#[test]
fn without_a_command_the_help_is_an_error() {
    let dir = directory();
    let ended = run(dir.path(), &[]);
    assert_eq!(ended.code, Some(2));
    assert!(
        ended.stderr.contains("Usage: kitbag <COMMAND>"),
        "{ended:?}"
    );
}
