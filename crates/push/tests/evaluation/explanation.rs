//! What an explanation says.

use kitbag_push::{Outcome, SEEN_CHARS_MAX, SEEN_ELEMENTS_MAX, explain};

use super::*;

fn explained(served: &str, event_json: &Value) -> (Value, String) {
    let room = room();
    let member = MemberContext::named(&room, NAME);
    let explanation = explain(served, USER, &event(event_json), &member);
    (
        serde_json::to_value(&explanation).unwrap(),
        explanation.to_string(),
    )
}

#[test]
fn an_explanation_has_all_rules_in_order_and_names_the_one_that_decides() {
    let served = by_default(Defaults::spec());
    let (json, text) = explained(&served, &message(&json!({"body": "x"})));
    assert_eq!(
        json["decided_by"],
        json!({"kind": "underride", "rule_id": ".m.rule.message"})
    );
    assert_eq!(json["actions"], json!(["notify"]));
    assert_eq!(
        (&json["notifies"], &json["own_event"]),
        (&json!(true), &json!(false))
    );
    let rules = json["rules"].as_array().unwrap();
    assert_eq!(rules.len(), 15);
    assert_eq!(rules[0]["rule_id"], ".m.rule.master");
    assert_eq!(rules[0]["outcome"], "disabled");
    assert_eq!(rules[13]["outcome"], "decides");
    assert!(
        text.starts_with("@alice:example.org is notified: underride .m.rule.message decides\n"),
        "{text}"
    );
    assert!(
        text.contains("\n> underride .m.rule.message: decides, [\"notify\"]\n"),
        "{text}"
    );
}

#[test]
fn each_condition_tells_what_it_saw_and_why_it_does_not_hold() {
    let conditions = json!([
        {"kind": "event_match", "key": "type", "pattern": "m.room.*"},
        {"kind": "event_match", "key": "content.absent", "pattern": "*"},
        {"kind": "event_match", "key": "content.number", "pattern": "*"},
        {"kind": "event_match", "key": "content.body", "pattern": "cake"},
        {"kind": "event_property_is", "key": "content.number", "value": 2},
        {"kind": "event_property_is", "key": "content.body", "value": "Bread"},
        {"kind": "event_property_contains", "key": "content.list", "value": 2},
        {"kind": "event_property_contains", "key": "content.body", "value": "x"},
        {"kind": "contains_display_name"},
        {"kind": "room_member_count", "is": "2"},
        {"kind": "sender_notification_permission", "key": "room"},
        {"kind": "org.example.unknown"},
        {"kind": "room_member_count"},
        1,
    ]);
    let rule = json!({"rule_id": "r", "actions": [], "conditions": conditions});
    let event = message(&json!({"body": "bread", "number": 1, "list": [1, "a", {}]}));
    let (json, _) = explained(&only("override", &json!([rule])), &event);
    let told = json["rules"][0]["conditions"].as_array().unwrap();
    let expected = [
        (true, json!("m.room.message"), Value::Null),
        (false, Value::Null, json!("the event has no such property")),
        (false, json!(1), json!("the property is no text")),
        (false, json!("bread"), json!("the pattern does not match")),
        (false, json!(1), json!("the property has another value")),
        (
            false,
            json!("bread"),
            json!("the property has another value"),
        ),
        (
            false,
            json!([1, "a"]),
            json!("the value is not among the elements"),
        ),
        (false, json!("bread"), json!("the property is no array")),
        (
            false,
            json!({"display_name": "Alice", "body": "bread"}),
            json!("the display name is not in the body"),
        ),
        (
            false,
            json!({"joined_members": 10}),
            json!("the room has another number of members"),
        ),
        (
            false,
            json!({"sender_power_level": 0, "needed": 50}),
            json!("the sender's power level is too low"),
        ),
        (false, Value::Null, json!("its kind is not known")),
        (
            false,
            Value::Null,
            json!("`is` is missing or not what it has to be"),
        ),
        (false, Value::Null, json!("it is no condition: no object")),
    ];
    assert_eq!(told.len(), expected.len());
    for (index, (holds, seen, because)) in expected.into_iter().enumerate() {
        let told = &told[index];
        assert_eq!(told["condition"], conditions[index]);
        assert_eq!(
            (&told["holds"], &told["seen"], &told["because"]),
            (&json!(holds), &seen, &because)
        );
    }
}

#[test]
fn rules_without_conditions_of_their_own_tell_what_they_ask() {
    let global = json!({
        "content": [{"rule_id": "c", "actions": [], "pattern": "Cake"}],
        "room": [{"rule_id": "!r", "actions": []}],
        "sender": [{"rule_id": "@s", "actions": []}],
    });
    let served = json!({ "global": global }).to_string();
    let (json, _) = explained(&served, &message(&json!({"body": "x"})));
    let told = |rule: usize| json["rules"][rule]["conditions"][0]["condition"].clone();
    assert_eq!(
        told(0),
        json!({"kind": "event_match", "key": "content.body", "pattern": "Cake"})
    );
    assert_eq!(
        told(1),
        json!({"kind": "event_property_is", "key": "room_id", "value": "!r"})
    );
    assert_eq!(
        told(2),
        json!({"kind": "event_property_is", "key": "sender", "value": "@s"})
    );
}

