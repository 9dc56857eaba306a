use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use kitbag_domain::{Expectation, Key, Limits, Op, Position, Quota, QuotaExceeded, Refusal};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::abandon::abandon_after;
use crate::suite::refusal;
use crate::{Actor, Opener, content, device_id, global};

const WRITERS: usize = 64;
const ROUNDS: usize = 8;
/// Of the writers, those that log in, write to their own device and log out, again and again.
const VISITORS: usize = 8;

/// How often a device comes and goes.
const VISITS: usize = 300;

const BYTES_MAX: u64 = 2_000;

/// How long following the stream may take; it takes this long only where a change is never told.
const PATIENCE: Duration = Duration::from_secs(20);

fn limits() -> Limits {
    let quota = Quota {
        entries_max: 12,
        bytes_max: BYTES_MAX,
        ..Quota::default()
    };
    Limits {
        quota,
        ..Limits::default()
    }
}

/// All of one length, so that a full quota refuses no swap.
fn revision(round: usize, writer: usize) -> String {
    format!("r{round:02}-{writer:02}")
}

fn swap_content(round: usize, writer: usize) -> String {
    format!(r#"{{"m.revision_id":"{}"}}"#, revision(round, writer))
}

/// What became of one compare-and-swap.
enum Swap {
    Lost { current: String },
    Won { writer: usize, position: Position },
}

/// 64 writers on one user: compare-and-swap, a quota that is hit, and devices that come and go.
pub async fn one_of_many_swaps_wins_while_devices_come_and_go(open: Opener) {
    let fixture = open.open_with(limits()).await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let key = global("contended");
    alice.put(&key, &swap_content(0, 0)).await;
    let mut positions = BTreeSet::new();
    let mut winner = 0;
    for round in 1..=ROUNDS {
        let barrier = Arc::new(Barrier::new(WRITERS + 2 * VISITORS));
        let mut swaps = JoinSet::new();
        let mut others = JoinSet::new();
        for writer in 0..WRITERS {
            let expected = revision(round - 1, winner);
            let (alice, key, barrier) = (alice.clone(), key.clone(), Arc::clone(&barrier));
            swaps.spawn(async move {
                barrier.wait().await;
                swap(&alice, &key, &expected, round, writer).await
            });
        }
        for visitor in 0..VISITORS {
            let (alice, barrier) = (alice.clone(), Arc::clone(&barrier));
            let (filler, start) = (alice.clone(), Arc::clone(&barrier));
            others.spawn(async move {
                barrier.wait().await;
                visit(&alice, visitor).await
            });
            others.spawn(async move {
                start.wait().await;
                fill(&filler, visitor).await
            });
        }
        let (won, lost) = sort_out(swaps.join_all().await);
        let [(writer, position)] = won[..] else {
            unreachable!("{} winners in round {round}", won.len());
        };
        winner = writer;
        let expected = swap_content(round, winner);
        assert!(lost.iter().all(|current| *current == expected), "{lost:?}");
        assert_eq!(alice.text(&key).await, Some(expected));
        let taken = others.join_all().await.into_iter().flatten();
        for position in taken.chain([position]) {
            assert!(positions.insert(position), "{position} was taken twice");
        }
        expect_within_quota(&alice).await;
    }
}

async fn swap(actor: &Actor, key: &Key, expected: &str, round: usize, writer: usize) -> Swap {
    let expectation = Expectation {
        stable: Some(expected.to_owned()),
        unstable: None,
    };
    let text = swap_content(round, writer);
    match actor.try_swap(key, &text, expectation).await {
        Ok(position) => Swap::Won { writer, position },
        Err(error) => match refusal(error) {
            Refusal::Conflict { current } => Swap::Lost {
                current: current.as_str().to_owned(),
            },
            other => unreachable!("the swap was refused: {other}"),
        },
    }
}

fn sort_out(swaps: Vec<Swap>) -> (Vec<(usize, Position)>, Vec<String>) {
    let (mut won, mut lost) = (Vec::new(), Vec::new());
    for swap in swaps {
        match swap {
            Swap::Lost { current } => lost.push(current),
            Swap::Won { writer, position } => won.push((writer, position)),
        }
    }
    (won, lost)
}

/// Logs in, writes while another task of the same session logs out, and looks that nothing of the
/// dead device is left; returns the positions that were taken.
async fn visit(alice: &Actor, visitor: usize) -> Vec<Position> {
    let device = alice.login(&format!("VISITOR{visitor}")).await;
    let key = device.own_key("a");
    let mut writes = JoinSet::new();
    for number in 0..4 {
        let (device, key) = (device.clone(), key.clone());
        writes.spawn(async move {
            let put = device.try_put(&key, &format!("{{\"n\":{number}}}")).await;
            let put = put.map_err(refusal);
            let told = matches!(put, Ok(_) | Err(Refusal::SessionGone | Refusal::Quota(_)));
            assert!(told, "{put:?}");
            put.ok()
        });
    }
    device.log_out().await;
    let late = device.try_put(&key, "{}").await.map_err(refusal);
    assert_eq!(late, Err(Refusal::SessionGone));
    let positions = writes.join_all().await.into_iter().flatten().collect();
    assert_eq!(alice.entry(&key).await, None, "a dead device wrote");
    positions
}

/// Fills the quota with entries of its own and frees some again.
async fn fill(alice: &Actor, visitor: usize) -> Vec<Position> {
    let mut positions = Vec::new();
    for number in 0..4 {
        let key = global(&format!("fill{visitor}.{number}"));
        let text = format!("{{\"\":\"{}\"}}", "x".repeat(300));
        match alice.try_put(&key, &text).await.map_err(refusal) {
            Ok(position) => positions.push(position),
            Err(refused) => assert!(matches!(refused, Refusal::Quota(_)), "{refused}"),
        }
    }
    for number in 0..3 {
        let key = global(&format!("fill{visitor}.{number}"));
        positions.extend(alice.delete(&key).await);
    }
    positions
}

async fn expect_within_quota(alice: &Actor) {
    let live = alice.changes(None).await.entries;
    let bytes: u64 = live.iter().map(kitbag_domain::Entry::size_bytes).sum();
    assert!(live.len() <= 12, "{} entries", live.len());
    assert!(bytes <= BYTES_MAX, "{bytes} bytes");
    // What is counted is what is there: the remaining bytes fit, one more does not.
    if live.len() < 12 && BYTES_MAX - bytes > 10 {
        let left = usize::try_from(BYTES_MAX - bytes).unwrap();
        let text = |bytes: usize| format!("{{\"\":\"{}\"}}", "x".repeat(bytes - 8));
        let more = alice.try_put(&global("?"), &text(left + 1)).await;
        let exceeded = QuotaExceeded::Bytes { limit: BYTES_MAX };
        assert_eq!(more.map_err(refusal), Err(Refusal::Quota(exceeded)));
        alice.put(&global("?"), &text(left)).await;
        alice.delete(&global("?")).await.unwrap();
    }
}

/// Many tasks write many keys; nothing is lost and every position is taken once.
pub async fn concurrent_writes_are_all_there(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let mut writers = JoinSet::new();
    for writer in 0..16 {
        let alice = alice.clone();
        writers.spawn(async move {
            let mut taken = Vec::new();
            for number in 0..10 {
                let key = global(&format!("w{writer}.{number}"));
                let position = alice.put(&key, "{}").await;
                let seen = alice.entry(&key).await.map(|entry| entry.position);
                assert_eq!(seen, Some(position), "a writer reads its write");
                taken.push((position, key));
            }
            assert!(taken.is_sorted_by(|a, b| a.0 < b.0));
            taken
        });
    }
    let mut taken = writers.join_all().await.concat();
    taken.sort();
    assert!(taken.is_sorted_by(|a, b| a.0 < b.0), "unique positions");
    let told = alice.changes(None).await.entries;
    let told: Vec<_> = told.into_iter().map(|e| (e.position, e.key)).collect();
    assert_eq!(told, taken);
}

/// A reader that follows the stream meets every change, in order, while writers write.
pub async fn a_follower_misses_nothing(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let start = alice.head().await;
    let mut writers = JoinSet::new();
    for writer in 0..4 {
        let alice = alice.clone();
        writers.spawn(async move {
            for number in 0..25 {
                let key = global(&format!("w{writer}.{number}"));
                alice.put(&key, "{}").await;
            }
        });
    }
    let followed = tokio::time::timeout(PATIENCE, follow(&alice, start, 100)).await;
    let followed = followed.expect("every change is told");
    writers.join_all().await;
    assert!(followed.is_sorted_by(|a, b| a < b), "each once");
}

/// The head says how often both entries were written: so what lies between two snapshots shows.
pub async fn everything_live_is_of_one_snapshot(open: Opener) {
    const WRITES: u64 = 400;
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let start = alice.head().await;
    let writer = alice.clone();
    let writing = tokio::spawn(async move {
        for number in 1..=WRITES {
            let text = content(&format!("{{\"n\":{number}}}"));
            let put = |key: &str| Op::Put(global(key), text.clone(), Expectation::default());
            writer.apply(vec![put("a"), put("b")]).await.unwrap();
        }
    });
    loop {
        let live = alice.store.live(&alice.user).await.unwrap();
        let written = (live.head.0 - start.0) / 2;
        let expected = format!("{{\"n\":{written}}}");
        let contents: Vec<_> = live.entries().map(|entry| entry.content).collect();
        assert_eq!(contents.len(), if written == 0 { 0 } else { 2 });
        assert!(
            contents.iter().all(|text| *text == expected.as_bytes()),
            "{written}"
        );
        if written == WRITES {
            break;
        }
        tokio::task::yield_now().await;
    }
    writing.await.unwrap();
}

/// Reads along the stream until so many changes were told; returns their positions.
async fn follow(actor: &Actor, start: Position, count: usize) -> Vec<Position> {
    let (mut after, mut followed) = (start, Vec::new());
    while followed.len() < count {
        let changes = actor.changes(Some(after)).await;
        assert!(!changes.is_full);
        let positions = changes.entries.iter().map(|entry| entry.position);
        assert!(positions.clone().all(|p| p > after && p <= changes.head));
        followed.extend(positions);
        after = changes.head;
        tokio::task::yield_now().await;
    }
    followed
}

/// A caller that goes away leaves a whole write or none, and a store that works.
pub async fn a_cancelled_write_is_whole_or_absent(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    for round in 0..60_u64 {
        let (a, b) = (global("a"), alice.own_key("b"));
        let text = format!("{{\"round\":{round}}}");
        let put = |key: &Key| Op::Put(key.clone(), content(&text), Expectation::default());
        let before = alice.head().await;
        let apply = alice.apply(vec![put(&a), put(&b)]);
        let polls = usize::try_from(round % 3).unwrap();
        let outcome = abandon_after(polls, apply).await.map(Result::unwrap);
        // Whatever became of it stands before this write in the stream.
        let mark = alice.put(&global("mark"), &text).await;
        let changes = alice.changes(Some(before)).await;
        let told: Vec<_> = changes.entries.iter().map(|entry| &entry.key).collect();
        let whole = vec![&a, &b, changes.entries.last().map(|e| &e.key).unwrap()];
        assert!(told == whole || told.len() == 1, "{told:?}");
        assert!(outcome.is_none() || told == whole, "acknowledged and lost");
        assert_eq!(changes.head, mark);
    }
}

/// A device that goes and comes again says which one it is; nobody is told of one with the other's
/// data.
pub async fn a_device_is_read_with_entries_of_its_own_time(open: Opener) {
    let fixture = open.open().await;
    let store = fixture.store();
    let alice = Actor::register(&store, "alice").await;
    let visits = tokio::spawn({
        let alice = alice.clone();
        async move {
            for _ in 0..VISITS {
                let visitor = alice.login("VISITOR").await;
                let text = format!("{{\"n\":{}}}", visitor.incarnation.0);
                visitor.put(&visitor.own_key("a"), &text).await;
                visitor.log_out().await;
            }
        }
    });
    while !visits.is_finished() {
        for device in [None, Some(device_id("VISITOR"))] {
            let found = store.devices_with_entries(&alice.user, device).await;
            for found in found.unwrap() {
                for entry in found.entries {
                    let text = entry.content.unwrap();
                    let expected = format!("{{\"n\":{}}}", found.device.incarnation.0);
                    assert_eq!(text.as_str(), expected);
                }
            }
        }
    }
    visits.await.unwrap();
}
