//! Where ruma 0.20 is known to judge otherwise than the specification, each with its reason.
//!
//! The random cases leave these out. Once ruma follows, the row fails: it goes, and the vocabulary
//! of the cases gets what it left out.

use serde_json::{Value, json};

use crate::cases::{Member, ROOM, USER};
use crate::{our_decision, theirs};

/// One rule and one event for which the two differ.
#[derive(Clone)]
struct Difference {
    /// Why ours is what the specification says.
    reason: &'static str,
    kind: &'static str,
    rule: Value,
    event: Value,
    display_name: &'static str,
    /// Whether the rule matches for us; for ruma it is the other way round.
    ours: bool,
}

fn differences() -> Vec<Difference> {
    [of_patterns(), of_conditions(), of_ids()].concat()
}

fn of_patterns() -> Vec<Difference> {
    vec![
        pattern(
            "two wildcards side by side are two; ruma takes the second one for a letter",
            ("a??b", "aXYb"),
            true,
        ),
        pattern("the same with stars", ("a**b", "aXb"), true),
        pattern(
            "`*` is any run of characters; ruma's stops at a line break",
            ("f*o", "f\no"),
            true,
        ),
        pattern(
            "an empty pattern stands between any two boundaries; ruma's only in an empty body",
            ("", "hello"),
            true,
        ),
        pattern(
            "case is ignored character by character; ruma's sigma depends on what is around it",
            ("\u{3b1}\u{3c3}", "\u{391}\u{3a3}"),
            true,
        ),
        pattern(
            "`?` is one character; ruma's lower case makes two of this one",
            ("a?c", "a\u{130}c"),
            true,
        ),
    ]
}

fn of_conditions() -> Vec<Difference> {
    vec![
        named(
            "a display name is no pattern; ruma reads its `*` as one",
            ("A*e", "alice"),
            false,
        ),
        named(
            "an empty display name is in no body; for ruma it is in an empty one",
            ("", ""),
            false,
        ),
        condition(
            "a notification that the room has no level for needs 50, which the sender has; ruma \
             only knows `room`",
            json!({"kind": "sender_notification_permission", "key": "own"}),
            json!({}),
            true,
        ),
        condition(
            "an empty name is a part of the path like any other; ruma leaves the first one out",
            json!({"kind": "event_property_is", "key": ".own", "value": 1}),
            json!({"": {"own": 1}}),
            true,
        ),
        condition(
            "`is` has digits behind its sign; ruma takes a plus too",
            json!({"kind": "room_member_count", "is": "+2"}),
            json!({}),
            false,
        ),
        condition(
            "`room_id` is the event's; ruma takes the context's whatever the event says",
            json!({"kind": "event_match", "key": "room_id", "pattern": ROOM}),
            json!({"room_id": "!other:example.org"}),
            false,
        ),
    ]
}

fn of_ids() -> Vec<Difference> {
    let name = json!({
        "rule_id": ".m.rule.contains_user_name",
        "default": true,
        "pattern": "alice",
    });
    let mention = json!({"content": {"body": "alice", "m.mentions": {"room": 1.5}}});
    let id = |id: &str| json!({"rule_id": id});
    vec![
        rule(
            "the old rules for mentions are not for events with `m.mentions`, whatever is in it; \
             ruma drops fractions, and here the whole of it",
            ("content", name, mention),
            false,
        ),
        rule(
            "a room rule is for the room of its ID, byte for byte; ruma ignores case",
            ("room", id("!KITCHEN:example.org"), json!({})),
            false,
        ),
        rule(
            "a room ID is no pattern; ruma reads its `*` as one",
            ("room", id("!kit*:example.org"), json!({})),
            false,
        ),
        rule(
            "a sender rule is for the user of its ID, byte for byte; ruma ignores case",
            ("sender", id("@BOB:example.org"), json!({})),
            false,
        ),
    ]
}

