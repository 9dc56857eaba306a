//! What clients may not do for ever: send slowly, not read, hold connections.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use super::wire::Wire;
use super::{Listening, PATIENCE, assert_between, versions};
use crate::support::{Call, Setup};

const SHORT: Duration = Duration::from_millis(200);
const A_WHILE: Duration = Duration::from_millis(300);

fn impatient(setup: &mut Setup) {
    setup.settings.listener.header_timeout_ms = 200;
    setup.settings.listener.body_timeout_ms = 200;
}

#[tokio::test]
async fn heads_that_come_slowly_or_not_at_all_end_the_connection() {
    let listening = Listening::with(impatient).await;
    let started = Instant::now();
    let mut silent = listening.connect().await;
    let mut slow = listening.connect().await;
    slow.send("GET /_matrix/client/ver").await;
    let mut idle = listening.connect().await;
    idle.send(versions()).await;
    assert_eq!(idle.reply().await.status, 200);
    for wire in [&mut silent, &mut slow, &mut idle] {
        wire.assert_closes().await;
    }
    assert_between(started, SHORT, SHORT * 15);
    listening.assert_alive().await;
}

#[tokio::test]
async fn a_request_that_takes_long_is_not_a_slow_head() {
    let listening = Listening::with(impatient).await;
    let sync = Call::get("/_matrix/client/v3/sync").by(&listening.alice);
    let since = listening.server.send(sync).await.json()["next_batch"].clone();
    let path = format!(
        "/_matrix/client/v3/sync?timeout=500&since={}",
        since.as_str().unwrap()
    );
    let mut wire = listening.connect().await;
    let started = Instant::now();
    wire.send(format!("{}\r\n", listening.head("GET", &path)))
        .await;
    assert_eq!(wire.reply().await.status, 200);
    assert_between(started, Duration::from_millis(500), PATIENCE);
}

/// Each look at it may fall between two requests.
#[tokio::test]
async fn a_connection_in_use_lives_on() {
    let listening = Listening::with(impatient).await;
    let mut wire = listening.connect().await;
    let started = Instant::now();
    while started.elapsed() < SHORT * 5 {
        wire.assert_pauses(Duration::from_millis(30)).await;
        wire.send(versions()).await;
        assert_eq!(wire.reply().await.status, 200);
    }
    let idle_since = Instant::now();
    wire.assert_closes().await;
    assert_between(idle_since, SHORT, SHORT * 15);
}

#[tokio::test]
async fn a_body_that_comes_slowly_is_a_408_and_the_end() {
    let listening = Listening::with(impatient).await;
    let mut wire = listening.connect().await;
    let started = Instant::now();
    let request = listening
        .put("a", "{}")
        .replace("content-length: 2", "content-length: 3");
    wire.send(request).await;
    wire.reply().await.assert_is(408, "M_UNKNOWN");
    wire.assert_closes().await;
    assert_between(started, SHORT, SHORT * 15);
    assert_eq!(listening.stored("a").await.0, 404);
}

/// Nobody waits for a body that no answer depends on.
#[tokio::test]
async fn a_refusal_does_not_wait_long_for_the_body() {
    let listening = Listening::with(impatient).await;
    let mut wire = listening.connect().await;
    let started = Instant::now();
    let request = listening
        .put("a", "")
        .replace("content-length: 0", "content-length: 9");
    wire.send(request.replace("Bearer", "Basic")).await;
    wire.reply().await.assert_is(401, "M_MISSING_TOKEN");
    assert_between(started, Duration::ZERO, SHORT * 15);
}

#[tokio::test]
async fn heads_over_the_limit_are_refused_and_closed() {
    let listening = Listening::start().await;
    // So long that the client is still sending when it is refused.
    let long = "x".repeat(3_000_000);
    let many = "a: b\r\n".repeat(200);
    let rows = [
        format!("GET /{long} HTTP/1.1\r\nhost: localhost\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {long}\r\n\r\n"),
        format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"),
    ];
    for request in rows {
        let mut wire = listening.connect().await;
        wire.send(&request).await;
        let status = wire.reply().await.status;
        assert!(
            matches!(status, 414 | 431),
            "{status} to {}",
            &request[..20]
        );
        wire.assert_closes().await;
    }
    listening.assert_alive().await;
}

#[tokio::test]
async fn heads_within_the_limit_are_read() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    let long = "x".repeat(7_900);
    wire.send(versions().replace("\r\n\r\n", &format!("\r\nx: {long}\r\n\r\n")))
        .await;
    assert_eq!(wire.reply().await.status, 200);
}

