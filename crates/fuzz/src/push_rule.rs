//! Rules as clients send them.

use kitbag_push::{
    Actions, Changes, Defaults, Edit, Kind, Limits, NewRule, Place, RuleId, Ruleset, find_rule,
    parse_enabled, served,
};
use serde_json::{Map, Value};

use crate::naive_json::{members_in, members_of};
use crate::naive_push::is_simple;

const USER: &str = "@alice:localhost";

/// Reads a line with a kind and an ID and then the body of a request: what is taken is served as it
/// was sent, and what a plain reading finds sound is taken.
pub fn push_rule(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let Some((head, body)) = text.split_once('\n') else {
        return;
    };
    let Some((kind, id)) = head.split_once(' ') else {
        return;
    };
    let limits = Limits::default();
    let (Some(kind), Ok(id)) = (Kind::parse(kind), RuleId::parse(id, &limits)) else {
        return;
    };
    let enabled = parse_enabled(body, &limits);
    let actions = Actions::parse(body, &limits);
    let rule = NewRule::parse(kind, body, &limits);
    if let Some(sent) = plain(body) {
        assert_eq!(actions.is_ok(), has_actions(&sent), "{actions:?}");
        assert_eq!(rule.is_ok(), is_sound(kind, &sent), "{rule:?} {sent}");
        assert_eq!(enabled.ok(), sent["enabled"].as_bool());
    }
    let Ok(rule) = rule else {
        return;
    };
    assert_eq!(
        NewRule::parse(kind, rule.as_str(), &limits).as_ref(),
        Ok(&rule)
    );
    let kept: Map<String, Value> = match serde_json::from_str(rule.as_str()) {
        Ok(kept) => kept,
        Err(_) => return, // a number that no `Value` can hold
    };
    let edit = Edit::Put {
        id: id.clone(),
        rule,
        place: Place::default(),
    };
    let changes = Changes::default()
        .apply(&Defaults::spec(), edit, &limits)
        .unwrap();
    assert_eq!(Changes::parse(&changes.to_json()).as_ref(), Ok(&changes));
    let served = served(&changes, &Defaults::spec(), USER);
    let shown = find_rule(&served, kind, id.as_str()).unwrap();
    assert!(shown.is_enabled && !shown.is_default);
    let mut shown: Map<String, Value> = serde_json::from_str(shown.text).unwrap();
    assert_eq!(shown.remove("rule_id"), Some(id.as_str().into()));
    assert!(shown.remove("enabled").is_some() && shown.remove("default").is_some());
    assert_eq!(shown, kept);
    drop(Ruleset::compile(&served, USER));
}

/// Reads an object that every reader of JSON reads alike, within all limits.
fn plain(body: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(body).ok()?;
    let is_plain = value.is_object() && members_in(&value) == members_of(body);
    (is_plain && body.len() < 4_096 && body.matches(['[', '{']).count() <= 32).then_some(value)
}

fn has_actions(sent: &Value) -> bool {
    let is_action = |action: &Value| match action {
        Value::String(word) => ["notify", "dont_notify", "coalesce"].contains(&word.as_str()),
        action => action["set_tweak"].is_string(),
    };
    let actions = sent["actions"].as_array();
    actions.is_some_and(|actions| actions.len() <= 32 && actions.iter().all(is_action))
}

/// Tells whether a rule is as the specification wants one of its kind.
fn is_sound(kind: Kind, sent: &Value) -> bool {
    has_actions(sent)
        && match kind {
            Kind::Override | Kind::Underride => {
                let conditions = sent["conditions"].as_array();
                conditions.is_some_and(|conditions| conditions.iter().all(is_condition))
            }
            Kind::Content => is_pattern(&sent["pattern"]),
            Kind::Room | Kind::Sender => true,
        }
}

fn is_condition(condition: &Value) -> bool {
    let has_key = condition["key"].is_string();
    match condition["kind"].as_str() {
        Some("event_match") => has_key && is_pattern(&condition["pattern"]),
        Some("event_property_is" | "event_property_contains") => {
            has_key && condition.get("value").is_some_and(is_simple)
        }
        Some("room_member_count") => condition["is"].as_str().is_some_and(|is| {
            let digits = is.trim_start_matches(['<', '>', '=']);
            let sign = &is[..is.len() - digits.len()];
            ["", "==", "<", ">", "<=", ">="].contains(&sign)
                && !digits.is_empty()
                && digits.bytes().all(|byte| byte.is_ascii_digit())
        }),
        Some("sender_notification_permission") => has_key,
        Some(_) => true,
        None => false,
    }
}

fn is_pattern(pattern: &Value) -> bool {
    pattern
        .as_str()
        .is_some_and(|text| text.matches(['*', '?']).count() <= 64 && text.chars().count() <= 512)
}
