//! `POST /login`: its forms, and how often it may be tried.

use std::sync::Arc;

use kitbag_http::{Passwords, Random};
use serde_json::{Value, json};

use crate::support::{Call, PASSWORD, Reply, Server, Setup, poll_once};

const PATH: &str = "/_matrix/client/v3/login";

fn call(user: &str, password: &str) -> Call {
    let body = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    });
    Call::post(PATH, body.to_string())
}

async fn login(server: &Server, body: &Value) -> Reply {
    server.send(Call::post(PATH, body.to_string())).await
}

#[tokio::test]
async fn users_are_named_in_any_form() {
    let server = Server::start();
    server.user("alice").await;
    for form in [
        json!({"identifier": {"type": "m.id.user", "user": "alice"}}),
        json!({"identifier": {"type": "m.id.user", "user": "@alice:localhost"}}),
        json!({"user": "alice"}),
        json!({"user": "@alice:localhost"}),
    ] {
        let mut body = json!({"type": "m.login.password", "password": PASSWORD});
        body.as_object_mut()
            .unwrap()
            .extend(form.as_object().unwrap().clone());
        let answer = login(&server, &body).await.assert_ok();
        assert_eq!(answer["user_id"], "@alice:localhost");
        assert_eq!(answer["device_id"].as_str().unwrap().len(), 10);
    }
    for identifier in [
        json!({"type": "m.id.thirdparty", "medium": "email", "address": "a@x"}),
        json!({"type": "m.id.phone", "country": "GB", "phone": "1"}),
    ] {
        let kind = "m.login.password";
        let body = json!({"type": kind, "password": PASSWORD, "identifier": identifier});
        login(&server, &body)
            .await
            .assert_is(400, "M_MISSING_PARAM");
    }
}

/// Whether there is an account is not to be learnt.
#[tokio::test]
async fn a_wrong_name_and_a_wrong_password_look_alike() {
    let server = Server::start();
    server.user("alice").await;
    let wrong_password = server.send(call("alice", "wrong")).await;
    wrong_password.assert_is(403, "M_FORBIDDEN");
    for name in [
        "nobody",
        "@nobody:localhost",
        "@alice:elsewhere",
        "Alice",
        "alice ",
    ] {
        let wrong_name = server.send(call(name, PASSWORD)).await;
        assert_eq!(wrong_name.text(), wrong_password.text(), "{name}");
        assert_eq!(wrong_name.status, 403, "{name}");
    }
}

/// Nor by the time that it takes: for a name without an account a hash is computed all the same.
#[tokio::test]
async fn a_wrong_name_waits_for_a_turn_of_hashing_too() {
    let nobody_gets_a_turn = Passwords::new(0, Arc::new(NoRandom)).unwrap();
    let server = Server::with(|setup| setup.passwords = nobody_gets_a_turn);
    server.user("alice").await;
    for name in ["alice", "nobody"] {
        let mut login = Box::pin(server.send(call(name, PASSWORD)));
        assert!(poll_once(&mut login).is_pending(), "{name}");
    }
}

struct NoRandom;

impl Random for NoRandom {
    fn fill(&self, _bytes: &mut [u8]) {}
}

#[tokio::test]
async fn a_device_that_logs_in_again_is_the_same_with_a_new_token() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let path = alice.device_data("PHONE", "app.test");
    let put = Call::put(&path, "{\"n\":1}").by(&alice);
    assert_eq!(server.send(put).await.status, 200);
    let body = json!({
        "type": "m.login.password", "user": "alice", "password": PASSWORD, "device_id": "PHONE",
    });
    let token = login(&server, &body).await.assert_ok()["access_token"].clone();
    server
        .send(Call::get(&path).by(&alice))
        .await
        .assert_is(401, "M_UNKNOWN_TOKEN");
    let get = Call::get(&path).token(token.as_str().unwrap());
    assert_eq!(server.send(get).await.text(), "{\"n\":1}");
}

#[tokio::test]
async fn devices_with_ids_or_names_out_of_bounds_are_refused() {
    let server = Server::start();
    server.user("alice").await;
    let rows = [
        ("device_id", "D".repeat(128), 200, ""),
        ("device_id", "D".repeat(129), 400, "M_INVALID_PARAM"),
        ("device_id", String::new(), 400, "M_INVALID_PARAM"),
        ("device_id", "a\nb".to_owned(), 400, "M_INVALID_PARAM"),
        ("initial_device_display_name", "ü".repeat(100), 200, ""),
        (
            "initial_device_display_name",
            "ü".repeat(101),
            400,
            "M_TOO_LARGE",
        ),
    ];
    for (name, value, status, errcode) in rows {
        let mut body = json!({"type": "m.login.password", "user": "alice", "password": PASSWORD});
        body[name] = value.into();
        let reply = login(&server, &body).await;
        assert_eq!(reply.row(), (status, errcode.to_owned()), "{body}");
    }
}

fn limited(setup: &mut Setup) {
    let limits = &mut setup.settings.rate_limits;
    limits.enabled = true;
    limits.login_burst = 3;
    limits.login_per_minute = 6;
}

#[tokio::test]
async fn tries_are_counted_by_account_wherever_they_come_from() {
    let server = Server::with(limited);
    server.user("alice").await;
    // Five times as many as from one address, so that one place alone does not lock an account.
    for host in 1..=15 {
        let try_one = call("alice", "wrong").from(&format!("192.0.2.{host}"));
        assert_eq!(server.send(try_one).await.status, 403);
    }
    let right = call("alice", PASSWORD).from("192.0.2.77");
    server
        .send(right.clone())
        .await
        .assert_is(429, "M_LIMIT_EXCEEDED");
    server.clock.advance(2_000);
    assert_eq!(
        server.send(right).await.status,
        200,
        "one comes back in two seconds"
    );
}

#[tokio::test]
async fn tries_are_counted_by_address_whoever_they_are_for() {
    let server = Server::with(limited);
    for name in ["a", "b", "c"] {
        assert_eq!(
            server.send(call(name, "x").from("192.0.2.1")).await.status,
            403
        );
    }
    let here = call("d", "x").from("192.0.2.1");
    server
        .send(here.clone())
        .await
        .assert_is(429, "M_LIMIT_EXCEEDED");
    for header in ["x-forwarded-for", "x-real-ip", "forwarded"] {
        let spoofed = here.clone().header(header, "192.0.2.99");
        server
            .send(spoofed)
            .await
            .assert_is(429, "M_LIMIT_EXCEEDED");
    }
    assert_eq!(
        server.send(call("d", "x").from("192.0.2.2")).await.status,
        403
    );
}

#[tokio::test]
async fn clients_of_a_trusted_proxy_are_told_apart() {
    let server = Server::with(|setup| {
        limited(setup);
        setup.settings.trusted_proxies = vec!["10.0.0.0/8".parse().unwrap()];
    });
    let by_proxy = |name: &str, forwarded: &str| {
        call(name, "x")
            .from("10.0.0.1")
            .header("x-forwarded-for", forwarded)
    };
    for name in ["a", "b", "c"] {
        let spoofed = format!("198.51.100.{}, 192.0.2.1", name.len());
        assert_eq!(server.send(by_proxy(name, &spoofed)).await.status, 403);
    }
    let again = by_proxy("d", "198.51.100.9, 192.0.2.1");
    server.send(again).await.assert_is(429, "M_LIMIT_EXCEEDED");
    assert_eq!(server.send(by_proxy("d", "192.0.2.2")).await.status, 403);
}
