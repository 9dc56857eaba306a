//! Access tokens, refresh tokens and logout.

use std::time::Instant;

use kitbag_client::{Login, Method, Request, SyncParams, path};
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Failure, Outcome, Reply, check};
use crate::lab::Lab;
use crate::poll::{HEAD_START, LONG_POLL, WAKE_UP};
use crate::scenario::{Feature, Scenario};

const REFRESH: &str = "CS API, Refreshing access tokens; SPEC 9.2";
const LOGOUT: &str = "CS API, Login; Complement TestLogout";

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "tokens/logout_kills_the_token_and_the_device",
            LOGOUT,
            "the token is 401 M_UNKNOWN_TOKEN, the device is gone, others stay",
            logout,
        ),
        Scenario::new(
            "tokens/logout_all_kills_every_token",
            LOGOUT,
            "all tokens are 401 M_UNKNOWN_TOKEN, and only a new device is left",
            logout_all,
        ),
        Scenario::new(
            "tokens/logout_needs_a_token",
            LOGOUT,
            "401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN, for logout and logout/all",
            logout_needs_token,
        ),
        Scenario::new(
            "tokens/hard_logout_is_not_soft",
            "CS API, Soft logout",
            "after a logout soft_logout is absent or false",
            not_soft,
        ),
        Scenario::new(
            "tokens/sync_of_a_removed_device_is_401",
            "CS API, Device management",
            "a sync with the token of a removed device is 401 M_UNKNOWN_TOKEN",
            dead_sync,
        ),
        Scenario::new(
            "tokens/waiting_sync_ends_with_its_device",
            "DESIGN, law 6",
            "a sync that waits when its device is removed is 401 at once",
            waiting_sync,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "tokens/refresh_token_is_given_on_demand",
            REFRESH,
            "login with refresh_token: true has refresh_token; without it there is none",
            on_demand,
        ),
        Scenario::new(
            "tokens/refresh_gives_a_working_token",
            REFRESH,
            "POST refresh needs no access token; the new one is of the same device",
            refresh,
        ),
        Scenario::new(
            "tokens/old_refresh_token_lives_until_the_new_is_used",
            REFRESH,
            "a lost answer can be asked for again; after the new token was used it is 401",
            old_refresh_token,
        ),
        Scenario::new(
            "tokens/unknown_refresh_token_is_401_unknown_token",
            REFRESH,
            "nonsense, and an access token in its place, are 401 M_UNKNOWN_TOKEN",
            unknown_refresh_token,
        ),
        Scenario::new(
            "tokens/logout_kills_the_refresh_token",
            REFRESH,
            "after a logout the refresh token is 401",
            logout_kills_refresh,
        ),
        Scenario::new(
            "tokens/refresh_token_is_no_access_token",
            REFRESH,
            "a refresh token as Bearer is 401 M_UNKNOWN_TOKEN",
            refresh_as_access,
        ),
    ]
}

