use std::collections::BTreeMap;

use super::search::Outcome;
use super::{Act, Marks, Operation, Verdict, check, judge};
use crate::dice::Dice;
use crate::settings;

fn put(value: &str, began: u64, ended: u64) -> Operation {
    Operation::new(format!("put {value}"), began, ended).puts("k", value, marks(value))
}

fn swap(expected: &str, value: &str, began: u64, ended: u64) -> Operation {
    Operation::new(format!("swap {expected} for {value}"), began, ended)
        .finds_allowed("k", marks(expected))
        .puts("k", value, marks(value))
}

fn refused(expected: &str, current: &str, began: u64, ended: u64) -> Operation {
    Operation::new(format!("{expected} is not {current}"), began, ended)
        .sees("k", Some(current))
        .finds_refused("k", marks(expected))
}

fn get(value: &str, began: u64, ended: u64) -> Operation {
    Operation::new(format!("get {value}"), began, ended).sees("k", Some(value))
}

fn miss(began: u64, ended: u64) -> Operation {
    Operation::new("get nothing", began, ended).sees("k", None)
}

fn clear(began: u64, ended: u64) -> Operation {
    Operation::new("clear", began, ended).clears("k")
}

fn marks(value: &str) -> Marks {
    vec![("revision", value.into())]
}

fn holds(operations: &[Operation]) {
    if let Err(verdict) = check(operations) {
        unreachable!("{verdict}");
    }
}

/// Returns the labels of what is shown, the culprit first.
fn broken(operations: &[Operation]) -> Vec<String> {
    match check(operations) {
        Err(Verdict::Broken {
            culprit, around, ..
        }) => {
            let all = std::iter::once(culprit).chain(around);
            all.map(|one| one.label).collect()
        }
        other => unreachable!("{other:?}"),
    }
}

#[test]
fn nothing_is_in_order() {
    holds(&[]);
    holds(&[miss(1, 2)]);
}

#[test]
fn what_overlaps_may_have_been_seen_or_not() {
    holds(&[put("a", 1, 10), miss(2, 3), get("a", 4, 5)]);
    holds(&[
        put("a", 1, 10),
        put("b", 1, 10),
        get("b", 2, 3),
        get("a", 4, 5),
    ]);
}

#[test]
fn a_stale_read_is_found() {
    let shown = broken(&[
        put("a", 1, 2),
        get("a", 3, 4),
        put("b", 5, 6),
        get("a", 7, 8),
        get("b", 9, 10),
    ]);
    assert_eq!(shown, ["get a", "put a", "put b"]);
}

#[test]
fn what_was_seen_once_is_not_unseen() {
    let shown = broken(&[
        put("a", 1, 2),
        put("b", 3, 20),
        get("b", 4, 5),
        get("a", 6, 7),
    ]);
    assert_eq!(shown, ["get a", "put a", "put b", "get b"]);
}

#[test]
fn a_lost_update_is_found() {
    broken(&[
        put("a", 1, 2),
        swap("a", "b", 3, 4),
        swap("a", "c", 5, 6),
        get("c", 7, 8),
    ]);
    broken(&[put("a", 1, 2), miss(3, 4)]);
    broken(&[put("a", 1, 2), put("b", 3, 4), get("a", 5, 6)]);
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    assert_eq!(broken(&[put("a", 1, 2), get("b", 3, 4)])[0], "get b");
    assert_eq!(broken(&[get("a", 1, 2), put("a", 3, 4)])[0], "get a");
}

#[test]
fn one_expectation_has_one_winner() {
    let first = put("a", 1, 2);
    holds(&[
        first.clone(),
        swap("a", "b", 3, 10),
        refused("a", "b", 3, 10),
        get("b", 11, 12),
    ]);
    broken(&[first, swap("a", "b", 3, 10), swap("a", "c", 3, 10)]);
}

#[test]
fn an_empty_cell_and_what_bears_no_mark_allow_every_expectation() {
    let plain = Operation::new("put plain", 3, 4).puts("k", "plain", Marks::new());
    holds(&[
        swap("x", "a", 1, 2),
        plain,
        swap("x", "b", 5, 6),
        clear(7, 8),
        swap("x", "c", 9, 10),
    ]);
    broken(&[swap("x", "a", 1, 2), swap("x", "b", 3, 4)]);
}