/// The body is much larger than what is taken out of courtesy: the answer must arrive all the same.
#[tokio::test]
async fn a_refusal_is_readable_while_much_is_still_being_sent() {
    let listening = Listening::start().await;
    let mut wire = listening.connect().await;
    let body = " ".repeat(3 * 1024 * 1024);
    wire.send(listening.put("a", &body).replace("Bearer", "Basic"))
        .await;
    wire.reply().await.assert_is(401, "M_MISSING_TOKEN");
    wire.send(versions()).await;
    assert_eq!(wire.reply().await.status, 200);
}

#[tokio::test]
async fn over_the_cap_connections_wait_and_are_then_served() {
    let listening = Listening::with(|setup| {
        setup.settings.listener.connections_max = NonZeroUsize::new(2).unwrap();
    })
    .await;
    let mut first = listening.connect().await;
    let mut second = listening.connect().await;
    for wire in [&mut first, &mut second] {
        wire.send(versions()).await;
        assert_eq!(wire.reply().await.status, 200);
    }
    let mut third = listening.connect().await;
    third.send(versions()).await;
    third.assert_silent(A_WHILE).await;
    drop(first);
    assert_eq!(third.reply().await.status, 200);
}

/// The only place is taken by a client that asks for much and reads nothing of it.
#[tokio::test]
async fn a_client_that_does_not_read_is_cut_off() {
    let listening = Listening::with(|setup| {
        setup.settings.listener.connections_max = NonZeroUsize::MIN;
        setup.settings.listener.write_timeout_ms = 300;
    })
    .await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
    let put = Call::put(listening.alice.global("a"), large).by(&listening.alice);
    assert_eq!(listening.server.send(put).await.status, 200);
    let mut stalled = listening.connect().await;
    // More than the system would keep for both ends.
    stalled.send(listening.get("a").repeat(40)).await;
    let started = Instant::now();
    listening.assert_alive().await;
    assert_between(started, SHORT, PATIENCE);
}

/// The only place is taken by a client that left while something of its next request waited.
#[tokio::test]
async fn a_client_that_left_is_not_waited_for_whatever_it_sent_ahead() {
    let listening = Listening::with(|setup| {
        setup.settings.listener.connections_max = NonZeroUsize::MIN;
    })
    .await;
    let (sync, _) = listening.waiting_sync().await;
    let head = sync.strip_suffix("\r\n").unwrap();
    let with_body = format!("{head}content-length: 2\r\n\r\n{{}}");
    for (sync, ahead, later) in [
        (&sync, "", ""),
        (&sync, "G", ""),
        (&sync, "", "G"),
        (&sync, &versions(), "G"),
        (&with_body, "", ""),
    ] {
        let mut wire = listening.connect().await;
        wire.send(format!("{sync}{ahead}")).await;
        wire.assert_silent(A_WHILE).await;
        wire.send(later).await;
        wire.assert_silent(A_WHILE).await;
        drop(wire);
        let started = Instant::now();
        listening.assert_alive().await;
        assert_between(started, Duration::ZERO, Duration::from_secs(10));
    }
}

/// What is written already is not the head of the next request.
#[tokio::test]
async fn a_client_that_reads_late_is_not_one_that_sends_no_head() {
    let listening = Listening::with(|setup| {
        setup.settings.listener.header_timeout_ms = 100;
    })
    .await;
    let sync = listening.large_sync().await;
    let mut wire = Wire::connect_narrow(listening.address).await;
    wire.send(format!("{sync}\r\n")).await;
    // More than the system keeps.
    wire.assert_pauses(Duration::from_millis(800)).await;
    assert!(wire.reply().await.body.len() > 8_000_000);
}

/// As long as something is read now and then, the answer goes on.
#[tokio::test]
async fn a_client_that_reads_slowly_gets_all() {
    let listening = Listening::with(|setup| {
        setup.settings.listener.write_timeout_ms = 1_000;
    })
    .await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
    let put = Call::put(listening.alice.global("a"), large.clone()).by(&listening.alice);
    assert_eq!(listening.server.send(put).await.status, 200);
    let mut wire = listening.connect().await;
    wire.send(listening.get("a").repeat(20)).await;
    let started = Instant::now();
    for _ in 0..20 {
        wire.assert_pauses(Duration::from_millis(70)).await;
        assert_eq!(wire.reply().await.body, large);
    }
    assert_between(started, Duration::from_millis(1_400), PATIENCE);
}
