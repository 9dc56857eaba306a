//! The devices of an account.

use kitbag_client::{Method, Request, path};
use serde_json::json;

use crate::expect::{Outcome, check, check_eq};
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const DEVICES: &str = "CS API, Device management; SPEC 9.1; Complement TestDeviceManagement";

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "devices/list_and_single_device_agree",
            DEVICES,
            "GET devices has each device once; GET devices/{id} the same object's ID",
            list,
        ),
        Scenario::new(
            "devices/unknown_device_is_404_not_found",
            DEVICES,
            "GET and PUT of a device that never was are 404 M_NOT_FOUND",
            unknown,
        ),
        Scenario::new(
            "devices/display_name_can_be_changed",
            DEVICES,
            "PUT sets it, an absent name leaves it",
            rename,
        ),
        Scenario::new(
            "devices/bad_put_body_is_400",
            "CS API, API standards",
            "broken JSON is M_NOT_JSON",
            bad_put,
        ),
        Scenario::new(
            "devices/delete_needs_uia",
            DEVICES,
            "DELETE without auth is 401 with flows, params and session; the device stays",
            delete_needs_uia,
        ),
        Scenario::new(
            "devices/wrong_password_is_401_forbidden",
            DEVICES,
            "401 M_FORBIDDEN with flows and session; the device stays",
            wrong_password,
        ),
        Scenario::new(
            "devices/uia_of_another_user_is_403",
            DEVICES,
            "another user's correct password opens nothing: 403 M_FORBIDDEN",
            other_users_uia,
        ),
        Scenario::new(
            "devices/deleted_device_is_gone",
            DEVICES,
            "200 {}, then 404, its token 401, and the others stay",
            deleted,
        ),
        Scenario::new(
            "devices/deleting_what_is_gone_is_200",
            DEVICES,
            "DELETE of a device that does not exist is 200 after UIA",
            delete_gone,
        ),
        Scenario::new(
            "devices/delete_devices_deletes_several",
            DEVICES,
            "401 first, then all named are gone",
            delete_several,
        ),
        Scenario::new(
            "devices/own_device_can_be_deleted",
            DEVICES,
            "after that the token is 401",
            delete_own,
        ),
        Scenario::new(
            "devices/other_users_devices_are_invisible",
            "DESIGN, law 5",
            "GET, PUT and DELETE of another user's device ID do not find it",
            other_users_devices,
        ),
        Scenario::new(
            "devices/no_or_unknown_token_is_401",
            DEVICES,
            "on every endpoint of devices",
            tokens,
        ),
        Scenario::new(
            "devices/device_id_of_128_bytes_is_the_longest",
            "DESIGN, Limits",
            "login with 128 bytes works, with 129 bytes is a 4xx",
            long_id,
        )
        .needs(Feature::Kitbag),
    ]
}

async fn list(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let devices = first.account().devices().await?;
    let mut ids: Vec<_> = devices
        .iter()
        .map(|device| device.device_id.as_str())
        .collect();
    let mut expected = vec![first.device_id(), second.device_id()];
    ids.sort_unstable();
    expected.sort_unstable();
    check_eq(&ids, &expected, "devices")?;
    for id in ids {
        let device = second.read(&path::device(id)).await?;
        check(
            device["device_id"] == id,
            format!("device_id {id}"),
            device.to_string(),
        )?;
    }
    Ok(())
}

