//! Any sequence of edits leaves what a naive model has: lists of rules, the defaults among them.

use kitbag_push::{
    Changes, Defaults, EditError, FlatEvent, Kind, Limits, MemberContext, Place, RoomContext,
    Ruleset, notifies, served,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::{Strategy, any};
use proptest::sample::select;
use proptest::test_runner::{Config, RngSeed};
use serde_json::{Map, Value, json};

use crate::account::{Account, USER};

/// So few that most histories come to the limit.
const RULES_MAX: usize = 5;

/// The same cases in each run, unless `PROPTEST_RNG_SEED` says otherwise.
fn config() -> Config {
    let mut config = Config {
        failure_persistence: None,
        ..Config::default()
    };
    // Each case is a history, whose every step is looked at.
    config.cases /= 4;
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(1);
    }
    config
}

/// An event that the content rules of [`bodies`] match, one room rule and one sender rule.
const EVENT: &str =
    r#"{"type":"org.example.e","room_id":"a2","sender":"aт","content":{"body":"abc"}}"#;

/// What one device asks for.
#[derive(Clone, Debug)]
enum Call {
    Put(Kind, String, Value, Place),
    Delete(Kind, String),
    Switch(Kind, String, bool),
    Act(Kind, String, Value),
}

/// A rule of the model: what is served of it.
#[derive(Clone, Debug)]
struct Rule {
    id: String,
    is_default: bool,
    is_enabled: bool,
    members: Map<String, Value>,
}

impl Rule {
    fn notifies(&self) -> bool {
        let actions = self.members["actions"].as_array().unwrap();
        actions.contains(&json!("notify"))
    }
}

/// The rules of each kind in the order of evaluation.
#[derive(Clone, Debug)]
struct Model {
    kinds: Vec<Vec<Rule>>,
    rules_max: usize,
}

impl Model {
    fn new(limits: &Limits) -> Self {
        let served = served(&Changes::default(), &Defaults::spec(), USER);
        let served: Value = serde_json::from_str(&served).unwrap();
        let rule = |rule: &Value| {
            let mut members = rule.as_object().unwrap().clone();
            let id = members.remove("rule_id").unwrap();
            Rule {
                id: id.as_str().unwrap().to_owned(),
                is_default: members.remove("default").unwrap() == true,
                is_enabled: members.remove("enabled").unwrap() == true,
                members,
            }
        };
        let rules = |kind: Kind| served["global"][kind.as_str()].as_array().unwrap();
        Self {
            kinds: Kind::ALL
                .map(|kind| rules(kind).iter().map(rule).collect())
                .into(),
            rules_max: limits.rules_max,
        }
    }

    fn served(&self) -> Value {
        let rule = |rule: &Rule| {
            let mut members = rule.members.clone();
            members.insert("rule_id".to_owned(), json!(rule.id));
            members.insert("default".to_owned(), json!(rule.is_default));
            members.insert("enabled".to_owned(), json!(rule.is_enabled));
            Value::Object(members)
        };
        let kinds = Kind::ALL.into_iter().zip(&self.kinds);
        let global: Map<_, _> = kinds
            .map(|(kind, rules)| (kind.to_string(), rules.iter().map(rule).collect()))
            .collect();
        json!({ "global": global })
    }

    /// The rule that decides about [`EVENT`]: the first that is on and matches it.
    fn deciding(&self) -> Option<(Kind, &Rule)> {
        let matches = |kind: Kind, rule: &Rule| match kind {
            Kind::Override | Kind::Underride => rule.members["conditions"] == json!([]),
            Kind::Content => true,
            Kind::Room => rule.id == "a2",
            Kind::Sender => rule.id == "aт",
        };
        let kinds = Kind::ALL.into_iter().zip(&self.kinds);
        let mut rules = kinds.flat_map(|(kind, rules)| rules.iter().map(move |rule| (kind, rule)));
        rules.find(|(kind, rule)| rule.is_enabled && matches(*kind, rule))
    }

    fn count(&self) -> usize {
        self.kinds
            .iter()
            .flatten()
            .filter(|rule| !rule.is_default)
            .count()
    }

    fn run(&mut self, call: &Call) -> Result<(), EditError> {
        let count = self.count();
        match call {
            Call::Put(kind, id, body, place) => self.put(*kind, id, body, place, count),
            Call::Delete(kind, id) => {
                let rules = &mut self.kinds[*kind as usize];
                let at = find(rules, id)?;
                if rules[at].is_default {
                    return Err(EditError::DefaultRule);
                }
                rules.remove(at);
                Ok(())
            }
            Call::Switch(kind, id, enabled) => {
                let rules = &mut self.kinds[*kind as usize];
                let at = find(rules, id)?;
                rules[at].is_enabled = *enabled;
                Ok(())
            }
            Call::Act(kind, id, actions) => {
                let rules = &mut self.kinds[*kind as usize];
                let at = find(rules, id)?;
                rules[at].members["actions"] = actions.clone();
                Ok(())
            }
        }
    }

