//! The oracle can fail: each history here breaks one law, and is refused for it.

mod rare;
mod rules;

use std::sync::Arc;

use kitbag_domain::{DeviceId, DeviceSelection, Expectation, Incarnation, Key, Limits, UserId};

use super::check;
use crate::history::{Answer, Call, Event, History, Told, ToldEntry, Why};
use crate::ops::small_limits;
use crate::outside;
use crate::{device_id, device_key, global, user_id};
use rules::served;

/// Writes a history down, one operation behind the other.
struct Script {
    limits: Limits,
    events: Vec<Event>,
    user: UserId,
    who: Option<(DeviceId, Incarnation)>,
    now: u64,
}

impl Script {
    /// Two devices are logged in, at the positions 1 and 2; `A` acts.
    fn new() -> Self {
        let mut script = Self {
            limits: small_limits(4),
            events: Vec::new(),
            user: user_id("alice"),
            who: None,
            now: 0,
        };
        script.login("B", 2);
        script.login("A", 1);
        script.events.swap(0, 1);
        script.events[0].began = 1;
        script.events[0].ended = 2;
        script.events[1].began = 3;
        script.events[1].ended = 4;
        script
    }

    fn add(&mut self, call: Call, answer: Answer) -> &mut Event {
        self.now += 2;
        self.events.push(Event {
            user: self.user.clone(),
            who: self.who.clone(),
            at: 0,
            began: self.now - 1,
            ended: self.now,
            call,
            answer,
        });
        self.events.last_mut().unwrap()
    }

    fn login(&mut self, device: &str, incarnation: u64) -> &mut Event {
        self.act_as(device, incarnation);
        let answer = Answer::LoggedIn(Incarnation(incarnation));
        self.add(Call::Login(device_id(device)), answer)
    }

    fn act_as(&mut self, device: &str, incarnation: u64) {
        self.who = Some((device_id(device), Incarnation(incarnation)));
    }

    fn put(&mut self, key: &Key, text: &str, position: u64) -> &mut Event {
        self.swap(key, text, None, Answer::Written(Some(position)))
    }

    fn swap(&mut self, key: &Key, text: &str, stable: Option<&str>, answer: Answer) -> &mut Event {
        let expectation = Expectation {
            stable: stable.map(str::to_owned),
            unstable: None,
        };
        let call = Call::Put(key.clone(), Arc::from(text), expectation);
        self.add(call, answer)
    }

    fn delete(&mut self, key: &Key, position: Option<u64>) -> &mut Event {
        self.add(Call::Delete(key.clone()), Answer::Written(position))
    }

    fn get(&mut self, key: &Key, text: Option<&str>) -> &mut Event {
        let value = Answer::Value(text.map(Arc::from));
        self.add(Call::Get(key.clone()), value)
    }

    fn remove(&mut self, device: &str, at: u64) -> &mut Event {
        let these = DeviceSelection::These(vec![device_id(device)]);
        let removed = Answer::Removed(Some(vec![device_id(device)]));
        let event = self.add(Call::Remove(these), removed);
        event.at = at;
        event
    }

    fn sync(&mut self, since: Option<u64>, head: u64, entries: Vec<ToldEntry>) -> &mut Event {
        let told = Told {
            entries,
            head,
            is_full: since.is_none(),
            rules: since.is_none().then(|| served(None)),
        };
        self.add(Call::Sync(since), Answer::Told(told))
    }

    fn accepted(self) {
        let history = self.history();
        let verdict = check(&history);
        assert!(verdict.is_ok(), "{}", verdict.unwrap_err()[0]);
        assert_eq!(outside::check(&history), Ok(()));
    }

    /// As [`Script::refused`], for what shows without positions and rules too.
    fn refused_by_both(self, why: &str) {
        let (limits, events) = (self.limits.clone(), self.events.clone());
        let seen = outside::check(&History { limits, events });
        assert!(seen.is_err(), "the judge outside did not find it");
        self.refused(why);
    }