#[test]
fn each_outcome_has_its_name() {
    let rules = json!([
        {"rule_id": "off", "actions": [], "enabled": false},
        {"rule_id": "bad"},
        {"rule_id": ".m.rule.roomnotif", "default": true, "actions": [], "conditions": []},
        {"rule_id": "no", "actions": [], "conditions": [{"kind": "x"}]},
        {"rule_id": "first", "actions": ["dont_notify"], "conditions": []},
        {"rule_id": "second", "actions": ["notify"], "conditions": []},
    ]);
    let served = only("override", &rules);
    let outcomes = |event: &Value| -> Vec<Value> {
        let (json, _) = explained(&served, event);
        let rules = json["rules"].as_array().unwrap().iter();
        rules.map(|rule| rule["outcome"].clone()).collect()
    };
    let mut event = message(&json!({"m.mentions": {}}));
    let expected = [
        "disabled",
        "unreadable",
        "only_without_mentions",
        "no_match",
        "decides",
        "overruled",
    ];
    assert_eq!(outcomes(&event), expected);
    let (json, text) = explained(&served, &event);
    assert_eq!(json["notifies"], false);
    assert!(
        text.starts_with("@alice:example.org is not notified: override first decides\n"),
        "{text}"
    );

    event["sender"] = USER.into();
    let expected = [
        "disabled",
        "unreadable",
        "only_without_mentions",
        "no_match",
        "overruled",
        "overruled",
    ];
    assert_eq!(outcomes(&event), expected);
    let (json, text) = explained(&served, &event);
    assert_eq!(
        (&json["own_event"], &json["decided_by"]),
        (&json!(true), &Value::Null)
    );
    assert!(
        text.contains("is not notified: the event is the user's own"),
        "{text}"
    );
}

#[test]
fn long_texts_are_cut_and_what_could_command_a_terminal_is_escaped() {
    let body = format!("\u{1b}[2J\u{202e}{}", "é".repeat(2 * SEEN_CHARS_MAX));
    let rule = json!([{"rule_id": "a\u{1b}b\nc", "actions": [], "pattern": "\u{1b}"}]);
    let (json, text) = explained(&only("content", &rule), &message(&json!({ "body": body })));
    let seen = json["rules"][0]["conditions"][0]["seen"].as_str().unwrap();
    assert_eq!(seen.chars().count(), SEEN_CHARS_MAX + 1);
    assert_eq!(text.lines().count(), 3);
    assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text:?}");
}

#[test]
fn of_arrays_a_part_is_shown() {
    let condition = json!({"kind": "event_property_contains", "key": "content.list", "value": 1});
    let rule = json!([{"rule_id": "r", "actions": [], "conditions": [condition]}]);
    let served = only("override", &rule);
    let seen = |list: Value| -> usize {
        let (json, _) = explained(&served, &message(&json!({ "list": list })));
        let seen = &json["rules"][0]["conditions"][0]["seen"];
        seen.as_array().unwrap().len()
    };
    assert_eq!(
        seen(json!(vec![2; 2 * SEEN_ELEMENTS_MAX])),
        SEEN_ELEMENTS_MAX
    );
    let half = "é".repeat(SEEN_CHARS_MAX / 2);
    assert_eq!(seen(json!([half, half, half, half])), 2);
}

#[test]
fn a_pattern_of_more_than_512_characters_never_matches() {
    for (chars, because) in [
        (512, Value::Null),
        (513, json!("its pattern has more than 512 characters")),
    ] {
        let rule = json!([{"rule_id": "r", "actions": [], "pattern": "*".repeat(chars)}]);
        let (json, _) = explained(&only("content", &rule), &message(&json!({"body": "x"})));
        assert_eq!(json["rules"][0]["conditions"][0]["because"], because);
    }
}

#[test]
fn a_condition_with_what_cannot_be_read_is_shown_as_it_was_written() {
    let condition = "{\"kind\":\"x\",\n\"value\":[1e999,\"\\ud800\"]}";
    let rule = format!("{{\"rule_id\":\"a\",\"actions\":[],\"conditions\":[{condition}]}}");
    let served = format!("{{\"global\":{{\"override\":[{rule}]}}}}");
    let room = room();
    let event = event(&message(&json!({})));
    let text = explain(&served, USER, &event, &MemberContext::new(&room)).to_string();
    let shown = r#"- {"kind":"x",\n"value":[1e999,"\ud800"]}: its kind is not known"#;
    assert!(text.contains(shown), "{text}");
}

#[test]
fn an_explanation_can_be_used_by_programs() {
    let served = only(
        "override",
        &json!([{"rule_id": "r", "actions": ["notify"]}]),
    );
    let room = room();
    let event = event(&message(&json!({})));
    let explanation = explain(&served, USER, &event, &MemberContext::new(&room));
    let rule = explanation.decided_by.unwrap();
    assert_eq!(
        (rule.kind, &*rule.rule_id),
        (kitbag_push::Kind::Override, "r")
    );
    assert_eq!(explanation.rules[0].outcome, Outcome::Decides);
}

#[test]
fn no_debug_shows_what_users_wrote() {
    let rules = json!([{
        "rule_id": "secret rule",
        "pattern": "secret pattern",
        "actions": ["secret action", {"set_tweak": "sound", "value": "secret sound"}],
    }]);
    let served = only("content", &rules);
    let event = event(&message(
        &json!({"body": "secret pattern", "secret": "secret"}),
    ));
    let room = room();
    let member = MemberContext::named(&room, "secret name");
    let compiled = Ruleset::compile(&served, USER);
    let rule = compiled.deciding(&event, &member).unwrap();
    let explanation = explain(&served, USER, &event, &member);
    assert_eq!(explanation.actions.len(), 2);
    for shown in [
        format!(
            "{event:?} {member:?} {compiled:?} {rule:?} {:?}",
            rule.actions()
        ),
        format!("{explanation:?} {:?}", explanation.rules[0]),
        format!("{:?}", explanation.rules[0].conditions),
        format!("{:?}", kitbag_push::Pattern::words("secret*?secret")),
    ] {
        assert!(!shown.contains("secret"), "{shown}");
    }
}
