//! Served push rules, an event and who it reaches, to the rule that decides.

use std::time::{Duration, Instant};

use kitbag_push::{
    Explanation, FlatEvent, MemberContext, Outcome, RoomContext, RuleExplanation, Ruleset, explain,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::naive_json::{members_in, members_of};
use crate::naive_push::Question;

/// Inputs of this size take microseconds; rules that try every way take years.
const TIME_MAX: Duration = Duration::from_secs(5);
const USER: &str = "@alice:localhost";

/// Reads a line with served rules, one with an event and one with who it reaches: the rule that a
/// plain reading of the specification finds decides, and the explanation says so too.
pub fn push_evaluation(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let served = lines.next().unwrap_or_default();
    let Some(event) = lines.next() else {
        return;
    };
    evaluate(served, event, lines.next().unwrap_or_default());
}

/// Reads a line with a condition, and the other two as [`push_evaluation`].
pub fn push_condition(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.splitn(3, '\n');
    let condition = lines.next().unwrap_or_default();
    let Some(event) = lines.next() else {
        return;
    };
    // What is no JSON could be the end of the rule and more.
    if serde_json::from_str::<&serde_json::value::RawValue>(condition).is_err() {
        return;
    }
    let rule = format!(r#"{{"rule_id":"own","actions":["notify"],"conditions":[{condition}]}}"#);
    let served = format!(r#"{{"global":{{"underride":[{rule}]}}}}"#);
    evaluate(&served, event, lines.next().unwrap_or_default());
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Reached {
    user_id: Option<String>,
    display_name: String,
    room: RoomContext,
}

fn evaluate(served: &str, event: &str, reached: &str) {
    let reached: Reached = serde_json::from_str(reached).unwrap_or_default();
    let user_id = reached.user_id.as_deref().unwrap_or(USER);
    let started = Instant::now();
    let ruleset = Ruleset::compile(served, user_id);
    let Ok(flat) = FlatEvent::parse(event) else {
        return;
    };
    let member = MemberContext::named(&reached.room, &reached.display_name);
    let rule = ruleset.deciding(&flat, &member);
    let decided_by = rule.map(|rule| (rule.kind().as_str(), rule.id()));
    let explained = explain(served, user_id, &flat, &member);
    assert!(started.elapsed() < TIME_MAX, "{:?}", started.elapsed());
    check_explanation(&explained, decided_by);
    assert_eq!(explained.actions, ruleset.evaluate(&flat, &member));

    let Some((served, event)) = plain(served).zip(plain(event)) else {
        return;
    };
    let question = Question {
        event: &event,
        user_id,
        display_name: &reached.display_name,
        room: &reached.room,
    };
    assert_eq!(decided_by, question.decided_by(&served), "{served} {event}");
}

fn check_explanation(explained: &Explanation, decided_by: Option<(&str, &str)>) {
    let named = explained.decided_by.as_ref();
    let told = named.map(|name| (name.kind.as_str(), &*name.rule_id));
    assert_eq!(told, decided_by, "{explained}");
    let is_first =
        |rule: &&RuleExplanation| matches!(rule.outcome, Outcome::Decides | Outcome::Overruled);
    let first = explained.rules.iter().find(is_first);
    let first = first
        .filter(|_| !explained.own_event)
        .map(|rule| &rule.name);
    assert!(first == named, "{explained}");
    let json = serde_json::to_string(explained).unwrap();
    let Ok(json) = serde_json::from_str::<Value>(&json) else {
        return; // a condition has a number that no `Value` can hold
    };
    let named = decided_by.map(|(kind, id)| json!({"kind": kind, "rule_id": id}));
    assert_eq!(json["decided_by"], named.unwrap_or_default());
}

/// Reads what every reader of JSON reads alike: no name twice in an object. A `Value` does not tell
/// whether a name was written with escapes either, which is not looked for in the first rule.
fn plain(json: &str) -> Option<Value> {
    let value: Value = serde_json::from_str(json).ok()?;
    let is_plain = members_in(&value) == members_of(json) && !json.contains("\\u");
    is_plain.then_some(value)
}
