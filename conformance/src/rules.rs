//! Push rules as scenarios make and look at them.

use kitbag_client::path;
use serde_json::{Value, json};

use crate::actor::Actor;
use crate::expect::{Failure, Outcome, check_eq};

/// All kinds, in the order of evaluation.
pub(crate) const KINDS: [&str; 5] = ["override", "content", "room", "sender", "underride"];

/// A rule of this kind as small as it can be, with these actions.
pub(crate) fn rule_of(kind: &str, actions: &Value) -> Value {
    match kind {
        "override" | "underride" => json!({"actions": actions, "conditions": []}),
        "content" => json!({"actions": actions, "pattern": "cake"}),
        _ => json!({"actions": actions}),
    }
}

/// Makes or replaces a rule, which must succeed.
pub(crate) async fn make(user: &Actor, kind: &str, rule_id: &str) -> Outcome {
    let rule = rule_of(kind, &json!(["notify"]));
    user.set(&path::push_rule(kind, rule_id), &rule).await
}

/// Makes room rules in such an order that they stand as named: what is made last stands first.
pub(crate) async fn make_room_rules(user: &Actor, rule_ids: &[&str]) -> Outcome {
    for rule_id in rule_ids.iter().rev() {
        make(user, "room", rule_id).await?;
    }
    expect_ids(user, "room", rule_ids).await
}

/// All rules as `GET /pushrules/global/` shows them.
pub(crate) async fn all(user: &Actor) -> Outcome<Value> {
    user.read(&format!("{}/pushrules/global/", path::V3)).await
}

/// The rules of a kind that the user made, as `GET /pushrules/global/` shows them.
pub(crate) async fn own(user: &Actor, kind: &str) -> Outcome<Vec<Value>> {
    let rules = all(user).await?;
    let Some(rules) = rules[kind].as_array() else {
        let expected = format!("an array `{kind}`");
        return Err(Failure::new(expected, rules.to_string()));
    };
    let mut rules = rules.clone();
    rules.retain(|rule| rule["default"] == false);
    Ok(rules)
}

/// The rule of this ID in a list.
pub(crate) fn find<'a>(rules: &'a Value, rule_id: &str) -> Outcome<&'a Value> {
    let found = rules.as_array().into_iter().flatten();
    found
        .clone()
        .find(|rule| rule["rule_id"] == rule_id)
        .ok_or_else(|| Failure::new(format!("the rule {rule_id}"), format!("{found:?}")))
}

/// Fails unless the user's rules of this kind are these, in this order.
pub(crate) async fn expect_ids(user: &Actor, kind: &str, rule_ids: &[&str]) -> Outcome {
    let rules = own(user, kind).await?;
    let found: Vec<&str> = rules
        .iter()
        .map(|rule| rule["rule_id"].as_str().unwrap_or_default())
        .collect();
    check_eq(
        &found.as_slice(),
        &rule_ids,
        &format!("rules of kind {kind}"),
    )
}
