//! Registration, login, passwords and deactivation.

use kitbag_client::{Login, Method, Register, Request, path};
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Outcome, Reply, check, check_eq};
use crate::lab::{Lab, random_name};
use crate::scenario::Scenario;

const LOGIN: &str = "CS API, Login; SPEC 9.2";
const REGISTER: &str = "CS API, Account registration; SPEC 9.2";

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = registration();
    scenarios.extend(login());
    scenarios.extend(passwords());
    scenarios
}

fn registration() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "accounts/register_asks_for_uia_and_logs_in",
            REGISTER,
            "401 with flows, params and session, then 200 with user, device and token",
            register,
        ),
        Scenario::new(
            "accounts/register_keeps_the_given_device_id",
            REGISTER,
            "device_id and initial_device_display_name are taken over",
            register_with_device,
        ),
        Scenario::new(
            "accounts/register_can_inhibit_login",
            REGISTER,
            "inhibit_login: true gives no token",
            inhibit_login,
        ),
        Scenario::new(
            "accounts/taken_name_is_400_user_in_use",
            REGISTER,
            "register and register/available say M_USER_IN_USE",
            taken_name,
        ),
        Scenario::new(
            "accounts/invalid_name_is_400_invalid_username",
            REGISTER,
            "register and register/available say M_INVALID_USERNAME",
            invalid_name,
        ),
        Scenario::new(
            "accounts/free_name_is_available",
            REGISTER,
            "register/available is 200 with available: true, without a token",
            free_name,
        ),
        Scenario::new(
            "accounts/wrong_stage_does_not_register",
            "CS API, User-interactive API",
            "a stage that no flow has, or a session that never was, makes no account",
            wrong_stage,
        ),
    ]
}

fn login() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "accounts/login_flows_have_the_password",
            LOGIN,
            "GET login lists m.login.password",
            flows,
        ),
        Scenario::new(
            "accounts/login_takes_both_forms_of_the_user",
            LOGIN,
            "identifier m.id.user and the old `user`, as localpart or full user ID",
            both_forms,
        ),
        Scenario::new(
            "accounts/wrong_password_is_403_forbidden",
            LOGIN,
            "403 M_FORBIDDEN, for a user that never was just the same",
            wrong_password,
        ),
        Scenario::new(
            "accounts/unknown_login_type_is_400_unknown",
            LOGIN,
            "a type that is no login type is 400 M_UNKNOWN or M_INVALID_PARAM",
            unknown_type,
        ),
        Scenario::new(
            "accounts/bad_login_body_is_400",
            "CS API, API standards",
            "broken JSON M_NOT_JSON; missing fields a 400",
            bad_login_body,
        ),
        Scenario::new(
            "accounts/login_makes_or_keeps_the_device",
            LOGIN,
            "without device_id a new device each time; with it that one",
            login_devices,
        ),
        Scenario::new(
            "accounts/login_with_the_same_device_kills_the_old_token",
            LOGIN,
            "the device is the same, the old token is 401, its name is not overwritten",
            same_device,
        ),
        Scenario::new(
            "accounts/whoami_says_user_and_device",
            "CS API, Current account information",
            "user_id and device_id of the token; 401 without one",
            whoami,
        ),
    ]
}

fn passwords() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "accounts/password_change_needs_uia",
            "CS API, Account management",
            "401 with flows; the wrong password is 401 M_FORBIDDEN and changes nothing",
            change_needs_uia,
        ),
        Scenario::new(
            "accounts/password_change_takes_effect",
            "CS API, Account management; Complement TestChangePassword",
            "the old password is 403, the new one logs in, other devices are logged out",
            change_takes_effect,
        ),
        Scenario::new(
            "accounts/password_change_can_keep_devices",
            "CS API, Account management",
            "with logout_devices: false other devices stay logged in",
            change_keeps_devices,
        ),
        Scenario::new(
            "accounts/deactivated_user_cannot_log_in",
            "CS API, Account deactivation; Complement TestDeactivateAccount",
            "UIA, then tokens are dead and login is 403 M_USER_DEACTIVATED or M_FORBIDDEN",
            deactivate,
        ),
        Scenario::new(
            "accounts/deactivation_needs_uia",
            "CS API, Account deactivation",
            "without or with a wrong password the account stays",
            deactivate_needs_uia,
        ),
    ]
}

