//! User-interactive authentication: what its sessions are bound to.

use serde_json::{Value, json};

use crate::support::{Call, PASSWORD, Reply, Server, Session};

const C3: &str = "/_matrix/client/v3";
const MINUTE_MS: u64 = 60 * 1_000;

async fn delete(server: &Server, by: &Session, device: &str, auth: &Value) -> Reply {
    let call = Call::delete(format!("{C3}/devices/{device}")).by(by);
    server
        .send(call.body(json!({"auth": auth}).to_string()))
        .await
}

/// Starts a session for deleting a device.
async fn session(server: &Server, by: &Session, device: &str) -> String {
    let reply = delete(server, by, device, &Value::Null).await;
    assert_eq!(reply.status, 401);
    reply.json()["session"].as_str().unwrap().to_owned()
}

/// Tells whether a session can be used for deleting a device, without using it up.
async fn is_known(server: &Server, by: &Session, device: &str, session: &str) -> bool {
    // Of a known session it is told that this is the wrong stage.
    let auth = json!({"type": "m.login.dummy", "session": session});
    match delete(server, by, device, &auth).await.row() {
        (401, errcode) if errcode == "M_UNRECOGNIZED" => true,
        (401, errcode) if errcode == "M_UNKNOWN" => false,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_session_is_good_for_one_user_method_and_path() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let bob = server.user("bob").await;
    let id = session(&server, &alice, "A").await;
    assert!(is_known(&server, &alice, "A", &id).await);
    assert!(!is_known(&server, &alice, "B", &id).await, "another path");
    assert!(!is_known(&server, &bob, "A", &id).await, "another user");
    let auth = json!({"type": "m.login.dummy", "session": id});
    let body = json!({"auth": auth, "devices": ["A"]}).to_string();
    let post = Call::post(format!("{C3}/delete_devices"), body).by(&alice);
    assert_eq!(
        server.send(post).await.row(),
        (401, "M_UNKNOWN".to_owned()),
        "another method"
    );
    assert!(
        is_known(&server, &alice, "A", &id).await,
        "and it is not lost by trying"
    );
}

#[tokio::test]
async fn a_session_lasts_a_quarter_of_an_hour() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let id = session(&server, &alice, "A").await;
    server.clock.advance(15 * MINUTE_MS - 1);
    assert!(is_known(&server, &alice, "A", &id).await);
    server.clock.advance(1);
    assert!(!is_known(&server, &alice, "A", &id).await);
}

#[tokio::test]
async fn a_session_is_used_up_by_success_and_not_by_failure() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let id = session(&server, &alice, "A").await;
    let auth = |password: &str| {
        let mut auth = alice.password_auth(password);
        auth["session"] = id.as_str().into();
        auth
    };
    let wrong = delete(&server, &alice, "A", &auth("wrong")).await;
    assert_eq!(wrong.row(), (401, "M_FORBIDDEN".to_owned()));
    assert_eq!(
        delete(&server, &alice, "A", &auth(PASSWORD)).await.status,
        200
    );
    let again = delete(&server, &alice, "A", &auth(PASSWORD)).await;
    assert_eq!(again.row(), (401, "M_UNKNOWN".to_owned()));
}

/// Each try to use one starts another, so few are tried.
#[tokio::test]
async fn of_more_than_ten_thousand_sessions_the_oldest_go() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let mut ids = Vec::new();
    for _ in 0..10_100 {
        ids.push(session(&server, &alice, "A").await);
    }
    for (number, is_left) in [
        (0, false),
        (99, false),
        (110, true),
        (5_000, true),
        (10_099, true),
    ] {
        assert_eq!(
            is_known(&server, &alice, "A", &ids[number]).await,
            is_left,
            "{number}"
        );
    }
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_told() {
    let server = Server::start();
    let alice = server.user("alice").await;
    server.user("bob").await;
    let user = json!({"type": "m.id.user", "user": "alice"});
    let rows = [
        (json!({}), (401, "")),
        (
            json!({"type": "m.login.password"}),
            (401, "M_MISSING_PARAM"),
        ),
        (json!({"type": "m.login.sso"}), (401, "M_UNRECOGNIZED")),
        (
            json!({"type": "m.login.password", "session": "x"}),
            (401, "M_UNKNOWN"),
        ),
        (
            json!({"type": "m.login.password", "user": "bob", "password": "x"}),
            (403, "M_FORBIDDEN"),
        ),
        (
            json!({"type": "m.login.password", "user": "@alice:x"}),
            (403, "M_FORBIDDEN"),
        ),
        (
            json!({"type": "m.login.password", "password": 1}),
            (400, "M_BAD_JSON"),
        ),
        (
            json!({"type": "m.login.password", "identifier": user, "password": ""}),
            (401, "M_FORBIDDEN"),
        ),
    ];
    for (auth, (status, errcode)) in rows {
        let reply = delete(&server, &alice, "A", &auth).await;
        assert_eq!(reply.row(), (status, errcode.to_owned()), "{auth}");
    }
}

/// SDKs send it in three forms, and without a session at first.
#[tokio::test]
async fn the_password_may_come_in_any_form() {
    let server = Server::start();
    let alice = server.user("alice").await;
    for user in [
        json!({"identifier": {"type": "m.id.user", "user": "alice"}}),
        json!({"identifier": {"type": "m.id.user", "user": "@alice:localhost"}}),
        json!({"user": "alice"}),
        json!({}),
    ] {
        let mut auth = json!({"type": "m.login.password", "password": PASSWORD});
        auth.as_object_mut()
            .unwrap()
            .extend(user.as_object().unwrap().clone());
        assert_eq!(
            delete(&server, &alice, "A", &auth).await.status,
            200,
            "{auth}"
        );
    }
}

#[tokio::test]
async fn password_checks_are_rate_limited_like_logins() {
    let server = Server::with(|setup| {
        setup.settings.rate_limits.enabled = true;
        setup.settings.rate_limits.login_burst = 2;
        setup.settings.rate_limits.login_per_minute = 1;
    });
    let alice = server.user("alice").await;
    for _ in 0..2 {
        let reply = delete(&server, &alice, "A", &alice.password_auth("wrong")).await;
        assert_eq!(reply.status, 401);
    }
    let right = delete(&server, &alice, "A", &alice.password_auth(PASSWORD)).await;
    right.assert_is(429, "M_LIMIT_EXCEEDED");
    server.clock.advance(MINUTE_MS);
    let right = delete(&server, &alice, "A", &alice.password_auth(PASSWORD)).await;
    assert_eq!(right.status, 200);
}
