//! What becomes of a device's account data when the device goes, or comes back (MSC4331).

use kitbag_client::{Login, Method, Naming, Scope, path};
use serde_json::json;

use crate::actor::Actor;
use crate::expect::{Outcome, check};
use crate::lab::Lab;
use crate::scenario::{Feature, Scenario};

const LIFE: &str = "MSC4331; SPEC 3.5; DESIGN, law 6";
const TYPE: &str = "org.example.device";
const STABLE_SETTINGS: &str = "m.local_notification_settings.";
const UNSTABLE_SETTINGS: &str = "org.matrix.msc3890.local_notification_settings.";

pub(super) fn scenarios() -> Vec<Scenario> {
    let mut scenarios = removals();
    scenarios.extend(deletions());
    let mut scenarios: Vec<_> = scenarios
        .into_iter()
        .map(|scenario| scenario.needs(Feature::Msc4331))
        .collect();
    scenarios.extend(notification_settings());
    scenarios
}

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
fn removals() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "life_cycle/logout_removes_the_entries",
            LIFE,
            "after POST logout the device is unknown, and comes back empty",
            logout,
        ),
        Scenario::new(
            "life_cycle/logout_all_removes_the_entries_of_all",
            LIFE,
            "after POST logout/all every device is unknown, and comes back empty",
            logout_all,
        ),
        Scenario::new(
            "life_cycle/deleting_the_device_removes_the_entries",
            LIFE,
            "after DELETE devices/{id} the device is unknown, and comes back empty",
            delete_device,
        ),
        Scenario::new(
            "life_cycle/delete_devices_removes_the_entries",
            LIFE,
            "after POST delete_devices those devices are unknown, others keep theirs",
            delete_devices,
        ),
        Scenario::new(
            "life_cycle/password_change_removes_the_entries_of_others",
            LIFE,
            "logout_devices is true if absent; the device that changes it keeps its own",
            |lab| change_password(lab, None),
        ),
        Scenario::new(
            "life_cycle/password_change_with_logout_devices_removes_too",
            LIFE,
            "the same with logout_devices: true",
            |lab| change_password(lab, Some(true)),
        ),
        Scenario::new(
            "life_cycle/password_change_without_logout_devices_keeps_all",
            LIFE,
            "with logout_devices: false all devices keep theirs",
            |lab| change_password(lab, Some(false)),
        ),
        Scenario::new(
            "life_cycle/refresh_keeps_the_entries",
            LIFE,
            "a refreshed token is the same device",
            refresh_keeps,
        ),
        Scenario::new(
            "life_cycle/login_with_the_same_device_id_keeps_the_entries",
            LIFE,
            "the device is kept and may write; the old token dies",
            login_keeps,
        ),
        Scenario::new(
            "life_cycle/recreated_device_starts_empty",
            LIFE,
            "a device of the same ID after a deletion has nothing of the old, also in sync",
            recreated,
        ),
        Scenario::new(
            "life_cycle/siblings_see_the_removal_in_sync",
            "D8; DESIGN, law 6",
            "each entry of the removed device comes as {}, once; an initial sync has none",
            removal_in_sync,
        ),
        Scenario::new(
            "life_cycle/renaming_a_device_keeps_the_entries",
            LIFE,
            "PUT devices/{id} changes nothing of them",
            rename_keeps,
        ),
    ]
}

fn deletions() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "life_cycle/own_entry_is_deleted_under_both_names",
            "MSC3391; MSC4331; D3",
            "DELETE with both path segments is 200 {}, then GET 404; absent is 200 too",
            delete_entry,
        )
        .needs(Feature::Msc3391),
        Scenario::new(
            "life_cycle/entry_of_another_device_is_not_deleted",
            "MSC3391; MSC4331; D6",
            "sibling 403, unknown device 404, other user 403",
            delete_others,
        )
        .needs(Feature::Msc3391),
        Scenario::new(
            "life_cycle/deleted_entry_is_a_tombstone_in_sync",
            "MSC3391; D8",
            "siblings get {} once; an initial sync and the Device object have nothing of it",
            deletion_in_sync,
        )
        .needs(Feature::Msc3391),
        Scenario::new(
            "life_cycle/deletion_makes_room_for_another_entry",
            "DESIGN, Limits",
            "after deleting one of 64 entries a new one is accepted",
            deletion_makes_room,
        )
        .needs(Feature::Kitbag)
        .needs(Feature::Msc3391),
    ]
}

fn notification_settings() -> Vec<Scenario> {
    let scenarios = vec![
        Scenario::new(
            "life_cycle/notification_settings_go_with_their_device",
            "MSC3890",
            "logout removes the global entry named by the device; other devices' entries stay",
            |lab| settings_go(lab, UNSTABLE_SETTINGS),
        ),
        Scenario::new(
            "life_cycle/stable_notification_settings_go_with_their_device",
            "MSC3890; issue 2",
            "the same for the name without the unstable prefix",
            |lab| settings_go(lab, STABLE_SETTINGS),
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "life_cycle/removed_notification_settings_are_in_sync_if_there_were_any",
            "MSC3890; issue 2",
            "a tombstone comes for the entry that was, none for a device without one",
            settings_in_sync,
        ),
    ];
    scenarios
        .into_iter()
        .map(|scenario| scenario.needs(Feature::Msc3890))
        .collect()
}

