//! Each kind of conditions.

use super::*;

/// Tells whether a rule with this condition alone matches.
fn holds(condition: &Value, event: &Value, room: &RoomContext) -> bool {
    let rule = json!({
        "rule_id": "rule",
        "default": false,
        "enabled": true,
        "conditions": [condition],
        "actions": ["notify"],
    });
    deciding(&only("override", &json!([rule])), event, room).is_some()
}

/// An event with something of each type.
fn many() -> Value {
    json!({
        "type": "m.room.Message",
        "sender": "@bob:example.org",
        "state_key": "",
        "room_id": "!room:example.org",
        "content": {
            "body": "Hello Alice and café",
            "text": "Whole Value",
            "number": 1,
            "large": 9_007_199_254_740_991_i64,
            "too_large": 9_007_199_254_740_992_i64,
            "fraction": 1.0,
            "yes": true,
            "null": null,
            "list": ["a", 1, true, null, [1], {"a": 1}, 1.5, 9_007_199_254_740_992_i64],
            "empty": {},
            "a.b": {"c\\d": "dots", "body": "no body"},
            "m.mentions": {"user_ids": [USER]},
            "": {"": "empty"},
            r"x\y": "literal",
        },
        "": "top",
    })
}

#[test]
fn event_match_is_of_whole_texts_and_in_the_body_of_words() {
    for (key, pattern, is_held) in [
        ("content.text", "whole value", true),
        ("content.text", "WHOLE*", true),
        ("content.text", "whole", false),
        ("content.text", "whole?value", true),
        ("type", "m.room.message", true),
        ("content.body", "alice", true),
        ("content.body", "lice", false),
        ("content.body", "hello*and", true),
        ("content.body", "CAF", true),
        ("content.a\\.b.body", "body", false),
        ("state_key", "", true),
        ("state_key", "*", true),
        ("content.text", "", false),
        // Not there, or no text: not even for `*`.
        ("content.absent", "*", false),
        ("content.number", "1", false),
        ("content.number", "*", false),
        ("content.yes", "true", false),
        ("content.null", "*", false),
        ("content.list", "*", false),
        ("content.empty", "*", false),
        ("content", "*", false),
        // Paths.
        (r"content.a\.b.c\\d", "dots", true),
        (r"content.a\.b.c\d", "dots", true),
        (r"content.a.b.c\\d", "dots", false),
        (r"content\.a\.b", "*", false),
        ("content..", "empty", true),
        ("", "top", true),
        (r"content.x\y", "literal", true),
        (r"content.x\\y", "literal", true),
        ("Content.text", "*", false),
        ("content.text.more", "*", false),
    ] {
        let condition = json!({"kind": "event_match", "key": key, "pattern": pattern});
        assert_eq!(
            holds(&condition, &many(), &room()),
            is_held,
            "{key} {pattern}"
        );
    }
}

#[test]
fn event_property_is_compares_exactly_and_by_type() {
    for (key, value, is_held) in [
        ("content.text", json!("Whole Value"), true),
        ("content.text", json!("whole value"), false),
        ("content.text", json!("Whole*"), false),
        ("content.body", json!("Alice"), false),
        ("content.number", json!(1), true),
        ("content.number", json!("1"), false),
        ("content.number", json!(true), false),
        ("content.number", json!(1.0), false),
        ("content.fraction", json!(1), false),
        ("content.fraction", json!(1.0), false),
        ("content.large", json!(9_007_199_254_740_991_i64), true),
        ("content.too_large", json!(9_007_199_254_740_992_i64), false),
        ("content.yes", json!(true), true),
        ("content.yes", json!(false), false),
        ("content.yes", json!(1), false),
        ("content.null", Value::Null, true),
        ("content.absent", Value::Null, false),
        ("content.list", json!("a"), false),
        ("content.empty", json!({}), false),
        ("content.list", json!(["a"]), false),
    ] {
        let condition = json!({"kind": "event_property_is", "key": key, "value": value});
        assert_eq!(
            holds(&condition, &many(), &room()),
            is_held,
            "{key} {value}"
        );
    }
}

