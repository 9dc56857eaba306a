//! What people are shown of a history that no order explains.

use super::search::Outcome;
use super::{Act, Operation, judge};

/// Checks of shortened histories: each takes about as long as the first one.
const CHECKS_MAX: usize = 64;
/// Operations that are shown beside it: what matters stands before the rest.
const SHOWN_MAX: usize = 16;

/// Returns the operation with whose answer the last order was gone, and the others that matter.
pub(super) fn of(operations: &[Operation]) -> (Operation, Vec<Operation>) {
    let mut ends: Vec<u64> = operations
        .iter()
        .filter(|one| one.is_sure)
        .map(|one| one.ended)
        .collect();
    ends.sort_unstable();
    // What came later does not mend what is broken, so the shortest broken beginning can be halved
    // for.
    let is_whole = |end: &u64| judge(&until(operations, *end)) != Outcome::Broken;
    let first = ends.partition_point(is_whole).min(ends.len() - 1);
    let end = ends[first];
    let broken = thinned(&until(operations, end));
    let is_culprit = |one: &&Operation| one.is_sure && one.ended == end;
    // Only where a beginning was undecided it may have been left out.
    let last = || broken.iter().max_by_key(|one| (one.is_sure, one.ended));
    let culprit = broken.iter().find(is_culprit).or_else(last);
    let culprit = culprit.expect("a broken history is not empty");
    let mut around: Vec<Operation> = broken
        .iter()
        .filter(|one| !is_culprit(one))
        .cloned()
        .collect();
    around.sort_by_key(|one| matters(one, culprit, &broken));
    around.truncate(SHOWN_MAX);
    around.sort_by_key(|one| one.began);
    (culprit.clone(), around)
}

/// What was known of the history at a moment: what had no answer yet may or may not have happened.
fn until(operations: &[Operation], end: u64) -> Vec<Operation> {
    let begun = operations.iter().filter(|one| one.began <= end);
    let known = begun.filter_map(|one| {
        if one.ended <= end || !one.is_sure {
            return Some(one.clone());
        }
        let open = Operation {
            ended: u64::MAX,
            ..one.clone().maybe()
        };
        one.changes_something().then_some(open)
    });
    known.collect()
}

/// Leaves out what only saw and without which no order is found either.
fn thinned(operations: &[Operation]) -> Vec<Operation> {
    // The latest ones matter most: as few of them as show it, then those of them one by one.
    let mut seen: Vec<usize> = (0..operations.len()).collect();
    seen.retain(|at| !operations[*at].changes_something());
    seen.sort_by_key(|at| std::cmp::Reverse(operations[*at].ended));
    let without = |left_out: &[usize]| -> Vec<Operation> {
        let all = operations.iter().enumerate();
        let kept = all.filter(|(at, _)| !left_out.contains(at));
        kept.map(|(_, one)| one.clone()).collect()
    };
    let mut kept = 1;
    while kept < seen.len() && judge(&without(&seen[kept..])) != Outcome::Broken {
        kept *= 2;
    }
    let mut left_out = seen.split_off(kept.min(seen.len()));
    for at in seen.into_iter().take(CHECKS_MAX) {
        left_out.push(at);
        if judge(&without(&left_out)) != Outcome::Broken {
            left_out.pop();
        }
    }
    without(&left_out)
}

/// Orders the others by how much they have to do with the culprit: what was only seen and could
/// not be left out, who brought what was seen, what ran at the same time, then what was near.
fn matters(one: &Operation, culprit: &Operation, broken: &[Operation]) -> (u8, u64) {
    let brings = |cell: &str, value: &str| {
        let mut acts = one.acts.iter();
        acts.any(|(other, act)| {
            **other == *cell && matches!(act, Act::Puts(text, _) if **text == *value)
        })
    };
    let is_seen = broken.iter().any(|other| {
        let mut acts = other.acts.iter();
        acts.any(|(cell, act)| matches!(act, Act::Sees(Some(text)) if brings(cell, text)))
    });
    let rank = if !one.changes_something() {
        0
    } else if is_seen {
        1
    } else if one.is_sure && one.began <= culprit.ended && culprit.began <= one.ended {
        2
    } else {
        3
    };
    (rank, culprit.began.abs_diff(one.ended.min(culprit.ended)))
}
