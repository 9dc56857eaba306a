//! Which rule decides, and what it does.

use kitbag_push::{Action, evaluate_all};

use super::*;

fn rule(id: &str, more: &Value) -> Value {
    let mut rule = json!({"rule_id": id, "default": false, "enabled": true, "actions": ["notify"]});
    let fields = more.as_object().unwrap().clone();
    rule.as_object_mut().unwrap().extend(fields);
    rule
}

fn always(id: &str) -> Value {
    rule(id, &json!({"conditions": []}))
}

#[test]
fn kinds_are_asked_in_order() {
    let mut kinds = vec![
        ("override", always("override")),
        ("content", rule("content", &json!({"pattern": "cake"}))),
        ("room", rule("!room:example.org", &json!({}))),
        ("sender", rule("@bob:example.org", &json!({}))),
        ("underride", always("underride")),
    ];
    let event = message(&json!({"body": "cake"}));
    while let Some((_, first)) = kinds.first() {
        let first = first["rule_id"].as_str().map(str::to_owned);
        // The order of the text does not matter, only that of the kinds.
        let global: Value = kinds
            .iter()
            .rev()
            .map(|(kind, rule)| (*kind, json!([rule])))
            .collect();
        let served = json!({ "global": global }).to_string();
        assert_eq!(deciding(&served, &event, &room()), first);
        kinds.remove(0);
    }
}

#[test]
fn within_a_kind_the_first_that_is_on_and_matches_decides() {
    let off = rule("off", &json!({"conditions": [], "enabled": false}));
    let never = rule("never", &json!({"conditions": [{"kind": "unknown"}]}));
    let rules = json!([off, never, always("first"), always("second")]);
    let served = only("underride", &rules);
    assert_eq!(
        deciding(&served, &message(&json!({})), &room()).as_deref(),
        Some("first")
    );
}

#[test]
fn the_master_rule_is_first_wherever_it_stands() {
    let master = |fields: Value| {
        let mut master = rule(".m.rule.master", &json!({"conditions": [], "actions": []}));
        master
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        json!([always("own"), always("own too"), master, always("last")])
    };
    let event = message(&json!({}));
    for (fields, first) in [
        (json!({"default": true}), ".m.rule.master"),
        (json!({"default": true, "enabled": false}), "own"),
        (json!({"default": false}), "own"),
    ] {
        let served = only("override", &master(fields));
        assert_eq!(deciding(&served, &event, &room()).as_deref(), Some(first));
    }
    let served = only("underride", &master(json!({"default": true})));
    assert_eq!(deciding(&served, &event, &room()).as_deref(), Some("own"));
}

#[test]
fn events_of_the_users_own_never_notify() {
    let served = only("override", &json!([always("always")]));
    for (sender, decided) in [
        (json!(USER), None),
        (json!("@Alice:example.org"), Some("always")),
        (json!(["x"]), Some("always")),
    ] {
        let mut event = message(&json!({}));
        event["sender"] = sender;
        assert_eq!(
            deciding(&served, &event, &room()).as_deref(),
            decided,
            "{event}"
        );
    }
}

#[test]
fn room_and_sender_rules_compare_ids_exactly() {
    let event = message(&json!({"body": "x"}));
    for (kind, id, is_found) in [
        ("room", "!room:example.org", true),
        ("room", "!Room:example.org", false),
        ("room", "!room:*", false),
        ("room", "@bob:example.org", false),
        ("sender", "@bob:example.org", true),
        ("sender", "@BOB:example.org", false),
        ("sender", "@*", false),
    ] {
        let served = only(kind, &json!([rule(id, &json!({}))]));
        assert_eq!(
            deciding(&served, &event, &room()).is_some(),
            is_found,
            "{kind} {id}"
        );
    }
    let mut roomless = event;
    roomless.as_object_mut().unwrap().remove("room_id");
    let served = only("room", &json!([rule("!room:example.org", &json!({}))]));
    let rules = Ruleset::compile(&served, USER);
    let (text, room) = (roomless.to_string(), room());
    let member = MemberContext::new(&room);
    let without = FlatEvent::parse(&text).unwrap();
    assert!(rules.deciding(&without, &member).is_none());
    let within = FlatEvent::in_room(&text, "!room:example.org").unwrap();
    assert!(rules.deciding(&within, &member).is_some());
}

#[test]
fn content_rules_are_of_the_body_alone() {
    let served = only(
        "content",
        &json!([rule("cake", &json!({"pattern": "C*ke"}))]),
    );
    for (content, is_found) in [
        (json!({"body": "cakes and a coke!"}), true),
        (json!({"body": "cakes"}), false),
        (json!({"formatted_body": "cake"}), false),
        (json!({"body": ["cake"]}), false),
    ] {
        assert_eq!(
            deciding(&served, &message(&content), &room()).is_some(),
            is_found,
            "{content}"
        );
    }
}

#[test]
fn keywords_beyond_ascii_are_found_anywhere_in_the_body() {
    let body = json!({"body": "Всем ПРИВЕТ, 你好嗎 é 🎂!"});
    for (keyword, is_found) in [
        ("привет", true),
        ("прив*", true),
        ("ри", true),
        ("приветы", false),
        ("你好", true),
        ("好你", false),
        ("嗎", true),
        ("é", true),
        ("🎂", true),
        ("ё", false),
    ] {
        let served = only("content", &json!([rule("k", &json!({"pattern": keyword}))]));
        assert_eq!(
            deciding(&served, &message(&body), &room()).is_some(),
            is_found,
            "{keyword}"
        );
    }
}