#[test]
fn a_refusal_needs_its_reason() {
    broken(&[put("a", 1, 2), refused("a", "a", 3, 4)]);
    broken(&[put("a", 1, 2), put("b", 3, 4), refused("x", "a", 5, 6)]);
}

#[test]
fn a_maybe_may_happen_late_or_never() {
    let maybe = put("b", 3, u64::MAX).maybe();
    holds(&[put("a", 1, 2), maybe.clone(), get("a", 5, 6)]);
    holds(&[
        put("a", 1, 2),
        maybe.clone(),
        get("a", 5, 6),
        get("b", 7, 8),
    ]);
    holds(&[put("a", 1, 2), maybe, get("b", 5, 6)]);
}

#[test]
fn a_maybe_that_was_seen_happened_once_and_for_all() {
    let maybe = put("b", 3, u64::MAX).maybe();
    broken(&[
        put("a", 1, 2),
        maybe.clone(),
        get("b", 5, 6),
        get("a", 7, 8),
    ]);
    broken(&[
        maybe,
        put("c", 4, 5),
        get("c", 6, 7),
        get("b", 8, 9),
        get("c", 10, 11),
    ]);
    // Nothing else explains the empty cell.
    let cleared = clear(3, u64::MAX).maybe();
    holds(&[put("a", 1, 2), cleared.clone(), get("a", 4, 5), miss(6, 7)]);
    broken(&[put("a", 1, 2), cleared.clone(), miss(4, 5), get("a", 6, 7)]);
    // It explains the emptiness once.
    broken(&[
        put("a", 1, 2),
        cleared,
        miss(4, 5),
        put("b", 6, 7),
        miss(8, 9),
    ]);
}

#[test]
fn a_maybe_does_not_happen_behind_its_end_or_before_its_beginning() {
    let maybe = put("b", 3, 6).maybe();
    holds(&[
        put("a", 1, 2),
        maybe.clone(),
        get("a", 5, 6),
        get("b", 7, 8),
    ]);
    broken(&[
        put("a", 1, 2),
        maybe.clone(),
        get("a", 7, 8),
        get("b", 9, 10),
    ]);
    broken(&[
        put("a", 1, 2),
        clear(3, 4).maybe(),
        get("a", 5, 6),
        miss(7, 8),
    ]);
    broken(&[get("b", 1, 2), maybe]);
}

#[test]
fn unseen_maybes_may_make_room_for_a_winner() {
    let plain = Operation::new("put plain", 3, u64::MAX).puts("k", "plain", Marks::new());
    holds(&[
        put("a", 1, 2),
        plain.maybe(),
        swap("x", "b", 5, 6),
        get("b", 7, 8),
    ]);
    broken(&[
        put("a", 1, 2),
        put("c", 3, u64::MAX).maybe(),
        swap("x", "b", 5, 6),
    ]);
    holds(&[
        put("a", 1, 2),
        put("x", 3, u64::MAX).maybe(),
        swap("x", "b", 5, 6),
    ]);
}

#[test]
fn what_touches_several_cells_does_so_at_one_moment() {
    let write = |cell: &str, began, ended| {
        Operation::new(format!("put in {cell}"), began, ended).puts(cell, "v", Marks::new())
    };
    let snapshot = |a: Option<&str>, b: Option<&str>, began, ended| {
        let label = format!("snapshot {a:?} {b:?}");
        Operation::new(label, began, ended)
            .sees("a", a)
            .sees("b", b)
    };
    let writes = [write("a", 1, 10), write("b", 1, 10)];
    let (left, right) = (
        snapshot(Some("v"), None, 2, 9),
        snapshot(None, Some("v"), 2, 9),
    );
    holds(&[&writes[..], std::slice::from_ref(&left)].concat());
    holds(&[&writes[..], std::slice::from_ref(&right)].concat());
    broken(&[&writes[..], &[left, right]].concat());
}

#[test]
fn the_excerpt_is_small_in_a_long_history() {
    let mut history = Vec::new();
    for n in 0..300 {
        let value = format!("v{n}");
        history.push(put(&value, 10 * n + 1, 10 * n + 4));
        history.push(get(&value, 10 * n + 5, 10 * n + 6));
    }
    holds(&history);
    history.push(get("v150", 1_557, 1_558));
    assert_eq!(broken(&history)[..1], ["get v150"]);
    assert!(broken(&history).len() <= 17);
}