async fn post(lab: &Lab, endpoint: &str, body: &Value) -> Outcome<Reply> {
    lab.send(Request::new(Method::POST, format!("{}/{endpoint}", path::V3)).json(body))
        .await
}

async fn get(lab: &Lab, endpoint: &str) -> Outcome<Reply> {
    lab.send(Request::new(
        Method::GET,
        format!("{}/{endpoint}", path::V3),
    ))
    .await
}

fn password_login(user: &str, password: &str) -> Value {
    json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user},
        "password": password,
    })
}

async fn register(lab: Lab) -> Outcome {
    let name = random_name()?;
    let body = json!({"username": name, "password": lab.password()});
    let challenge = post(&lab, "register", &body).await?.expect_challenge()?;
    check(
        challenge["params"].is_object(),
        "params",
        challenge.to_string(),
    )?;
    let user = lab.user_named(&name).await?;
    check(
        user.user_id().starts_with(&format!("@{name}:")) && !user.device_id().is_empty(),
        format!("user @{name} with a device"),
        format!("{} {}", user.user_id(), user.device_id()),
    )?;
    user.get(&format!("{}/account/whoami", path::V3))
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn register_with_device(lab: Lab) -> Outcome {
    let name = random_name()?;
    let register = Register {
        username: Some(&name),
        password: Some(lab.password()),
        device_id: Some("MYDEVICE"),
        initial_device_display_name: Some("my device"),
        registration_token: lab.registration_token(),
        refresh_token: false,
    };
    let account = lab.client().register(&register).await?;
    check_eq(&account.session().device_id.as_str(), &"MYDEVICE", "device")?;
    let device = account.device("MYDEVICE").await?;
    let name = device.and_then(|device| device.display_name);
    check_eq(&name.as_deref(), &Some("my device"), "display name")
}

async fn inhibit_login(lab: Lab) -> Outcome {
    let name = random_name()?;
    let mut body = json!({"username": name, "password": lab.password(), "inhibit_login": true});
    let challenge = post(&lab, "register", &body).await?.expect_challenge()?;
    body["auth"] = json!({"type": "m.login.dummy", "session": challenge["session"]});
    if let Some(token) = lab.registration_token() {
        body["auth"]["type"] = "m.login.registration_token".into();
        body["auth"]["token"] = token.into();
    }
    let answer = post(&lab, "register", &body).await?.ok()?;
    let is_bare = answer["user_id"].is_string()
        && answer.get("access_token").is_none()
        && answer.get("device_id").is_none();
    check(is_bare, "a user_id only", answer.to_string())?;
    let user_id = answer["user_id"].as_str().unwrap_or_default().to_owned();
    lab.client()
        .login(&Login::password(&user_id, lab.password()))
        .await?;
    Ok(())
}

async fn taken_name(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let body = json!({"username": user.localpart(), "password": lab.password()});
    post(&lab, "register", &body)
        .await?
        .expect_error(400, "M_USER_IN_USE")?;
    let available = format!("register/available?username={}", user.localpart());
    get(&lab, &available)
        .await?
        .expect_error(400, "M_USER_IN_USE")?;
    Ok(())
}

async fn invalid_name(lab: Lab) -> Outcome {
    for name in ["with space", "sla:sh", "ünïcödé", &"x".repeat(300)] {
        let body = json!({"username": name, "password": lab.password()});
        post(&lab, "register", &body)
            .await?
            .expect_error(400, "M_INVALID_USERNAME")?;
    }
    let available = "register/available?username=with%20space";
    get(&lab, available)
        .await?
        .expect_error(400, "M_INVALID_USERNAME")?;
    Ok(())
}

async fn free_name(lab: Lab) -> Outcome {
    let available = format!("register/available?username={}", random_name()?);
    get(&lab, &available)
        .await?
        .expect_json(&json!({"available": true}))
}

async fn wrong_stage(lab: Lab) -> Outcome {
    let name = random_name()?;
    let mut body = json!({"username": name, "password": lab.password()});
    let challenge = post(&lab, "register", &body).await?.expect_challenge()?;
    for auth in [
        json!({"type": "m.login.nonsense", "session": challenge["session"]}),
        json!({"session": challenge["session"]}),
        json!({"type": "m.login.dummy", "session": "never-was"}),
    ] {
        body["auth"] = auth;
        let reply = post(&lab, "register", &body).await?;
        let status = reply.status();
        check((400..500).contains(&status), "a 4xx", reply.failure("").got)?;
    }
    lab.user_named(&name).await?;
    Ok(())
}

async fn flows(lab: Lab) -> Outcome {
    let reply = get(&lab, "login").await?;
    let body = reply.clone().ok()?;
    let flows = body["flows"].as_array().cloned().unwrap_or_default();
    let has_password = flows.iter().any(|flow| flow["type"] == "m.login.password");
    check(
        has_password,
        "m.login.password in flows",
        reply.failure("").got,
    )
}

async fn both_forms(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for name in [user.user_id(), user.localpart()] {
        let old = json!({"type": "m.login.password", "user": name, "password": lab.password()});
        for body in [password_login(name, lab.password()), old] {
            let answer = post(&lab, "login", &body).await?.ok()?;
            check(
                answer["user_id"] == user.user_id()
                    && answer["access_token"].is_string()
                    && answer["device_id"].is_string()
                    && answer.get("refresh_token").is_none(),
                "user_id, access_token and device_id",
                answer.to_string(),
            )?;
        }
    }
    Ok(())
}

async fn wrong_password(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let never = random_name()?;
    let wrong = format!("{}-wrong", lab.password());
    for (name, password) in [
        (user.user_id(), wrong.as_str()),
        (user.localpart(), ""),
        (never.as_str(), lab.password()),
    ] {
        let body = password_login(name, password);
        post(&lab, "login", &body)
            .await?
            .expect_error(403, "M_FORBIDDEN")?;
    }
    Ok(())
}

async fn unknown_type(lab: Lab) -> Outcome {
    let body = json!({"type": "m.login.nonsense", "user": "a", "password": "b"});
    post(&lab, "login", &body)
        .await?
        .expect_error_in(400, &["M_UNKNOWN", "M_INVALID_PARAM"])?;
    Ok(())
}

async fn bad_login_body(lab: Lab) -> Outcome {
    let request = Request::new(Method::POST, format!("{}/login", path::V3));
    lab.send(request.clone().body("{"))
        .await?
        .expect_error(400, "M_NOT_JSON")?;
    lab.send(request.clone().body(""))
        .await?
        .expect_error(400, "M_NOT_JSON")?;
    let reply = lab.send(request.body("[]")).await?;
    reply.expect_error_in(400, &["M_BAD_JSON", "M_NOT_JSON"])?;
    for body in [
        json!({}),
        json!({"type": "m.login.password", "password": "x"}),
    ] {
        post(&lab, "login", &body).await?.expect_status(400)?;
    }
    Ok(())
}

async fn login_devices(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let (second, third) = (
        lab.second_device(&user).await?,
        lab.second_device(&user).await?,
    );
    let ids = [user.device_id(), second.device_id(), third.device_id()];
    check(
        ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2],
        "three devices",
        format!("{ids:?}"),
    )?;
    let named = lab.login_as(user.user_id(), "NAMED").await?;
    check_eq(&named.device_id(), &"NAMED", "device")?;
    for device in [&user, &second, &third, &named] {
        device
            .get(&format!("{}/account/whoami", path::V3))
            .await?
            .expect_status(200)?;
    }
    Ok(())
}

