//! Evaluation and explanation never disagree, whatever the rules, the event and the room.

use kitbag_push::{FlatEvent, MemberContext, Outcome, RoomContext, Ruleset, evaluate_all, explain};
use proptest::prelude::*;
use serde_json::{Value, json};

const USER: &str = "@alice:example.org";
const KEYS: [&str; 10] = [
    "type",
    "sender",
    "room_id",
    "state_key",
    "content.body",
    "content.number",
    r"content.m\.mentions.user_ids",
    r"content.m\.mentions",
    "content.list",
    "absent",
];
const TEXTS: [&str; 12] = [
    "",
    "a",
    "b A",
    "Ab a",
    "*",
    "?",
    "a*",
    "é b",
    USER,
    "@bob:example.org",
    "!room:example.org",
    "m.room.message",
];

fn text() -> impl Strategy<Value = String> {
    prop::sample::select(&TEXTS[..]).prop_map(str::to_owned)
}

fn scalar() -> impl Strategy<Value = Value> {
    let odd = prop::sample::select(vec![
        json!(1.5),
        json!(1_u64 << 53),
        json!((1_u64 << 53) - 1),
    ]);
    prop_oneof![
        4 => text().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => (-1_i64..2).prop_map(Value::from),
        1 => odd,
    ]
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => scalar(),
        1 => prop::collection::vec(scalar(), 0..3).prop_map(Value::from),
        1 => Just(json!({})),
    ]
}

fn key() -> impl Strategy<Value = &'static str> {
    prop::sample::select(&KEYS[..])
}

fn condition() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => (key(), text()).prop_map(|(key, pattern)| {
            json!({"kind": "event_match", "key": key, "pattern": pattern})
        }),
        2 => (key(), value()).prop_map(|(key, value)| {
            json!({"kind": "event_property_is", "key": key, "value": value})
        }),
        2 => (key(), value()).prop_map(|(key, value)| {
            json!({"kind": "event_property_contains", "key": key, "value": value})
        }),
        1 => Just(json!({"kind": "contains_display_name"})),
        1 => prop::sample::select(vec!["2", "<2", ">=2", "x"]).prop_map(|is| {
            json!({"kind": "room_member_count", "is": is})
        }),
        1 => Just(json!({"kind": "sender_notification_permission", "key": "room"})),
        1 => prop::sample::select(vec![json!({"kind": "unknown"}), json!({}), json!(1)]),
    ]
}

fn rule() -> impl Strategy<Value = Value> {
    let id = prop_oneof![
        8 => text(),
        1 => Just(".m.rule.master".to_owned()),
        1 => Just(".m.rule.roomnotif".to_owned()),
        1 => Just(".m.rule.contains_user_name".to_owned()),
    ];
    let conditions = prop_oneof![
        8 => prop::collection::vec(condition(), 0..3).prop_map(Value::from),
        1 => Just(json!("no array")),
    ];
    let actions = prop_oneof![
        4 => Just(json!(["notify", {"set_tweak": "sound", "value": "default"}])),
        4 => Just(json!(["dont_notify"])),
        1 => Just(json!({})),
    ];
    let flags = (prop::bool::weighted(0.2), prop::bool::weighted(0.9));
    (id, flags, conditions, text(), actions).prop_map(
        |(id, (default, enabled), conditions, pattern, actions)| {
            json!({
                "rule_id": id,
                "default": default,
                "enabled": enabled,
                "conditions": conditions,
                "pattern": pattern,
                "actions": actions,
            })
        },
    )
}

fn served() -> impl Strategy<Value = Value> {
    let rules = || prop::collection::vec(rule(), 0..4);
    (rules(), rules(), rules(), rules(), rules()).prop_map(
        |(overrides, content, room, sender, underride)| {
            json!({"global": {
                "override": overrides,
                "content": content,
                "room": room,
                "sender": sender,
                "underride": underride,
            }})
        },
    )
}

fn event() -> impl Strategy<Value = Value> {
    let content = (
        value(),
        value(),
        value(),
        prop::option::of(value()),
        any::<bool>(),
    );
    (text(), text(), text(), value(), content).prop_map(
        |(kind, sender, room_id, state_key, (body, number, list, mentioned, more))| {
            let mut event = json!({
                "type": kind,
                "sender": sender,
                "room_id": room_id,
                "state_key": state_key,
                "content": {"body": body, "number": number, "list": list},
            });
            if let Some(mentioned) = mentioned {
                event["content"]["m.mentions"] = json!({"user_ids": mentioned});
            }
            if more {
                event["content"]["more"] = json!({"deep": [{"body": "a"}], "body": "a"});
            }
            event
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_evaluated_is_what_is_explained(
        served in served(),
        event in event(),
        joined_members in 1_u64..4,
        sender_power_level in prop::option::of(49_i64..51),
        name in text(),
    ) {
        let served = served.to_string();
        let event = FlatEvent::parse(&event.to_string()).unwrap();
        let room = RoomContext {
            joined_members,
            sender_power_level,
            ..RoomContext::default()
        };
        let member = MemberContext::named(&room, &name);

        let rules = Ruleset::compile(&served, USER);
        let deciding = rules.deciding(&event, &member);
        let explanation = explain(&served, USER, &event, &member);

        let explained = explanation.decided_by.as_ref();
        let explained = explained.map(|rule| (rule.kind, rule.rule_id.as_str()));
        prop_assert_eq!(deciding.map(|rule| (rule.kind(), rule.id())), explained);
        prop_assert_eq!(rules.evaluate(&event, &member), &*explanation.actions);
        let mut all = evaluate_all(&event, [(&rules, member)]);
        prop_assert_eq!(all.next(), Some(&*explanation.actions));
        let decide = |rule: &&kitbag_push::RuleExplanation| rule.outcome == Outcome::Decides;
        prop_assert_eq!(
            explanation.rules.iter().filter(decide).count(),
            usize::from(explained.is_some())
        );
        let holds = |rule: &&kitbag_push::RuleExplanation| {
            matches!(rule.outcome, Outcome::Decides | Outcome::Overruled)
        };
        if !explanation.own_event {
            let first = explanation.rules.iter().find(holds);
            prop_assert_eq!(first.map(|rule| (rule.name.kind, &*rule.name.rule_id)), explained);
        }
    }
}
