//! The same served rules, events and members for this crate and for ruma: both come to the same.
//!
//! `KITBAG_TEST_SEED=n` draws other cases and `PROPTEST_CASES=n` more of them.
#![expect(
    clippy::unwrap_used,
    reason = "clippy does not know helpers of tests as such"
)]

mod cases;
mod differences;
mod theirs;

use std::cell::RefCell;
use std::collections::BTreeMap;

use kitbag_push::{Changes, Defaults, FlatEvent, MemberContext, RoomContext, Ruleset, served};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use serde_json::{Map, Value, json};

use crate::cases::{Case, Member, USER};

/// Cases for each of proptest's own count: so many take two seconds.
const CASES_FACTOR: u32 = 4;
/// What must have decided this often in a thousand cases, so that much has met: by kind, and
/// whether it is a default.
const DECIDED_MIN: [(&str, usize); 7] = [
    ("override", 10),
    ("override default", 10),
    ("content", 10),
    ("room", 10),
    ("sender", 10),
    ("underride", 10),
    ("underride default", 10),
];

#[test]
fn ruma_decides_by_the_same_rule_with_the_same_actions() {
    let seed = seed();
    let config = Config {
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..Config::default()
    };
    let cases = config.cases * CASES_FACTOR;
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config { cases, ..config }, rng);
    let tally = RefCell::new(BTreeMap::<String, usize>::new());
    let outcome = runner.run(&cases::case(), |case| {
        let served = served_text(&case);
        let ours = our_decision(&served, &case.event, &case.member);
        let rules: Value = serde_json::from_str(&served).unwrap();
        let theirs = theirs::decision(&rules, &case.event, &case.member)
            .map_err(|error| TestCaseError::fail(format!("ruma does not take it: {error}")))?;
        let theirs = theirs.map(|(rule_id, actions)| Decision::of(rule_id, &actions));
        let (by, ours) = ours.unzip();
        if ours != theirs {
            let text = format!("we {ours:?}, ruma {theirs:?}");
            return Err(TestCaseError::fail(text));
        }
        *tally
            .borrow_mut()
            .entry(by.unwrap_or_else(|| "nothing".to_owned()))
            .or_default() += 1;
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Abort(why)) => panic!("nothing is left out: {why}"),
        Err(TestError::Fail(why, case)) => {
            let rules = served_text(&case);
            let Case { event, member, .. } = case;
            panic!("KITBAG_TEST_SEED={seed}: {why}\n{rules}\n{event}\n{member:?}");
        }
    }
    let tally = tally.into_inner();
    for (by, least) in DECIDED_MIN {
        let least = least * cases as usize / 1_000;
        assert!(
            tally.get(by).is_some_and(|count| *count >= least),
            "{by}: {tally:?}"
        );
    }
}

/// What a rule that decides does, as both tell it.
#[derive(Debug, PartialEq)]
struct Decision {
    rule_id: String,
    /// Without those that do nothing, and a highlight with its value.
    actions: Vec<Value>,
}

impl Decision {
    fn of(rule_id: String, actions: &[Value]) -> Self {
        let is_ignored =
            |action: &&Value| matches!(action.as_str(), Some("dont_notify" | "coalesce"));
        let actions = actions.iter().filter(|action| !is_ignored(action));
        let actions = actions.map(|action| {
            let mut action = action.clone();
            if action["set_tweak"] == "highlight" && action.get("value").is_none() {
                action["value"] = true.into();
            }
            action
        });
        Self {
            rule_id,
            actions: actions.collect(),
        }
    }
}

/// What this crate comes to, and the kind of the rule.
fn our_decision(served: &str, event: &Value, member: &Member) -> Option<(String, Decision)> {
    let ruleset = Ruleset::compile(served, USER);
    let event = FlatEvent::parse(&event.to_string()).unwrap();
    let room = RoomContext {
        joined_members: member.joined_members.into(),
        sender_power_level: Some(member.sender_level),
        notification_levels: BTreeMap::from([("room".to_owned(), member.room_level)]),
    };
    let member = MemberContext::named(&room, &member.display_name);
    let rule = ruleset.deciding(&event, &member)?;
    let actions = ruleset.evaluate(&event, &member).iter();
    let actions: Vec<Value> = actions
        .map(|action| serde_json::to_value(action).unwrap())
        .collect();
    let default = if rule.is_default() { " default" } else { "" };
    let by = format!("{}{default}", rule.kind());
    Some((by, Decision::of(rule.id().to_owned(), &actions)))
}

/// What is served to a user who made these changes.
fn served_text(case: &Case) -> String {
    let defaults = if case.has_legacy_mentions {
        Defaults::with_legacy_mentions()
    } else {
        Defaults::spec()
    };
    let mut own: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for rule in &case.rules {
        own.entry(rule.kind).or_default().push(json!({
            "rule_id": rule.id,
            "enabled": rule.is_enabled,
            "rule": rule.body,
        }));
    }
    let untouched: Value =
        serde_json::from_str(&served(&Changes::default(), &defaults, USER)).unwrap();
    let all: Vec<(&String, &Value)> = untouched["global"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(kind, rules)| {
            rules
                .as_array()
                .unwrap()
                .iter()
                .map(move |rule| (kind, rule))
        })
        .collect();
    let mut changed: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for change in &case.defaults {
        let (kind, rule) = all[change.at % all.len()];
        let id = rule["rule_id"].as_str().unwrap();
        let mut fields = json!({"rule_id": id});
        if let Some(enabled) = change.enabled {
            fields["enabled"] = enabled.into();
        }
        if let Some(actions) = &change.actions {
            fields["actions"] = actions.clone();
        }
        changed
            .entry(kind)
            .or_default()
            .insert(id.to_owned(), fields);
    }
    let changed: BTreeMap<&str, Vec<&Value>> = changed
        .iter()
        .map(|(kind, rules)| (*kind, rules.values().collect()))
        .collect();
    let stored = json!({"version": 1, "own": own, "defaults": changed});
    let changes = Changes::parse(&stored.to_string()).unwrap();
    served(&changes, &defaults, USER)
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests have no configuration but this"
)]
fn seed() -> u64 {
    std::env::var("KITBAG_TEST_SEED").map_or(1, |seed| seed.parse().unwrap())
}
