use kitbag_domain::{
    Allowance, ApplyError, DeviceSelection, Expectation, Key, Limits, Op, Position, Quota,
    QuotaExceeded, Refusal,
};

use crate::dice::Dice;
use crate::suite::refusal;
use crate::{Actor, Opener, content, global, room_key};

fn limits(quota: Quota) -> Limits {
    Limits {
        quota,
        ..Limits::default()
    }
}

/// Returns a content of `bytes` bytes.
fn sized(bytes: usize) -> String {
    format!("{{\"\":\"{}\"}}", "x".repeat(bytes - 7))
}

async fn put_own_door(actor: &Actor, key: &Key, text: &str) -> Result<(), ApplyError> {
    let mut write = actor.write();
    write.allowance = Allowance::OwnDoor;
    let put = Op::Put(key.clone(), content(text), Expectation::default());
    let applied = actor.store.apply(&actor.user, write, vec![put]).await;
    applied.map(drop)
}

fn exceeded(result: Result<impl std::fmt::Debug, ApplyError>) -> QuotaExceeded {
    match refusal(result.unwrap_err()) {
        Refusal::Quota(exceeded) => exceeded,
        other => unreachable!("refused for another reason: {other}"),
    }
}

pub async fn entries_are_counted_up_to_the_limit(open: Opener) {
    let quota = Quota {
        entries_max: 2,
        reserve_entries: 1,
        ..Quota::default()
    };
    let fixture = open.open_with(limits(quota)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let (a, b, c) = (global("a"), room_key("!r", "a"), alice.own_key("a"));
    alice.put(&a, "{}").await;
    alice.put(&b, "{}").await;
    let head = alice.head().await;
    let limit = QuotaExceeded::Entries { limit: 2 };
    assert_eq!(exceeded(alice.try_put(&c, "{}").await), limit);
    assert_eq!(alice.head().await, head, "a refusal takes no position");
    assert_eq!(alice.entry(&c).await, None);
    alice.put(&a, "{\"x\":1}").await; // replaces, does not add
    alice.delete(&b).await.unwrap();
    alice.put(&c, "{}").await;
    assert_eq!(exceeded(alice.try_put(&b, "{}").await), limit);
    let bob = Actor::register(&fixture.store(), "bob").await;
    bob.put(&a, "{}").await;
}

pub async fn own_doors_have_a_reserve(open: Opener) {
    let quota = Quota {
        entries_max: 1,
        reserve_entries: 1,
        bytes_max: 50,
        reserve_bytes: 20,
        ..Quota::default()
    };
    let fixture = open.open_with(limits(quota)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    alice.put(&global("a"), &sized(49)).await;
    let ordinary = alice.try_put(&global("b"), "{}").await;
    assert_eq!(exceeded(ordinary), QuotaExceeded::Entries { limit: 1 });
    put_own_door(&alice, &global("b"), &sized(19))
        .await
        .unwrap();
    let third = put_own_door(&alice, &global("c"), "{}").await;
    assert_eq!(exceeded(third), QuotaExceeded::Entries { limit: 2 });
    let larger = put_own_door(&alice, &global("b"), &sized(20)).await;
    assert_eq!(exceeded(larger), QuotaExceeded::Bytes { limit: 70 });
    // Over the ordinary limit: not growing is allowed, growing is not.
    alice.put(&global("a"), &sized(49)).await;
    alice.put(&global("b"), &sized(18)).await;
    let larger = alice.try_put(&global("b"), &sized(19)).await;
    assert_eq!(exceeded(larger), QuotaExceeded::Bytes { limit: 50 });
}

pub async fn bytes_are_counted_with_the_names(open: Opener) {
    let quota = Quota {
        bytes_max: 60,
        ..Quota::default()
    };
    let fixture = open.open_with(limits(quota)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let room = room_key("!room", "type");
    let limit = QuotaExceeded::Bytes { limit: 60 };
    assert_eq!(exceeded(alice.try_put(&room, &sized(52)).await), limit);
    alice.put(&room, &sized(51)).await; // 5 + 4 + 51
    assert_eq!(exceeded(alice.try_put(&global("a"), "{}").await), limit);
    alice.put(&room, &sized(51)).await; // of equal size
    alice.put(&room, &sized(40)).await;
    assert_eq!(
        exceeded(alice.try_put(&global("é"), &sized(10)).await),
        limit
    );
    alice.put(&global("é"), &sized(9)).await; // `é` has two bytes
}

pub async fn a_device_has_its_own_count(open: Opener) {
    let quota = Quota {
        device_entries_max: 1,
        ..Quota::default()
    };
    let fixture = open.open_with(limits(quota)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    alice.put(&alice.own_key("a"), "{}").await;
    alice.put(&alice.own_key("a"), "{\"x\":1}").await;
    let second = alice.try_put(&alice.own_key("b"), "{}").await;
    assert_eq!(exceeded(second), QuotaExceeded::DeviceEntries { limit: 1 });
    alice.put(&global("b"), "{}").await;
    laptop.put(&laptop.own_key("a"), "{}").await;
    alice.delete(&alice.own_key("a")).await.unwrap();
    alice.put(&alice.own_key("b"), "{}").await;
}

pub async fn operations_of_one_call_are_counted_together(open: Opener) {
    let quota = Quota {
        entries_max: 2,
        ..Quota::default()
    };
    let fixture = open.open_with(limits(quota)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let put = |name| Op::Put(global(name), content("{}"), Expectation::default());
    let three = alice.apply(vec![put("a"), put("b"), put("c")]).await;
    assert_eq!(exceeded(three), QuotaExceeded::Entries { limit: 2 });
    assert_eq!(alice.changes(None).await.entries, []);
    let swapped = vec![put("a"), put("b"), Op::Delete(global("a")), put("c")];
    alice.apply(swapped).await.unwrap();
}

pub async fn removed_devices_give_their_share_back(open: Opener) {
    let quota = Quota {
        entries_max: 2,
        bytes_max: 40,
        ..Quota::default()
    };
    let fixture = open.open_with(limits(quota)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    for _ in 0..3 {
        let laptop = alice.login("LAPTOP").await;
        laptop.put(&laptop.own_key("a"), &sized(15)).await;
        laptop.put(&laptop.own_key("b"), "{}").await;
        assert!(alice.try_put(&global("a"), "{}").await.is_err());
        alice
            .remove(DeviceSelection::These(vec![laptop.device]))
            .await;
    }
    alice.put(&global("a"), &sized(19)).await;
    alice.put(&global("b"), &sized(19)).await;
}

/// After any operations the quota enforces exactly what the sum over the live entries says.
pub async fn usage_stays_equal_to_the_sum_of_live_entries(open: Opener) {
    let (entries_max, bytes_max) = (12, 400);
    let quota = Quota {
        entries_max,
        bytes_max,
        ..Quota::default()
    };
    let fixture = open.open_with(limits(quota)).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let mut laptop = alice.login("LAPTOP").await;
    let mut dice = Dice::new(0xb17);
    let mut refused = 0;
    for round in 0..300 {
        let name = format!("t{}", dice.below(6));
        let key = match dice.below(3) {
            0 => global(&name),
            1 => room_key("!r", &name),
            _ => laptop.own_key(&name),
        };
        match dice.below(8) {
            0..5 => {
                let text = sized(8 + dice.below(60));
                refused += usize::from(laptop.try_put(&key, &text).await.is_err());
            }
            5 | 6 => drop(laptop.delete(&key).await),
            _ => {
                laptop.log_out().await;
                laptop = alice.login("LAPTOP").await;
            }
        }
        if round % 10 == 0 {
            expect_exact_usage(&alice, entries_max, bytes_max).await;
        }
    }
    assert!(refused > 10, "the limits were met: {refused}");
}

/// Probes from both sides: one entry of exactly the room that is left, and one of a byte more.
async fn expect_exact_usage(alice: &Actor, entries_max: u64, bytes_max: u64) {
    let live = alice.changes(None).await.entries;
    let bytes: u64 = live.iter().map(kitbag_domain::Entry::size_bytes).sum();
    assert!(live.len() as u64 <= entries_max && bytes <= bytes_max);
    let probe = global("?");
    let left = usize::try_from(bytes_max - bytes).unwrap();
    if live.len() as u64 == entries_max {
        let added = alice.try_put(&probe, "{}").await;
        let limit = entries_max;
        assert_eq!(exceeded(added), QuotaExceeded::Entries { limit });
    } else if left > 9 {
        let limit = bytes_max;
        let added = alice.try_put(&probe, &sized(left)).await;
        assert_eq!(exceeded(added), QuotaExceeded::Bytes { limit });
        let position = alice.put(&probe, &sized(left - 1)).await;
        assert!(position > Position::ZERO);
        alice.delete(&probe).await;
    }
}
