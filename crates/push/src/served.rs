//! What is served: the defaults with a user's changes laid over.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::changes::OwnRule;
use crate::defaults::DefaultRule;
use crate::json::{Found, Members, items, push_comma, push_member, push_string, truth};
use crate::{Changes, Defaults, Kind};

/// What users have as a rule, so that the text need not be moved while it is written.
const BYTES_USUAL: usize = 4 * 1024;

/// Writes the push rules of a user, `{"global":{"override":[…],…}}`: the content of `m.push_rules`.
///
/// All five kinds are there. Rules stand in the order of evaluation: of each kind the user's own
/// before the default ones, and `.m.rule.master` before all.
#[must_use]
pub fn served(changes: &Changes, defaults: &Defaults, user_id: &str) -> String {
    let mut out = String::with_capacity(BYTES_USUAL);
    out.push_str("{\"global\":{");
    for kind in Kind::ALL {
        push_member(&mut out, kind.as_str(), "[");
        let push_default = |out: &mut String, rule: &DefaultRule| {
            let mut changes = changes.defaults.records(kind);
            let change = changes.find(|change| *change.id == *rule.id);
            let is_enabled = change.and_then(|change| change.is_enabled);
            let actions = change.and_then(|change| change.actions.as_deref());
            rule.push(out, user_id, is_enabled, actions);
        };
        let mut defaults = defaults.of(kind).peekable();
        while let Some(rule) = defaults.next_if(|rule| rule.is_first()) {
            push_default(&mut out, rule);
        }
        for rule in changes.own.records(kind) {
            push_own(&mut out, rule);
        }
        defaults.for_each(|rule| push_default(&mut out, rule));
        out.push(']');
    }
    out.push_str("}}");
    out
}

/// Returns the rules by kind, `{"override":[…],…}`, as they stand in the served text.
///
/// `None` where the text is not of [`served`], as for all these look-ups.
#[must_use]
pub fn find_ruleset(served: &str) -> Option<&str> {
    let members = Members::read(served)?;
    match members.find("global") {
        Found::Once(ruleset) => Some(ruleset),
        Found::No | Found::Repeated => None,
    }
}

/// Returns the list of the rules of a kind as it stands in the served text.
#[must_use]
pub fn find_rules(served: &str, kind: Kind) -> Option<&str> {
    let members = Members::read(find_ruleset(served)?)?;
    match members.find(kind.as_str()) {
        Found::Once(rules) => Some(rules),
        Found::No | Found::Repeated => None,
    }
}

/// Finds a rule in the served text; `None` where there is none of this kind and ID.
#[must_use]
pub fn find_rule<'a>(served: &'a str, kind: Kind, rule_id: &str) -> Option<ServedRule<'a>> {
    items(find_rules(served, kind)?)?
        .into_iter()
        .find_map(|text| {
            let head: Head<'_> = serde_json::from_str(text).ok()?;
            (head.rule_id == rule_id).then(|| ServedRule {
                text,
                is_default: head.default,
                is_enabled: head.enabled,
                actions: head.actions.get(),
            })
        })
}

/// A rule as it stands in the served text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServedRule<'a> {
    /// The whole rule, a JSON object.
    pub text: &'a str,
    /// Whether it is one of the default rules.
    pub is_default: bool,
    /// Whether it is on.
    pub is_enabled: bool,
    /// Its actions, a JSON list.
    pub actions: &'a str,
}

#[derive(Deserialize)]
struct Head<'a> {
    #[serde(borrow)]
    rule_id: Cow<'a, str>,
    default: bool,
    enabled: bool,
    #[serde(borrow)]
    actions: &'a RawValue,
}

/// The client's text behind the members that are the server's.
fn push_own(out: &mut String, rule: &OwnRule) {
    push_comma(out);
    out.push_str("{\"rule_id\":");
    push_string(out, &rule.id);
    push_member(out, "default", truth(false));
    push_member(out, "enabled", truth(rule.is_enabled));
    out.push(',');
    let body = rule.body.strip_prefix('{');
    out.push_str(body.expect("what is kept as a rule is an object"));
}
