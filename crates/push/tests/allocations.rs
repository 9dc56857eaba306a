//! Evaluation allocates nothing where no rule matches, nor where one does, but for display names of
//! more than 512 bytes.
//!
//! The test has a program of its own, since it counts what the whole process allocates.
#![expect(unsafe_code, reason = "an allocator that counts has to be one")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use kitbag_push::{Defaults, FlatEvent, MemberContext, RoomContext, Ruleset, served};
use serde_json::{Value, json};

struct Counting;

thread_local!(static ALLOCATIONS: Cell<usize> = const { Cell::new(0) });

// SAFETY: it does what the system's allocator does, and counts beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the rules of this method.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above; the pointer came from there.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, bytes) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn allocations(of: impl FnOnce()) -> usize {
    let before = ALLOCATIONS.get();
    of();
    ALLOCATIONS.get() - before
}

/// One rule of each kind and each kind of condition; none of them matches [`events`].
fn unmatched() -> String {
    let conditions = [
        json!({"kind": "event_match", "key": "content.topic", "pattern": "A*b?c*"}),
        json!({"kind": "event_match", "key": "content.body", "pattern": "a?b*Ä"}),
        json!({"kind": "event_match", "key": "content.body", "pattern": "*"}),
        json!({"kind": "event_property_is", "key": "content.n", "value": 2}),
        json!({"kind": "event_property_contains", "key": "content.list", "value": "x"}),
        json!({"kind": "contains_display_name"}),
        json!({"kind": "room_member_count", "is": ">5"}),
        json!({"kind": "sender_notification_permission", "key": "room"}),
    ];
    let rules = conditions.iter().enumerate().map(|(index, condition)| {
        let never = json!({"kind": "room_member_count", "is": "0"});
        json!({
            "rule_id": format!("rule{index}"),
            "conditions": [condition, never],
            "actions": ["notify"],
        })
    });
    let patterns = ["other", "b?d", "wor*x word", "ÄÖÜ", "wordy"].iter();
    let content =
        patterns.map(|text| json!({"rule_id": text, "pattern": text, "actions": ["notify"]}));
    json!({"global": {
        "override": rules.collect::<Value>(),
        "content": content.collect::<Value>(),
        "room": [{"rule_id": "!other:example.org", "actions": []}],
        "sender": [{"rule_id": "@carol:example.org", "actions": []}],
    }})
    .to_string()
}

fn events() -> Vec<FlatEvent> {
    let contents = [
        json!({"body": "A word of WORDS, åäö and ÄÖÉ", "n": 1, "list": ["y"], "topic": "a-b-c"}),
        json!({"body": "word ".repeat(2_000)}),
        json!({"body": "ab".repeat(5_000)}),
        json!({}),
    ];
    let events = contents.iter().map(|content| {
        let event = json!({"type": "m.other", "sender": "@bob:example.org", "content": content});
        FlatEvent::parse(&event.to_string()).unwrap()
    });
    events.collect()
}

#[test]
fn nothing_is_allocated_where_no_rule_matches() {
    let rules = Ruleset::compile(&unmatched(), "@alice:example.org");
    let room = RoomContext {
        joined_members: 3,
        sender_power_level: Some(0),
        ..RoomContext::default()
    };
    for event in events() {
        let allocations = allocations(|| {
            let member = MemberContext::named(&room, "Alice Ä. Smith");
            assert!(rules.evaluate(&event, &member).is_empty());
        });
        assert_eq!(allocations, 0, "{event:?}");
    }
}

/// Both the longest that there are without: a pattern, which no condition exceeds, and a name.
#[test]
fn only_names_of_more_than_512_bytes_are_allocated() {
    let pattern = format!("?{}", "ab".repeat(256));
    let matching = |pattern: &str| json!({"kind": "event_match", "key": "k", "pattern": pattern});
    let long = json!({"global": {"override": [
        {"rule_id": "a", "actions": [], "conditions": [matching(&format!("*{}c*", &pattern[..509]))]},
        {"rule_id": "b", "actions": ["notify"], "conditions": [matching(&pattern)]},
        {"rule_id": "c", "actions": [], "conditions": [{"kind": "contains_display_name"}]},
    ]}});
    let rules = Ruleset::compile(&long.to_string(), "@alice:example.org");
    let event =
        json!({"k": format!("x{}", "ab".repeat(256)), "content": {"body": "x".repeat(600)}});
    let event = FlatEvent::parse(&event.to_string()).unwrap();
    let room = RoomContext::default();
    let of_name = |name: &str| {
        allocations(|| {
            let member = MemberContext::named(&room, name);
            assert!(rules.evaluate(&event, &member).is_empty());
        })
    };
    assert_eq!(of_name(&"Y".repeat(512)), 0);
    assert_ne!(of_name(&"Y".repeat(513)), 0);
}

#[test]
fn nothing_is_allocated_where_a_default_rule_matches() {
    let changes = kitbag_push::Changes::default();
    let served = served(
        &changes,
        &Defaults::with_legacy_mentions(),
        "@alice:example.org",
    );
    let rules = Ruleset::compile(&served, "@alice:example.org");
    let event = json!({
        "type": "m.room.message",
        "sender": "@bob:example.org",
        "content": {"body": "hello ALICE"},
    });
    let event = FlatEvent::parse(&event.to_string()).unwrap();
    let room = RoomContext::default();
    let allocations = allocations(|| {
        let member = MemberContext::named(&room, "Alice");
        assert!(!rules.evaluate(&event, &member).is_empty());
    });
    assert_eq!(allocations, 0);
}

#[test]
fn allocations_are_counted() {
    assert_eq!(allocations(|| drop(std::hint::black_box(Box::new(1)))), 1);
}