fn rule(
    reason: &'static str,
    (kind, rule, event): (&'static str, Value, Value),
    ours: bool,
) -> Difference {
    Difference {
        reason,
        kind,
        rule,
        event,
        display_name: "Alice",
        ours,
    }
}

fn pattern(reason: &'static str, (pattern, body): (&str, &str), ours: bool) -> Difference {
    let event = json!({"content": {"body": body}});
    rule(
        reason,
        ("content", json!({"pattern": pattern}), event),
        ours,
    )
}

fn condition(reason: &'static str, condition: Value, event: Value, ours: bool) -> Difference {
    let conditions = Value::from_iter([("conditions", vec![condition])]);
    rule(reason, ("override", conditions, event), ours)
}

fn named(reason: &'static str, (name, body): (&'static str, &str), ours: bool) -> Difference {
    let event = json!({"content": {"body": body}});
    Difference {
        display_name: name,
        ..condition(
            reason,
            json!({"kind": "contains_display_name"}),
            event,
            ours,
        )
    }
}

#[test]
fn known_differences_are_as_they_are_told() {
    let mut wrong = Vec::new();
    for difference in differences() {
        let Difference {
            reason,
            kind,
            rule,
            event,
            display_name,
            ours,
        } = difference;
        let served = json!({"global": {kind: [rule_of(&rule)]}});
        let event = event_of(&event);
        let member = Member {
            display_name: display_name.to_owned(),
            joined_members: 2,
            sender_level: 50,
            room_level: 50,
        };
        let we = our_decision(&served.to_string(), &event, &member).is_some();
        let they = theirs::decision(&served, &event, &member)
            .unwrap()
            .is_some();
        if (we, they) != (ours, !ours) {
            wrong.push(format!("{reason}: ours {we}, ruma's {they}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Rules with which ruma takes no ruleset at all: here they hide no other rule.
#[test]
fn rules_that_ruma_refuses_hide_no_other_rule() {
    let refused = [
        (
            "a room rule whose ID is no room ID",
            "room",
            json!({"rule_id": "#spam:example.com"}),
        ),
        (
            "a sender rule whose ID is no user ID",
            "sender",
            json!({"rule_id": "bob"}),
        ),
        ("a content rule without a pattern", "content", json!({})),
        (
            "a condition without its fields",
            "override",
            json!({"conditions": [{"kind": "event_match"}]}),
        ),
        (
            "a value that is neither text, integer, boolean nor null",
            "override",
            json!({"conditions": [{"kind": "event_property_is", "key": "type", "value": 1.5}]}),
        ),
        (
            "a count that is a number",
            "override",
            json!({"conditions": [{"kind": "room_member_count", "is": 2}]}),
        ),
        (
            "a sound without a name",
            "override",
            json!({"conditions": [], "enabled": false, "actions": [{"set_tweak": "sound"}]}),
        ),
        (
            "an action that is a number",
            "override",
            json!({"conditions": [], "enabled": false, "actions": [1]}),
        ),
    ];
    let other = rule_of(&json!({"rule_id": "other", "conditions": []}));
    let member = Member {
        display_name: "Alice".to_owned(),
        joined_members: 2,
        sender_level: 0,
        room_level: 50,
    };
    for (what, kind, rule) in refused {
        let served = json!({"global": {kind: [rule_of(&rule)], "underride": [other]}});
        let event = event_of(&json!({}));
        assert!(
            theirs::decision(&served, &event, &member).is_err(),
            "{what}: ruma takes it"
        );
        let (_, ours) = our_decision(&served.to_string(), &event, &member).unwrap();
        assert_eq!(ours.rule_id, "other", "{what}");
    }
}

/// A rule with what all rules have.
fn rule_of(fields: &Value) -> Value {
    let mut rule = json!({
        "rule_id": "own",
        "default": false,
        "enabled": true,
        "actions": ["notify"],
    });
    merge(&mut rule, fields);
    rule
}

/// An event with what all events have.
fn event_of(fields: &Value) -> Value {
    let mut event = json!({
        "type": "m.room.message",
        "sender": "@bob:example.org",
        "room_id": ROOM,
        "content": {},
    });
    assert_ne!(event["sender"], USER);
    merge(&mut event, fields);
    event
}

fn merge(object: &mut Value, fields: &Value) {
    for (name, value) in fields.as_object().unwrap() {
        object[name] = value.clone();
    }
}
