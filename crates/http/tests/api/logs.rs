//! What must never stand in a log: tokens, passwords, contents.

use kitbag_domain::StoreError;
use kitbag_http::RegistrationMode;
use serde_json::{Value, json};

use crate::support::{Call, Reply, Server, capture_log};

/// Part of everything that is secret in these scenarios.
const CANARY: &str = "yellowbird";
const C3: &str = "/_matrix/client/v3";

/// Registers, logs in and writes, each with something wrong as well; returns tokens and replies.
async fn scenario(server: &Server) -> (Vec<String>, Vec<Reply>) {
    let mut replies = Vec::new();
    let password = format!("{CANARY}-password");
    let auth = |token: &str| json!({"type": "m.login.registration_token", "token": token});
    for token in [format!("{CANARY}-guess"), format!("{CANARY}-token")] {
        let body = json!({"username": "alice", "password": password, "auth": auth(&token)});
        replies.push(
            server
                .send(Call::post(format!("{C3}/register"), body.to_string()))
                .await,
        );
    }
    let login = |password: &str| {
        json!({
            "type": "m.login.password", "user": "alice", "password": password,
            "refresh_token": true,
        })
    };
    for body in [
        login(&password),
        login(CANARY),
        json!({"type": CANARY}),
        json!(CANARY),
    ] {
        replies.push(
            server
                .send(Call::post(format!("{C3}/login"), body.to_string()))
                .await,
        );
    }
    let session: Value = replies[2].assert_ok();
    let (access, refresh) = (&session["access_token"], &session["refresh_token"]);
    let access = access.as_str().unwrap().to_owned();
    let content = format!("{{\"{CANARY}\":\"{CANARY}\",\"m.revision_id\":\"1\"}}");
    let path = format!("{C3}/user/@alice:localhost/account_data/app.test");
    let auth = json!({"type": "m.login.password", "password": password});
    for call in [
        Call::put(&path, content.clone()),
        Call::put(format!("{path}?expect_revision_id=0"), content.clone()),
        Call::put(&path, format!("{content}x")),
        Call::put(&path, format!("[{content}]")),
        Call::get(&path),
        Call::get(format!("{C3}/sync?access_token={CANARY}&timeout=0")),
        Call::put(
            format!("{C3}/profile/@alice:localhost/displayname"),
            content,
        ),
        Call::delete(format!("{C3}/devices/NONE")).body(json!({"auth": auth}).to_string()),
        Call::post(
            format!("{C3}/refresh"),
            json!({"refresh_token": CANARY}).to_string(),
        ),
        Call::get(format!("{path}/..%2f")).token(CANARY),
    ] {
        replies.push(server.send(call.token(&access)).await);
    }
    let tokens = vec![access, refresh.as_str().unwrap().to_owned()];
    (tokens, replies)
}

fn server() -> Server {
    Server::with(|setup| {
        setup.settings.registration.mode = RegistrationMode::Token;
        setup.settings.registration.tokens = vec![format!("{CANARY}-token")];
    })
}

/// What of a token would be worth something: its random part.
fn secret_part(token: &str) -> &str {
    token.rsplit('_').nth(1).unwrap()
}

#[tokio::test]
async fn no_log_holds_a_token_a_password_or_a_content() {
    let captured = capture_log();
    let (tokens, replies) = scenario(&server()).await;
    let statuses: Vec<u16> = replies.iter().map(|reply| reply.status).collect();
    let expected = [
        401, 200, 200, 403, 400, 400, 200, 409, 400, 400, 200, 200, 400, 200, 401, 404,
    ];
    assert_eq!(statuses, expected, "the scenario went as planned");
    let log = captured.text();
    assert!(
        log.contains("answered") && log.contains("/account_data/app.test"),
        "{log}"
    );
    assert!(!log.contains(CANARY), "{log}");
    for token in &tokens {
        assert!(!log.contains(secret_part(token)), "{log}");
    }
}

/// Whatever the store says is for the log, and nothing of it for the client.
#[tokio::test]
async fn failures_are_logged_once_with_their_cause_and_the_request() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let captured = capture_log();
    let secret = format!("{{\"{CANARY}\":1}}");
    server
        .store
        .fail_after(1, StoreError::Unavailable("disk on fire".to_owned()));
    let put = Call::put(alice.global("app.test"), secret).by(&alice);
    let reply = server.send(put).await;
    reply.assert_is(503, "M_UNKNOWN");
    let log = captured.text();
    assert_eq!(log.matches("disk on fire").count(), 1, "{log}");
    let line = log
        .lines()
        .find(|line| line.contains("disk on fire"))
        .unwrap();
    assert!(
        line.contains("ERROR") && line.contains(reply.request_id()),
        "{line}"
    );
    assert!(
        !log.contains(CANARY) && !log.contains(secret_part(&alice.token)),
        "{log}"
    );
    assert!(!reply.text().contains("fire") && !reply.text().contains(CANARY));
}