async fn logout(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let path = format!("{}/logout", path::V3);
    second
        .post(&path, &json!({}))
        .await?
        .expect_json(&json!({}))?;
    second
        .get(&first.global("a"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    first
        .get(&path::device(second.device_id()))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    first
        .get(&path::device(first.device_id()))
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn logout_all(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let path = format!("{}/logout/all", path::V3);
    first
        .post(&path, &json!({}))
        .await?
        .expect_json(&json!({}))?;
    for device in [&first, &second] {
        device
            .get(&first.global("a"))
            .await?
            .expect_error(401, "M_UNKNOWN_TOKEN")?;
    }
    let third = lab.second_device(&first).await?;
    let devices = third.account().devices().await?;
    check(devices.len() == 1, "one device", format!("{devices:?}"))
}

async fn logout_needs_token(lab: Lab) -> Outcome {
    for endpoint in ["logout", "logout/all"] {
        let path = format!("{}/{endpoint}", path::V3);
        let request = Request::new(Method::POST, path).json(&json!({}));
        lab.send(request.clone())
            .await?
            .expect_error(401, "M_MISSING_TOKEN")?;
        lab.send(request.token("nonsense"))
            .await?
            .expect_error(401, "M_UNKNOWN_TOKEN")?;
    }
    Ok(())
}

async fn not_soft(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.account().logout().await?;
    let body = user
        .get(&user.global("a"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    let soft_logout = body.get("soft_logout");
    check(
        soft_logout.is_none_or(|soft| soft == false),
        "no soft_logout",
        body.to_string(),
    )
}

async fn dead_sync(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    first.delete_device(second.device_id()).await?;
    let sync = format!("{}/sync?timeout=0", path::V3);
    second
        .get(&sync)
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    Ok(())
}

async fn waiting_sync(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let since = second.settled().await?;
    let params = SyncParams {
        since: Some(&since),
        timeout: LONG_POLL,
        ..SyncParams::default()
    };
    let path = params.path();
    let waiting = async {
        let reply = second.get(&path).await?;
        reply.expect_error(401, "M_UNKNOWN_TOKEN")?;
        Ok::<_, Failure>(Instant::now())
    };
    let removing = async {
        tokio::time::sleep(HEAD_START).await;
        first.delete_device(second.device_id()).await?;
        Ok(Instant::now())
    };
    let (returned, removed) = tokio::try_join!(waiting, removing)?;
    let took = returned.saturating_duration_since(removed);
    check(
        took < WAKE_UP,
        "an end at once",
        format!("{} ms", took.as_millis()),
    )
}

/// A device of a new user, with a refresh token.
async fn refreshable(lab: &Lab) -> Outcome<Actor> {
    let user = lab.user().await?;
    let login = Login {
        refresh_token: true,
        ..Login::password(user.user_id(), lab.password())
    };
    Ok(lab.actor(lab.client().login(&login).await?))
}

fn refresh_token(device: &Actor) -> String {
    device
        .account()
        .session()
        .refresh_token
        .clone()
        .unwrap_or_default()
}

async fn refresh_with(lab: &Lab, refresh_token: &str) -> Outcome<Reply> {
    let request = Request::new(Method::POST, format!("{}/refresh", path::V3));
    lab.send(request.json(&json!({"refresh_token": refresh_token})))
        .await
}

fn text(body: &Value, key: &str) -> String {
    body[key].as_str().unwrap_or_default().to_owned()
}

async fn use_token(lab: &Lab, token: &str) -> Outcome<Reply> {
    let path = format!("{}/account/whoami", path::V3);
    lab.send(Request::new(Method::GET, path).token(token)).await
}

async fn on_demand(lab: Lab) -> Outcome {
    let device = refreshable(&lab).await?;
    check(
        !refresh_token(&device).is_empty(),
        "a refresh token",
        "none",
    )?;
    refresh_with(&lab, &refresh_token(&device)).await?.ok()?;
    let plain = lab.second_device(&device).await?;
    check(refresh_token(&plain).is_empty(), "no refresh token", "one")
}

async fn refresh(lab: Lab) -> Outcome {
    let device = refreshable(&lab).await?;
    let answer = refresh_with(&lab, &refresh_token(&device)).await?.ok()?;
    let new = text(&answer, "access_token");
    check(
        !new.is_empty() && new != device.token(),
        "a new access token",
        answer.to_string(),
    )?;
    let who = use_token(&lab, &new).await?.ok()?;
    check(
        who["device_id"] == device.device_id(),
        "the same device",
        who.to_string(),
    )
}

async fn old_refresh_token(lab: Lab) -> Outcome {
    let device = refreshable(&lab).await?;
    let old = refresh_token(&device);
    refresh_with(&lab, &old).await?.ok()?;
    let second = refresh_with(&lab, &old).await?.ok()?;
    use_token(&lab, &text(&second, "access_token"))
        .await?
        .expect_status(200)?;
    refresh_with(&lab, &old)
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    let third = refresh_with(&lab, &text(&second, "refresh_token"))
        .await?
        .ok()?;
    use_token(&lab, &text(&third, "access_token"))
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn unknown_refresh_token(lab: Lab) -> Outcome {
    let device = refreshable(&lab).await?;
    for token in ["nonsense", "", device.token()] {
        refresh_with(&lab, token)
            .await?
            .expect_error(401, "M_UNKNOWN_TOKEN")?;
    }
    refresh_with(&lab, &refresh_token(&device))
        .await?
        .ok()
        .map(drop)
}

async fn logout_kills_refresh(lab: Lab) -> Outcome {
    let device = refreshable(&lab).await?;
    device.account().logout().await?;
    let reply = refresh_with(&lab, &refresh_token(&device)).await?;
    reply.expect_error(401, "M_UNKNOWN_TOKEN")?;
    Ok(())
}

async fn refresh_as_access(lab: Lab) -> Outcome {
    let device = refreshable(&lab).await?;
    use_token(&lab, &refresh_token(&device))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    refresh_with(&lab, &refresh_token(&device))
        .await?
        .ok()
        .map(drop)
}
