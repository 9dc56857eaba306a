//! `kitbag_http::serve` on a real listener, spoken to byte by byte: time is the machine's here.

mod bounds;
mod requests;
mod stop;
mod wire;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::support::{Call, Server, Session, Setup};
use wire::Wire;

/// What every wait of these tests ends with at last: far more than any of them needs.
const PATIENCE: Duration = Duration::from_secs(20);

/// A server on a port of its own, and a user.
struct Listening {
    server: Server,
    alice: Session,
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Listening {
    async fn start() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let server = Server::with(change);
        let alice = server.user("alice").await;
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopping = server.stop.subscribe();
        let serving = tokio::spawn(kitbag_http::serve(listener, server.edge.clone(), stopping));
        Self {
            server,
            alice,
            address,
            serving,
        }
    }

    async fn connect(&self) -> Wire {
        Wire::connect(self.address).await
    }

    /// Returns the head of a request by the user, up to where more lines could follow.
    fn head(&self, method: &str, path: &str) -> String {
        let token = &self.alice.token;
        format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {token}\r\n")
    }

    fn put(&self, event_type: &str, body: &str) -> String {
        let head = self.head("PUT", &self.alice.global(event_type));
        format!("{head}content-length: {}\r\n\r\n{body}", body.len())
    }

    fn get(&self, event_type: &str) -> String {
        format!("{}\r\n", self.head("GET", &self.alice.global(event_type)))
    }

    /// Returns a sync with nothing to tell, which waits for a minute, and the token that it bears.
    async fn waiting_sync(&self) -> (String, String) {
        let sync = Call::get("/_matrix/client/v3/sync").by(&self.alice);
        let sync = self.server.send(sync).await.json();
        let since = sync["next_batch"].as_str().unwrap();
        let path = format!("/_matrix/client/v3/sync?timeout=60000&since={since}");
        (format!("{}\r\n", self.head("GET", &path)), since.to_owned())
    }

    /// Stores 8 MB: more than the system keeps of an answer. Returns the head of a sync
    /// that tells all of it.
    async fn large_sync(&self) -> String {
        let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
        for event_type in ["a", "b", "c", "d", "e", "f", "g", "h"] {
            let put = Call::put(self.alice.global(event_type), large.clone());
            let put = put.by(&self.alice);
            assert_eq!(self.server.send(put).await.status, 200);
        }
        self.head("GET", "/_matrix/client/v3/sync?timeout=0")
    }

    /// Returns what is stored, by another way than the listener.
    async fn stored(&self, event_type: &str) -> (u16, String) {
        let call = Call::get(self.alice.global(event_type)).by(&self.alice);
        let reply = self.server.send(call).await;
        (reply.status, reply.text().to_owned())
    }

    /// Checks that the server still answers others.
    async fn assert_alive(&self) {
        let mut wire = self.connect().await;
        wire.send(&versions()).await;
        assert_eq!(wire.reply().await.status, 200);
    }
}

fn versions() -> String {
    "GET /_matrix/client/versions HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned()
}

#[track_caller]
fn assert_between(started: Instant, least: Duration, most: Duration) {
    let took = started.elapsed();
    assert!(took >= least && took < most, "it took {took:?}");
}
