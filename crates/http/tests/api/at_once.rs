//! `GET`s that are answered from memory at once: as if they were not.

use std::time::Duration;

use kitbag_domain::Limits;
use kitbag_http::Service as _;
use kitbag_testkit::clock::TestClock;
use serde_json::json;
use tokio::time::timeout;

use crate::sessions;
use crate::support::{Call, Reply, Server, Session, sqlite};

const C3: &str = "/_matrix/client/v3";
const HOUR_MS: u64 = 60 * 60 * 1_000;

/// How long is waited for a write that goes on behind its answer.
const NOTED_WITHIN: Duration = Duration::from_secs(10);

/// Over the real store, since the one in memory keeps nothing beside itself.
async fn with_alice() -> (Server, Session) {
    let server = Server::with(|setup| setup.store = Some(sqlite(Limits::default())));
    let alice = server.user("alice").await;
    (server, alice)
}

/// Asks until session and entry are in memory, and once more.
async fn told(server: &Server, session: &Session, path: &str) -> Reply {
    for _ in 0..3 {
        server.send(Call::get(path).by(session)).await;
    }
    server.send(Call::get(path).by(session)).await
}

#[tokio::test]
async fn what_is_written_is_told_and_to_nobody_else() {
    let (server, alice) = with_alice().await;
    let bob = server.user("bob").await;
    for path in [
        alice.global("org.example.a"),
        alice.room("!r:x", "org.example.a"),
        alice.device_data("PHONE", "org.example.a"),
    ] {
        for content in [r#"{"a":1}"#, r#"{"a": 2}"#] {
            let written = server.send(Call::put(&path, content).by(&alice)).await;
            assert_eq!((written.status, written.text()), (200, "{}"), "{path}");
            assert_eq!(told(&server, &alice, &path).await.text(), content, "{path}");
        }
        let head = Call::new("HEAD", &path).by(&alice);
        let head = server.send(head).await;
        assert_eq!((head.status, head.text()), (200, ""), "{path}");
        let others = server.send(Call::get(&path).by(&bob)).await;
        others.assert_is(403, "M_FORBIDDEN");
        let delete = Call::delete(&path).by(&alice);
        server.send(delete).await.assert_is(405, "M_UNRECOGNIZED");
    }
}

#[tokio::test]
async fn push_rules_are_told_as_they_are_served() {
    let (server, alice) = with_alice().await;
    let rules = async || {
        let rules = Call::get(format!("{C3}/pushrules/")).by(&alice);
        server.send(rules).await.assert_ok()
    };
    let path = alice.global("m.push_rules");
    let defaults = told(&server, &alice, &path).await.assert_ok();
    assert_eq!(defaults, rules().await);
    let rule = format!("{C3}/pushrules/global/override/.m.rule.master/enabled");
    let enable = Call::put(rule, json!({"enabled": true}).to_string()).by(&alice);
    server.send(enable).await.assert_ok();
    let changed = told(&server, &alice, &path).await.assert_ok();
    assert_eq!(changed, rules().await);
    assert_ne!(changed, defaults);
}

#[tokio::test]
async fn sessions_that_end_are_told_nothing() {
    let (server, alice) = with_alice().await;
    let path = alice.global("org.example.a");
    let put = Call::put(&path, "{}").by(&alice);
    server.send(put).await.assert_ok();

    let tokens = sessions::login(&server, true).await;
    let token = tokens["access_token"].as_str().unwrap().to_owned();
    let phone = Session {
        token,
        ..alice.clone()
    };
    assert_eq!(told(&server, &phone, &path).await.status, 200);
    server.clock.advance(300_000);
    let expired = told(&server, &phone, &path).await;
    expired.assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(expired.json()["soft_logout"], true);

    let tablet = server.device(&alice.user, "TABLET").await;
    let laptop = server.device(&alice.user, "LAPTOP").await;
    assert_eq!(told(&server, &tablet, &path).await.status, 200);
    let logout = Call::post(format!("{C3}/logout"), "{}").by(&tablet);
    server.send(logout).await.assert_ok();
    // The entry is in memory again, by another connection: this one remembers the token that ended.
    let other = server.edge.apart();
    for _ in 0..3 {
        let get = Call::get(&path).by(&laptop);
        assert_eq!(server.send_to(&other, get).await.status, 200);
    }
    let ended = server.send(Call::get(&path).by(&tablet)).await;
    ended.assert_is(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn the_use_of_a_device_is_noted() {
    let (server, alice) = with_alice().await;
    // Who looks is another device: what asks notes its own use by that.
    let laptop = server.device(&alice.user, "LAPTOP").await;
    let path = alice.global("m.push_rules");
    assert_eq!(told(&server, &alice, &path).await.status, 200);
    server.clock.advance(HOUR_MS);
    server.send(Call::get(&path).by(&alice)).await.assert_ok();
    let device = Call::get(format!("{C3}/devices/PHONE")).by(&laptop);
    let noted_ts = TestClock::START_MS + HOUR_MS;
    // The note is a write of its own, which goes on behind the answer.
    let noted = async {
        while server.send(device.clone()).await.assert_ok()["last_seen_ts"] != noted_ts {
            tokio::task::yield_now().await;
        }
    };
    timeout(NOTED_WITHIN, noted).await.expect("it is noted");
}
