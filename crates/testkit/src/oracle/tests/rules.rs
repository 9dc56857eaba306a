//! Push rules: edits, and what reads and syncs show of them.

use std::sync::Arc;

use super::Script;
use crate::history::{Answer, Call};
use crate::{global, user_id};

const NOTED: &str = "{\"noted\":[1]}";
const BOTH: &str = "{\"noted\":[1,2]}";

/// Two numbers were noted, at the positions 3 and 4.
fn noted() -> Script {
    let mut script = Script::new();
    for (number, position) in [(1, 3), (2, 4)] {
        script.add(Call::Edit(number), Answer::Written(Some(position)));
    }
    script
}

/// A sync that is told these rules.
fn synced(since: Option<u64>, stored: Option<&str>) -> Script {
    let mut script = noted();
    let event = script.sync(since, 4, vec![]);
    if let Answer::Told(told) = &mut event.answer {
        told.rules = stored.map(|stored| served(Some(stored)));
    }
    script
}

#[test]
fn rules_are_told_where_they_changed_and_as_they_are() {
    synced(None, Some(BOTH)).accepted();
    synced(Some(3), Some(BOTH)).accepted();
    synced(Some(4), None).accepted();
    synced(None, Some(NOTED)).refused("the push rules are");
    synced(Some(3), Some("null")).refused("the push rules are");
    synced(Some(3), None).refused("push rules are missing");
    synced(None, None).refused("push rules are missing");
    synced(Some(4), Some(BOTH)).refused("they did not change");
}

#[test]
fn a_lost_edit_is_found() {
    for (stored, is_right) in [
        (Some(BOTH), true),
        (Some("{\"noted\":[2]}"), false),
        (None, false),
    ] {
        let mut script = noted();
        let text: Arc<str> = served(stored);
        script.get(&global("m.push_rules"), Some(&text));
        if is_right {
            script.accepted();
        } else {
            script.refused("expected Some");
        }
    }
}

/// What is served to the user of a script.
pub(super) fn served(stored: Option<&str>) -> Arc<str> {
    let (user, stored) = (user_id("alice"), stored.unwrap_or("null"));
    format!("{{\"global\":{{}},\"user\":\"{user}\",\"stored\":{stored}}}").into()
}