async fn unknown(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.get(&path::device(user.device_id()))
        .await?
        .expect_status(200)?;
    user.get(&path::device("NEVERWAS"))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    let body = json!({"display_name": "x"});
    user.put(&path::device("NEVERWAS"), &body)
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn rename(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = path::device(user.device_id());
    user.put(&path, &json!({"display_name": "new ünïcödé"}))
        .await?
        .expect_json(&json!({}))?;
    let device = user.read(&path).await?;
    check_eq(
        &device["display_name"].as_str(),
        &Some("new ünïcödé"),
        "display name",
    )?;
    user.put(&path, &json!({})).await?.expect_json(&json!({}))?;
    let device = user.read(&path).await?;
    check_eq(
        &device["display_name"].as_str(),
        &Some("new ünïcödé"),
        "display name",
    )
}

async fn bad_put(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = path::device(user.device_id());
    user.put_bytes(&path, "{")
        .await?
        .expect_error(400, "M_NOT_JSON")?;
    user.put_bytes(&path, "[]")
        .await?
        .expect_error_in(400, &["M_BAD_JSON", "M_NOT_JSON"])?;
    Ok(())
}

async fn delete_needs_uia(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let request = Request::new(Method::DELETE, path::device(second.device_id()));
    let challenge = first
        .send(request.json(&json!({})))
        .await?
        .expect_challenge()?;
    check(
        challenge["params"].is_object(),
        "params",
        challenge.to_string(),
    )?;
    second
        .get(&path::device(second.device_id()))
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn wrong_password(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let request = Request::new(Method::DELETE, path::device(second.device_id()));
    let challenge = first
        .send(request.clone().json(&json!({})))
        .await?
        .expect_challenge()?;
    let wrong = format!("{}-wrong", first.password());
    let body = json!({"auth": first.auth(&challenge, &wrong)});
    let refused = first.send(request.json(&body)).await?;
    refused.clone().expect_error(401, "M_FORBIDDEN")?;
    refused.expect_challenge()?;
    second
        .get(&path::device(second.device_id()))
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn other_users_uia(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    let second = lab.second_device(&alice).await?;
    let request = Request::new(Method::DELETE, path::device(second.device_id()));
    let challenge = alice
        .send(request.clone().json(&json!({})))
        .await?
        .expect_challenge()?;
    let body = json!({"auth": bob.auth(&challenge, lab.password())});
    alice
        .send(request.json(&body))
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    second
        .get(&path::device(second.device_id()))
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn deleted(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let (second, third) = (
        lab.second_device(&first).await?,
        lab.second_device(&first).await?,
    );
    first.delete_device(second.device_id()).await?;
    first
        .get(&path::device(second.device_id()))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    second
        .get(&second.global("a"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    third
        .get(&path::device(third.device_id()))
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn delete_gone(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let request = Request::new(Method::DELETE, path::device("NEVERWAS"));
    user.send(request.json(&json!({})))
        .await?
        .expect_challenge()?;
    user.delete_device("NEVERWAS").await?;
    user.get(&path::device(user.device_id()))
        .await?
        .expect_status(200)?;
    Ok(())
}

async fn delete_several(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let (second, third) = (
        lab.second_device(&first).await?,
        lab.second_device(&first).await?,
    );
    let path = format!("{}/delete_devices", path::V3);
    let body = json!({"devices": [second.device_id(), third.device_id(), "NEVERWAS"]});
    first.post(&path, &body).await?.expect_challenge()?;
    first
        .with_uia(Method::POST, &path, body)
        .await?
        .expect_json(&json!({}))?;
    for device in [&second, &third] {
        first
            .get(&path::device(device.device_id()))
            .await?
            .expect_error(404, "M_NOT_FOUND")?;
        device
            .get(&device.global("a"))
            .await?
            .expect_error(401, "M_UNKNOWN_TOKEN")?;
    }
    let devices = first.account().devices().await?;
    check(devices.len() == 1, "one device", format!("{devices:?}"))
}

async fn delete_own(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.delete_device(user.device_id()).await?;
    user.get(&user.global("a"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    Ok(())
}

async fn other_users_devices(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    let path = path::device(alice.device_id());
    bob.get(&path).await?.expect_error(404, "M_NOT_FOUND")?;
    bob.put(&path, &json!({"display_name": "x"}))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    bob.delete_device(alice.device_id()).await?;
    alice.get(&path).await?.expect_status(200)?;
    Ok(())
}

async fn tokens(lab: Lab) -> Outcome {
    for (method, path) in [
        (Method::GET, format!("{}/devices", path::V3)),
        (Method::GET, path::device("D")),
        (Method::PUT, path::device("D")),
        (Method::DELETE, path::device("D")),
        (Method::POST, format!("{}/delete_devices", path::V3)),
    ] {
        let request = Request::new(method, path).json(&json!({"devices": []}));
        lab.send(request.clone())
            .await?
            .expect_error(401, "M_MISSING_TOKEN")?;
        lab.send(request.token("nonsense"))
            .await?
            .expect_error(401, "M_UNKNOWN_TOKEN")?;
    }
    Ok(())
}

async fn long_id(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let longest = "D".repeat(128);
    let device = lab.login_as(user.user_id(), &longest).await?;
    device
        .get(&path::device(&longest))
        .await?
        .expect_status(200)?;
    let body = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": user.user_id()},
        "password": lab.password(),
        "device_id": longest + "D",
    });
    let request = Request::new(Method::POST, format!("{}/login", path::V3));
    lab.send(request.json(&body)).await?.expect_refusal()
}
