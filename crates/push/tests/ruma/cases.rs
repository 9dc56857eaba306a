//! Random rulesets, events and members, of a vocabulary so small that much of it meets.
//!
//! What ruma is known to judge otherwise is not drawn: it stands in `differences.rs`, each with its
//! reason.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::option;
use proptest::prelude::{Just, Strategy, any};
use proptest::prop_oneof;
use proptest::sample::select;
use serde_json::{Map, Value, json};

/// Whose rules they are.
pub(crate) const USER: &str = "@alice:example.org";
/// Where everything happens.
pub(crate) const ROOM: &str = "!kitchen:example.org";

const SENDERS: [&str; 4] = [
    "@bob:example.org",
    "@carol:example.org",
    "@dave:example.net",
    USER,
];
const ROOMS: [&str; 3] = [ROOM, "!garden:example.org", "!garage:example.net"];
const TYPES: [&str; 9] = [
    "m.room.message",
    "m.room.message",
    "m.room.member",
    "m.room.encrypted",
    "m.room.tombstone",
    "m.room.server_acl",
    "m.reaction",
    "m.call.invite",
    "org.example.own",
];
const WORDS: [&str; 18] = [
    "hello",
    "Hello",
    "HELLO",
    "alice",
    "Alice",
    "bob",
    "foo_bar",
    "x1",
    "7",
    "\u{e9}",
    "\u{c4}\u{d6}",
    "\u{e4}\u{f6}",
    "\u{65e5}\u{672c}",
    "\u{436}",
    "@room",
    "m.notice",
    "\\",
    "\u{1f600}",
];
const SEPARATORS: [&str; 7] = [" ", " ", "-", "_", "", ", ", "."];
/// Paths, some of which lead somewhere in most events.
const KEYS: [&str; 20] = [
    "content.body",
    "content.body",
    "content.body",
    "content.msgtype",
    "content.membership",
    "content.n",
    "content.list",
    "content.a.b",
    "content.a\\.b",
    "content.a\\\\b",
    "content.a",
    "content",
    "content.m\\.mentions.user_ids",
    "content.m\\.mentions.room",
    "content.m\\.relates_to.rel_type",
    "sender",
    "state_key",
    "type",
    "room_id",
    "content.nothing\\x",
];

/// What is handed to both.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) rules: Vec<Rule>,
    pub(crate) defaults: Vec<DefaultChange>,
    pub(crate) has_legacy_mentions: bool,
    pub(crate) event: Value,
    pub(crate) member: Member,
}

/// A rule of the user's own.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    pub(crate) kind: &'static str,
    pub(crate) id: String,
    pub(crate) body: Value,
    pub(crate) is_enabled: bool,
}

/// What the user changed in the default rule at this place, of all of them.
#[derive(Clone, Debug)]
pub(crate) struct DefaultChange {
    pub(crate) at: usize,
    pub(crate) enabled: Option<bool>,
    pub(crate) actions: Option<Value>,
}

/// Who the event reaches, and the room as it stands.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) display_name: String,
    pub(crate) joined_members: u32,
    pub(crate) sender_level: i64,
    pub(crate) room_level: i64,
}

pub(crate) fn case() -> impl Strategy<Value = Case> {
    (
        vec(rule(), 0..12),
        vec(default_change(), 0..6),
        any::<bool>(),
        event(),
        member(),
    )
        .prop_map(
            |(rules, defaults, has_legacy_mentions, event, member)| Case {
                rules: without_twins(rules),
                defaults,
                has_legacy_mentions,
                event,
                member,
            },
        )
}

fn without_twins(rules: Vec<Rule>) -> Vec<Rule> {
    let mut kept: Vec<Rule> = Vec::new();
    for rule in rules {
        let is_new = |other: &Rule| (other.kind, &other.id) != (rule.kind, &rule.id);
        if kept.iter().all(is_new) {
            kept.push(rule);
        }
    }
    kept
}