/// A brute-force judge: every order, on the words themselves.
fn is_ordered(operations: &[Operation]) -> bool {
    fn go(operations: &[Operation], taken: &mut [bool], held: &Held) -> bool {
        let left = || (0..operations.len()).filter(|at| !taken[*at]);
        if !left().any(|at| operations[at].is_sure) {
            return true;
        }
        let open: Vec<usize> = left().collect();
        for at in open.iter().copied() {
            let one = &operations[at];
            let must_wait = |at: &usize| {
                let other = &operations[*at];
                other.is_sure && other.ended < one.began
            };
            let mut before = (0..operations.len()).filter(|at| taken[*at]);
            if open.iter().any(must_wait) || before.any(|at| operations[at].began > one.ended) {
                continue;
            }
            let Some(next) = applied(one, held) else {
                continue;
            };
            taken[at] = true;
            if go(operations, taken, &next) {
                return true;
            }
            taken[at] = false;
        }
        false
    }
    go(operations, &mut vec![false; operations.len()], &Held::new())
}

type Held = BTreeMap<String, (String, Marks)>;

fn applied(one: &Operation, held: &Held) -> Option<Held> {
    let mut next = held.clone();
    for (cell, act) in &one.acts {
        let stored = held.get(&**cell);
        let allows = |expected: &Marks| {
            let marks = stored.map_or(&[][..], |(_, marks)| marks);
            marks.iter().all(|mark| {
                let mut of_name = expected.iter().filter(|(name, _)| *name == mark.0);
                of_name.all(|(_, revision)| *revision == mark.1)
            })
        };
        let text = stored.map(|(text, _)| text.as_str());
        let is_so = match act {
            Act::Allows(expected) => allows(expected),
            Act::Refuses(expected) => !allows(expected),
            Act::Sees(seen) => text == seen.as_deref(),
            Act::SeesOther(other) => text != Some(other),
            Act::SeesSome => text.is_some(),
            Act::Clears => {
                next.remove(&**cell);
                true
            }
            Act::Puts(text, marks) => {
                next.insert(cell.to_string(), (text.to_string(), marks.clone()));
                true
            }
        };
        if !is_so {
            return None;
        }
    }
    Some(next)
}

/// Draws any operation, whether or not it makes sense.
fn any_operation(dice: &mut Dice, span: usize) -> Operation {
    let (one, other) = (dice.below(span) as u64, dice.below(span) as u64);
    let operation = Operation::new("any", one.min(other), one.max(other));
    let cell = ["k", "l"][dice.below(2)];
    let value = ["a", "b", "c"][dice.below(3)];
    // A text bears the same marks whoever puts it.
    let marked = |value: &str, _: &mut Dice| match value {
        "c" => Marks::new(),
        _ => marks(value),
    };
    let operation = match dice.below(12) {
        0..3 => {
            let marks = marked(value, dice);
            operation.puts(cell, value, marks)
        }
        3 | 4 => {
            let expected = marked(["a", "b", "c"][dice.below(3)], dice);
            let marks = marked(value, dice);
            operation
                .finds_allowed(cell, expected)
                .puts(cell, value, marks)
        }
        5 => operation.clears(cell),
        6 => operation.clears("k").clears("l"),
        7 => operation.sees_some(cell).clears(cell),
        8 => {
            let seen = (dice.below(2) == 0).then_some(value);
            operation.sees("k", seen).sees("l", None)
        }
        9 => operation.sees_other(cell, value),
        10 => operation
            .sees(cell, Some(value))
            .finds_refused(cell, marks("a")),
        _ => operation.sees(cell, (dice.below(4) > 0).then_some(value)),
    };
    if operation.changes_something() && dice.chance(35) {
        let open = dice.chance(60);
        let ended = if open { u64::MAX } else { operation.ended };
        return Operation { ended, ..operation }.maybe();
    }
    operation
}

fn told(history: &[Operation]) -> String {
    let lines = history.iter().map(|one| format!("{one} {:?}\n", one.acts));
    lines.collect()
}

