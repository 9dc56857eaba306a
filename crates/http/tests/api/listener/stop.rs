//! The clean stop: what is under way is answered, everything else ends.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kitbag_domain::{EntryStore as _, StoreError};
use kitbag_testkit::global;

use super::{Listening, PATIENCE, assert_between, versions};
use crate::listener::wire::Wire;
use crate::support::{STEPS, SteppingStore};

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
    let (sync, since) = listening.waiting_sync().await;
    let mut waiting = listening.connect().await;
    // The first answer tells that the second request, of the same packet, is under way.
    waiting.send(format!("{}{sync}", versions())).await;
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
    assert!(reply.body.contains(&since), "{reply:?}");
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

/// A server over the real store, and a sync that waits.
async fn with_waiting_sync(stepping: &SteppingStore) -> (Listening, Wire) {
    let store = Arc::clone(&stepping.store);
    let listening = Listening::with(|setup| setup.store = Some(store)).await;
    let (sync, _) = listening.waiting_sync().await;
    let mut waiting = listening.connect().await;
    waiting.send(format!("{}{sync}", versions())).await;
    assert_eq!(waiting.reply().await.status, 200);
    (listening, waiting)
}

/// A commit stands at a step when the server stops: those who wait are answered without it, its
/// writer is answered once it is done, and only then does the server end.
#[tokio::test]
async fn a_write_whose_commit_is_under_way_is_answered_and_kept() {
    for step in STEPS {
        let stepping = SteppingStore::new();
        let (listening, mut waiting) = with_waiting_sync(&stepping).await;
        let user = listening.alice.user.clone();
        let mut stop = stepping.stop_at(step);
        let mut writing = listening.connect().await;
        writing.send(listening.put("app.test", "{\"n\":1}")).await;
        stop.reached().await;
        listening.server.stop.send_replace(true);
        let told = waiting.reply().await;
        assert_eq!(told.status, 200, "{step:?}");
        waiting.assert_closes().await;
        writing.assert_silent(Duration::from_millis(20)).await;
        assert!(!listening.serving.is_finished(), "{step:?}");
        stop.go_on();
        assert_eq!(writing.reply().await.status, 200, "{step:?}");
        writing.assert_closes().await;
        listening.stopped().await;
        let kept = stepping.reopened().get(&user, &global("app.test")).await;
        assert!(kept.unwrap().is_some(), "{step:?}");
    }
}

/// A commit that does not end in the time of a stop: the client gets no answer, which promises
/// nothing; the store goes on to commit it when it is closed.
#[tokio::test]
async fn a_commit_that_outlasts_the_stop_leaves_a_whole_write_and_no_answer() {
    for step in STEPS {
        let stepping = SteppingStore::new();
        let store = Arc::clone(&stepping.store);
        let listening = Listening::with(|setup| {
            setup.store = Some(store);
            setup.settings.listener.shutdown_timeout_ms = 50;
        })
        .await;
        let user = listening.alice.user.clone();
        let mut stop = stepping.stop_at(step);
        let mut writing = listening.connect().await;
        writing.send(listening.put("app.test", "{\"n\":1}")).await;
        stop.reached().await;
        let started = Instant::now();
        listening.stopped().await;
        assert_between(started, Duration::from_millis(50), Duration::from_secs(5));
        writing.assert_closes().await;
        stop.go_on();
        let kept = stepping.reopened().get(&user, &global("app.test")).await;
        assert!(kept.unwrap().is_some(), "{step:?}");
        let closed = stepping.store.get(&user, &global("app.test")).await;
        assert!(
            matches!(closed, Err(StoreError::Unavailable(_))),
            "{step:?}"
        );
    }
}

/// A body of which a part is there when the server stops is read to its end, and written.
#[tokio::test]
async fn a_body_that_is_being_read_is_waited_for() {
    let listening = Listening::start().await;
    let mut half = listening.connect().await;
    let put = listening.put("app.test", "{\"n\":1}");
    let (first, rest) = put.split_at(put.len() - 4);
    half.send(format!("{}{first}", versions())).await;
    assert_eq!(half.reply().await.status, 200);
    listening.server.stop.send_replace(true);
    half.assert_silent(Duration::from_millis(20)).await;
    assert!(!listening.serving.is_finished());
    half.send(rest).await;
    assert_eq!(half.reply().await.status, 200);
    half.assert_closes().await;
    assert_eq!(listening.stored("app.test").await.0, 200);
    listening.stopped().await;
}