#[test]
fn a_rule_that_cannot_be_read_hides_no_other() {
    for broken in [
        json!(1),
        json!([]),
        json!({}),
        json!({"conditions": [], "actions": []}),
        json!({"rule_id": 1, "conditions": [], "actions": []}),
        json!({"rule_id": "x", "conditions": []}),
        json!({"rule_id": "x", "conditions": [], "actions": {}}),
        json!({"rule_id": "x", "conditions": {}, "actions": []}),
        json!({"rule_id": "x", "conditions": null, "actions": []}),
        json!({"rule_id": "x", "conditions": [], "actions": [], "enabled": 1}),
        json!({"rule_id": "x", "conditions": [], "actions": [], "default": "no"}),
    ] {
        let served = only("override", &json!([broken, always("behind")]));
        let found = deciding(&served, &message(&json!({})), &room());
        assert_eq!(found.as_deref(), Some("behind"), "{broken}");
    }
    let content = json!([
        rule("x", &json!({})),
        rule("y", &json!({"pattern": "cake"}))
    ]);
    let event = message(&json!({"body": "cake"}));
    let found = deciding(&only("content", &content), &event, &room());
    assert_eq!(found.as_deref(), Some("y"));
}

#[test]
fn a_kind_that_cannot_be_read_hides_no_other() {
    let event = message(&json!({}));
    let served = json!({"global": {"override": {}, "underride": [always("rule")]}}).to_string();
    assert_eq!(deciding(&served, &event, &room()).as_deref(), Some("rule"));
    for served in [
        "",
        "[]",
        "{}",
        r#"{"global":[]}"#,
        r#"{"global":{}}"#,
        "nonsense",
    ] {
        assert_eq!(deciding(served, &event, &room()), None, "{served}");
    }
}

#[test]
fn a_member_that_the_kind_does_not_have_does_not_matter() {
    let text = r#"{"global":{"room":[{"rule_id":"!room:example.org","conditions":1,"actions":[],
        "conditions":2,"pattern":3,"pattern":4,"more":{}}]}}"#;
    assert!(deciding(text, &message(&json!({})), &room()).is_some());
}

#[test]
fn a_rule_is_on_and_without_conditions_unless_it_says_otherwise() {
    let served = only("underride", &json!([{"rule_id": "short", "actions": []}]));
    assert_eq!(
        deciding(&served, &message(&json!({})), &room()).as_deref(),
        Some("short")
    );
}

#[test]
fn actions_are_given_out_without_those_that_do_nothing() {
    let actions = json!([
        "dont_notify",
        "notify",
        "coalesce",
        {"set_tweak": "highlight"},
        {"set_tweak": "highlight", "value": false},
        {"set_tweak": "highlight", "value": "no"},
        {"set_tweak": "sound", "value": "ring"},
        {"set_tweak": "sound"},
        {"set_tweak": "org.example.colour", "value": {"red": 1}},
        "org.example.other",
    ]);
    let served = only(
        "override",
        &json!([rule("rule", &json!({"actions": actions}))]),
    );
    let rules = Ruleset::compile(&served, USER);
    let room = room();
    let given = rules.evaluate(&event(&message(&json!({}))), &MemberContext::new(&room));
    let other = |index: usize| match &given[index] {
        Action::Other(raw) => serde_json::from_str::<Value>(raw.get()).unwrap(),
        action => panic!("{action:?}"),
    };
    assert_eq!(given.len(), 8);
    assert_eq!(
        given[..3],
        [
            Action::Notify,
            Action::Highlight(true),
            Action::Highlight(false)
        ]
    );
    assert_eq!(other(3), actions[5]);
    assert_eq!(given[4], Action::Sound("ring".into()));
    for (index, sent) in [(5, 7), (6, 8), (7, 9)] {
        assert_eq!(other(index), actions[sent]);
    }
    // What is written of them is what they are, with the value that `highlight` is without one.
    let written = json!([
        "notify",
        {"set_tweak": "highlight", "value": true},
        {"set_tweak": "highlight", "value": false},
        actions[5], actions[6], actions[7], actions[8], actions[9],
    ]);
    assert_eq!(serde_json::to_value(given).unwrap(), written);
}

#[test]
fn all_members_of_a_room_are_answered_in_their_order() {
    let mute = json!([rule("!room:example.org", &json!({"actions": []}))]);
    let all = [
        Ruleset::compile(&by_default(Defaults::spec()), USER),
        Ruleset::compile(&only("room", &mute), "@carol:example.org"),
        Ruleset::compile(&by_default(Defaults::spec()), "@bob:example.org"),
    ];
    let room = room();
    let members = all.iter().map(|rules| (rules, MemberContext::new(&room)));
    let event = event(&message(&json!({"body": "x"})));
    let answers: Vec<_> = evaluate_all(&event, members).collect();
    assert_eq!(answers, [&[Action::Notify][..], &[], &[]]);
}

#[test]
fn what_is_no_event_is_told() {
    assert!(FlatEvent::parse("{").is_err());
    assert!(FlatEvent::parse("[]").is_err());
    assert!(FlatEvent::in_room("1", "!room:example.org").is_err());
    let deep = format!("{}1{}", "{\"a\":".repeat(200), "}".repeat(200));
    assert!(FlatEvent::parse(&deep).is_err());
    assert!(FlatEvent::parse("{}").is_ok());
}

#[test]
fn the_later_of_two_properties_of_a_name_counts() {
    let served = only(
        "override",
        &json!([rule(
            "rule",
            &json!({"conditions": [
                {"kind": "event_match", "key": "type", "pattern": "second"},
            ]})
        )]),
    );
    let event = FlatEvent::parse(r#"{"type":"first","type":"second"}"#).unwrap();
    let room = room();
    let rules = Ruleset::compile(&served, USER);
    assert!(rules.deciding(&event, &MemberContext::new(&room)).is_some());
}
