//! Push rules in /sync.

use kitbag_client::{SyncParams, path};
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Outcome, check, check_eq};
use crate::lab::Lab;
use crate::poll::{not_woken_by, woken_by};
use crate::rules::{make, rule_of};
use crate::scenario::{Feature, Scenario};
use crate::sync::Sync;

const WAKES: &str = "CS API, Push rules: client behaviour; Complement TestPushSync";
const RULES: &str = "m.push_rules";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "push_rule_sync/initial_sync_has_the_changed_rules",
            "Complement TestPushSync",
            "m.push_rules once, with all five kinds and what the user changed",
            initial,
        ),
        Scenario::new(
            "push_rule_sync/every_edit_ends_the_wait",
            WAKES,
            "making, disabling, enabling, changing and deleting a rule are each delivered at once",
            every_edit,
        ),
        Scenario::new(
            "push_rule_sync/edit_of_a_default_ends_the_wait",
            WAKES,
            "disabling a default rule or changing its actions is delivered at once",
            default_edit,
        ),
        Scenario::new(
            "push_rule_sync/edit_that_changes_nothing_is_delivered",
            "DESIGN, law 11",
            "the same PUT once more is told too: clients wait for the echo",
            equal_edit,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_sync/edits_of_the_other_device_are_delivered",
            WAKES,
            "a device that waits gets what another one changed",
            other_device,
        ),
        Scenario::new(
            "push_rule_sync/edits_are_told_once_and_with_the_last_state",
            "CS API, Syncing; DESIGN, law 2",
            "three edits between two syncs are one event, and the next sync has none",
            told_once,
        ),
        Scenario::new(
            "push_rule_sync/other_changes_do_not_tell_the_rules",
            "CS API, Syncing; DESIGN, law 2",
            "rules that did not change are not in an incremental sync",
            unchanged,
        ),
        Scenario::new(
            "push_rule_sync/refused_edits_do_not_end_the_wait",
            "DESIGN, law 3",
            "a long poll stays while edits are refused",
            refused,
        ),
        Scenario::new(
            "push_rule_sync/other_users_edits_do_not_end_the_wait",
            "DESIGN, laws 3 and 5",
            "a long poll stays while another user edits their rules",
            other_user,
        ),
        Scenario::new(
            "push_rule_sync/filtered_edits_do_not_end_the_wait",
            "CS API, Filtering; DESIGN, law 3",
            "`not_types` with m.push_rules keeps them out and the poll waiting",
            filtered,
        ),
    ]
}

async fn initial(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make(&user, "content", "a").await?;
    let sync = user.initial_sync().await?;
    expect_current(&user, &sync).await
}

async fn every_edit(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let place = path::push_rule("room", "!foo:example.com");
    let (enabled, actions) = (format!("{place}/enabled"), format!("{place}/actions"));
    let edits = [
        (&place, json!({"actions": ["notify"]})),
        (&enabled, json!({"enabled": false})),
        (&enabled, json!({"enabled": true})),
        (&actions, json!({"actions": ["dont_notify"]})),
        (&place, json!({"actions": []})),
    ];
    for (path, body) in edits {
        delivers(&user, user.set(path, &body)).await?;
    }
    let delete = async { user.delete(&place).await?.expect_json(&json!({})) };
    delivers(&user, delete).await
}

async fn default_edit(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let place = path::push_rule("underride", ".m.rule.message");
    for (door, body) in [
        ("enabled", json!({"enabled": false})),
        ("actions", json!({"actions": []})),
    ] {
        let path = format!("{place}/{door}");
        delivers(&user, user.set(&path, &body)).await?;
    }
    Ok(())
}

async fn equal_edit(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let place = path::push_rule("room", "a");
    let master = path::push_rule("override", ".m.rule.master");
    make(&user, "room", "a").await?;
    for (path, body) in [
        (place.clone(), rule_of("room", &json!(["notify"]))),
        (format!("{place}/enabled"), json!({"enabled": true})),
        (format!("{place}/actions"), json!({"actions": ["notify"]})),
        (format!("{master}/enabled"), json!({"enabled": false})),
    ] {
        delivers(&user, user.set(&path, &body)).await?;
    }
    Ok(())
}

async fn other_device(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let second = lab.second_device(&first).await?;
    delivers(&first, make(&second, "sender", "@a:example.org")).await?;
    delivers(&second, make(&first, "sender", "@b:example.org")).await
}

async fn told_once(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let since = user.settled().await?;
    for rule_id in ["a", "b", "c"] {
        make(&user, "room", rule_id).await?;
    }
    let sync = user.sync_since(&since).await?;
    expect_current(&user, &sync).await?;
    check_eq(&sync.global_types(), &vec![RULES.to_owned()], "types")?;
    user.sync_since(&sync.next_batch)
        .await?
        .expect_no_global(RULES)?;
    // A token asked again tells the same.
    let again = user.sync_since(&since).await?;
    expect_current(&user, &again).await
}

async fn unchanged(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make(&user, "room", "a").await?;
    let since = user.settled().await?;
    user.set(&user.global("org.example.a"), &json!({"a": 1}))
        .await?;
    let sync = user.sync_since(&since).await?;
    sync.expect_global("org.example.a", &json!({"a": 1}))?;
    sync.expect_no_global(RULES)
}

async fn refused(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    make(&user, "room", "a").await?;
    let edits = async {
        let unknown = path::push_rule("room", "unknown");
        let known = path::push_rule("room", "a");
        let reply = user.delete(&unknown).await?;
        reply.expect_error(404, "M_NOT_FOUND")?;
        let door = format!("{unknown}/enabled");
        let reply = user.put(&door, &json!({"enabled": true})).await?;
        reply.expect_error(404, "M_NOT_FOUND")?;
        user.put(&known, &json!({"actions": 1}))
            .await?
            .expect_status(400)?;
        let beside = format!("{known}?before=unknown");
        user.put(&beside, &json!({"actions": []}))
            .await?
            .expect_error(400, "M_UNKNOWN")?;
        Ok(())
    };
    not_woken_by(&user, None, edits).await
}

async fn other_user(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    not_woken_by(&alice, None, make(&bob, "room", "a")).await
}

async fn filtered(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let without = r#"{"account_data":{"not_types":["m.push_rules"]}}"#;
    not_woken_by(&user, Some(without), make(&user, "room", "a")).await?;
    let alone = r#"{"account_data":{"types":["m.push_rules"]}}"#;
    let sync = woken_by(&user, Some(alone), make(&user, "room", "b")).await?;
    expect_current(&user, &sync).await?;
    let since = user.settled().await?;
    make(&user, "room", "c").await?;
    let params = SyncParams {
        since: Some(&since),
        filter: Some(without),
        ..SyncParams::default()
    };
    user.sync(params).await?.expect_no_global(RULES)
}

/// Fails unless a sync that waits during `edit` has the rules as they are then.
async fn delivers(user: &Actor, edit: impl Future<Output = Outcome>) -> Outcome {
    let sync = woken_by(user, None, edit).await?;
    expect_current(user, &sync).await
}

/// Fails unless the sync has the rules once, just as they are read now.
async fn expect_current(user: &Actor, sync: &Sync) -> Outcome {
    let rules: Value = user.read(&format!("{}/pushrules/", path::V3)).await?;
    let kinds = rules["global"].as_object().map_or(0, serde_json::Map::len);
    check(kinds >= 5, "five kinds", rules.to_string())?;
    sync.expect_global(RULES, &rules)
}