/// A user's two devices, each with an entry.
async fn two_devices(lab: &Lab) -> Outcome<(Actor, Actor)> {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    first.set(&first.own(TYPE), &json!({"of": "first"})).await?;
    second
        .set(&second.own(TYPE), &json!({"of": "second"}))
        .await?;
    Ok((first, second))
}

/// Fails unless `gone` is unknown to `by`, and a new device of its ID has nothing.
async fn expect_gone(lab: &Lab, by: &Actor, gone: &Actor) -> Outcome {
    by.get(&gone.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    gone.get(&gone.own(TYPE))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    gone.put(&gone.own(TYPE), &json!({}))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    let again = lab.login_as(gone.user_id(), gone.device_id()).await?;
    again
        .get(&again.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    Ok(())
}

async fn logout(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    second.account().logout().await?;
    expect_gone(&lab, &first, &second).await?;
    first
        .get(&first.own(TYPE))
        .await?
        .expect_json(&json!({"of": "first"}))
}

async fn logout_all(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    first.account().logout_all().await?;
    let third = lab.second_device(&first).await?;
    expect_gone(&lab, &third, &first).await?;
    expect_gone(&lab, &third, &second).await
}

async fn delete_device(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    first.delete_device(second.device_id()).await?;
    expect_gone(&lab, &first, &second).await?;
    first
        .get(&first.own(TYPE))
        .await?
        .expect_json(&json!({"of": "first"}))
}

async fn delete_devices(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    let third = lab.second_device(&first).await?;
    third.set(&third.own(TYPE), &json!({"of": "third"})).await?;
    let body = json!({"devices": [second.device_id(), third.device_id()]});
    let path = format!("{}/delete_devices", path::V3);
    first
        .with_uia(Method::POST, &path, body)
        .await?
        .expect_json(&json!({}))?;
    expect_gone(&lab, &first, &second).await?;
    expect_gone(&lab, &first, &third).await?;
    first
        .get(&first.own(TYPE))
        .await?
        .expect_json(&json!({"of": "first"}))
}

async fn change_password(lab: Lab, logout_devices: Option<bool>) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    let mut body = json!({"new_password": lab.password()});
    if let Some(logout_devices) = logout_devices {
        body["logout_devices"] = logout_devices.into();
    }
    let path = format!("{}/account/password", path::V3);
    first
        .with_uia(Method::POST, &path, body)
        .await?
        .expect_status(200)?;
    first
        .get(&first.own(TYPE))
        .await?
        .expect_json(&json!({"of": "first"}))?;
    if logout_devices == Some(false) {
        return second
            .get(&second.own(TYPE))
            .await?
            .expect_json(&json!({"of": "second"}));
    }
    expect_gone(&lab, &first, &second).await
}

async fn refresh_keeps(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let login = Login {
        refresh_token: true,
        ..Login::password(user.user_id(), lab.password())
    };
    let device = lab.actor(lab.client().login(&login).await?);
    device.set(&device.own(TYPE), &json!({"a": 1})).await?;
    let mut account = device.account().clone();
    account.refresh().await?;
    let refreshed = lab.actor(account);
    refreshed
        .get(&device.own(TYPE))
        .await?
        .expect_json(&json!({"a": 1}))?;
    refreshed.set(&device.own(TYPE), &json!({"a": 2})).await?;
    user.get(&device.own(TYPE))
        .await?
        .expect_json(&json!({"a": 2}))
}

async fn login_keeps(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    let again = lab.login_as(second.user_id(), second.device_id()).await?;
    again
        .get(&again.own(TYPE))
        .await?
        .expect_json(&json!({"of": "second"}))?;
    again.set(&again.own(TYPE), &json!({"of": "again"})).await?;
    first
        .get(&second.own(TYPE))
        .await?
        .expect_json(&json!({"of": "again"}))?;
    second
        .get(&second.own(TYPE))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    Ok(())
}

async fn recreated(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    first.delete_device(second.device_id()).await?;
    let again = lab.login_as(second.user_id(), second.device_id()).await?;
    first
        .get(&again.own(TYPE))
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    again
        .initial_sync()
        .await?
        .expect_no_device(again.device_id(), TYPE)?;
    again.set(&again.own(TYPE), &json!({"of": "new"})).await?;
    first
        .get(&again.own(TYPE))
        .await?
        .expect_json(&json!({"of": "new"}))?;
    first
        .initial_sync()
        .await?
        .expect_device(again.device_id(), TYPE, &json!({"of": "new"}))
}

async fn removal_in_sync(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    second
        .set(&second.own("org.example.more"), &json!({"a": 1}))
        .await?;
    let since = first.settled().await?;
    second.account().logout().await?;
    let sync = first.sync_since(&since).await?;
    sync.expect_device(second.device_id(), TYPE, &json!({}))?;
    sync.expect_device(second.device_id(), "org.example.more", &json!({}))?;
    sync.expect_no_device(first.device_id(), TYPE)?;
    let next = first.sync_since(&sync.next_batch).await?;
    next.expect_no_device(second.device_id(), TYPE)?;
    let initial = first.initial_sync().await?;
    initial.expect_no_device(second.device_id(), TYPE)?;
    initial.expect_device(first.device_id(), TYPE, &json!({"of": "first"}))
}

async fn rename_keeps(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    first
        .account()
        .rename_device(second.device_id(), "renamed")
        .await?;
    second
        .get(&second.own(TYPE))
        .await?
        .expect_json(&json!({"of": "second"}))
}

async fn delete_entry(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    for naming in [Naming::Stable, Naming::Unstable] {
        first.set(&first.own(TYPE), &json!({"a": 1})).await?;
        let scope = Scope::Device(first.device_id());
        let path = path::account_data_deletion(first.user_id(), scope, naming, TYPE);
        first.delete(&path).await?.expect_json(&json!({}))?;
        first
            .get(&first.own(TYPE))
            .await?
            .expect_error(404, "M_NOT_FOUND")?;
        first.delete(&path).await?.expect_json(&json!({}))?;
    }
    second
        .get(&second.own(TYPE))
        .await?
        .expect_json(&json!({"of": "second"}))
}

async fn delete_others(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    let bob = lab.user().await?;
    let path = first.deletion_of(Scope::Device(first.device_id()), TYPE);
    second
        .delete(&path)
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    bob.delete(&path).await?.expect_error(403, "M_FORBIDDEN")?;
    let absent = first.deletion_of(Scope::Device(first.device_id()), "org.example.never");
    second
        .delete(&absent)
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    let unknown = first.deletion_of(Scope::Device("NEVERWAS"), TYPE);
    first
        .delete(&unknown)
        .await?
        .expect_error(404, "M_NOT_FOUND")?;
    bob.delete(&unknown)
        .await?
        .expect_error(403, "M_FORBIDDEN")?;
    first
        .get(&first.own(TYPE))
        .await?
        .expect_json(&json!({"of": "first"}))
}

async fn deletion_in_sync(lab: Lab) -> Outcome {
    let (first, second) = two_devices(&lab).await?;
    let since = second.settled().await?;
    first.remove(Scope::Device(first.device_id()), TYPE).await?;
    let sync = second.sync_since(&since).await?;
    sync.expect_device(first.device_id(), TYPE, &json!({}))?;
    let next = second.sync_since(&sync.next_batch).await?;
    next.expect_no_device(first.device_id(), TYPE)?;
    second
        .initial_sync()
        .await?
        .expect_no_device(first.device_id(), TYPE)?;
    let device = second.read(&path::device(first.device_id())).await?;
    check(
        device.get("account_data").is_none(),
        "no account_data in Device",
        device.to_string(),
    )
}

async fn deletion_makes_room(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for number in 0..64 {
        user.set(&user.own(&format!("org.example.{number}")), &json!({}))
            .await?;
    }
    user.remove(Scope::Device(user.device_id()), "org.example.7")
        .await?;
    user.set(&user.own("org.example.64"), &json!({})).await?;
    let reply = user.put(&user.own("org.example.65"), &json!({})).await?;
    reply.expect_error(403, "M_USER_LIMIT_EXCEEDED")?;
    Ok(())
}

async fn settings_go(lab: Lab, prefix: &str) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    let [kept, gone] =
        [&first, &second].map(|d| first.global(&format!("{prefix}{}", d.device_id())));
    for path in [&kept, &gone] {
        first.set(path, &json!({"is_silenced": true})).await?;
    }
    second.account().logout().await?;
    first.get(&gone).await?.expect_error(404, "M_NOT_FOUND")?;
    first
        .get(&kept)
        .await?
        .expect_json(&json!({"is_silenced": true}))
}

async fn settings_in_sync(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let (second, third) = (
        lab.second_device(&first).await?,
        lab.second_device(&first).await?,
    );
    let kind = format!("{UNSTABLE_SETTINGS}{}", second.device_id());
    first
        .set(&first.global(&kind), &json!({"is_silenced": true}))
        .await?;
    let since = first.settled().await?;
    second.account().logout().await?;
    third.account().logout().await?;
    let sync = first.sync_since(&since).await?;
    sync.expect_global(&kind, &json!({}))?;
    for never in [
        format!("{STABLE_SETTINGS}{}", second.device_id()),
        format!("{UNSTABLE_SETTINGS}{}", third.device_id()),
        format!("{STABLE_SETTINGS}{}", third.device_id()),
    ] {
        sync.expect_no_global(&never)?;
    }
    first.initial_sync().await?.expect_no_global(&kind)
}
