//! `POST /register`: who may, and what they have to show.

use kitbag_http::RegistrationMode;
use serde_json::{Value, json};

use crate::support::{Call, Reply, Server, Setup};

const PATH: &str = "/_matrix/client/v3/register";

async fn register(server: &Server, body: &Value) -> Reply {
    server.send(Call::post(PATH, body.to_string())).await
}

/// Returns the stage that a registration asks for; an errcode where there is none.
async fn stage(server: &Server, call: Call) -> String {
    let reply = server.send(call).await;
    let stage = &reply.json()["flows"][0]["stages"][0];
    match (reply.status, stage.as_str()) {
        (401, Some(stage)) => stage.to_owned(),
        _ => reply.row().1,
    }
}

fn ask() -> Call {
    Call::post(
        PATH,
        json!({"username": "alice", "password": "x"}).to_string(),
    )
}

fn with_token(setup: &mut Setup) {
    setup.settings.registration.tokens = vec!["first".to_owned(), "second".to_owned()];
}

#[tokio::test]
async fn each_mode_asks_for_its_stage() {
    let (dummy, token) = ("m.login.dummy", "m.login.registration_token");
    let rows = [
        (RegistrationMode::Auto, true, dummy),
        (RegistrationMode::Auto, false, dummy),
        (RegistrationMode::Open, true, dummy),
        (RegistrationMode::Open, false, dummy),
        (RegistrationMode::Token, true, token),
        (RegistrationMode::Token, false, "M_FORBIDDEN"),
        (RegistrationMode::Closed, true, "M_FORBIDDEN"),
        (RegistrationMode::Closed, false, "M_FORBIDDEN"),
    ];
    for (mode, has_token, expected) in rows {
        let server = Server::with(|setup| {
            setup.settings.registration.mode = mode;
            if has_token {
                with_token(setup);
            }
        });
        assert_eq!(
            stage(&server, ask()).await,
            expected,
            "{mode:?} {has_token}"
        );
    }
}

/// Requests that somebody elsewhere could have caused.
fn not_private() -> Vec<(&'static str, Call)> {
    let mut calls = vec![
        ("another machine", ask().from("192.0.2.1")),
        ("another machine by IPv6", ask().from("2001:db8::1")),
        ("no host", ask().without_header("host")),
    ];
    for host in [
        "evil.example",
        "evil.example:8008",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "evil.example#localhost",
        "0.0.0.0:8008",
        "192.0.2.1:8008",
        "[2001:db8::1]:8008",
        "",
        "localhost:8008, evil.example",
    ] {
        calls.push((host, ask().header("host", host)));
    }
    for header in [
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-real-ip",
        "forwarded",
    ] {
        calls.push((header, ask().header(header, "127.0.0.1")));
    }
    calls
}

#[tokio::test]
async fn this_machine_alone_needs_no_token() {
    for has_token in [false, true] {
        let server = Server::with(|setup| {
            if has_token {
                with_token(setup);
            }
        });
        let guarded = if has_token {
            "m.login.registration_token"
        } else {
            "M_FORBIDDEN"
        };
        for (what, call) in not_private() {
            assert_eq!(stage(&server, call).await, guarded, "{what:?}");
        }
        for host in [
            "localhost",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.1.2.3:8008",
            "[::1]:8008",
        ] {
            let call = ask().header("host", host);
            assert_eq!(
                stage(&server, call.clone()).await,
                "m.login.dummy",
                "{host}"
            );
            let call = call.from("::1");
            assert_eq!(
                stage(&server, call.clone()).await,
                "m.login.dummy",
                "{host}"
            );
            let call = call.from("::ffff:127.0.0.1");
            assert_eq!(stage(&server, call).await, "m.login.dummy", "{host}");
        }
    }
}

#[tokio::test]
async fn a_server_that_others_can_reach_needs_a_token_from_all() {
    let changes: [fn(&mut Setup); 2] = [
        |setup| setup.settings.is_loopback_only = false,
        |setup| setup.settings.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()],
    ];
    for change in changes {
        assert_eq!(stage(&Server::with(change), ask()).await, "M_FORBIDDEN");
    }
}

