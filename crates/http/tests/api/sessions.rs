//! Access and refresh tokens: their ends, and what is noted of their use.

use kitbag_domain::StoreError;
use serde_json::{Value, json};

use crate::support::{Call, PASSWORD, Reply, Server};

const C3: &str = "/_matrix/client/v3";
const HOUR_MS: u64 = 60 * 60 * 1_000;

/// Logs Alice's `PHONE` in by her password.
pub(crate) async fn login(server: &Server, refresh_token: bool) -> Value {
    let body = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": "alice"},
        "password": PASSWORD,
        "device_id": "PHONE",
        "refresh_token": refresh_token,
    });
    let reply = server
        .send(Call::post(format!("{C3}/login"), body.to_string()))
        .await;
    reply.assert_ok()
}

async fn whoami(server: &Server, tokens: &Value) -> Reply {
    let token = tokens["access_token"].as_str().unwrap();
    server
        .send(Call::get(format!("{C3}/account/whoami")).token(token))
        .await
}

async fn refresh(server: &Server, tokens: &Value) -> Reply {
    let body = json!({"refresh_token": tokens["refresh_token"]});
    server
        .send(Call::post(format!("{C3}/refresh"), body.to_string()))
        .await
}

#[tokio::test]
async fn a_token_that_can_be_refreshed_ends_softly() {
    let server = Server::start();
    server.user("alice").await;
    let tokens = login(&server, true).await;
    assert_eq!(tokens["expires_in_ms"], 300_000);
    server.clock.advance(299_999);
    assert_eq!(whoami(&server, &tokens).await.status, 200);
    server.clock.advance(1);
    let expired = whoami(&server, &tokens).await;
    expired.assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(expired.json()["soft_logout"], true);
    let renewed = refresh(&server, &tokens).await.assert_ok();
    assert_eq!(renewed["expires_in_ms"], 300_000);
    assert_eq!(whoami(&server, &renewed).await.status, 200);
}

#[tokio::test]
async fn other_tokens_do_not_end() {
    let server = Server::start();
    server.user("alice").await;
    let tokens = login(&server, false).await;
    assert_eq!(tokens.get("expires_in_ms"), None);
    assert_eq!(tokens.get("refresh_token"), None);
    server.clock.advance(1_000 * 24 * HOUR_MS);
    assert_eq!(whoami(&server, &tokens).await.status, 200);
}

#[tokio::test]
async fn the_lifetime_is_a_setting() {
    let server = Server::with(|setup| setup.settings.sessions.access_token_lifetime_ms = 1_000);
    server.user("alice").await;
    let tokens = login(&server, true).await;
    assert_eq!(tokens["expires_in_ms"], 1_000);
    server.clock.advance(1_000);
    assert_eq!(whoami(&server, &tokens).await.json()["soft_logout"], true);
}

#[tokio::test]
async fn old_tokens_live_until_a_new_one_is_used() {
    let server = Server::start();
    server.user("alice").await;
    let old = login(&server, true).await;
    let new = refresh(&server, &old).await.assert_ok();
    assert_eq!(
        whoami(&server, &old).await.status,
        200,
        "the answer could have been lost"
    );
    assert_eq!(whoami(&server, &new).await.status, 200);
    let ended = whoami(&server, &old).await;
    ended.assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(ended.json()["soft_logout"], false);
    let late = refresh(&server, &old).await;
    late.assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(late.json()["soft_logout"], false);
}

#[tokio::test]
async fn a_second_refresh_replaces_the_unused_tokens_of_the_first() {
    let server = Server::start();
    server.user("alice").await;
    let old = login(&server, true).await;
    let missed = refresh(&server, &old).await.assert_ok();
    let new = refresh(&server, &old).await.assert_ok();
    whoami(&server, &missed)
        .await
        .assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(whoami(&server, &new).await.status, 200);
}

#[tokio::test]
async fn kinds_of_tokens_are_not_mixed_up() {
    let server = Server::start();
    server.user("alice").await;
    let tokens = login(&server, true).await;
    let swapped = json!({
        "access_token": tokens["refresh_token"],
        "refresh_token": tokens["access_token"],
    });
    whoami(&server, &swapped)
        .await
        .assert_is(401, "M_UNKNOWN_TOKEN");
    refresh(&server, &swapped)
        .await
        .assert_is(401, "M_UNKNOWN_TOKEN");
}

#[tokio::test]
async fn use_is_noted_once_an_hour() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let other = server.device(&alice.user, "TABLET").await;
    let rows = [
        (0, false),
        (HOUR_MS - 1, false),
        (1, true),
        (1, false),
        (HOUR_MS, true),
    ];
    for (later_ms, is_noted) in rows {
        server.clock.advance(later_ms);
        for _ in 0..2 {
            server.store.take_calls();
            let get = Call::get(alice.global("m.push_rules")).by(&alice);
            assert_eq!(server.send_and_settle(get).await.status, 200);
            let noted = server.store.take_calls().contains(&"touch");
            assert_eq!(noted, is_noted, "{later_ms} ms later");
            if is_noted {
                break;
            }
        }
    }
    server.store.take_calls();
    let get = Call::get(alice.global("m.push_rules")).by(&other);
    assert_eq!(server.send_and_settle(get).await.status, 200);
    assert!(
        server.store.take_calls().contains(&"touch"),
        "each device for itself"
    );
}

#[tokio::test]
async fn what_is_noted_is_where_the_client_is() {
    let server = Server::with(|setup| {
        setup.settings.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let alice = server.user("alice").await;
    server.clock.advance(HOUR_MS);
    // A listener of both families shows an IPv4 peer so.
    let get = Call::get(format!("{C3}/devices/PHONE")).by(&alice);
    let get = get
        .from("::ffff:10.0.0.1")
        .header("x-forwarded-for", "6.6.6.6, 192.0.2.7");
    server.send_and_settle(get.clone()).await.assert_ok();
    let device = server.send(get).await.assert_ok();
    assert_eq!(device["last_seen_ip"], "192.0.2.7");
    assert_eq!(device["last_seen_ts"], 1_000_000_000_000_u64 + HOUR_MS);
}

/// The note is a write, and a request that only reads must not need one.
#[tokio::test]
async fn a_note_that_fails_fails_no_request() {
    let server = Server::start();
    let alice = server.user("alice").await;
    server.clock.advance(HOUR_MS);
    server.store.take_calls();
    // The session and the rules are read; then comes the note.
    server
        .store
        .fail_after(1, StoreError::Unavailable("full".to_owned()));
    let get = Call::get(alice.global("m.push_rules")).by(&alice);
    assert_eq!(server.send_and_settle(get).await.status, 200);
    assert_eq!(server.store.take_calls(), ["get_in_session", "touch"]);
}