fn rule() -> impl Strategy<Value = Rule> {
    let id = || (0..100_u8).prop_map(|number| format!("own{number}"));
    let parts = prop_oneof![
        (Just("override"), id(), conditioned()),
        (Just("content"), id(), patterned()),
        (
            Just("room"),
            select(&ROOMS[..]).prop_map(str::to_owned),
            bare()
        ),
        (
            Just("sender"),
            select(&SENDERS[..]).prop_map(str::to_owned),
            bare()
        ),
        (Just("underride"), id(), conditioned()),
    ];
    (parts, actions(), is_mostly_true()).prop_map(|((kind, id, mut body), actions, is_enabled)| {
        body.insert("actions".to_owned(), actions);
        Rule {
            kind,
            id,
            body: body.into(),
            is_enabled,
        }
    })
}

fn is_mostly_true() -> impl Strategy<Value = bool> + Clone {
    select(&[true, true, true, false][..])
}

fn conditioned() -> impl Strategy<Value = Map<String, Value>> {
    vec(condition(), 0..4).prop_map(|list| Map::from_iter([("conditions".to_owned(), list.into())]))
}

fn patterned() -> impl Strategy<Value = Map<String, Value>> {
    pattern().prop_map(|text| Map::from_iter([("pattern".to_owned(), text.into())]))
}

fn bare() -> impl Strategy<Value = Map<String, Value>> {
    Just(Map::new())
}

fn actions() -> impl Strategy<Value = Value> {
    let action = prop_oneof![
        Just(json!("notify")),
        Just(json!("dont_notify")),
        Just(json!("coalesce")),
        Just(json!({"set_tweak": "highlight"})),
        any::<bool>().prop_map(|value| json!({"set_tweak": "highlight", "value": value})),
        select(&["default", "ring"][..])
            .prop_map(|value| json!({"set_tweak": "sound", "value": value})),
        select(&WORDS[..])
            .prop_map(|value| json!({"set_tweak": "org.example.own", "value": value})),
    ];
    vec(action, 0..4).prop_map(Value::from)
}

fn condition() -> impl Strategy<Value = Value> {
    let key = || select(&KEYS[..]);
    prop_oneof![
        6 => (key(), pattern()).prop_map(
            |(key, pattern)| json!({"kind": "event_match", "key": key, "pattern": pattern})
        ),
        3 => (key(), scalar()).prop_map(
            |(key, value)| json!({"kind": "event_property_is", "key": key, "value": value})
        ),
        3 => (key(), scalar()).prop_map(
            |(key, value)| json!({"kind": "event_property_contains", "key": key, "value": value})
        ),
        1 => Just(json!({"kind": "contains_display_name"})),
        2 => (select(&["", "==", "<", ">", "<=", ">="][..]), 0..5_u32)
            .prop_map(|(sign, count)| {
                json!({"kind": "room_member_count", "is": format!("{sign}{count}")})
            }),
        1 => Just(json!({"kind": "sender_notification_permission", "key": "room"})),
        1 => Just(json!({"kind": "org.example.unknown", "key": "content.body", "more": [1]})),
    ]
}

/// Words and wildcards: never none, and no two wildcards side by side.
fn pattern() -> impl Strategy<Value = String> {
    let piece = || {
        prop_oneof![
            6 => select(&WORDS[..]),
            2 => select(&SEPARATORS[..]),
            2 => Just("*"),
            1 => Just("?"),
        ]
    };
    let joined = vec(piece(), 1..4).prop_map(|pieces| {
        let mut pattern = String::new();
        for piece in pieces {
            let is_second = pattern.ends_with(['*', '?']) && piece.starts_with(['*', '?']);
            if !is_second {
                pattern.push_str(piece);
            }
        }
        if pattern.is_empty() {
            pattern.push('7');
        }
        pattern
    });
    // Types and users, which are what the keys of most rules lead to.
    let known = select(
        &[
            "m.room.*",
            "m.room.message",
            "@bob:*",
            "*:example.net",
            "m.*e",
        ][..],
    );
    prop_oneof![4 => joined, 1 => known.prop_map(str::to_owned)]
}

fn text() -> impl Strategy<Value = String> {
    vec((select(&WORDS[..]), select(&SEPARATORS[..])), 0..5).prop_map(|pieces| {
        let pieces = pieces
            .into_iter()
            .flat_map(|(word, separator)| [word, separator]);
        pieces.collect()
    })
}