    fn put(
        &mut self,
        kind: Kind,
        id: &str,
        body: &Value,
        place: &Place,
        count: usize,
    ) -> Result<(), EditError> {
        let rules = &mut self.kinds[kind as usize];
        let old = find(rules, id).ok();
        if old.is_none() && count == self.rules_max {
            let limit = self.rules_max;
            return Err(EditError::TooManyRules { limit });
        }
        let neighbour = place.before.as_ref().or(place.after.as_ref());
        if let Some(neighbour) = neighbour {
            let at = find(rules, neighbour).map_err(|_| EditError::NoSuchNeighbour)?;
            if rules[at].is_default {
                return Err(EditError::NoSuchNeighbour);
            }
        }
        let new = Rule {
            id: id.to_owned(),
            is_default: false,
            is_enabled: old.is_none_or(|at| rules[at].is_enabled),
            members: body.as_object().unwrap().clone(),
        };
        // Beside itself is where it is.
        let neighbour = neighbour.filter(|neighbour| *neighbour != id);
        match (old, neighbour) {
            (Some(at), None) => rules[at] = new,
            (None, None) => rules.insert(usize::from(kind == Kind::Override), new),
            (old, Some(neighbour)) => {
                if let Some(at) = old {
                    rules.remove(at);
                }
                let at = find(rules, neighbour)?;
                rules.insert(at + usize::from(place.before.is_none()), new);
            }
        }
        Ok(())
    }
}

fn find(rules: &[Rule], id: &str) -> Result<usize, EditError> {
    let at = rules.iter().position(|rule| rule.id == id);
    at.ok_or(EditError::NotFound)
}

fn run(account: &mut Account, call: &Call) -> Result<(), EditError> {
    match call {
        Call::Put(kind, id, body, place) => {
            account.put_at(*kind, id, &body.to_string(), place.clone())
        }
        Call::Delete(kind, id) => account.delete(*kind, id),
        Call::Switch(kind, id, enabled) => account.switch(*kind, id, *enabled),
        Call::Act(kind, id, actions) => account.act(*kind, id, &actions.to_string()),
    }
}

fn small() -> Account {
    let mut account = Account::new();
    account.limits = Limits {
        rules_max: RULES_MAX,
        ..Limits::default()
    };
    account
}

fn kinds() -> impl Strategy<Value = Kind> {
    // Often the same, so that there are neighbours.
    select(vec![
        Kind::Override,
        Kind::Override,
        Kind::Override,
        Kind::Content,
        Kind::Room,
        Kind::Sender,
        Kind::Underride,
    ])
}

/// IDs of a device's own rules.
fn own(device: char) -> impl Strategy<Value = String> + Clone {
    select(vec!["", "2", "т", "\"\n"]).prop_map(move |rest| format!("{device}{rest}"))
}

fn actions() -> impl Strategy<Value = Value> {
    select(vec![
        json!([]),
        json!(["notify"]),
        json!(["dont_notify", {"set_tweak": "sound", "value": "default", "x": [1, {}]}]),
    ])
}

/// A rule with members that its kind has, and with one that no kind knows.
fn bodies(kind: Kind) -> impl Strategy<Value = Value> {
    (actions(), 0..3).prop_map(move |(actions, x)| {
        let mut body = json!({"org.example.x": x, "actions": actions});
        if kind.has_conditions() {
            let never = json!([{"kind": "org.example.k", "x": x}]);
            body["conditions"] = if x == 0 { json!([]) } else { never };
        }
        if kind == Kind::Content {
            body["pattern"] = json!("a*");
        }
        body
    })
}

/// Calls of a device, which names `own` rules, defaults and rules that are not there.
fn calls(
    own: impl Strategy<Value = String> + Clone + 'static,
    defaults: Vec<&'static str>,
) -> impl Strategy<Value = Vec<Call>> {
    let call = kinds().prop_flat_map(move |kind| {
        let any_id = || {
            let defaults = select(defaults.clone()).prop_map(str::to_owned);
            proptest::prop_oneof![3 => own.clone(), 1 => defaults]
        };
        let place = (
            option::weighted(0.3, any_id()),
            option::weighted(0.3, any_id()),
        );
        let place = place.prop_map(|(before, after)| Place { before, after });
        proptest::prop_oneof![
            4 => (own.clone(), bodies(kind), place)
                .prop_map(move |(id, body, place)| Call::Put(kind, id, body, place)),
            1 => any_id().prop_map(move |id| Call::Delete(kind, id)),
            2 => (any_id(), any::<bool>()).prop_map(move |(id, on)| Call::Switch(kind, id, on)),
            2 => (any_id(), actions()).prop_map(move |(id, list)| Call::Act(kind, id, list)),
        ]
    });
    vec(call, 1..40)
}

