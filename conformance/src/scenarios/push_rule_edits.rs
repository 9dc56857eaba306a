//! Push rules: how existing ones are changed and removed.

use kitbag_client::path;
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Outcome, check, check_json};
use crate::lab::Lab;
use crate::rules::{KINDS, all, expect_ids, find, make};
use crate::scenario::{Feature, Scenario};

const API: &str = "CS API, Push rules API";
const SYTEST: &str = "Sytest 61push/02add_rules.pl";

pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "push_rule_edits/same_rule_twice_is_one",
            SYTEST,
            "putting a rule again leaves a single entry",
            idempotent,
        ),
        Scenario::new(
            "push_rule_edits/update_replaces_the_rule",
            API,
            "a PUT of an existing ID replaces actions, conditions and pattern",
            replace,
        ),
        Scenario::new(
            "push_rule_edits/update_keeps_place_and_enabled",
            "CS API, Push rules API; D14",
            "an existing rule stays where it is and as disabled as it was",
            update_in_place,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_edits/new_rule_is_enabled_whatever_it_says",
            API,
            "`enabled`, `default` and `rule_id` in the body of a new rule mean nothing",
            servers_members,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "push_rule_edits/deleted_rule_is_gone",
            API,
            "DELETE is 200 {}, then GET, /enabled, /actions and DELETE are 404 M_NOT_FOUND",
            deleted,
        ),
        Scenario::new(
            "push_rule_edits/recreated_rule_is_enabled",
            "Synapse, test_enabled_on_recreation",
            "a rule that was disabled, deleted and made again is enabled and has the new actions",
            recreated,
        ),
        Scenario::new(
            "push_rule_edits/own_rule_can_be_disabled_and_enabled",
            "CS API, Push rules API; Sytest 61push/07_set_enabled.pl",
            "/enabled shows it, and so does the rule",
            toggle_own,
        ),
        Scenario::new(
            "push_rule_edits/every_default_can_be_disabled_and_enabled",
            "Sytest 61push/07_set_enabled.pl",
            "a round trip for every default rule, .m.rule.master too",
            toggle_defaults,
        ),
        Scenario::new(
            "push_rule_edits/actions_of_every_default_can_be_changed",
            "Sytest 61push/05_set_actions.pl",
            "every default rule takes [\"dont_notify\"] and shows just that",
            actions_of_defaults,
        ),
        Scenario::new(
            "push_rule_edits/actions_of_an_own_rule_can_be_changed",
            "Sytest 61push/05_set_actions.pl",
            "/actions shows them, and so does the rule",
            actions_of_own,
        ),
        Scenario::new(
            "push_rule_edits/changed_default_keeps_its_place",
            "CS API, Push Notifications, Default rules",
            "a default rule with other actions is a default rule still, in the same place",
            changed_default,
        ),
    ]
}

async fn idempotent(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        make(&user, kind, "a").await?;
        make(&user, kind, "a").await?;
        expect_ids(&user, kind, &["a"]).await?;
    }
    Ok(())
}

async fn replace(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let place = path::push_rule("content", "a");
    let old = json!({"actions": ["notify"], "pattern": "old", "org.example.old": true});
    user.set(&place, &old).await?;
    let new = json!({"actions": [], "pattern": "new"});
    user.set(&place, &new).await?;
    user.get(&place).await?.expect_json(&json!({
        "rule_id": "a", "default": false, "enabled": true, "actions": [], "pattern": "new",
    }))
}

async fn update_in_place(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for rule_id in ["c", "b", "a"] {
        make(&user, "room", rule_id).await?;
    }
    let place = path::push_rule("room", "b");
    user.set(&format!("{place}/enabled"), &json!({"enabled": false}))
        .await?;
    user.set(&place, &json!({"actions": [], "enabled": true}))
        .await?;
    expect_ids(&user, "room", &["a", "b", "c"]).await?;
    user.get(&place)
        .await?
        .expect_json(&json!({"rule_id": "b", "default": false, "enabled": false, "actions": []}))
}

async fn servers_members(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let place = path::push_rule("room", "a");
    let rule = json!({"rule_id": "b", "default": true, "enabled": false, "actions": ["notify"]});
    user.set(&place, &rule).await?;
    user.get(&place).await?.expect_json(
        &json!({"rule_id": "a", "default": false, "enabled": true, "actions": ["notify"]}),
    )?;
    expect_ids(&user, "room", &["a"]).await
}

