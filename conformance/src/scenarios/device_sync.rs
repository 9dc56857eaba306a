//! Device account data in /sync.

use kitbag_client::SyncParams;
use serde_json::json;

use crate::actor::Actor;
use crate::expect::{Outcome, check};
use crate::lab::Lab;
use crate::poll::{not_woken_by, woken_by};
use crate::scenario::{Feature, Scenario};
use crate::sync::DEVICE_KEY;

const D8: &str = "MSC4331; D8";
const TYPE: &str = "org.example.device";

pub(super) fn scenarios() -> Vec<Scenario> {
    let scenarios = vec![
        Scenario::new(
            "device_sync/initial_sync_has_the_entries_of_all_devices",
            D8,
            "under the key of MSC4331 by device ID, and never in account_data.events",
            initial,
        ),
        Scenario::new(
            "device_sync/key_is_absent_when_there_is_nothing_to_say",
            D8,
            "no key in initial and incremental syncs without device data",
            absent,
        ),
        Scenario::new(
            "device_sync/incremental_sync_has_a_change_once",
            "D8; DESIGN, law 2",
            "latest content, once, on the writer and on siblings; unchanged entries are not",
            incremental,
        ),
        Scenario::new(
            "device_sync/equal_put_is_echoed",
            "DESIGN, law 11",
            "a PUT of what is already there is delivered again",
            echo,
        ),
        Scenario::new(
            "device_sync/change_wakes_the_siblings",
            "D8; DESIGN, law 3",
            "a waiting sync of another device returns with the change",
            wakes_sibling,
        ),
        Scenario::new(
            "device_sync/change_wakes_the_writer",
            "D8; DESIGN, law 3",
            "a waiting sync of the same device returns with the change",
            wakes_writer,
        ),
        Scenario::new(
            "device_sync/filter_goes_by_type",
            "DESIGN",
            "the filter's top-level account_data also selects device entries",
            filtered,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "device_sync/filtered_change_does_not_end_the_wait",
            "DESIGN, law 3",
            "a device entry that the filter drops does not wake",
            filtered_does_not_wake,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "device_sync/other_users_see_nothing",
            "DESIGN, law 5",
            "another user's sync has no key and does not wake",
            other_users,
        ),
    ];
    scenarios
        .into_iter()
        .map(|scenario| scenario.needs(Feature::Msc4331))
        .collect()
}

async fn pair(lab: &Lab) -> Outcome<(Actor, Actor)> {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    Ok((first, second))
}

async fn initial(lab: Lab) -> Outcome {
    let (first, second) = pair(&lab).await?;
    first.set(&first.own(TYPE), &json!({"of": "first"})).await?;
    second
        .set(&second.own(TYPE), &json!({"of": "second"}))
        .await?;
    for device in [&first, &second] {
        let sync = device.initial_sync().await?;
        sync.expect_device(first.device_id(), TYPE, &json!({"of": "first"}))?;
        sync.expect_device(second.device_id(), TYPE, &json!({"of": "second"}))?;
        sync.expect_no_global(TYPE)?;
    }
    Ok(())
}

async fn absent(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let sync = user.initial_sync().await?;
    check(
        sync.body.get(DEVICE_KEY).is_none(),
        "no device key",
        sync.body.to_string(),
    )?;
    user.set(&user.global("org.example.a"), &json!({"a": 1}))
        .await?;
    let sync = user.sync_since(&sync.next_batch).await?;
    sync.expect_global("org.example.a", &json!({"a": 1}))?;
    check(
        sync.body.get(DEVICE_KEY).is_none(),
        "no device key",
        sync.body.to_string(),
    )
}

async fn incremental(lab: Lab) -> Outcome {
    let (first, second) = pair(&lab).await?;
    first.set(&first.own("org.example.old"), &json!({})).await?;
    let since = [first.settled().await?, second.settled().await?];
    first.set(&first.own(TYPE), &json!({"n": 1})).await?;
    first.set(&first.own(TYPE), &json!({"n": 2})).await?;
    for (device, since) in [&first, &second].into_iter().zip(since) {
        let sync = device.sync_since(&since).await?;
        sync.expect_device(first.device_id(), TYPE, &json!({"n": 2}))?;
        sync.expect_no_device(first.device_id(), "org.example.old")?;
        sync.expect_no_global(TYPE)?;
        let next = device.sync_since(&sync.next_batch).await?;
        next.expect_no_device(first.device_id(), TYPE)?;
    }
    Ok(())
}

async fn echo(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for content in [json!({"a": 1}), json!({})] {
        user.set(&user.own(TYPE), &content).await?;
        let since = user.settled().await?;
        user.set(&user.own(TYPE), &content).await?;
        user.sync_since(&since)
            .await?
            .expect_device(user.device_id(), TYPE, &content)?;
    }
    Ok(())
}

async fn wakes_sibling(lab: Lab) -> Outcome {
    let (first, second) = pair(&lab).await?;
    let sync = woken_by(&second, None, first.set(&first.own(TYPE), &json!({"n": 1}))).await?;
    sync.expect_device(first.device_id(), TYPE, &json!({"n": 1}))
}

async fn wakes_writer(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let sync = woken_by(&user, None, user.set(&user.own(TYPE), &json!({"n": 1}))).await?;
    sync.expect_device(user.device_id(), TYPE, &json!({"n": 1}))
}

async fn filtered(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.own("org.example.yes"), &json!({})).await?;
    user.set(&user.own("org.example.no"), &json!({})).await?;
    for filter in [
        json!({"account_data": {"types": ["org.example.yes"]}}),
        json!({"account_data": {"not_types": ["*.no"]}}),
    ] {
        let filter = filter.to_string();
        let params = SyncParams {
            filter: Some(&filter),
            ..SyncParams::default()
        };
        let sync = user.sync(params).await?;
        sync.expect_device(user.device_id(), "org.example.yes", &json!({}))?;
        sync.expect_no_device(user.device_id(), "org.example.no")?;
    }
    Ok(())
}

async fn filtered_does_not_wake(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let filter = json!({"account_data": {"not_types": [TYPE]}}).to_string();
    let path = user.own(TYPE);
    not_woken_by(&user, Some(&filter), user.set(&path, &json!({}))).await
}

async fn other_users(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    not_woken_by(&bob, None, alice.set(&alice.own(TYPE), &json!({}))).await?;
    let sync = bob.initial_sync().await?;
    check(
        sync.body.get(DEVICE_KEY).is_none(),
        "no device key",
        sync.body.to_string(),
    )
}
