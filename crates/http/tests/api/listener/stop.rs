//! The clean stop: what is under way is answered, everything else ends.

use std::time::{Duration, Instant};

use super::{Listening, PATIENCE, assert_between, versions};
use crate::listener::wire::Wire;
use crate::support::Call;

impl Listening {
    async fn stopped(self) {
        self.server.stop.send_replace(true);
        tokio::time::timeout(PATIENCE, self.serving)
            .await
            .unwrap()
            .unwrap();
    }
}

#[tokio::test]
async fn waiting_syncs_are_answered_and_connections_end() {
    let listening = Listening::start().await;
    let sync = Call::get("/_matrix/client/v3/sync").by(&listening.alice);
    let since = listening.server.send(sync).await.json()["next_batch"].clone();
    let since = since.as_str().unwrap();
    let path = format!("/_matrix/client/v3/sync?timeout=60000&since={since}");
    let mut waiting = listening.connect().await;
    // The first answer tells that the second request, of the same packet, is under way.
    waiting
        .send(format!(
            "{}{}\r\n",
            versions(),
            listening.head("GET", &path)
        ))
        .await;
    assert_eq!(waiting.reply().await.status, 200);
    let mut idle = listening.connect().await;
    idle.send(versions()).await;
    assert_eq!(idle.reply().await.status, 200);
    let address = listening.address;
    let started = Instant::now();
    listening.stopped().await;
    assert_between(started, Duration::ZERO, Duration::from_secs(5));
    let reply = waiting.reply().await;
    assert_eq!(reply.status, 200);
    assert!(reply.body.contains(since), "{reply:?}");
    waiting.assert_closes().await;
    idle.assert_closes().await;
    assert!(
        Wire::try_connect(address).await.is_err(),
        "nobody listens any more"
    );
}

#[tokio::test]
async fn what_does_not_end_in_time_is_cut() {
    let listening = Listening::with(|setup| {
        setup.settings.listener.shutdown_timeout_ms = 300;
    })
    .await;
    let mut half_a_head = listening.connect().await;
    half_a_head.send(format!("{}GET /_mat", versions())).await;
    assert_eq!(half_a_head.reply().await.status, 200);
    let mut half_a_body = listening.connect().await;
    let put = listening
        .put("a", "{}")
        .replace("content-length: 2", "content-length: 3");
    half_a_body.send(format!("{}{put}", versions())).await;
    assert_eq!(half_a_body.reply().await.status, 200);
    let started = Instant::now();
    listening.stopped().await;
    assert_between(started, Duration::from_millis(300), Duration::from_secs(5));
}

#[tokio::test]
async fn without_connections_it_is_immediate() {
    let listening = Listening::start().await;
    listening.assert_alive().await;
    let started = Instant::now();
    listening.stopped().await;
    assert_between(started, Duration::ZERO, Duration::from_secs(2));
}