async fn deleted(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        make(&user, kind, "kept").await?;
        make(&user, kind, "a").await?;
        let place = path::push_rule(kind, "a");
        user.delete(&place).await?.expect_json(&json!({}))?;
        for door in ["", "/enabled", "/actions"] {
            let reply = user.get(&format!("{place}{door}")).await?;
            reply.expect_error(404, "M_NOT_FOUND")?;
        }
        let again = user.delete(&place).await?;
        again.expect_error(404, "M_NOT_FOUND")?;
        expect_ids(&user, kind, &["kept"]).await?;
    }
    Ok(())
}

async fn recreated(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let place = path::push_rule("room", "a");
    user.set(&place, &json!({"actions": ["notify"]})).await?;
    user.set(&format!("{place}/enabled"), &json!({"enabled": false}))
        .await?;
    user.delete(&place).await?.expect_json(&json!({}))?;
    user.set(&place, &json!({"actions": []})).await?;
    user.get(&place)
        .await?
        .expect_json(&json!({"rule_id": "a", "default": false, "enabled": true, "actions": []}))
}

async fn toggle_own(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        make(&user, kind, "a").await?;
        toggle(&user, kind, "a").await?;
    }
    Ok(())
}

async fn toggle_defaults(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for (kind, rule_id) in default_ids(&user).await? {
        toggle(&user, &kind, &rule_id).await?;
    }
    Ok(())
}

/// The kinds and IDs of all default rules.
async fn default_ids(user: &Actor) -> Outcome<Vec<(String, String)>> {
    let mut found = Vec::new();
    let rules = all(user).await?;
    for kind in KINDS {
        for rule in rules[kind].as_array().into_iter().flatten() {
            let rule_id = rule["rule_id"].as_str().unwrap_or_default();
            if rule["default"] == true {
                found.push((kind.to_owned(), rule_id.to_owned()));
            }
        }
    }
    check(
        found.len() >= 15,
        "fifteen default rules",
        format!("{found:?}"),
    )?;
    Ok(found)
}

async fn toggle(user: &Actor, kind: &str, rule_id: &str) -> Outcome {
    let place = path::push_rule(kind, rule_id);
    let door = format!("{place}/enabled");
    for enabled in [false, true, true, false] {
        let state = json!({"enabled": enabled});
        user.set(&door, &state).await?;
        user.get(&door).await?.expect_json(&state)?;
        let rule = user.read(&place).await?;
        check_json(&rule["enabled"], &json!(enabled), "a rule with enabled")?;
        let rules = all(user).await?;
        check_json(find(&rules[kind], rule_id)?, &rule, "the list with")?;
    }
    Ok(())
}

async fn actions_of_defaults(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for (kind, rule_id) in default_ids(&user).await? {
        change_actions(&user, &kind, &rule_id, &json!(["dont_notify"])).await?;
    }
    Ok(())
}

async fn actions_of_own(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for kind in KINDS {
        make(&user, kind, "a").await?;
        for actions in [
            json!([]),
            json!(["dont_notify"]),
            json!(["notify", {"set_tweak": "highlight", "value": false}]),
        ] {
            change_actions(&user, kind, "a", &actions).await?;
        }
    }
    Ok(())
}

async fn change_actions(user: &Actor, kind: &str, rule_id: &str, actions: &Value) -> Outcome {
    let place = path::push_rule(kind, rule_id);
    let door = format!("{place}/actions");
    let state = json!({"actions": actions});
    user.set(&door, &state).await?;
    user.get(&door).await?.expect_json(&state)?;
    let rule = user.read(&place).await?;
    check_json(&rule["actions"], actions, "a rule with actions")?;
    let rules = all(user).await?;
    check_json(find(&rules[kind], rule_id)?, &rule, "the list with")
}

async fn changed_default(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let mut expected = all(&user).await?;
    let place = path::push_rule("underride", ".m.rule.message");
    let actions = json!({"actions": ["notify", {"set_tweak": "sound", "value": "x"}]});
    user.set(&format!("{place}/actions"), &actions).await?;
    user.set(&format!("{place}/enabled"), &json!({"enabled": false}))
        .await?;
    let rules = expected["underride"].as_array_mut().into_iter().flatten();
    for rule in rules.filter(|rule| rule["rule_id"] == ".m.rule.message") {
        rule["actions"] = actions["actions"].clone();
        rule["enabled"] = false.into();
    }
    check_json(&all(&user).await?, &expected, "the rules")?;
    let fresh = lab.user().await?;
    let rule = find(&all(&fresh).await?["underride"], ".m.rule.message")?.clone();
    check_json(&rule["enabled"], &json!(true), "another user's rule")
}
