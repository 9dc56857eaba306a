//! `full_state`, puts that delete, refreshes, and what shows without positions alone.

use std::sync::Arc;

use kitbag_domain::Expectation;

use super::{ONE, Script, TWO, overlap, served, told};
use crate::global;
use crate::history::{Answer, Call, Told, ToldEntry, Why};

/// One entry was put and seen, and another deleted behind that.
fn with_everything(entries: Vec<ToldEntry>) -> Script {
    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    script.put(&global("b"), ONE, 4);
    script.delete(&global("b"), Some(5));
    let told = Told {
        entries,
        head: 5,
        is_full: true,
        rules: Some(served(None)),
    };
    script.add(Call::Everything(Some(4)), Answer::Told(told));
    script
}

#[test]
fn everything_tells_what_is_live_and_what_was_deleted() {
    let live = told(&global("a"), Some(ONE), 3);
    let gone = told(&global("b"), None, 5);
    with_everything(vec![live.clone(), gone.clone()]).accepted();
    with_everything(vec![live.clone()]).refused("is missing");
    with_everything(vec![gone.clone()]).refused_by_both("is missing");
    let other = told(&global("c"), None, 5);
    with_everything(vec![live, gone, other]).refused("nobody deleted");
}

#[test]
fn a_put_that_deletes_compares_and_takes_a_position() {
    let erase = |stable: Option<&str>, answer: Answer| {
        let expectation = Expectation {
            stable: stable.map(str::to_owned),
            unstable: None,
        };
        let mut script = Script::new();
        script.put(&global("a"), ONE, 3);
        script.add(Call::Erase(global("a"), expectation), answer);
        script
    };
    erase(Some("1"), Answer::Written(Some(5))).accepted();
    erase(Some("2"), Answer::Written(Some(5))).refused_by_both("Conflict");
    let conflict = || Answer::Refused(Why::Conflict(Arc::from(ONE)));
    erase(Some("2"), conflict()).accepted();
    erase(Some("1"), conflict()).refused_by_both("nothing forbids it");
    let mut script = erase(None, Answer::Written(Some(5)));
    script.get(&global("a"), Some(ONE));
    script.refused_by_both("expected None");
}

#[test]
fn a_dead_device_gets_no_new_tokens() {
    let mut script = Script::new();
    script.add(Call::Refresh, Answer::Done);
    script.remove("A", 7);
    script.add(Call::Refresh, Answer::Done);
    script.refused_by_both("SessionGone");
}

#[test]
fn what_a_chain_leaves_out_is_found_by_both() {
    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    script.sync(None, 3, vec![told(&global("a"), Some(ONE), 3)]);
    script.put(&global("a"), TWO, 4);
    script.sync(Some(3), 4, vec![]);
    script.refused_by_both("is missing");

    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    script.sync(None, 3, vec![told(&global("a"), Some(ONE), 3)]);
    script.delete(&global("a"), Some(4));
    script.sync(Some(3), 4, vec![]);
    script.refused_by_both("is missing");
}

#[test]
fn two_snapshots_of_one_moment_are_found_from_outside() {
    let mut script = Script::new();
    let (a, b) = (global("a"), global("b"));
    overlap(script.put(&a, ONE, 3), 5, 50);
    overlap(script.put(&b, ONE, 4), 5, 50);
    overlap(script.sync(None, 3, vec![told(&a, Some(ONE), 3)]), 10, 11);
    overlap(script.sync(None, 4, vec![told(&b, Some(ONE), 4)]), 12, 13);
    script.refused_by_both("is missing");
}