#[tokio::test]
async fn any_of_the_tokens_opens_and_nothing_else() {
    let server = Server::with(|setup| {
        setup.settings.registration.mode = RegistrationMode::Token;
        with_token(setup);
    });
    let token = |token: &str| json!({"type": "m.login.registration_token", "token": token});
    let rows = [
        (json!({"type": "m.login.dummy"}), "M_UNRECOGNIZED"),
        (
            json!({"type": "m.login.registration_token"}),
            "M_MISSING_PARAM",
        ),
        (token(""), "M_UNAUTHORIZED"),
        (token("firs"), "M_UNAUTHORIZED"),
        (token("first "), "M_UNAUTHORIZED"),
        (token("firstsecond"), "M_UNAUTHORIZED"),
    ];
    for (auth, errcode) in rows {
        let body = json!({"username": "alice", "password": "x", "auth": auth});
        let reply = register(&server, &body).await;
        assert_eq!(reply.row(), (401, errcode.to_owned()), "{auth}");
    }
    for (name, secret) in [("alice", "first"), ("bob", "second")] {
        let body = json!({"username": name, "password": "x", "auth": token(secret)});
        assert_eq!(register(&server, &body).await.status, 200, "{name}");
    }
    let validity = "/_matrix/client/v1/register/m.login.registration_token/validity";
    for (token, valid) in [("first", true), ("x", false)] {
        let reply = server
            .send(Call::get(format!("{validity}?token={token}")))
            .await;
        assert_eq!(reply.assert_ok(), json!({"valid": valid}));
    }
}

#[tokio::test]
async fn the_answer_is_a_session_unless_that_is_not_wanted() {
    let server = Server::start();
    let auth = json!({"type": "m.login.dummy"});
    let body = json!({
        "username": "alice", "password": "x", "auth": auth, "device_id": "PHONE",
        "initial_device_display_name": "name", "refresh_token": true,
    });
    let answer = register(&server, &body).await.assert_ok();
    assert_eq!(answer["user_id"], "@alice:localhost");
    assert_eq!(answer["device_id"], "PHONE");
    assert!(answer["refresh_token"].is_string() && answer["expires_in_ms"].is_u64());
    let devices = Call::get("/_matrix/client/v3/devices");
    let devices = devices.token(answer["access_token"].as_str().unwrap());
    let devices = server.send(devices).await.assert_ok();
    assert_eq!(devices["devices"][0]["display_name"], "name");

    let body = json!({"username": "bob", "password": "x", "auth": auth, "inhibit_login": true});
    let answer = register(&server, &body).await.assert_ok();
    assert_eq!(answer, json!({"user_id": "@bob:localhost"}));

    let answer = register(&server, &json!({"password": "x", "auth": auth}))
        .await
        .assert_ok();
    let made_up = answer["user_id"].as_str().unwrap();
    assert!(
        made_up.ends_with(":localhost") && made_up.len() == 12 + 11,
        "{made_up}"
    );
}

#[tokio::test]
async fn what_is_wrong_is_told_before_anything_is_kept() {
    let server = Server::start();
    server.user("alice").await;
    let auth = json!({"type": "m.login.dummy"});
    let rows = [
        (
            json!({"username": "alice", "password": "x"}),
            "M_USER_IN_USE",
        ),
        (
            json!({"username": "Alice", "password": "x"}),
            "M_INVALID_USERNAME",
        ),
        (
            json!({"username": "", "password": "x"}),
            "M_INVALID_USERNAME",
        ),
        (
            json!({"username": "a".repeat(250), "password": "x"}),
            "M_INVALID_USERNAME",
        ),
        (json!({"username": "bob"}), "M_MISSING_PARAM"),
        (
            json!({"username": "bob", "password": "x", "device_id": ""}),
            "M_INVALID_PARAM",
        ),
        (json!({"username": "bob", "password": 1}), "M_BAD_JSON"),
    ];
    for (mut body, errcode) in rows {
        body["auth"] = auth.clone();
        register(&server, &body).await.assert_is(400, errcode);
    }
    let available = "/_matrix/client/v3/register/available?username=bob";
    assert_eq!(server.send(Call::get(available)).await.status, 200);
}

#[tokio::test]
async fn tries_are_counted_by_address() {
    let server = Server::with(|setup| {
        setup.settings.registration.mode = RegistrationMode::Token;
        with_token(setup);
        setup.settings.rate_limits.enabled = true;
        setup.settings.rate_limits.registration_burst = 2;
        setup.settings.rate_limits.registration_per_minute = 1;
    });
    let auth = json!({"type": "m.login.registration_token", "token": "guess"});
    let body = json!({"username": "alice", "password": "x", "auth": auth});
    for _ in 0..2 {
        assert_eq!(register(&server, &body).await.row().1, "M_UNAUTHORIZED");
    }
    register(&server, &body)
        .await
        .assert_is(429, "M_LIMIT_EXCEEDED");
    let validity = "/_matrix/client/v1/register/m.login.registration_token/validity?token=x";
    server
        .send(Call::get(validity))
        .await
        .assert_is(429, "M_LIMIT_EXCEEDED");
    assert_eq!(
        server
            .send(Call::get(validity).from("192.0.2.1"))
            .await
            .status,
        200
    );
    server.clock.advance(60_000);
    assert_eq!(server.send(Call::get(validity)).await.status, 200);
}