    /// Checks that exactly the last event is found, for this reason.
    fn refused(self, why: &str) {
        let last = self.events.last().unwrap().began;
        let violations = check(&self.history()).unwrap_err();
        assert!(violations[0].why.contains(why), "{}", violations[0]);
        assert_eq!(violations[0].event.began, last, "{}", violations[0]);
    }

    fn history(self) -> History {
        History {
            limits: self.limits,
            events: self.events,
        }
    }
}

fn told(key: &Key, text: Option<&str>, position: u64) -> ToldEntry {
    ToldEntry {
        key: key.clone(),
        text: text.map(Arc::from),
        position,
        writer: Some(device_id("A")),
        at: 0,
    }
}

fn overlap(event: &mut Event, began: u64, ended: u64) {
    (event.began, event.ended) = (began, ended);
}

const ONE: &str = r#"{"m.revision_id":"1"}"#;
const TWO: &str = r#"{"m.revision_id":"2"}"#;

#[test]
fn a_lawful_history_is_accepted() {
    let (a, own) = (global("a"), device_key("B", "own"));
    let settings = global("m.local_notification_settings.B");
    let mut script = Script::new();
    script.put(&a, ONE, 3);
    script.swap(&a, TWO, Some("1"), Answer::Written(Some(4)));
    let conflict = Answer::Refused(Why::Conflict(Arc::from(TWO)));
    script.swap(&a, ONE, Some("1"), conflict);
    script.put(&settings, "{}", 5);
    script.sync(
        Some(3),
        5,
        vec![told(&a, Some(TWO), 4), told(&settings, Some("{}"), 5)],
    );
    script.act_as("B", 2);
    script.put(&own, "{ }", 6);
    script.act_as("A", 1);
    script.get(&own, Some("{ }"));
    script.remove("B", 77);
    let mut tombstones = vec![told(&own, None, 7), told(&settings, None, 8)];
    for tombstone in &mut tombstones {
        tombstone.at = 77;
    }
    script.sync(Some(5), 9, tombstones);
    script.get(&own, None);
    script.delete(&own, None).answer = Answer::Refused(Why::NoSuchDevice);
    script.login("B", 10);
    script.delete(&own, None);
    script.act_as("B", 2);
    script.swap(&a, "{}", None, Answer::Refused(Why::SessionGone));
    script.sync(None, 10, vec![told(&a, Some(TWO), 4)]);
    script.accepted();
}

#[test]
fn a_lost_write_is_found() {
    let mut script = Script::new();
    script.put(&global("a"), "{}", 3);
    script.get(&global("a"), None);
    script.refused_by_both("expected Some");
}

#[test]
fn a_stale_read_is_found() {
    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    script.put(&global("a"), TWO, 4);
    script.get(&global("a"), Some(ONE));
    script.refused_by_both("expected Some");
}

#[test]
fn an_older_value_after_a_newer_one_is_found() {
    let key = global("a");
    let with_reads = |first: &str, second: &str| {
        let mut script = Script::new();
        script.put(&key, ONE, 3);
        overlap(script.put(&key, TWO, 4), 10, 100);
        overlap(script.get(&key, Some(first)), 20, 30);
        overlap(script.get(&key, Some(second)), 40, 50);
        script
    };
    with_reads(ONE, ONE).accepted();
    with_reads(ONE, TWO).accepted();
    with_reads(TWO, ONE).refused_by_both("expected Some");
}

#[test]
fn an_older_state_of_another_entry_is_found() {
    let (a, b) = (global("a"), global("b"));
    let mut script = Script::new();
    overlap(script.put(&a, ONE, 3), 10, 100);
    overlap(script.put(&b, ONE, 4), 10, 100);
    overlap(script.get(&b, Some(ONE)), 20, 30);
    overlap(script.get(&a, None), 40, 50);
    script.refused("expected Some");
}

