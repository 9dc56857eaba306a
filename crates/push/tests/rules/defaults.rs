//! The default rules as they are served to who changed nothing.

use kitbag_push::{Changes, Defaults, Kind, served};
use serde_json::{Value, json};

const USER: &str = "@a\"\\b:example.org";

fn rules(defaults: Defaults) -> Value {
    let served = served(&Changes::default(), &defaults, USER);
    serde_json::from_str(&served).unwrap()
}

fn ids(rules: &Value, kind: Kind) -> Vec<&str> {
    let rules = rules["global"][kind.as_str()].as_array().unwrap().iter();
    let ids = rules.map(|rule| rule["rule_id"].as_str().unwrap());
    ids.map(|id| id.strip_prefix(".m.rule.").unwrap()).collect()
}

fn find<'a>(rules: &'a Value, kind: Kind, id: &str) -> &'a Value {
    let rules = rules["global"][kind.as_str()].as_array().unwrap();
    let id = format!(".m.rule.{id}");
    rules.iter().find(|rule| rule["rule_id"] == id).unwrap()
}

#[test]
fn five_kinds_are_there_in_the_order_of_evaluation() {
    let text = served(&Changes::default(), &Defaults::spec(), USER);
    let places = Kind::ALL.map(|kind| text.find(&format!("\"{kind}\":[")).unwrap());
    assert!(places.is_sorted());
    let rules = rules(Defaults::spec());
    assert_eq!(rules["global"].as_object().unwrap().len(), 5);
    for kind in [Kind::Content, Kind::Room, Kind::Sender] {
        assert_eq!(rules["global"][kind.as_str()], json!([]));
    }
}

/// Conditions and actions by ID.
type Table = Vec<(&'static str, Value, Value)>;

fn matches(key: &str, pattern: &str) -> Value {
    json!({"kind": "event_match", "key": key, "pattern": pattern})
}

fn is(key: &str, value: &Value) -> Value {
    json!({"kind": "event_property_is", "key": key, "value": value})
}

fn sound(name: &str) -> Value {
    json!({"set_tweak": "sound", "value": name})
}

fn overrides() -> Table {
    let highlight = json!({"set_tweak": "highlight"});
    let mentioned = json!({
        "kind": "event_property_contains", "key": "content.m\\.mentions.user_ids", "value": USER,
    });
    let room = is("content.m\\.mentions.room", &json!(true));
    let permission = json!({"kind": "sender_notification_permission", "key": "room"});
    let replace = is("content.m\\.relates_to.rel_type", &json!("m.replace"));
    let state = |event_type| json!([matches("type", event_type), matches("state_key", "")]);
    let invite = json!([
        matches("type", "m.room.member"),
        matches("content.membership", "invite"),
        matches("state_key", USER),
    ]);
    let notices = json!([matches("content.msgtype", "m.notice")]);
    let loud = json!(["notify", sound("default"), highlight]);
    let quiet = json!(["notify", highlight]);
    vec![
        ("master", json!([]), json!([])),
        ("suppress_notices", notices, json!([])),
        ("invite_for_me", invite, json!(["notify", sound("default")])),
        (
            "member_event",
            json!([matches("type", "m.room.member")]),
            json!([]),
        ),
        ("is_user_mention", json!([mentioned]), loud),
        ("is_room_mention", json!([room, permission]), quiet.clone()),
        ("tombstone", state("m.room.tombstone"), quiet),
        (
            "reaction",
            json!([matches("type", "m.reaction")]),
            json!([]),
        ),
        ("room.server_acl", state("m.room.server_acl"), json!([])),
        ("suppress_edits", json!([replace]), json!([])),
    ]
}

fn underrides() -> Table {
    let two = json!({"kind": "room_member_count", "is": "2"});
    let loud = json!(["notify", sound("default")]);
    let (call, ring) = (
        json!([matches("type", "m.call.invite")]),
        json!(["notify", sound("ring")]),
    );
    let (message, encrypted) = (
        matches("type", "m.room.message"),
        matches("type", "m.room.encrypted"),
    );
    vec![
        ("call", call, ring),
        (
            "encrypted_room_one_to_one",
            json!([two, encrypted]),
            loud.clone(),
        ),
        ("room_one_to_one", json!([two, message]), loud),
        ("message", json!([message]), json!(["notify"])),
        ("encrypted", json!([encrypted]), json!(["notify"])),
    ]
}

/// CS API, "Push Notifications", "Default Rules".
#[test]
fn rules_are_those_of_the_spec() {
    let rules = rules(Defaults::spec());
    for (kind, table) in [
        (Kind::Override, overrides()),
        (Kind::Underride, underrides()),
    ] {
        let expected: Vec<_> = table
            .into_iter()
            .map(|(id, conditions, actions)| {
                json!({
                    "rule_id": format!(".m.rule.{id}"), "default": true,
                    "enabled": id != "master", "conditions": conditions, "actions": actions,
                })
            })
            .collect();
        assert_eq!(rules["global"][kind.as_str()], json!(expected));
    }
}

#[test]
fn legacy_mention_rules_are_there_where_they_are_asked_for() {
    let rules = rules(Defaults::with_legacy_mentions());
    let overrides = ids(&rules, Kind::Override);
    assert_eq!(overrides.len(), 12);
    assert_eq!(
        overrides[4..8],
        [
            "is_user_mention",
            "contains_display_name",
            "is_room_mention",
            "roomnotif"
        ]
    );
    let (sound, highlight) = (
        json!({"set_tweak": "sound", "value": "default"}),
        json!({"set_tweak": "highlight"}),
    );
    assert_eq!(
        *find(&rules, Kind::Override, "contains_display_name"),
        json!({
            "rule_id": ".m.rule.contains_display_name", "default": true, "enabled": true,
            "conditions": [{"kind": "contains_display_name"}],
            "actions": ["notify", sound, highlight],
        })
    );
    assert_eq!(
        *find(&rules, Kind::Override, "roomnotif"),
        json!({
            "rule_id": ".m.rule.roomnotif", "default": true, "enabled": true,
            "conditions": [
                {"kind": "event_match", "key": "content.body", "pattern": "@room"},
                {"kind": "sender_notification_permission", "key": "room"},
            ],
            "actions": ["notify", highlight],
        })
    );
    assert_eq!(
        *find(&rules, Kind::Content, "contains_user_name"),
        json!({
            "rule_id": ".m.rule.contains_user_name", "default": true, "enabled": true,
            "pattern": "a\"\\b", "actions": ["notify", sound, highlight],
        })
    );
}

#[test]
fn only_rules_that_are_there_are_known() {
    let spec = Defaults::spec();
    assert!(spec.has(Kind::Override, ".m.rule.master"));
    assert!(!spec.has(Kind::Underride, ".m.rule.master"));
    assert!(!spec.has(Kind::Content, ".m.rule.contains_user_name"));
    assert!(Defaults::with_legacy_mentions().has(Kind::Content, ".m.rule.contains_user_name"));
}

#[test]
fn fingerprint_tells_the_two_tables_apart() {
    let (spec, legacy) = (Defaults::spec(), Defaults::with_legacy_mentions());
    assert_ne!(spec.fingerprint(), legacy.fingerprint());
    assert_eq!(spec.fingerprint(), Defaults::default().fingerprint());
}
