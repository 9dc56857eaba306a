//! Who may: the admin token, and no other, on the private listener alone.

use axum::http::{HeaderName, Method};
use serde_json::Value;

use super::{Lab, V1};
use crate::endpoints::{admin_calls, every_call};
use crate::support::{ADMIN_TOKEN, Call, LogCapture, Server, capture_log, poll_once};

/// Who asks.
#[derive(Clone, Copy, Debug)]
enum Asker {
    Nobody,
    User,
    WrongAdmin,
    Admin,
}

const ASKERS: [Asker; 4] = [Asker::Nobody, Asker::User, Asker::WrongAdmin, Asker::Admin];

impl Asker {
    fn asks(self, call: Call, lab: &Lab) -> Call {
        let call = call.without_header("authorization");
        match self {
            Self::Nobody => call,
            Self::User => call.by(&lab.alice),
            Self::WrongAdmin => call.token(&ADMIN_TOKEN.replace("0123", "1123")),
            Self::Admin => call.admin(),
        }
    }

    /// Returns what the guard says, if it refuses.
    fn refusal(self) -> Option<(u16, &'static str)> {
        match self {
            Self::Nobody => Some((401, "M_MISSING_TOKEN")),
            Self::User | Self::WrongAdmin => Some((401, "M_UNKNOWN_TOKEN")),
            Self::Admin => None,
        }
    }
}

fn is_open(call: &Call) -> bool {
    call.path.ends_with("/openapi.json")
}

/// Returns a call of each endpoint by each method that it answers; what is there is read before it
/// is written and deleted.
fn calls_with_heads(lab: &Lab) -> Vec<Call> {
    let with_head = |call: Call| {
        let head = Call::new("HEAD", call.path.clone());
        let is_get = call.method == Method::GET;
        [Some(call), is_get.then_some(head)]
    };
    let calls = admin_calls(&lab.alice.user).into_iter();
    calls.flat_map(with_head).flatten().collect()
}