#[test]
fn a_read_from_the_future_is_found() {
    let mut script = Script::new();
    overlap(script.put(&global("a"), ONE, 3), 20, 30);
    overlap(script.get(&global("a"), Some(ONE)), 40, 50);
    overlap(&mut script.events[2], 60, 70);
    script.refused_by_both("expected None");
}

#[test]
fn a_stale_sync_is_found() {
    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    script.sync(Some(2), 2, Vec::new());
    script.refused("stale");
}

#[test]
fn a_missing_change_is_found() {
    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    script.sync(Some(2), 3, Vec::new());
    script.refused("is missing");
}

#[test]
fn a_change_told_twice_is_found() {
    let key = global("a");
    let mut script = Script::new();
    script.put(&key, ONE, 3);
    script.put(&key, TWO, 4);
    script.sync(
        Some(2),
        4,
        vec![told(&key, Some(ONE), 3), told(&key, Some(TWO), 4)],
    );
    script.refused_by_both("told twice");
}

#[test]
fn an_unchanged_entry_is_found() {
    let key = global("a");
    let mut script = Script::new();
    script.put(&key, ONE, 3);
    script.put(&global("b"), ONE, 4);
    let entries = vec![told(&key, Some(ONE), 3), told(&global("b"), Some(ONE), 4)];
    script.sync(Some(3), 4, entries);
    script.refused("out of order");
    let mut script = Script::new();
    script.put(&key, ONE, 3);
    script.put(&global("b"), ONE, 4);
    script.sync(Some(3), 4, vec![told(&key, Some(ONE), 4)]);
    script.refused("did not change");
}

#[test]
fn a_missing_tombstone_is_found() {
    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    script.delete(&global("a"), Some(4));
    script.sync(Some(3), 4, Vec::new());
    script.refused("is missing");
}

#[test]
fn a_deleted_entry_in_a_full_answer_is_found() {
    let key = global("a");
    for ghost in [Some(ONE), None] {
        let mut script = Script::new();
        script.put(&key, ONE, 3);
        script.delete(&key, Some(4));
        script.sync(None, 4, vec![told(&key, ghost, 4)]);
        script.refused("did not change");
    }
}

#[test]
fn changed_bytes_are_found() {
    let key = global("a");
    let mut script = Script::new();
    script.put(&key, "{ }", 3);
    script.sync(Some(2), 3, vec![told(&key, Some("{}"), 3)]);
    script.refused_by_both("is not");
}

#[test]
fn another_writer_is_found() {
    let key = global("a");
    let mut script = Script::new();
    script.put(&key, ONE, 3);
    let mut entry = told(&key, Some(ONE), 3);
    entry.writer = Some(device_id("B"));
    script.sync(Some(2), 3, vec![entry]);
    script.refused("is not");
}

#[test]
fn two_winners_of_a_swap_are_found() {
    let key = global("a");
    let mut script = Script::new();
    script.put(&key, ONE, 3);
    overlap(
        script.swap(&key, TWO, Some("1"), Answer::Written(Some(4))),
        20,
        30,
    );
    let other = r#"{"m.revision_id":"3"}"#;
    overlap(
        script.swap(&key, other, Some("1"), Answer::Written(Some(5))),
        21,
        31,
    );
    script.refused_by_both("Conflict");
}

#[test]
fn a_loser_who_is_told_another_content_is_found() {
    let key = global("a");
    let mut script = Script::new();
    script.put(&key, ONE, 3);
    script.put(&key, TWO, 4);
    let conflict = Answer::Refused(Why::Conflict(Arc::from(ONE)));
    script.swap(&key, "{}", Some("0"), conflict);
    script.refused_by_both("expected one of");
}

#[test]
fn a_conflict_without_a_reason_is_found() {
    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    let conflict = Answer::Refused(Why::Conflict(Arc::from(ONE)));
    script.swap(&global("a"), "{}", Some("1"), conflict);
    script.refused_by_both("nothing forbids it");
}