/// A value that a condition can name.
fn scalar() -> impl Strategy<Value = Value> {
    const LARGEST: i64 = (1 << 53) - 1;
    prop_oneof![
        select(&[0, 1, -1, 7, LARGEST, -LARGEST][..]).prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
        select(&WORDS[..]).prop_map(Value::from),
        Just(Value::from(USER)),
    ]
}

/// Any value, of those too that no condition can name.
fn value() -> impl Strategy<Value = Value> {
    let odd = select(vec![
        json!({}),
        json!([]),
        json!(1.5),
        json!(1.0),
        json!(-0.0),
        json!(1_u64 << 53),
        json!(u64::MAX),
        json!(i64::MIN),
        json!({"b": 7, "": true}),
        json!([7, [7], {"b": 7}, 1.5, null, "alice"]),
    ]);
    prop_oneof![3 => scalar(), 1 => odd.clone(), 1 => vec(prop_oneof![scalar(), odd], 0..4).prop_map(Value::from)]
}

fn event() -> impl Strategy<Value = Value> {
    let state_key = prop_oneof![Just(""), select(&SENDERS[..])];
    let fields = (
        select(&TYPES[..]),
        select(&SENDERS[..]),
        option::of(state_key),
        content(),
    );
    fields.prop_map(|(event_type, sender, state_key, content)| {
        let mut event = json!({
            "event_id": "$event",
            "type": event_type,
            "sender": sender,
            "room_id": ROOM,
            "content": content,
        });
        if let Some(state_key) = state_key {
            event["state_key"] = state_key.into();
        }
        event
    })
}

fn content() -> impl Strategy<Value = Value> {
    let user_ids = btree_set(select(&SENDERS[..]), 0..3);
    // No number that ruma drops, which would leave no mentions at all for it.
    let room = prop_oneof![2 => Just(json!(true)), 1 => scalar(), 1 => Just(json!([]))];
    let mentions = (option::of(user_ids), option::of(room)).prop_map(|(user_ids, room)| {
        let mut mentions = json!({});
        if let Some(user_ids) = user_ids {
            mentions["user_ids"] = user_ids.into_iter().collect();
        }
        if let Some(room) = room {
            mentions["room"] = room;
        }
        mentions
    });
    let others = btree_map(
        select(&["n", "list", "a", "a.b", "a\\b", "nothing\\x"][..]),
        value(),
        0..4,
    );
    (
        option::weighted(
            0.9,
            prop_oneof![9 => text().prop_map(Value::from), 1 => value()],
        ),
        option::of(select(&["m.text", "m.notice", "m.emote"][..])),
        option::of(select(&["invite", "join"][..])),
        option::weighted(0.3, mentions),
        option::weighted(0.2, select(&["m.replace", "m.thread"][..])),
        others,
    )
        .prop_map(|(body, msgtype, membership, mentions, relation, others)| {
            let mut content = json!(others);
            let named = [
                ("body", body),
                ("msgtype", msgtype.map(Value::from)),
                ("membership", membership.map(Value::from)),
                ("m.mentions", mentions),
                (
                    "m.relates_to",
                    relation.map(|relation| json!({"rel_type": relation})),
                ),
            ];
            for (name, value) in named {
                if let Some(value) = value {
                    content[name] = value;
                }
            }
            content
        })
}

fn member() -> impl Strategy<Value = Member> {
    // Not empty and without wildcards: see `differences.rs`.
    let display_name = prop_oneof![
        select(&WORDS[..]).prop_map(str::to_owned),
        Just("Hello Alice".to_owned()),
    ];
    let levels = || select(&[0, 49, 50, 100, -1][..]);
    (display_name, 0..5_u32, levels(), levels()).prop_map(
        |(display_name, joined_members, sender_level, room_level)| Member {
            display_name,
            joined_members,
            sender_level,
            room_level,
        },
    )
}

fn default_change() -> impl Strategy<Value = DefaultChange> {
    (
        0..100_usize,
        option::of(any::<bool>()),
        option::of(actions()),
    )
        .prop_map(|(at, enabled, actions)| DefaultChange {
            at,
            enabled,
            actions,
        })
}
