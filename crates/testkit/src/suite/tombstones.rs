use kitbag_domain::{Limits, Position};

use crate::clock::TestClock;
use crate::{Actor, Opener, global};

const AGE_MS: u64 = 1_000;

fn limits(tombstones_max: u64) -> Limits {
    Limits {
        tombstones_max,
        tombstone_age_ms_max: AGE_MS,
        ..Limits::default()
    }
}

async fn put_and_delete(actor: &Actor, name: &str, at: u64) -> Position {
    actor.put(&global(name), "{}").await;
    actor.delete_at(&global(name), at).await.unwrap()
}

/// Tells how many entries lie behind `after`; `None` where everything was told instead.
async fn told(actor: &Actor, after: Position) -> Option<usize> {
    let changes = actor.changes(Some(after)).await;
    (!changes.is_full).then_some(changes.entries.len())
}

pub async fn the_oldest_go_first_and_the_horizon_follows(open: Opener) {
    let fixture = open.open_with(limits(2)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let now = TestClock::START_MS;
    let start = alice.put(&global("live"), "{}").await;
    let first = put_and_delete(&alice, "a", now).await;
    let second = put_and_delete(&alice, "b", now).await;
    assert_eq!(told(&alice, start).await, Some(2), "both are kept");
    put_and_delete(&alice, "c", now).await;
    assert_eq!(told(&alice, start).await, None, "the first one is lost");
    assert_eq!(told(&alice, Position(first.0 - 1)).await, None);
    assert_eq!(told(&alice, first).await, Some(2), "behind the lost one");
    assert_eq!(told(&alice, second).await, Some(1));
    let full = alice.changes(Some(start)).await.entries;
    assert_eq!(full.len(), 1, "what is full has no tombstones");
    assert_eq!(full[0].key, global("live"));
}

pub async fn the_aged_go_with_a_later_deletion(open: Opener) {
    let fixture = open.open_with(limits(100)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let now = TestClock::START_MS;
    let start = alice.put(&global("live"), "{}").await;
    let first = put_and_delete(&alice, "a", now).await;
    put_and_delete(&alice, "b", now + AGE_MS / 2).await;
    put_and_delete(&alice, "c", now + AGE_MS - 1).await;
    assert_eq!(told(&alice, start).await, Some(3), "none is too old");
    put_and_delete(&alice, "d", now + AGE_MS + 1).await;
    assert_eq!(told(&alice, start).await, None);
    assert_eq!(told(&alice, first).await, Some(3));
}

pub async fn without_room_for_tombstones_every_deletion_moves_the_horizon(open: Opener) {
    let fixture = open.open_with(limits(0)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let put = alice.put(&global("a"), "{}").await;
    let deleted = alice.delete(&global("a")).await.unwrap();
    assert_eq!(told(&alice, put).await, None);
    assert_eq!(told(&alice, deleted).await, Some(0));
}

pub async fn a_new_put_takes_the_tombstones_place(open: Opener) {
    let fixture = open.open_with(limits(2)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let start = alice.head().await;
    let now = TestClock::START_MS;
    for _ in 0..5 {
        put_and_delete(&alice, "a", now).await;
        alice.put(&global("a"), "{}").await;
    }
    let changes = alice.changes(Some(start)).await;
    assert!(!changes.is_full, "one entry, so never two tombstones");
    assert_eq!(changes.entries.len(), 1);
    assert!(changes.entries[0].content.is_some());
}

pub async fn other_users_keep_their_horizon(open: Opener) {
    let fixture = open.open_with(limits(1)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let bob = Actor::register(&fixture.store(), "bob").await;
    let start = bob.head().await;
    let now = TestClock::START_MS;
    put_and_delete(&bob, "a", now).await;
    for name in ["a", "b", "c"] {
        put_and_delete(&alice, name, now + 2 * AGE_MS).await;
    }
    assert_eq!(told(&bob, start).await, Some(1));
}

pub async fn removed_devices_leave_no_more_than_the_limit(open: Opener) {
    let fixture = open.open_with(limits(2)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    let start = alice.head().await;
    for name in ["a", "b", "c"] {
        laptop.put(&laptop.own_key(name), "{}").await;
    }
    let before = alice.head().await;
    laptop.log_out().await;
    assert_eq!(told(&alice, start).await, None);
    assert_eq!(told(&alice, before).await, None, "one of three is lost");
    let head = alice.head().await;
    assert_eq!(told(&alice, head).await, Some(0));
    let kept = alice.changes(Some(Position(head.0 - 1))).await;
    assert!(kept.entries.len() <= 2);
}
