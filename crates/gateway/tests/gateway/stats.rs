//! What the gateway counts of what it adds: each figure is one that an operator would miss.

use kitbag_client::{Client, Method, Request};
use kitbag_domain::Limits;
use kitbag_gateway::{Gateway, LookupStats, Protection};
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, json as answer};
use serde_json::json;
use tokio::sync::watch;

use crate::support::{Running, serve, set_up};
use crate::toy::{self, Stored, entry};

/// Writes that a session has at once: none comes back meanwhile.
const BURST: u32 = 10;

const USER: &str = "/_matrix/client/v3/user/@alice:x";

/// A toy that loses writes of one type, and logs out.
async fn homeserver() -> Scripted {
    let stored = Stored::default();
    let script = move |asked: Asked| -> http::Response<ScriptedBody> {
        match asked.target.split('?').next().unwrap() {
            "/_matrix/client/v3/logout" => answer(200, &json!({})),
            path if path.ends_with("/org.example.lost") && asked.method == Method::PUT => {
                answer(502, &json!({}))
            }
            _ => toy::answer(&asked, &stored),
        }
    };
    Scripted::start(move |asked| {
        let answer = script(asked);
        async move { answer }
    })
    .await
}

/// A gateway before it that can be looked into, and a client.
struct Case {
    gateway: Gateway,
    client: Client,
    _running: Running,
    upstream: Scripted,
}

impl Case {
    async fn start() -> Self {
        let upstream = homeserver().await;
        let gateway = set_up(&upstream.url(), |settings| {
            settings.protect.push_rules = Protection::Observe;
            settings.msc4547.enabled = true;
            settings.writes.burst = BURST;
            settings.writes.per_minute = 1;
        });
        let gateway = gateway.unwrap();
        let (stop, stopping) = watch::channel(false);
        let running = serve(gateway.clone(), stop, stopping).await;
        Self {
            gateway,
            client: Client::new(&running.url).unwrap(),
            _running: running,
            upstream,
        }
    }

    async fn send(&self, request: Request, status: u16) {
        let response = self.client.send(request).await.unwrap();
        assert_eq!(response.status, status, "{:?}", response.body);
    }

    /// Puts global account data of alice.
    async fn put(&self, kind: &str, token: &str, body: impl Into<bytes::Bytes>, status: u16) {
        let request = Request::new(Method::PUT, format!("{USER}/account_data/{kind}"));
        let request = request.token(token).header("user-agent", "Cinny/4.0");
        self.send(request.body(body), status).await;
    }

    fn refusals(&self, reason: &str) -> u64 {
        let refusals = self.gateway.stats().http.refusals.into_iter();
        let of_reason = refusals.filter(|refused| refused.reason == reason);
        of_reason.map(|refused| refused.count).sum()
    }
}

#[tokio::test]
async fn protected_writes_are_counted_by_type_outcome_and_program() {
    let case = Case::start().await;
    let request = Request::new(Method::DELETE, format!("{USER}/account_data/m.push_rules"));
    let request = request
        .token("alice.PHONE")
        .header("user-agent", "Element/1");
    // The toy deletes nothing, and what does not go through is not observed.
    case.send(request, 404).await;
    for (kind, status) in [
        ("m.push_rules", 200),
        ("m.push_rules", 200),
        ("m.fully_read", 405),
    ] {
        case.put(kind, "alice.PHONE", "{}", status).await;
    }
    let request = Request::new(Method::PUT, format!("{USER}/account_data/m.push_rules"));
    let request = request
        .token("alice.PHONE")
        .header("user-agent", "Element/1");
    case.send(request.body("{}"), 200).await;
    let told = case.gateway.stats().protected_writes.into_iter();
    let told = told.filter(|row| row.count > 0);
    let told: Vec<_> = told
        .map(|row| (row.event_type, row.outcome, row.agent, row.count))
        .collect();
    let expected = [
        ("m.fully_read", "refused", "cinny", 1),
        ("m.push_rules", "observed", "cinny", 2),
        ("m.push_rules", "observed", "element", 1),
    ];
    assert_eq!(told, expected);
}

#[tokio::test]
async fn what_is_remembered_is_counted_where_it_is_looked_for() {
    let case = Case::start().await;
    let told = |hits, misses| {
        ["devices", "identities"].map(|memory| LookupStats {
            memory,
            hits,
            misses,
        })
    };
    assert_eq!(case.gateway.stats().lookups, told(0, 0));
    for expected in [told(0, 1), told(1, 1), told(2, 1)] {
        case.send(entry(Method::GET, "PHONE", "", "alice.PHONE"), 404)
            .await;
        assert_eq!(case.gateway.stats().lookups, expected);
    }
}

#[tokio::test]
async fn entries_that_are_emptied_are_counted_by_why() {
    let case = Case::start().await;
    let emptied = || -> Vec<(&str, u64)> {
        let emptied = case.gateway.stats().emptied_entries.into_iter();
        emptied.filter(|(_, count)| *count > 0).collect()
    };
    let gone = "org.matrix.msc4331.device_account_data";
    let put = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{}");
    case.send(put, 200).await;
    assert_eq!(emptied(), []);
    let logout = Request::new(Method::POST, "/_matrix/client/v3/logout").token("alice.PHONE");
    case.send(logout.body("{}"), 200).await;
    assert_eq!(emptied(), [("logout", 1)]);
    // Past the gateway, as it were: the toy does not have such a device.
    let past = Client::new(&case.upstream.url()).unwrap();
    for kind in ["org.example.a", "org.example.b"] {
        let path = format!("{USER}/account_data/{gone}.GONE.{kind}");
        let put = Request::new(Method::PUT, path).token("alice.LAPTOP");
        assert_eq!(past.send(put.body("{}")).await.unwrap().status, 200);
    }
    case.send(entry(Method::GET, "GONE", "", "alice.LAPTOP"), 404)
        .await;
    assert_eq!(emptied(), [("gone", 2), ("logout", 1)]);
}

#[tokio::test]
async fn fences_and_writes_beyond_a_limit_are_counted() {
    let case = Case::start().await;
    let fences = || {
        let stats = case.gateway.stats();
        (stats.fences, stats.fences_set)
    };
    assert_eq!(fences(), (0, 0));
    case.put("org.example.lost", "alice.PHONE", "{}", 504).await;
    assert_eq!(fences(), (1, 1));
    case.put("org.example.lost", "alice.PHONE", "{}", 503).await;
    assert_eq!(fences(), (1, 1));
    let limit = usize::try_from(Limits::default().content_bytes_max).unwrap();
    let large = vec![b' '; limit + 1];
    assert_eq!(case.refusals("too_large"), 0);
    case.put("org.example.a", "alice.PHONE", large, 413).await;
    assert_eq!(case.refusals("too_large"), 1);
    for _ in 3..BURST {
        case.put("org.example.a", "alice.PHONE", "{}", 200).await;
    }
    assert_eq!(case.refusals("too_many_writes"), 0);
    for times in 1..=2 {
        case.put("org.example.a", "alice.PHONE", "{}", 429).await;
        assert_eq!(case.refusals("too_many_writes"), times);
    }
}
