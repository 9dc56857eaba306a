//! What a server takes of the machine's memory, and gives back.

use std::io::{Read as _, Write as _};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Server, directory};

const MEBIBYTE: u64 = 1024 * 1024;
/// What one check of a password needs: Argon2's memory.
const CHECK_BYTES: u64 = 19 * MEBIBYTE;
/// Checks at once.
const CHECKS: usize = 4;
/// Connections at once, fewer than a process may have by default.
const CONNECTIONS: usize = 400;
/// Behind the answer to it a connection stays open.
const REQUEST: &[u8] = b"GET /_matrix/client/versions HTTP/1.1\r\nhost: localhost\r\n\r\n";
/// What each takes at the least.
const CONNECTION_BYTES: u64 = 8 * 1024;
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
    let before = server.resident_bytes();
    client.register("alice", "wordpass");
    thread::scope(|scope| {
        for _ in 0..CHECKS {
            scope.spawn(|| assert_eq!(client.login("alice", "wordpass").status, 200));
        }
    });
    wait_for_memory(&server, before + REST_BYTES_MAX, PATIENCE_WITH_CHECKS);
    server.stop();
}

#[test]
fn memory_of_connections_is_given_back_while_the_server_idles() {
    let dir = directory();
    let server = Server::ephemeral(dir.path(), &[]);
    let client = server.client();
    let before = server.resident_bytes();
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let mut connection = client.connect().unwrap();
            connection.write_all(REQUEST).unwrap();
            connection.read_exact(&mut [0]).unwrap();
            connection
        })
        .collect();
    let taken = server.resident_bytes().saturating_sub(before);
    assert!(taken > CONNECTIONS as u64 * CONNECTION_BYTES, "{taken}");
    drop(connections);
    wait_for_memory(&server, before + taken / 2, PATIENCE);
    server.stop();
}

/// Waits until the server has no more than `bytes`, and asks it for nothing meanwhile.
#[expect(
    clippy::disallowed_methods,
    reason = "nobody tells of memory that another process gave back, and there is no runtime here"
)]
fn wait_for_memory(server: &Server, bytes: u64, patience: Duration) {
    let deadline = Instant::now() + patience;
    while server.resident_bytes() > bytes {
        let rest = server.resident_bytes().saturating_sub(bytes) / 1024;
        assert!(Instant::now() < deadline, "{rest} KiB too many were kept");
        thread::sleep(Duration::from_millis(20));
    }
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
