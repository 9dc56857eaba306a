//! What rules match and what they do, by tables.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod conditions;
mod defaults;
mod explanation;
mod rules;

use kitbag_push::{
    Changes, Defaults, FlatEvent, MemberContext, RoomContext, Rule, Ruleset, served,
};
use serde_json::{Value, json};

const USER: &str = "@alice:example.org";
const NAME: &str = "Alice";

/// A room of ten, where the sender has no power.
fn room() -> RoomContext {
    RoomContext {
        joined_members: 10,
        sender_power_level: Some(0),
        ..RoomContext::default()
    }
}

fn event(json: &Value) -> FlatEvent {
    FlatEvent::parse(&json.to_string()).unwrap()
}

/// A message in `!room:example.org` by `@bob:example.org`.
fn message(content: &Value) -> Value {
    json!({
        "type": "m.room.message",
        "sender": "@bob:example.org",
        "room_id": "!room:example.org",
        "event_id": "$event",
        "content": content,
    })
}

/// The served text with these rules of one kind and no others.
fn only(kind: &str, rules: &Value) -> String {
    json!({"global": {kind: rules}}).to_string()
}

/// The text that a user without changes is served.
fn by_default(defaults: Defaults) -> String {
    served(&Changes::default(), &defaults, USER)
}

fn deciding(served: &str, event_json: &Value, room: &RoomContext) -> Option<String> {
    let rules = Ruleset::compile(served, USER);
    let member = MemberContext::named(room, NAME);
    let rule = rules.deciding(&event(event_json), &member);
    rule.map(|rule: &Rule| rule.id().to_owned())
}
