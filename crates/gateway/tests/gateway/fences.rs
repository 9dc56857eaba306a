//! Entries that are not written for a while, as the outcome of a write is not known.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::stream;
use http_body_util::StreamBody;
use hyper::header::HeaderValue;
use kitbag_client::{Client, Method, Request};
use kitbag_domain::Limits;
use kitbag_gateway::Settings;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, json as answer, whole};
use serde_json::json;
use tokio::sync::Semaphore;

use crate::compare::{Contents, DEADLINE, PATH, homeserver_without, on, plain, put};
use crate::support::{Running, gateway_at, told};

/// A homeserver that does not answer the first write of all, in some way.
async fn homeserver_that<F>(fails: F) -> Scripted
where
    F: Fn() -> Option<hyper::Response<ScriptedBody>> + Clone + Send + Sync + 'static,
{
    // What is asked for before an entry of a device is written.
    let known = [
        ("/_matrix/client/v3/devices/D", r#"{"device_id":"D"}"#),
        ("/_matrix/client/v3/sync", r#"{"next_batch":"s"}"#),
    ];
    let known = known.map(|(path, content)| (path.to_owned(), content.to_owned()));
    let contents: Contents = Arc::new(Mutex::new(known.into()));
    let failed = Arc::new(Semaphore::new(1));
    Scripted::start(move |asked: Asked| {
        let (contents, failed) = (Arc::clone(&contents), Arc::clone(&failed));
        let fails = fails.clone();
        async move {
            let is_first = asked.method == Method::PUT
                && failed.try_acquire().is_ok_and(|one| {
                    one.forget();
                    true
                });
            match is_first.then(fails) {
                None => plain(&asked, &contents),
                Some(Some(response)) => response,
                // Longer than anybody waits.
                Some(None) => std::future::pending().await,
            }
        }
    })
    .await
}

async fn fenced(
    upstream: &str,
    change: impl FnOnce(&mut Settings),
) -> (Running, Arc<TestClock>, Client) {
    let clock = Arc::<TestClock>::default();
    let change = |settings: &mut Settings| {
        on(settings);
        change(settings);
    };
    let gateway = gateway_at(upstream, Arc::clone(&clock), Limits::default(), change).await;
    let client = Client::new(&gateway.url).unwrap();
    (gateway, clock, client)
}

/// Sees that the entry is fenced, and others are not.
async fn see_the_fence(client: &Client) {
    let other = PATH.replace("example.a", "example.b");
    see_the_fence_of(client, PATH, &other).await;
}

/// Sees that one entry is fenced, and another is not.
async fn see_the_fence_of(client: &Client, path: &str, other: &str) {
    for path in [path, &format!("{path}?expect_revision_id=1")] {
        let response = put(client, "kt_a", path, "{}").await;
        assert_eq!(told(&response), (503, json!("M_UNKNOWN")), "{path}");
        assert_eq!(response.header("retry-after"), Some("30"));
    }
    assert_eq!(put(client, "kt_a", other, "{}").await.status, 200);
}

#[tokio::test]
async fn a_fence_ends_after_its_time_whatever_the_clock_says() {
    const FENCE: Duration = Duration::from_millis(500);
    for moved_ms in [-86_400_000, 86_400_000] {
        let upstream = homeserver_that(|| Some(whole(504, "")));
        let upstream = upstream.await;
        let short = |settings: &mut Settings| settings.msc4547.fence_ms = 500;
        let (_gateway, clock, client) = fenced(&upstream.url(), short).await;
        let started = Instant::now();
        assert_eq!(put(&client, "kt_a", PATH, "{}").await.status, 504);
        clock.set(TestClock::START_MS.saturating_add_signed(moved_ms));
        loop {
            let status = put(&client, "kt_a", PATH, "{}").await.status;
            if started.elapsed() < FENCE {
                assert_eq!(status, 503, "{moved_ms}");
            } else if status == 200 {
                break;
            }
            assert!(started.elapsed() < DEADLINE, "{moved_ms} {status}");
        }
    }
}

#[tokio::test]
async fn an_entry_is_fenced_behind_a_write_that_nobody_answered() {
    let upstream = homeserver_that(|| None).await;
    let soon = |settings: &mut Settings| settings.upstream.ask_timeout_ms = 1_500;
    let (_gateway, _clock, client) = fenced(&upstream.url(), soon).await;
    let response = put(&client, "kt_a", PATH, "{}").await;
    assert_eq!(told(&response), (504, json!("M_UNKNOWN")));
    assert_eq!(response.header("retry-after"), Some("30"));
    see_the_fence(&client).await;
}

#[tokio::test]
async fn an_entry_is_fenced_behind_a_write_whose_connection_was_lost() {
    let lost = || {
        let lost = Err(std::io::Error::other("of the test"));
        let body = StreamBody::new(stream::iter([lost]));
        Some(hyper::Response::new(ScriptedBody::new(body)))
    };
    let upstream = homeserver_that(lost).await;
    let (_gateway, _clock, client) = fenced(&upstream.url(), |_| {}).await;
    let response = put(&client, "kt_a", PATH, "{}").await;
    assert_eq!(told(&response), (504, json!("M_UNKNOWN")));
    see_the_fence(&client).await;
}

#[tokio::test]
async fn a_write_that_was_never_sent_fences_nothing() {
    let upstream = homeserver_without().await;
    let anew = |settings: &mut Settings| settings.upstream.idle_connections_max = 0;
    let (_gateway, _clock, client) = fenced(&upstream.url(), anew).await;
    // Who asks is known from here on.
    assert_eq!(put(&client, "kt_a", PATH, "{}").await.status, 200);
    drop(upstream);
    for _ in 0..2 {
        assert_eq!(put(&client, "kt_a", PATH, "{}").await.status, 502);
    }
}

#[tokio::test]
async fn an_entry_is_fenced_behind_a_write_of_which_a_proxy_does_not_know() {
    let below = |path: &str| format!("/_matrix/client/v3/user/@a:x/{path}");
    let entries = ["a", "b"].map(|kind| {
        [
            below(&format!("account_data/org.example.{kind}")),
            below(&format!("rooms/!r:x/account_data/org.example.{kind}")),
            below(&format!("devices/D/account_data/org.example.{kind}")),
            // All tags of a room are one entry.
            below(&format!("rooms/!{kind}:x/tags/u.a")),
        ]
    });
    let [entries, others] = entries;
    for (path, other) in entries.iter().zip(&others) {
        for status in [502, 503, 504, 520, 524] {
            let upstream =
                homeserver_that(move || Some(whole(status, "<html>of the proxy</html>")));
            let upstream = upstream.await;
            let (_gateway, _clock, client) = fenced(&upstream.url(), |_| {}).await;
            let response = put(&client, "kt_a", path, "{}").await;
            let unknown = (504, json!("M_UNKNOWN"));
            assert_eq!(told(&response), unknown, "{status} {path}");
            assert_eq!(response.header("retry-after"), Some("30"), "{status}");
            see_the_fence_of(&client, path, other).await;
        }
    }
}

#[tokio::test]
async fn an_entry_is_fenced_behind_a_write_that_somebody_in_between_answered() {
    for (status, body) in [(200, "<html>"), (202, "{}"), (302, "")] {
        let upstream = homeserver_that(move || Some(whole(status, body))).await;
        let (_gateway, _clock, client) = fenced(&upstream.url(), |_| {}).await;
        let response = put(&client, "kt_a", PATH, "{}").await;
        assert_eq!(told(&response), (504, json!("M_UNKNOWN")), "{status}");
        see_the_fence(&client).await;
    }
}

/// As a homeserver that packs its answers, and clients that take such.
#[tokio::test]
async fn a_packed_answer_is_not_taken_for_that_of_somebody_in_between() {
    let contents = Contents::default();
    let upstream = Scripted::start(move |asked: Asked| {
        let contents = Arc::clone(&contents);
        async move {
            let mut response = plain(&asked, &contents);
            if asked.headers.contains_key("accept-encoding") {
                let packed = HeaderValue::from_static("gzip");
                response.headers_mut().insert("content-encoding", packed);
                *response.body_mut() = whole(200, "\u{1f}\u{8b}").into_body();
            }
            response
        }
    })
    .await;
    let (_gateway, _clock, client) = fenced(&upstream.url(), |_| {}).await;
    let request = Request::new(Method::PUT, PATH).token("kt_a").body("{}");
    let response = client.send(request.header("accept-encoding", "gzip")).await;
    assert_eq!(response.unwrap().status, 200);
}

#[tokio::test]
async fn a_write_that_the_homeserver_refused_fences_nothing() {
    for status in [404, 429, 500, 501] {
        let refusal = json!({"errcode": "M_UNKNOWN", "error": ""});
        let refuses = move || Some(answer(status, &refusal));
        let upstream = homeserver_that(refuses).await;
        let (_gateway, _clock, client) = fenced(&upstream.url(), |_| {}).await;
        assert_eq!(put(&client, "kt_a", PATH, "{}").await.status, status);
        assert_eq!(put(&client, "kt_a", PATH, "{}").await.status, 200);
    }
}