#[test]
fn event_property_contains_looks_for_simple_elements() {
    for (key, value, is_held) in [
        ("content.list", json!("a"), true),
        ("content.list", json!("A"), false),
        ("content.list", json!(1), true),
        ("content.list", json!("1"), false),
        ("content.list", json!(true), true),
        ("content.list", json!(false), false),
        ("content.list", Value::Null, true),
        ("content.list", json!(1.5), false),
        ("content.list", json!([1]), false),
        ("content.list", json!(9_007_199_254_740_992_i64), false),
        (r"content.m\.mentions.user_ids", json!(USER), true),
        ("content.text", json!("Whole Value"), false),
        ("content.absent", Value::Null, false),
    ] {
        let condition = json!({"kind": "event_property_contains", "key": key, "value": value});
        assert_eq!(
            holds(&condition, &many(), &room()),
            is_held,
            "{key} {value}"
        );
    }
}

#[test]
fn contains_display_name_looks_between_words_of_the_body() {
    let condition = json!({"kind": "contains_display_name"});
    let rule = json!([{"rule_id": "rule", "conditions": [condition], "actions": []}]);
    let rules = Ruleset::compile(&only("override", &rule), USER);
    let room = room();
    for (name, body, is_held) in [
        ("Alice", json!("hello aLICE!"), true),
        ("Alice", json!("hello Alices"), false),
        ("Al*", json!("hello Alice"), false),
        ("Al*", json!("hello al*!"), true),
        ("Alice B.", json!("alice b. is here"), true),
        ("", json!("hello"), false),
        ("", json!(""), false),
        ("Alice", json!(["alice"]), false),
        ("Alice", Value::Null, false),
    ] {
        let event = event(&message(&json!({"body": body})));
        let member = MemberContext::named(&room, name);
        assert_eq!(
            rules.deciding(&event, &member).is_some(),
            is_held,
            "{name} {body}"
        );
    }
    let nameless = MemberContext::new(&room);
    assert!(
        rules
            .deciding(&event(&message(&json!({"body": "x"}))), &nameless)
            .is_none()
    );
    let named = MemberContext::named(&room, NAME);
    assert!(
        rules
            .deciding(&event(&message(&json!({}))), &named)
            .is_none()
    );
}

#[test]
fn room_member_count_compares_who_has_joined() {
    for (is, counts) in [
        ("2", &[2_u64][..]),
        ("==2", &[2]),
        ("<2", &[0, 1]),
        (">2", &[3, 4]),
        (">=2", &[2, 3, 4]),
        ("<=2", &[0, 1, 2]),
        ("002", &[2]),
        ("<99999999999999999999999", &[0, 1, 2, 3, 4]),
        (">99999999999999999999999", &[]),
        // None of these is a comparison.
        ("", &[]),
        (">", &[]),
        ("=2", &[]),
        ("=>2", &[]),
        ("<>2", &[]),
        (" 2", &[]),
        ("+2", &[]),
        ("-2", &[]),
        ("2.0", &[]),
        ("two", &[]),
        ("٢", &[]),
    ] {
        let condition = json!({"kind": "room_member_count", "is": is});
        for joined_members in 0..5 {
            let room = RoomContext {
                joined_members,
                ..room()
            };
            let is_held = counts.contains(&joined_members);
            assert_eq!(
                holds(&condition, &many(), &room),
                is_held,
                "{is} {joined_members}"
            );
        }
    }
}

#[test]
fn sender_notification_permission_needs_the_level_of_the_room_or_fifty() {
    let levels = [("room".to_owned(), 10), ("other".to_owned(), -5)];
    for (key, sender_power_level, is_held) in [
        ("room", Some(10), true),
        ("room", Some(9), false),
        ("room", Some(i64::MAX), true),
        ("room", None, false),
        ("other", Some(-5), true),
        ("other", Some(-6), false),
        ("absent", Some(50), true),
        ("absent", Some(49), false),
        ("absent", None, false),
    ] {
        let condition = json!({"kind": "sender_notification_permission", "key": key});
        let room = RoomContext {
            sender_power_level,
            notification_levels: levels.clone().into(),
            ..room()
        };
        assert_eq!(
            holds(&condition, &many(), &room),
            is_held,
            "{key} {sender_power_level:?}"
        );
    }
}

