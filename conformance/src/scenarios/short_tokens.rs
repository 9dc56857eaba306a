//! The end of an access token's life, for servers whose tokens live for a few seconds.

use std::time::{Duration, Instant};

use kitbag_client::{Login, Method, Request, path};
use serde_json::json;

use crate::actor::Actor;
use crate::expect::{Outcome, Reply, check, check_json};
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const SOFT_LOGOUT: &str = "CS API, Soft logout; SPEC 9.2";
const TYPE: &str = "org.example.a";

/// How long a token may go on working: several times what "short" means.
const EXPIRY_DEADLINE: Duration = Duration::from_secs(10);

/// How often it is asked whether a token works still.
const ASK_EVERY: Duration = Duration::from_millis(100);

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenarios = vec![
        Scenario::new(
            "short_tokens/expired_token_is_401_and_soft",
            SOFT_LOGOUT,
            "401 M_UNKNOWN_TOKEN with soft_logout: true for reads, writes, deletions and syncs",
            soft,
        ),
        Scenario::new(
            "short_tokens/refresh_after_expiry_keeps_device_and_entries",
            "CS API, Refreshing access tokens; SPEC 9.2",
            "POST refresh gives a working token of the same device, and nothing is lost",
            refresh,
        ),
        Scenario::new(
            "short_tokens/login_without_refresh_token_does_not_expire",
            "CS API, Refreshing access tokens; SPEC 9.2",
            "no expires_in_ms, and the token outlives one that was given with it",
            plain,
        )
        .needs(Feature::Kitbag),
    ];
    let needing = |scenario: Scenario| scenario.needs(Feature::ShortTokens);
    scenarios.into_iter().map(needing).collect()
}

/// A device with a refresh token, whose access token is about to expire.
async fn short_lived(lab: &Lab, of: &Actor) -> Outcome<Actor> {
    let login = Login {
        refresh_token: true,
        ..Login::password(of.user_id(), lab.password())
    };
    let device = lab.actor(lab.client().login(&login).await?);
    let session = device.account().session();
    check(
        session.refresh_token.is_some() && session.expires_in_ms.is_some(),
        "a refresh_token and expires_in_ms",
        format!("expires_in_ms {:?}", session.expires_in_ms),
    )?;
    Ok(device)
}

/// The first answer that is not 200.
async fn expired(device: &Actor) -> Outcome<Reply> {
    let start = Instant::now();
    loop {
        let reply = device.get(&format!("{}/account/whoami", path::V3)).await?;
        if reply.status() != 200 || start.elapsed() >= EXPIRY_DEADLINE {
            return Ok(reply);
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn expect_soft(reply: Reply) -> Outcome {
    let body = reply.expect_error(401, "M_UNKNOWN_TOKEN")?;
    check_json(&body["soft_logout"], &json!(true), "soft_logout")
}

async fn soft(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let device = short_lived(&lab, &user).await?;
    expect_soft(expired(&device).await?)?;
    let path = user.global(TYPE);
    expect_soft(device.put(&path, &json!({"a": 1})).await?)?;
    expect_soft(device.get(&path).await?)?;
    expect_soft(device.delete(&path::device("D")).await?)?;
    let sync = format!("{}/sync?timeout=0", path::V3);
    expect_soft(device.get(&sync).await?)?;
    user.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn refresh(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global(TYPE), &json!({"a": 1})).await?;
    let device = short_lived(&lab, &user).await?;
    expect_soft(expired(&device).await?)?;
    let refresh_token = device.account().session().refresh_token.as_deref();
    let request = Request::new(Method::POST, format!("{}/refresh", path::V3))
        .json(&json!({"refresh_token": refresh_token}));
    let answer = lab.send(request).await?.ok()?;
    let token = answer["access_token"].as_str().unwrap_or_default();
    let with_token = |path: String| lab.send(Request::new(Method::GET, path).token(token));
    let who = with_token(format!("{}/account/whoami", path::V3))
        .await?
        .ok()?;
    check(
        who["device_id"] == device.device_id(),
        "the same device",
        who.to_string(),
    )?;
    with_token(user.global(TYPE))
        .await?
        .expect_json(&json!({"a": 1}))
}

async fn plain(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let plain = lab.second_device(&user).await?;
    check(
        plain.account().session().expires_in_ms.is_none(),
        "no expires_in_ms",
        "one",
    )?;
    let device = short_lived(&lab, &user).await?;
    expect_soft(expired(&device).await?)?;
    for lasting in [&user, &plain] {
        lasting
            .get(&format!("{}/account/whoami", path::V3))
            .await?
            .expect_status(200)?;
    }
    Ok(())
}