#[test]
fn a_write_by_a_dead_device_is_found() {
    let mut script = Script::new();
    script.remove("B", 77);
    script.act_as("B", 2);
    script.put(&global("a"), ONE, 4);
    script.refused_by_both("SessionGone");
    let mut script = Script::new();
    script.remove("B", 77);
    script.login("B", 4);
    script.act_as("B", 2);
    script.put(&global("a"), ONE, 5);
    script.refused_by_both("SessionGone");
}

#[test]
fn a_dead_device_that_wrote_before_it_died_is_accepted() {
    let mut script = Script::new();
    overlap(script.remove("B", 77), 10, 100);
    script.act_as("B", 2);
    overlap(script.put(&global("a"), ONE, 3), 20, 30);
    script.accepted();
}

#[test]
fn a_living_session_that_is_refused_is_found() {
    let mut script = Script::new();
    script.swap(&global("a"), ONE, None, Answer::Refused(Why::SessionGone));
    script.refused_by_both("nothing forbids it");
}

#[test]
fn what_a_dead_device_left_behind_is_found() {
    let own = device_key("B", "own");
    let with_ghost = || {
        let mut script = Script::new();
        script.act_as("B", 2);
        script.put(&own, ONE, 3);
        script.remove("B", 77);
        script.login("B", 6);
        script
    };
    let mut script = with_ghost();
    script.get(&own, Some(ONE));
    script.refused("expected None");
    let mut script = with_ghost();
    script.sync(Some(3), 6, Vec::new());
    script.refused("is missing");
}

#[test]
fn a_device_that_was_made_again_without_dying_is_found() {
    let mut script = Script::new();
    script.login("B", 3);
    script.refused("there already");
}

#[test]
fn positions_that_are_taken_twice_are_found() {
    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    script.put(&global("b"), ONE, 3);
    script.refused("taken twice");
}

#[test]
fn positions_against_the_order_of_time_are_found() {
    let mut script = Script::new();
    script.put(&global("a"), ONE, 4);
    script.put(&global("b"), ONE, 3);
    script.refused("before what was seen");
}

#[test]
fn a_write_that_is_acknowledged_without_a_position_is_found() {
    let mut script = Script::new();
    script.swap(&global("a"), ONE, None, Answer::Written(None));
    script.refused("answers no");
}

#[test]
fn a_deletion_of_nothing_that_takes_a_position_is_found() {
    let mut script = Script::new();
    script.delete(&global("a"), Some(3));
    script.refused_by_both("nothing to delete");
    let mut script = Script::new();
    script.put(&global("a"), ONE, 3);
    script.delete(&global("a"), None);
    script.refused_by_both("it is there");
}

#[test]
fn a_quota_that_is_passed_is_found() {
    let mut script = Script::new();
    let large = format!("{{\"\":\"{}\"}}", "x".repeat(400));
    script.put(&global("a"), &large, 3);
    script.put(&global("b"), &large, 4);
    script.refused("QuotaBytes");
}

#[test]
fn a_quota_that_refuses_too_early_is_found() {
    let mut script = Script::new();
    let large = format!("{{\"\":\"{}\"}}", "x".repeat(400));
    script.put(&global("a"), &large, 3);
    script.delete(&global("a"), Some(4));
    let refused = Answer::Refused(Why::QuotaBytes);
    script.swap(&global("b"), &large, None, refused);
    script.refused("nothing forbids it");
}

#[test]
fn writes_that_the_policy_forbids_are_found() {
    let mut script = Script::new();
    script.put(&device_key("B", "a"), ONE, 3);
    script.refused("NotOwnDevice");
    let mut script = Script::new();
    script.put(&global("m.fully_read"), ONE, 3);
    script.refused("ServerManaged");
    let mut script = Script::new();
    script.put(&device_key("C", "m.fully_read"), ONE, 3);
    script.refused("NoSuchDevice");
}