#[test]
fn conditions_that_are_not_known_or_not_right_never_hold() {
    for condition in [
        json!({"kind": "org.example.unknown"}),
        json!({"kind": "Event_Match", "key": "type", "pattern": "*"}),
        json!({"kind": 1}),
        json!({}),
        json!("event_match"),
        Value::Null,
        json!({"kind": "event_match", "key": "type"}),
        json!({"kind": "event_match", "pattern": "*"}),
        json!({"kind": "event_match", "key": "content.number", "pattern": 1}),
        json!({"kind": "event_match", "key": ["type"], "pattern": "*"}),
        json!({"kind": "event_property_is", "key": "content.null"}),
        json!({"kind": "event_property_is", "key": "content.number", "value": [1]}),
        json!({"kind": "event_property_contains", "key": "content.list"}),
        json!({"kind": "event_property_contains", "key": "content.list", "value": {}}),
        json!({"kind": "room_member_count"}),
        json!({"kind": "room_member_count", "is": 10}),
        json!({"kind": "sender_notification_permission"}),
    ] {
        assert!(!holds(&condition, &many(), &room()), "{condition}");
    }
}

#[test]
fn a_condition_with_a_field_twice_never_holds() {
    let rule = r#"{"rule_id":"rule","actions":[],"conditions":[
        {"kind":"event_match","key":"type","pattern":"*","pattern":"*"}]}"#;
    let served = format!(r#"{{"global":{{"override":[{rule}]}}}}"#);
    assert_eq!(deciding(&served, &many(), &room()), None);
    let once = served.replacen(r#","pattern":"*""#, "", 1);
    assert_eq!(deciding(&once, &many(), &room()).as_deref(), Some("rule"));
}

#[test]
fn a_value_that_cannot_be_read_holds_nothing_and_hides_no_other() {
    let event = r#"{"x":1e999,"content":{"body":"\ud800","list":[1e999,"a","\udc00",[1e999]],
        "\ud800":1,"twice":"a","twice":1e999,"number":1,"deep":{"er":{"text":"b","bad":-1e999}},
        "m.mentions":"\udfff"},"sender":"@bob:example.org"}"#;
    let event = FlatEvent::parse(event).unwrap();
    assert_eq!(event.sender(), Some("@bob:example.org"));
    let is =
        |key: &str, value: Value| json!({"kind": "event_property_is", "key": key, "value": value});
    let matching = |key: &str| json!({"kind": "event_match", "key": key, "pattern": "*"});
    let contains = |value: &str| json!({"kind": "event_property_contains", "key": "content.list", "value": value});
    for (condition, is_held) in [
        (is("content.number", json!(1)), true),
        (is("x", json!(0)), false),
        (is("x", json!(null)), false),
        (matching("x"), false),
        (matching("content.body"), false),
        (matching("content.twice"), false),
        (matching("content.deep.er.text"), true),
        (matching("content.deep.er.bad"), false),
        (contains("a"), true),
        (contains(""), false),
    ] {
        let rule = json!({"rule_id": "a", "actions": [], "conditions": [condition]});
        let rules = Ruleset::compile(&only("override", &json!([rule])), USER);
        let room = room();
        let rule = rules.deciding(&event, &MemberContext::named(&room, NAME));
        assert_eq!(rule.is_some(), is_held, "{condition}");
    }
    // It is there: so the event says itself whom it mentions.
    let legacy = Ruleset::compile(&by_default(Defaults::with_legacy_mentions()), USER);
    let named = r#"{"type":"m","content":{"body":"Alice","m.mentions":"\udfff"}}"#;
    let named = FlatEvent::parse(named).unwrap();
    let room = room();
    let member = MemberContext::named(&room, NAME);
    assert!(legacy.deciding(&named, &member).is_none());
}

#[test]
fn minus_zero_is_zero() {
    for (event, value) in [("-0", "0"), ("0", "-0"), ("-0", "-0")] {
        let event = format!("{{\"n\":{event},\"list\":[{event}]}}");
        let event = FlatEvent::parse(&event).unwrap();
        for (kind, key) in [
            ("event_property_is", "n"),
            ("event_property_contains", "list"),
        ] {
            let condition = format!(r#"{{"kind":"{kind}","key":"{key}","value":{value}}}"#);
            let rule = format!(r#"{{"rule_id":"a","actions":[],"conditions":[{condition}]}}"#);
            let served = format!(r#"{{"global":{{"override":[{rule}]}}}}"#);
            let room = room();
            let rules = Ruleset::compile(&served, USER);
            let rule = rules.deciding(&event, &MemberContext::named(&room, NAME));
            assert!(rule.is_some(), "{condition}");
        }
    }
}