#[test]
fn verdicts_are_those_of_trying_every_order() {
    let seeds = if settings::is_long() { 200_000 } else { 8_000 };
    let seeds = settings::seed().map_or(0..seeds, |seed| seed..seed + 1);
    let (mut whole, mut broken) = (0, 0);
    for seed in seeds.clone() {
        let mut dice = Dice::new(seed);
        let (count, span) = (1 + dice.below(7), 2 + dice.below(20));
        let history: Vec<_> = (0..count).map(|_| any_operation(&mut dice, span)).collect();
        let expected = is_ordered(&history);
        let found = judge(&history);
        let is_whole = found == Outcome::Ordered;
        assert_eq!(
            is_whole,
            expected,
            "KITBAG_TEST_SEED={seed}: {}",
            told(&history)
        );
        // What one cell alone shows is broken as a whole too.
        match check(&history) {
            Ok(()) => assert!(expected, "KITBAG_TEST_SEED={seed}: {}", told(&history)),
            Err(Verdict::Broken { .. }) => {
                assert!(!expected, "KITBAG_TEST_SEED={seed}: {}", told(&history));
            }
            Err(verdict) => unreachable!("KITBAG_TEST_SEED={seed}: {verdict}"),
        }
        whole += usize::from(expected);
        broken += usize::from(!expected);
    }
    let is_one = seeds.end - seeds.start == 1;
    assert!(
        is_one || whole > 1_000 && broken > 1_000,
        "{whole} {broken}"
    );
}

/// An operation under way.
struct Running {
    call: usize,
    value: String,
    expected: Marks,
    began: u64,
    done: Option<Operation>,
}

/// Runs clients on a true register; some of their writes stay without an answer.
fn run(clients: usize, count: usize, maybes: usize, dice: &mut Dice) -> Vec<Operation> {
    let mut running: Vec<Option<Running>> = (0..clients).map(|_| None).collect();
    let (mut held, mut known) = (Held::new(), vec![String::new(); clients]);
    let mut history = Vec::new();
    let mut now = 0;
    while history.len() < count {
        now += 1;
        let client = dice.below(clients);
        let Some(one) = &mut running[client] else {
            let value = format!("{now}");
            let expected = marks(&known[client]);
            running[client] = Some(Running {
                call: dice.below(10),
                value,
                expected,
                began: now,
                done: None,
            });
            continue;
        };
        let (began, value) = (one.began, &one.value);
        if let Some(done) = one.done.take() {
            history.push(Operation { ended: now, ..done });
            running[client] = None;
            continue;
        }
        let named = |name: &str| Operation::new(format!("{name} {value}"), began, u64::MAX);
        let wish = match one.call {
            0..3 => named("put").puts("k", value, marks(value)),
            3 => named("put plain").puts("k", value, Marks::new()),
            4 => named("clear").clears("k"),
            5 | 6 => named("swap").finds_allowed("k", one.expected.clone()).puts(
                "k",
                value,
                marks(value),
            ),
            _ => named("get").sees("k", held.get("k").map(|(text, _)| text.as_str())),
        };
        if wish.changes_something() && dice.chance(maybes) {
            if let Some(next) = applied(&wish, &held).filter(|_| dice.chance(50)) {
                held = next;
            }
            history.push(wish.maybe());
            running[client] = None;
            continue;
        }
        let next = applied(&wish, &held);
        known[client] = held
            .get("k")
            .map_or(String::new(), |(text, _)| text.clone());
        one.done = Some(match next {
            Some(next) => {
                held = next;
                wish
            }
            None => {
                let refused = named("refused").sees("k", Some(&known[client]));
                refused.finds_refused("k", one.expected.clone())
            }
        });
    }
    let left = running.into_iter().flatten().filter_map(|one| one.done);
    let left = left.filter(Operation::changes_something);
    history.extend(left.map(Operation::maybe));
    history
}

/// Each of these takes some ten milliseconds, of which a wrong turn would make minutes.
#[test]
fn long_histories_of_many_clients_are_judged() {
    for seed in 0..4 {
        let mut dice = Dice::new(seed);
        let mut history = run(16, 3_000, 4, &mut dice);
        holds(&history);
        if seed > 0 {
            continue;
        }
        // Somebody reads last what was replaced long before.
        let mut reads = history.iter().filter(|one| !one.changes_something());
        let early = reads.find_map(|one| match &one.acts[..] {
            [(_, Act::Sees(Some(text)))] => Some(text.to_string()),
            _ => None,
        });
        let early = early.unwrap();
        let now = history.iter().map(|one| one.began).max().unwrap() + 1_000;
        history.push(get(&early, now, now + 1));
        let shown = broken(&history);
        assert_eq!(shown[0], format!("get {early}"));
        assert!(
            shown
                .iter()
                .any(|label| label.ends_with(&format!(" {early}")))
        );
    }
}
