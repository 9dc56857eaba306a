//! What the API counts, as the page of the private listener gets to see it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::http::Response;
use kitbag_domain::StoreError;
use kitbag_http::{RefusalStats, Stats};

use crate::support::{Call, Reply, Server, Session, Setup, poll_once};

const C3: &str = "/_matrix/client/v3";
const PAGE: &str = "the page";

/// A server whose figures can be read.
struct Counted {
    server: Server,
    stats: Arc<Mutex<Stats>>,
}

impl Counted {
    fn start() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let stats = Arc::new(Mutex::new(Stats::default()));
        let read = Arc::clone(&stats);
        let server = Server::with(|setup| {
            setup.render_metrics = Arc::new(move |stats| {
                *read.lock().unwrap() = stats;
                PAGE.to_owned()
            });
            change(setup);
        });
        Self { server, stats }
    }

    async fn send(&self, call: Call) -> Reply {
        self.server.send(call).await
    }

    async fn stats(&self) -> Stats {
        let reply = self.scrape().await;
        assert_eq!((reply.status, reply.text()), (200, PAGE));
        self.stats.lock().unwrap().clone()
    }

    async fn scrape(&self) -> Reply {
        let call = Call::get("/metrics");
        let private = self.server.edge.private();
        let answer = private.answer(call.peer, call.request());
        Reply::read(answer.await).await
    }

    /// Returns `(route, method, status, count)` of what was answered.
    async fn requests(&self) -> Vec<(String, &'static str, u16, u64)> {
        let routes = self.stats().await.routes.into_iter();
        let rows = routes.flat_map(|route| {
            let requests = route.requests.into_iter();
            requests.map(move |r| {
                (
                    route.route.to_string(),
                    r.method,
                    r.status.parse().unwrap(),
                    r.count,
                )
            })
        });
        rows.collect()
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_what_a_client_wrote() {
    let counted = Counted::start();
    let alice = counted.server.user("alice").await;
    let strange = |method: &str, path: &str| Call::new(method, path).by(&alice);
    for call in [
        Call::put(alice.global("app.secret"), "{}").by(&alice),
        Call::put(alice.global("app.other"), "{}").by(&alice),
        Call::get(alice.global("app.secret")).by(&alice),
        strange("HEAD", &alice.global("app.secret")),
        Call::get(alice.global("app.secret").replace("/v3/", "/r0/")).by(&alice),
        Call::get(alice.global("app.none")).by(&alice),
        Call::get(alice.global("app.secret")),
        Call::delete(alice.global("app.secret")).by(&alice),
        strange("BREW", &alice.global("app.secret")),
        strange("OPTIONS", &alice.global("app.secret")),
        strange("GET", "/_matrix/client/v3/app.secret"),
        strange("GET", "/app.secret/other"),
    ] {
        counted.send(call).await;
    }
    let entry = format!("{C3}/user/{{user}}/account_data/{{type}}");
    let row = |route: &str, method, status, count| (route.to_owned(), method, status, count);
    let expected = [
        row(&entry, "DELETE", 405, 1),
        row(&entry, "GET", 200, 2),
        row(&entry, "GET", 401, 1),
        row(&entry, "GET", 404, 1),
        row(&entry, "HEAD", 200, 1),
        row(&entry, "PUT", 200, 2),
        row(&entry, "other", 405, 1),
        row("preflight", "OPTIONS", 204, 1),
        row("unknown", "GET", 404, 2),
    ];
    assert_eq!(counted.requests().await, expected);
    let again = counted.requests().await;
    assert!(
        again.contains(&row("/metrics", "GET", 200, 1)),
        "scrapes too"
    );
    let routes = counted.stats().await.routes;
    let of_entry = routes.iter().find(|route| *route.route == *entry).unwrap();
    assert_eq!(of_entry.durations_us.count(), 9, "each has its time");
}

#[tokio::test]
async fn the_page_is_openmetrics_and_not_for_the_public() {
    let counted = Counted::start();
    let reply = counted.scrape().await;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    assert_eq!(reply.headers["content-type"], kind);
    counted
        .send(Call::get("/metrics"))
        .await
        .assert_is(404, "M_UNRECOGNIZED");
}

#[tokio::test]
async fn a_page_that_cannot_be_written_is_a_500_and_the_next_one_is_tried() {
    let counted = Counted::with(|setup| setup.render_metrics = Arc::new(|_| panic!("no page")));
    for _ in 0..2 {
        counted.scrape().await.assert_is(500, "M_UNKNOWN");
    }
}

#[tokio::test]
async fn refusals_are_counted_by_reason() {
    let counted = Counted::with(|setup| {
        setup.limits.quota.entries_max = 1;
        setup.limits.device_content_bytes_max = 10;
        setup.settings.rate_limits.enabled = true;
        setup.settings.rate_limits.refresh_burst = 1;
    });
    let alice = &counted.server.user("alice").await;
    let tablet = &counted.server.device(&alice.user, "TABLET").await;
    let put = |path: String| Call::put(path, r#"{"m.revision_id":"1"}"#).by(alice);
    let refresh = || Call::post(format!("{C3}/refresh"), r#"{"refresh_token":"x"}"#);
    let conflicting = format!("{}?expect_revision_id=x", alice.global("a"));
    let rows = [
        (
            put(alice.device_data("PHONE", "a")),
            "M_TOO_LARGE",
            "too_large",
        ),
        (
            put(alice.device_data("PHONE", "a")).by(tablet),
            "M_FORBIDDEN",
            "not_own_device",
        ),
        (
            put(alice.device_data("NONE", "a")),
            "M_NOT_FOUND",
            "no_such_device",
        ),
        (
            put(alice.global("m.push_rules")),
            "M_BAD_JSON",
            "server_managed",
        ),
        (
            put(alice.global("a")).token("kt_none"),
            "M_UNKNOWN_TOKEN",
            "unknown_token",
        ),
        (put(conflicting), "M_REVISION_ID_MISMATCH", "conflict"),
        (
            put(alice.global("b")),
            "M_USER_LIMIT_EXCEEDED",
            "quota_entries",
        ),
        (refresh(), "M_LIMIT_EXCEEDED", "rate_limited"),
        (Call::get("/nowhere"), "M_UNRECOGNIZED", "unknown_endpoint"),
    ];
    counted.send(put(alice.global("a"))).await.assert_ok();
    counted.send(refresh()).await;
    let count = async |errcode, reason| {
        let refusals = counted.stats().await.refusals;
        let is_it = |r: &&RefusalStats| (r.errcode, r.reason) == (errcode, reason);
        refusals
            .iter()
            .find(is_it)
            .map_or(0, |refusal| refusal.count)
    };
    for (call, errcode, reason) in rows {
        let path = call.path.clone();
        let before = count(errcode, reason).await;
        let reply = counted.send(call).await;
        assert_eq!(reply.json()["errcode"], errcode, "{path}: {reply:?}");
        assert_eq!(count(errcode, reason).await, before + 1, "{path}");
    }
}

fn sync(session: &Session, query: &str) -> Call {
    Call::get(format!("{C3}/sync?{query}")).by(session)
}

async fn since(counted: &Counted, session: &Session) -> String {
    let told = counted.send(sync(session, "")).await.assert_ok();
    told["next_batch"].as_str().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_waits_is_counted_while_it_does_and_kept_out_of_the_durations() {
    let counted = Counted::start();
    let alice = counted.server.user("alice").await;
    let since = since(&counted, &alice).await;
    let waiting = |timeout_ms: u64| {
        let call = sync(&alice, &format!("since={since}&timeout={timeout_ms}"));
        let edge = &counted.server.edge;
        Box::pin(edge.answer(call.peer, call.request()))
    };
    let mut first = waiting(30_000);
    assert!(poll_once(&mut first).is_pending());
    let stats = counted.stats().await;
    assert_eq!((stats.syncs_waiting, stats.sync_wakeups), (1, 0));

    // Woken by a change.
    counted
        .send(Call::put(alice.global("a"), "{}").by(&alice))
        .await
        .assert_ok();
    assert_eq!(first.await.status(), 200);
    let stats = counted.stats().await;
    assert_eq!((stats.syncs_waiting, stats.sync_wakeups), (0, 1));
    assert_eq!(stats.syncs_waited_us.count(), 1);
    let durations = |stats: &Stats| {
        let route = format!("{C3}/sync");
        let found = stats.routes.iter().find(|known| *known.route == *route);
        found.unwrap().durations_us.count()
    };
    assert_eq!(durations(&stats), 1, "the initial sync alone");

    // Given up by its client.
    let since = self::since(&counted, &alice).await;
    let call = sync(&alice, &format!("since={since}&timeout=30000"));
    let edge = counted.server.edge.clone();
    let mut left = Box::pin(edge.answer(call.peer, call.request()));
    assert!(poll_once(&mut left).is_pending());
    assert_eq!(counted.stats().await.syncs_waiting, 1);
    drop(left);
    assert_eq!(counted.stats().await.syncs_waiting, 0);

    // Ended by a refusal, since the device was logged out meanwhile.
    let call = sync(&alice, &format!("since={since}&timeout=30000"));
    let edge = counted.server.edge.clone();
    let mut refused = Box::pin(edge.answer(call.peer, call.request()));
    assert!(poll_once(&mut refused).is_pending());
    counted
        .send(Call::post(format!("{C3}/logout"), "").by(&alice))
        .await
        .assert_ok();
    let refused: Response<_> = tokio::time::timeout(Duration::from_secs(60), refused)
        .await
        .unwrap();
    assert_eq!(refused.status(), 401);
    let stats = counted.stats().await;
    assert_eq!((stats.syncs_waiting, stats.syncs_waited_us.count()), (0, 2));
    assert_eq!(durations(&stats), 2, "the two initial syncs alone");
}

#[tokio::test(start_paused = true)]
async fn a_wait_for_changes_that_fails_is_kept_out_of_the_durations() {
    let counted = Counted::start();
    let alice = counted.server.user("alice").await;
    let path = "/_kitbag/admin/v1/changes";
    let ask = |query: &str| Call::get(format!("{path}?{query}")).admin();
    let page = counted.send(ask("")).await.assert_ok();
    let since = page["next_batch"].as_str().unwrap();
    let mut waiting = Box::pin(counted.send(ask(&format!("since={since}&timeout=30000"))));
    assert!(poll_once(&mut waiting).is_pending());
    let put = Call::put(alice.device_data(alice.device.as_str(), "app.test"), "{}");
    counted.send(put.by(&alice)).await.assert_ok();
    let error = StoreError::Unavailable("the disk is away".to_owned());
    counted.server.store.fail_after(0, error);
    assert_eq!(waiting.await.status, 503);
    let stats = counted.stats().await;
    let found = stats.routes.iter().find(|known| *known.route == *path);
    let durations = found.unwrap().durations_us.count();
    assert_eq!((stats.syncs_waited_us.count(), durations), (1, 1));
}
