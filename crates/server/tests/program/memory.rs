//! What a server takes of the machine's memory, and gives back.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{PATIENCE, Server, directory};

const MEBIBYTE: u64 = 1024 * 1024;
/// What one check of a password needs: Argon2's memory.
const CHECK_BYTES: u64 = 19 * MEBIBYTE;
/// Checks at once.
const CHECKS: usize = 4;
/// What a server may have more than before once a load is gone: less than one check's memory.
const REST_BYTES_MAX: u64 = CHECK_BYTES / 2;

#[test]
fn memory_of_password_checks_is_given_back_while_the_server_idles() {
    let dir = directory();
    let arguments = ["passwords.parallel=4", "rate_limits.enabled=false"];
    let arguments = arguments.map(|setting| ["--set", setting]);
    let server = Server::ephemeral(dir.path(), &arguments.concat());
    let client = server.client();
    let before = server.resident_bytes();
    client.register("alice", "wordpass");
    thread::scope(|scope| {
        for _ in 0..CHECKS {
            scope.spawn(|| assert_eq!(client.login("alice", "wordpass").status, 200));
        }
    });
    let deadline = Instant::now() + PATIENCE;
    while server.resident_bytes() > before + REST_BYTES_MAX {
        let grown = (server.resident_bytes() - before) / MEBIBYTE;
        assert!(Instant::now() < deadline, "{grown} MiB were not given back");
        thread::sleep(Duration::from_millis(20));
    }
    server.stop();
}

#[test]
fn a_server_starts_without_computing_a_password_hash() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &[]);
    let resident = server.resident_bytes();
    // The program's own pages among them: those of a test build are more than those of a release.
    assert!(resident < 2 * CHECK_BYTES, "{} MiB", resident / MEBIBYTE);
    server.stop();
}