async fn same_device(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let login = Login {
        device_id: Some("NAMED"),
        initial_device_display_name: Some("first"),
        ..Login::password(user.user_id(), lab.password())
    };
    let old = lab.actor(lab.client().login(&login).await?);
    let again = Login {
        initial_device_display_name: Some("second"),
        ..login
    };
    let new = lab.actor(lab.client().login(&again).await?);
    old.get(&old.global("a"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    let device = new.read(&path::device("NAMED")).await?;
    check_eq(
        &device["display_name"].as_str(),
        &Some("first"),
        "display name",
    )
}

async fn whoami(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let answer = user.read(&format!("{}/account/whoami", path::V3)).await?;
    check(
        answer["user_id"] == user.user_id() && answer["device_id"] == user.device_id(),
        format!("{} {}", user.user_id(), user.device_id()),
        answer.to_string(),
    )?;
    get(&lab, "account/whoami")
        .await?
        .expect_error(401, "M_MISSING_TOKEN")?;
    Ok(())
}

fn new_password(user: &Actor) -> String {
    format!("{}-new", user.password())
}

async fn change_needs_uia(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = format!("{}/account/password", path::V3);
    let mut body = json!({"new_password": new_password(&user)});
    let challenge = user.post(&path, &body).await?.expect_challenge()?;
    body["auth"] = user.auth(&challenge, "wrong");
    let refused = user.post(&path, &body).await?;
    refused.clone().expect_error(401, "M_FORBIDDEN")?;
    refused.expect_challenge()?;
    lab.second_device(&user).await?;
    Ok(())
}

async fn change(user: &Actor, logout_devices: bool) -> Outcome {
    let path = format!("{}/account/password", path::V3);
    let body = json!({"new_password": new_password(user), "logout_devices": logout_devices});
    user.with_uia(Method::POST, &path, body)
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn change_takes_effect(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let second = lab.second_device(&user).await?;
    change(&user, true).await?;
    second
        .get(&user.global("a"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    user.get(&user.global("a"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    let old = password_login(user.user_id(), lab.password());
    post(&lab, "login", &old)
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    let new = password_login(user.user_id(), &new_password(&user));
    post(&lab, "login", &new).await?.expect_status(200)?;
    Ok(())
}

async fn change_keeps_devices(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let second = lab.second_device(&user).await?;
    change(&user, false).await?;
    second
        .get(&user.global("a"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn deactivate(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let second = lab.second_device(&user).await?;
    user.set(&user.global("org.example.a"), &json!({"a": 1}))
        .await?;
    let path = format!("{}/account/deactivate", path::V3);
    user.with_uia(Method::POST, &path, json!({"erase": true}))
        .await?
        .expect_status(200)?;
    for device in [&user, &second] {
        let reply = device.get(&user.global("org.example.a")).await?;
        reply.expect_error(401, "M_UNKNOWN_TOKEN")?;
    }
    let login = password_login(user.user_id(), lab.password());
    let reply = post(&lab, "login", &login).await?;
    reply.expect_error_in(403, &["M_USER_DEACTIVATED", "M_FORBIDDEN"])?;
    let register = json!({"username": user.localpart(), "password": lab.password()});
    post(&lab, "register", &register)
        .await?
        .expect_error(400, "M_USER_IN_USE")?;
    Ok(())
}

async fn deactivate_needs_uia(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = format!("{}/account/deactivate", path::V3);
    let challenge = user.post(&path, &json!({})).await?.expect_challenge()?;
    let auth = user.auth(&challenge, "wrong");
    let refused = user.post(&path, &json!({"auth": auth})).await?;
    refused.expect_error(401, "M_FORBIDDEN")?;
    lab.second_device(&user).await?;
    Ok(())
}