#[test]
fn what_another_user_wrote_explains_nothing() {
    let key = global("a");
    let mut script = Script::new();
    script.put(&key, ONE, 3);
    script.user = user_id("bob");
    script.get(&key, Some(ONE));
    script.refused_by_both("expected None");
    let mut script = Script::new();
    script.put(&key, ONE, 3);
    script.user = user_id("bob");
    script.sync(None, 0, vec![told(&key, Some(ONE), 0)]);
    script.refused_by_both("out of order");
}

#[test]
fn a_head_that_nobody_moved_is_found() {
    let mut script = Script::new();
    script.sync(Some(2), 3, Vec::new());
    script.refused("the head is");
}

#[test]
fn a_full_answer_to_a_good_token_is_found() {
    let mut script = Script::new();
    let event = script.sync(None, 2, Vec::new());
    event.call = Call::Sync(Some(1));
    script.refused("the horizon is");
    let mut script = Script::new();
    let event = script.sync(Some(9), 2, Vec::new());
    event.call = Call::Sync(Some(9));
    script.refused("the horizon is");
}

#[test]
fn a_token_behind_the_horizon_needs_a_full_answer() {
    let mut script = Script::new();
    script.limits.tombstones_max = 0;
    script.put(&global("a"), ONE, 3);
    script.delete(&global("a"), Some(4));
    script.sync(Some(3), 4, Vec::new());
    script.refused("the horizon is");
}

#[test]
fn an_unknown_outcome_is_tried_both_ways() {
    let key = global("a");
    let with_outcome = |reads: &[Option<&str>]| {
        let mut script = Script::new();
        script.put(&key, ONE, 3);
        script.swap(&key, TWO, None, Answer::Unknown).ended = u64::MAX;
        for read in reads {
            script.get(&key, *read);
        }
        script
    };
    with_outcome(&[Some(ONE), Some(ONE)]).accepted();
    with_outcome(&[Some(TWO), Some(TWO)]).accepted();
    with_outcome(&[Some(ONE), Some(TWO)]).accepted();
    let first_there_then_not = with_outcome(&[Some(TWO), Some(ONE)]).history();
    assert!(check(&first_there_then_not).is_err());
    with_outcome(&[None]).refused_by_both("expected Some");
}

#[test]
fn an_unseen_write_is_explained_by_who_may_have_made_it() {
    let key = global("a");
    let with_unknowns = |by_the_living: bool| {
        let mut script = Script::new();
        script.act_as("B", 2);
        script.swap(&key, ONE, None, Answer::Unknown).ended = u64::MAX;
        script.act_as("A", 1);
        script.remove("B", 77);
        script.put(&global("b"), "{}", 4);
        if by_the_living {
            script.swap(&key, TWO, None, Answer::Unknown).ended = u64::MAX;
        }
        script.get(&key, None);
        // Somebody took the position 5, and was deleted before anyone looked.
        script.delete(&key, Some(6));
        script
    };
    with_unknowns(true).accepted();
    assert!(check(&with_unknowns(false).history()).is_err());
}

#[test]
fn removals_that_overlap_are_put_in_the_order_that_explains_them() {
    let remove = |script: &mut Script, selection, removed: &[&str]| {
        let removed = removed.iter().map(|device| device_id(device)).collect();
        let event = script.add(Call::Remove(selection), Answer::Removed(Some(removed)));
        overlap(event, 10 + event.began, 100 + event.ended);
    };
    let these = |devices: &[&str]| {
        DeviceSelection::These(devices.iter().map(|device| device_id(device)).collect())
    };
    let mut script = Script::new();
    remove(&mut script, these(&["B"]), &[]);
    remove(&mut script, these(&["B", "C"]), &[]);
    remove(&mut script, these(&["C", "B"]), &[]);
    remove(&mut script, these(&["B"]), &["B"]);
    script.now = 200;
    script.put(&global("a"), "{}", 7);
    script.accepted();
}