const DEFAULTS: [&str; 4] = [
    ".m.rule.master",
    ".m.rule.tombstone",
    ".m.rule.call",
    ".m.rule.none",
];

proptest::proptest! {
    #![proptest_config(config())]

    #[test]
    fn any_sequence_of_edits_leaves_and_evaluates_what_the_model_has(
        calls in calls(own('a'), DEFAULTS.to_vec()),
    ) {
        let mut account = small();
        let mut model = Model::new(&account.limits);
        let (event, room) = (FlatEvent::parse(EVENT).unwrap(), RoomContext::default());
        for call in &calls {
            assert_eq!(run(&mut account, call), model.run(call), "{call:?}");
            let text = account.served();
            let served: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(served, model.served(), "{call:?}");
            let rules = Ruleset::compile(&text, USER);
            let decided = rules.deciding(&event, &MemberContext::new(&room));
            let expected = model.deciding();
            assert_eq!(
                decided.map(|rule| (rule.kind(), rule.id(), notifies(rule.actions()))),
                expected.map(|(kind, rule)| (kind, &*rule.id, rule.notifies())),
                "{call:?}"
            );
        }
    }

    /// Each edit is applied to what the one before it left, whoever made that.
    #[test]
    fn edits_of_two_devices_interleaved_leave_what_the_model_has_and_lose_none(
        a in calls(own('a'), vec![".m.rule.master", ".m.rule.none"]),
        b in calls(own('b'), vec![".m.rule.call", ".m.rule.none"]),
        turns in vec(any::<bool>(), 80),
    ) {
        let mut both = Account::new();
        let mut model = Model::new(&both.limits);
        let (mut of_a, mut of_b) = (a.iter(), b.iter());
        for turn in turns {
            let (first, second) = if turn { (&mut of_a, &mut of_b) } else { (&mut of_b, &mut of_a) };
            let Some(call) = first.next().or_else(|| second.next()) else {
                break;
            };
            assert_eq!(run(&mut both, call), model.run(call), "{call:?}");
        }
        let served: Value = serde_json::from_str(&both.served()).unwrap();
        assert_eq!(served, model.served());
        // Each finds its own rules as if it had been alone.
        for (calls, device) in [(&a, 'a'), (&b, 'b')] {
            let mut alone = Account::new();
            for call in calls {
                run(&mut alone, call).unwrap_or_default();
            }
            for kind in Kind::ALL {
                let rules = |account: &Account| -> Vec<Value> {
                    let rules = account.rules(kind).into_iter();
                    let is_own = |rule: &Value| rule["rule_id"].as_str().unwrap().starts_with(device);
                    rules.filter(is_own).collect()
                };
                assert_eq!(rules(&both), rules(&alone), "{kind}");
            }
        }
    }

    #[test]
    fn no_text_makes_reading_what_is_stored_fail_otherwise_than_by_an_error(
        text in stored_like(),
    ) {
        if let Ok(changes) = Changes::parse(&text) {
            let served = served(&changes, &Defaults::with_legacy_mentions(), USER);
            let parsed: Value = serde_json::from_str(&served).unwrap();
            assert_eq!(parsed["global"].as_object().unwrap().len(), 5);
            assert_eq!(Changes::parse(&changes.to_json()), Ok(changes));
        }
    }
}

/// Stored texts with a part put in the place of another.
fn stored_like() -> impl Strategy<Value = String> {
    let parts = [
        r#"{"version":1,"own":{"room":[{"rule_id":"a","enabled":true,"rule":{"actions":[]}}]}}"#,
        r#"{"version":1,"defaults":{"override":[{"rule_id":".m.rule.master","enabled":true}]}}"#,
        "{}",
        "[]",
        "null",
        "1",
        "\"a\"",
        "{\"a\":[{}]}",
        "\"actions\"",
        "\"rule_id\":",
        ",",
    ];
    let pick = || select(parts.to_vec());
    (
        select(parts[..2].to_vec()),
        any::<usize>(),
        0..30_usize,
        pick(),
    )
        .prop_map(|(text, at, length, part)| {
            let at = at % text.len();
            let end = (at + length).min(text.len());
            format!("{}{part}{}", &text[..at], &text[end..])
        })
}
