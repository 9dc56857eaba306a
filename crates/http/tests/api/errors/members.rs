//! What bodies of errors have beside `errcode` and `error`.

use serde_json::{Value, json};

use super::{C3, Lab, conflict, login, narrow, remove_device};
use crate::support::{Call, PASSWORD, Reply, Server};

pub(super) async fn deactivated_login() -> Reply {
    let lab = Lab::new().await;
    let auth = lab.alice.password_auth(PASSWORD);
    let body = json!({"auth": auth}).to_string();
    let path = format!("{C3}/account/deactivate");
    assert_eq!(lab.send(Call::post(path, body)).await.status, 200);
    lab.server.send(login(PASSWORD)).await
}

pub(super) async fn rate_limited_login() -> Reply {
    let server = Server::with(|setup| {
        setup.settings.rate_limits.enabled = true;
        setup.settings.rate_limits.login_burst = 1;
        setup.settings.rate_limits.login_per_minute = 6;
    });
    let lab = Lab::on(server).await;
    lab.server
        .send(login("wrong"))
        .await
        .assert_is(403, "M_FORBIDDEN");
    lab.server.clock.advance(500);
    lab.server.send(login("wrong")).await
}

#[tokio::test]
async fn conflicts_carry_the_stored_bytes_under_the_names_of_the_request() {
    let rows = [
        (
            "expect_revision_id",
            "m.revision_id",
            "current_content",
            "M_REVISION_ID_MISMATCH",
        ),
        (
            "com.beeper.expect_revision_id",
            "com.beeper.revision_id",
            "com.beeper.current_content",
            "COM.BEEPER.REVISION_ID_MISMATCH",
        ),
    ];
    for (query, field, current, errcode) in rows {
        let reply = conflict(query, field).await;
        reply.assert_is(409, errcode);
        let stored = format!("{{ \"{field}\": \"1\",\"n\":1.0e0 }}");
        let expected = format!(",\"{current}\":{stored}}}");
        assert!(reply.text().ends_with(&expected), "{}", reply.text());
        assert_eq!(reply.json().as_object().unwrap().len(), 3);
    }
}

#[tokio::test]
async fn full_accounts_are_pointed_to_a_page() {
    let page = "https://limits.example/full";
    let server = Server::with(|setup| {
        setup.limits = narrow();
        setup.settings.limits_info_uri = Some(page.to_owned());
    });
    let lab = Lab::on(server).await;
    let alice = &lab.alice;
    assert_eq!(
        lab.put(&alice.device_data("PHONE", "a"), "{}").await.status,
        200
    );
    let too_large = format!("{{\"a\":\"{}\"}}", "x".repeat(200));
    let filter = format!("{}/filter", alice.base());
    assert_eq!(lab.send(Call::post(&filter, "{}")).await.status, 200);
    let replies = [
        lab.put(&alice.device_data("PHONE", "b"), "{}").await,
        lab.put(&alice.global("a"), &too_large).await,
        lab.send(Call::post(&filter, "{\"x\":1}")).await,
        lab.server.send(login(PASSWORD)).await,
    ];
    for reply in replies {
        reply.assert_is(403, "M_USER_LIMIT_EXCEEDED");
        assert_eq!(reply.json()["info_uri"], page, "{reply:?}");
    }
}

#[tokio::test]
async fn without_a_page_full_accounts_are_pointed_to_the_server() {
    let lab = Lab::narrow().await;
    for event_type in ["a", "b", "c"] {
        assert_eq!(
            lab.put(&lab.alice.global(event_type), "{}").await.status,
            200
        );
    }
    let reply = lab.put(&lab.alice.global("d"), "{}").await;
    reply.assert_is(403, "M_USER_LIMIT_EXCEEDED");
    assert_eq!(reply.json()["info_uri"], "http://kitbag.test");
}

#[tokio::test]
async fn rate_limits_tell_when_to_try_again() {
    let reply = rate_limited_login().await;
    reply.assert_is(429, "M_LIMIT_EXCEEDED");
    // Six a minute is one in ten seconds, of which half a second is over.
    assert_eq!(reply.json()["retry_after_ms"], 9_500);
    assert_eq!(reply.headers["retry-after"], "10");
}

#[tokio::test]
async fn unknown_tokens_tell_whether_the_session_can_be_taken_up() {
    let lab = Lab::new().await;
    let path = lab.alice.global("app.test");
    let unknown = lab.server.send(Call::get(&path).token("kt_garbage")).await;
    unknown.assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(unknown.json()["soft_logout"], false);
    let missing = lab.server.send(Call::get(&path)).await;
    missing.assert_is(401, "M_MISSING_TOKEN");
    assert_eq!(missing.json()["soft_logout"], Value::Null);
}

/// The device goes while the request of its session is under way, right before the store writes.
#[tokio::test]
async fn sessions_that_end_during_a_write_are_told_so() {
    let rows = [
        (
            "apply",
            "PUT",
            "/user/@alice:localhost/account_data/a",
            "{}",
        ),
        (
            "apply",
            "PUT",
            "/user/@alice:localhost/devices/PHONE/account_data/a",
            "{}",
        ),
        ("add_filter", "POST", "/user/@alice:localhost/filter", "{}"),
        (
            "rename_device",
            "PUT",
            "/devices/PHONE",
            "{\"display_name\":\"x\"}",
        ),
        (
            "set_profile",
            "PUT",
            "/profile/@alice:localhost/displayname",
            "{\"displayname\":\"x\"}",
        ),
        ("remove_devices", "POST", "/logout", ""),
        ("remove_devices", "POST", "/logout/all", ""),
    ];
    for (method, verb, path, body) in rows {
        let lab = Lab::new().await;
        let user = lab.alice.user.clone();
        lab.server
            .store
            .before(method, move |store| remove_device(store, &user));
        let reply = lab
            .send(Call::new(verb, format!("{C3}{path}")).body(body))
            .await;
        reply.assert_is(401, "M_UNKNOWN_TOKEN");
        assert_eq!(
            reply.json()["soft_logout"],
            false,
            "{verb} {path}: {reply:?}"
        );
    }
}

#[tokio::test]
async fn a_challenge_has_the_members_of_the_spec_and_no_errcode_at_first() {
    let lab = Lab::new().await;
    let first = lab.send(Call::delete(format!("{C3}/devices/PHONE"))).await;
    assert_eq!(first.status, 401);
    let body = first.json();
    let session = body["session"].as_str().unwrap();
    assert_eq!(session.len(), 24);
    let flows = json!([{"stages": ["m.login.password"]}]);
    assert_eq!(
        body,
        json!({"flows": flows, "params": {}, "session": session})
    );

    let auth = lab.alice.password_auth("wrong");
    let call = Call::delete(format!("{C3}/devices/PHONE"));
    let second = lab.send(call.body(json!({"auth": auth}).to_string())).await;
    assert_eq!(second.row(), (401, "M_FORBIDDEN".to_owned()));
    let body = second.json();
    assert_eq!((&body["flows"], &body["completed"]), (&flows, &json!([])));
    assert!(
        body["session"].is_string() && body["error"].is_string(),
        "{body}"
    );
}
