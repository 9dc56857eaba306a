//! What a server takes of the machine's memory, and gives back.

use std::fmt::Debug;
use std::io::Write as _;
use std::ops::RangeBounds;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Server, directory, entry};

const MEBIBYTE: u64 = 1024 * 1024;
/// What one check of a password needs: Argon2's memory.
const CHECK_BYTES: u64 = 19 * MEBIBYTE;
/// Checks at once.
const CHECKS: usize = 4;
/// Requests at once, whose bodies never end.
const REQUESTS: usize = 200;
/// What has arrived of each body: more than an allocator keeps by for the next request.
const BODY_BYTES: usize = 48 * 1024;
/// Far longer than it takes.
const PATIENCE: Duration = Duration::from_secs(30);
/// The same where threads checked passwords: ten seconds later they end, which gives back too.
const PATIENCE_WITH_CHECKS: Duration = Duration::from_secs(8);
/// What a server may have more than before once a load is gone: less than one check's memory.
const REST_BYTES_MAX: u64 = CHECK_BYTES / 2;

#[test]
fn memory_of_password_checks_is_given_back_while_the_server_idles() {
    let dir = directory();
    let arguments = ["passwords.parallel=4", "rate_limits.enabled=false"];
    let arguments = arguments.map(|setting| ["--set", setting]);
    let server = Server::ephemeral(dir.path(), &arguments.concat());
    let client = server.client();
    let before = server.memory_bytes();
    client.register("alice", "wordpass");
    thread::scope(|scope| {
        for _ in 0..CHECKS {
            scope.spawn(|| assert_eq!(client.login("alice", "wordpass").status, 200));
        }
    });
    wait_for_memory(&server, ..before + REST_BYTES_MAX, PATIENCE_WITH_CHECKS);
    server.stop();
}

#[test]
fn memory_of_requests_is_given_back_while_the_server_idles() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &[]);
    let alice = server.client().register("alice", "wordpass");
    let body = format!(r#"{{"text":"{}"}}"#, "x".repeat(BODY_BYTES));
    let request = alice.request("PUT", &entry("alice", "org.example"), &body);
    let unfinished = &request.as_bytes()[..request.len() - 1];
    wait_for_memory(&server, ..CHECK_BYTES, PATIENCE);
    let before = server.memory_bytes();
    let connections: Vec<_> = (0..REQUESTS)
        .map(|_| {
            let mut connection = alice.connect().unwrap();
            connection.write_all(unfinished).unwrap();
            connection
        })
        .collect();
    let taken = (REQUESTS * BODY_BYTES) as u64;
    wait_for_memory(&server, before + taken.., PATIENCE);
    drop(connections);
    wait_for_memory(&server, ..before + taken / 2, PATIENCE);
    server.stop();
}

/// Waits until the server has so many bytes, and asks it for nothing meanwhile.
#[expect(
    clippy::disallowed_methods,
    reason = "nobody tells of memory that another process took or gave back, and there is no \
              runtime here"
)]
fn wait_for_memory(server: &Server, bytes: impl RangeBounds<u64> + Debug, patience: Duration) {
    let deadline = Instant::now() + patience;
    loop {
        let now = server.memory_bytes();
        if bytes.contains(&now) {
            return;
        }
        assert!(Instant::now() < deadline, "{now} bytes, not {bytes:?}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_starts_without_computing_a_password_hash() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &[]);
    let bytes = server.memory_bytes();
    assert!(bytes < CHECK_BYTES, "{} MiB", bytes / MEBIBYTE);
    server.stop();
}