impl Lab {
    /// Puts an entry at each place that the calls write and delete.
    async fn seed(&self) {
        let alice = &self.alice;
        let own = alice.device_data(alice.device.as_str(), "app.test");
        for path in [
            alice.global("app.test"),
            alice.room("!r:x", "app.test"),
            own,
        ] {
            let put = Call::put(path, r#"{"seeded":true}"#).by(alice);
            self.send(put).await.assert_ok();
        }
    }
}

#[tokio::test]
async fn only_an_admin_token_opens_the_admin_api() {
    for asker in ASKERS {
        let lab = Lab::new().await;
        lab.seed().await;
        let before = lab.server.entries(&lab.alice).await;
        assert_eq!(before.len(), 3);
        for call in calls_with_heads(&lab) {
            let is_open = is_open(&call);
            let context = format!("{asker:?}: {} {}", call.method, call.path);
            lab.server.store.take_calls();
            let reply = lab.send(asker.asks(call, &lab)).await;
            let is_asked = !lab.server.store.take_calls().is_empty();
            let refusal = asker.refusal().filter(|_| !is_open);
            let (status, errcode) = refusal.unwrap_or((200, ""));
            assert_eq!(reply.row(), (status, errcode.to_owned()), "{context}");
            assert_eq!(is_asked, refusal.is_none() && !is_open, "{context}");
        }
        let after = lab.server.entries(&lab.alice).await;
        match asker {
            Asker::Admin => assert_eq!(after, [], "each was deleted"),
            _ => assert_eq!(after, before, "{asker:?}"),
        }
    }
}

#[tokio::test]
async fn the_public_listener_serves_none_of_it() {
    for asker in ASKERS {
        let lab = Lab::new().await;
        for call in calls_with_heads(&lab) {
            let context = format!("{asker:?}: {} {}", call.method, call.path);
            let call = asker.asks(call, &lab);
            let reply = lab.server.send_to(&lab.server.edge, call).await;
            assert_eq!(reply.row(), (404, "M_UNRECOGNIZED".to_owned()), "{context}");
        }
    }
}

#[tokio::test]
async fn an_admin_token_is_no_access_token() {
    let lab = Lab::new().await;
    let calls = every_call(&lab.alice, "0");
    let own = calls.into_iter().filter(|call| call.is_by(&lab.alice));
    let own: Vec<Call> = own.collect();
    assert!(own.len() > 30, "{own:?}");
    for call in own {
        let context = format!("{} {}", call.method, call.path);
        let reply = lab.send(call.admin()).await;
        assert_eq!(
            reply.row(),
            (401, "M_UNKNOWN_TOKEN".to_owned()),
            "{context}"
        );
    }
}

#[tokio::test]
async fn the_private_listener_serves_nothing_of_the_client_server_api() {
    let lab = Lab::new().await;
    for call in every_call(&lab.alice, "0") {
        if call.path.starts_with("/_matrix") || call.path.starts_with("/.well-known") {
            let context = format!("{} {}", call.method, call.path);
            let reply = lab.server.send_to(&lab.server.private, call).await;
            assert_eq!(reply.row(), (404, "M_UNRECOGNIZED".to_owned()), "{context}");
        }
    }
}

#[tokio::test]
async fn no_web_page_may_read_what_the_private_listener_says() {
    let lab = Lab::new().await;
    let rows = [
        ("GET", "/health", 200),
        ("GET", "/metrics", 200),
        ("GET", "/nothing", 404),
        ("OPTIONS", "/health", 405),
        ("OPTIONS", "/metrics", 405),
        ("OPTIONS", "/_kitbag/admin/v1/users", 405),
        ("OPTIONS", "/nothing", 404),
    ];
    for (method, path, status) in rows {
        let call = Call::new(method, path).header("origin", "http://evil.test");
        let reply = lab.server.send_to(&lab.server.private, call).await;
        assert_eq!(reply.status, status, "{method} {path}");
        let mut names = reply.headers.keys().map(HeaderName::as_str);
        let cors = names.find(|name| name.starts_with("access-control-"));
        assert_eq!(cors, None, "{method} {path}");
    }
}

#[tokio::test]
async fn without_tokens_it_is_as_if_it_were_not_there() {
    let lab = Lab::with(|setup| setup.settings.admin.tokens.clear()).await;
    let mut calls = admin_calls(&lab.alice.user);
    calls.push(Call::post(format!("{V1}/users"), "{}"));
    for asker in ASKERS {
        for call in calls.clone() {
            let context = format!("{asker:?}: {} {}", call.method, call.path);
            let reply = lab.send(asker.asks(call, &lab)).await;
            assert_eq!(reply.row(), (404, "M_UNRECOGNIZED".to_owned()), "{context}");
        }
    }
    let health = Call::get("/health");
    let health = lab.server.send_to(&lab.server.private, health).await;
    assert_eq!(health.status, 200);
}

#[tokio::test]
async fn other_methods_are_405() {
    let lab = Lab::new().await;
    for path in ["/users", "/changes", "/users/@alice:localhost/account_data"] {
        let call = Call::post(format!("{V1}{path}"), "{}").admin();
        let reply = lab.send(call).await;
        reply.assert_is(405, "M_UNRECOGNIZED");
        assert_eq!(reply.headers["allow"], "GET,HEAD");
    }
}

#[tokio::test]
async fn odd_headers_are_no_tokens() {
    let lab = Lab::new().await;
    let rows = [
        (ADMIN_TOKEN.to_owned(), "M_MISSING_TOKEN"),
        (format!("Basic {ADMIN_TOKEN}"), "M_MISSING_TOKEN"),
        ("Bearer ".to_owned(), "M_UNKNOWN_TOKEN"),
        (format!("Bearer {ADMIN_TOKEN}x"), "M_UNKNOWN_TOKEN"),
        (format!("Bearer ä{ADMIN_TOKEN}"), "M_UNKNOWN_TOKEN"),
    ];
    for (header, errcode) in rows {
        let call = Call::get(format!("{V1}/users")).header("authorization", header.clone());
        assert_eq!(
            lab.send(call).await.row(),
            (401, errcode.to_owned()),
            "{header}"
        );
    }
    let query = Call::get(format!("{V1}/users?access_token={ADMIN_TOKEN}"));
    lab.send(query).await.assert_is(401, "M_MISSING_TOKEN");
    let lower =
        Call::get(format!("{V1}/users")).header("authorization", format!("bearer {ADMIN_TOKEN}"));
    lab.send(lower).await.assert_ok();
}

#[tokio::test]
async fn who_guesses_is_not_listened_to_for_a_while() {
    let lab = Lab::with(|setup| {
        let limits = &mut setup.settings.rate_limits;
        limits.enabled = true;
        (limits.admin_burst, limits.admin_per_minute) = (3, 1);
    });
    let lab = lab.await;
    let users = || Call::get(format!("{V1}/users"));
    for _ in 0..10 {
        lab.send(users().admin()).await.assert_ok();
        lab.send(users()).await.assert_is(401, "M_MISSING_TOKEN");
    }
    let wrong = || users().token("a-wrong-admin-token");
    for _ in 0..3 {
        lab.send(wrong()).await.assert_is(401, "M_UNKNOWN_TOKEN");
    }
    let limited = lab.send(wrong()).await;
    limited.assert_is(429, "M_LIMIT_EXCEEDED");
    assert!(limited.headers.contains_key("retry-after"));
    let right = lab.send(users().admin()).await;
    right.assert_is(429, "M_LIMIT_EXCEEDED");
    lab.send(users().admin().from("10.0.0.7")).await.assert_ok();
    lab.server.clock.advance(61_000);
    lab.send(users().admin()).await.assert_ok();
}

/// The lines of the audit, without time and span.
fn audited(log: &LogCapture) -> Vec<String> {
    let text = log.text();
    let lines = text.lines().filter(|line| line.contains("kitbag::audit"));
    let line = |line: &str| {
        let level = if line.contains(" WARN ") {
            "WARN"
        } else {
            "INFO"
        };
        let (_, rest) = line.split_once("kitbag::audit: ").unwrap();
        format!("{level} {rest}")
    };
    lines.map(line).collect()
}

#[tokio::test]
async fn each_request_is_noted_with_who_and_what_and_without_contents() {
    let lab = Lab::new().await;
    let log = capture_log();
    let user = format!("{V1}/users/@alice:localhost");
    let canary = "{\"canary\":\"yellowbird\"}";
    let calls = [
        Call::put(format!("{user}/account_data/app.test"), canary).admin(),
        Call::get(format!("{user}/devices/PHONE/account_data/app%0Atest")).admin(),
        Call::delete(format!("{user}/rooms/!r:x/account_data/m.push_rules")).admin(),
        Call::get(format!(
            "{V1}/device_account_data/lacking?type=app.test&pointer=/yellowbird&lacks=%22yellowbird%22"
        ))
        .admin(),
        Call::put(format!("{user}/account_data/app.test"), canary).by(&lab.alice),
        Call::get(format!("{V1}/users?yellowbird")).token("yellowbird-yellowbird"),
    ];
    for call in calls {
        lab.send(call).await;
    }
    let base = format!("{V1}/users/{{user}}");
    let alice = "address=\"127.0.0.1\" user=\"@alice:localhost\"";
    let expected = [
        format!(
            "INFO admin request admin=\"ops\" method=\"PUT\" route=\"{base}/account_data/{{type}}\" \
             {alice} scope=\"global\" type=\"app.test\" status=200"
        ),
        format!(
            "INFO admin request admin=\"ops\" method=\"GET\" \
             route=\"{base}/devices/{{device}}/account_data/{{type}}\" {alice} scope=\"device\" \
             place=\"PHONE\" type=\"app\\ntest\" status=404"
        ),
        format!(
            "INFO admin request admin=\"ops\" method=\"DELETE\" \
             route=\"{base}/rooms/{{room}}/account_data/{{type}}\" {alice} scope=\"room\" \
             place=\"!r:x\" type=\"m.push_rules\" status=405"
        ),
        format!(
            "INFO admin request admin=\"ops\" method=\"GET\" \
             route=\"{V1}/device_account_data/lacking\" address=\"127.0.0.1\" \
             type=\"app.test\" status=200"
        ),
        format!(
            "WARN admin request refused method=\"PUT\" route=\"{base}/account_data/{{type}}\" \
             {alice} scope=\"global\" type=\"app.test\" status=401"
        ),
        format!(
            "WARN admin request refused method=\"GET\" route=\"{V1}/users\" \
             address=\"127.0.0.1\" status=401"
        ),
    ];
    assert_eq!(audited(&log), expected);
    assert!(!log.text().contains("yellowbird"), "{}", log.text());
}

#[tokio::test]
async fn a_request_that_ends_without_an_answer_is_noted_too() {
    let server = Server::start();
    let log = capture_log();
    let long = format!("{V1}/changes?since={}&timeout=30000", now(&server).await);
    let call = Call::get(long).admin();
    let mut waiting = Box::pin(server.private.answer(call.peer, call.request()));
    assert!(poll_once(&mut waiting).is_pending());
    drop(waiting);
    let lines = audited(&log);
    let last = lines.last().unwrap();
    assert!(
        last.contains("/changes") && !last.contains("status"),
        "{last}"
    );
    assert_eq!(lines.len(), 2, "{lines:?}");
}

async fn now(server: &Server) -> String {
    let call = Call::get(format!("{V1}/changes")).admin();
    let page: Value = server.send(call).await.assert_ok();
    page["next_batch"].as_str().unwrap().to_owned()
}
