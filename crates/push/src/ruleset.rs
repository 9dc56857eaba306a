//! The rules of one user, compiled.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

use crate::action::Action;
use crate::condition::Condition;
use crate::context::MemberContext;
use crate::event::{FlatEvent, Scalar};
use crate::fact::Fact;
use crate::path::Path;
use crate::read::{self, Listed};
use crate::{Changes, Defaults, Kind, served};

/// The push rules of one user, ready to be evaluated for any number of events.
///
/// It is compiled once for each served text and can be shared by threads.
#[derive(Clone)]
pub struct Ruleset {
    user_id: Box<str>,
    /// What events of the user's own say.
    own: Fact,
    /// For each rule a fact without which it does not match: small and side by side, since nearly
    /// all answers come from here.
    needed: Box<[Fact]>,
    /// The rules that can match, in the order of evaluation.
    rules: Box<[Placed]>,
}

/// A rule that can match, and where it stands among all rules of the text: others cannot.
#[derive(Clone)]
struct Placed {
    rule: Arc<Rule>,
    place: u32,
}

/// A rule that is enabled and can match.
#[derive(Clone, PartialEq)]
pub struct Rule {
    kind: Kind,
    id: Box<str>,
    default: bool,
    is_legacy_mention: bool,
    /// A fact without which the rule does not match.
    needed: Fact,
    conditions: Box<[Condition]>,
    actions: Box<[Action]>,
}

/// The default rules by their text, compiled once for all users; none where the rule is off.
///
/// They save time of compiling and memory, and stay in the caches of the processor while the
/// members of a room are asked one behind the other. Those that name a user are not found again.
static SHARED: LazyLock<HashMap<Box<str>, Shared>> = LazyLock::new(|| {
    let defaults = Defaults::with_legacy_mentions();
    let served = served(&Changes::default(), &defaults, SHARED_USER);
    let rules = read::rules(&served).into_iter();
    let shared = |rule: &Listed<'_>| Shared {
        kind: rule.kind,
        rule: Rule::compile(rule, SHARED_USER).map(Arc::new),
    };
    rules
        .map(|rule| (rule.text.into(), shared(&rule)))
        .collect()
});

/// Who has the rules that are shared, as far as anybody has to.
const SHARED_USER: &str = "@user:server";

struct Shared {
    kind: Kind,
    rule: Option<Arc<Rule>>,
}

fn compile(rule: &Listed<'_>, user_id: &str) -> Option<Arc<Rule>> {
    match SHARED.get(rule.text) {
        Some(shared) if shared.kind == rule.kind => shared.rule.clone(),
        _ => Rule::compile(rule, user_id).map(Arc::new),
    }
}

impl Ruleset {
    /// Compiles the rules of a user from the text that is served as `m.push_rules`.
    ///
    /// This never fails. A rule that cannot be read, or has a condition that cannot or is of an
    /// unknown kind, never matches, and all others are as without it. An action that cannot be read
    /// is given out as [`Action::Other`].
    #[must_use]
    pub fn compile(served: &str, user_id: &str) -> Self {
        let rules = read::rules(served);
        let rules = rules.iter().zip(0..);
        let compiled = |(rule, place)| {
            let rule = compile(rule, user_id)?;
            Some(Placed { rule, place })
        };
        let rules: Vec<_> = rules.filter_map(compiled).collect();
        Self {
            user_id: user_id.into(),
            own: Fact::is(Path::sender().hash(), &Scalar::Text(user_id.into())),
            needed: rules.iter().map(|placed| placed.rule.needed).collect(),
            rules: rules.into(),
        }
    }

    /// Returns the user whose rules these are.
    #[must_use]
    pub fn user_id(&self) -> &str {
        &self.user_id
    }

    /// Returns what the first rule that matches the event does; nothing where none does, and for
    /// events of the user's own.
    ///
    /// Nothing is allocated, but where a rule looks for a display name of more than 512 bytes.
    #[must_use]
    pub fn evaluate(&self, event: &FlatEvent, member: &MemberContext<'_>) -> &[Action] {
        self.deciding(event, member).map_or(&[], Rule::actions)
    }

    /// Returns the first rule that matches the event; none for events of the user's own.
    #[must_use]
    pub fn deciding(&self, event: &FlatEvent, member: &MemberContext<'_>) -> Option<&Rule> {
        self.decide(event, member).map(|(_, rule)| rule)
    }

    /// Returns the same rule, with where it stands among all rules of the text.
    pub(crate) fn decide(
        &self,
        event: &FlatEvent,
        member: &MemberContext<'_>,
    ) -> Option<(u32, &Rule)> {
        let facts = event.facts();
        if facts.may_hold(self.own) && event.sender() == Some(&*self.user_id) {
            return None;
        }
        let rules = self.needed.iter().zip(&self.rules);
        let mut likely = rules.filter(|(needed, _)| facts.may_hold(**needed));
        let found = likely.find(|(_, placed)| placed.rule.matches(event, member));
        found.map(|(_, placed)| (placed.place, &*placed.rule))
    }

    /// Returns the rules that can match, each with where it stands among all rules of the text.
    pub(crate) fn placed(&self) -> impl Iterator<Item = (u32, &Rule)> {
        let rules = self.rules.iter();
        rules.map(|placed| (placed.place, &*placed.rule))
    }
}

/// Evaluates one event for the members of its room: for each of them what
/// [`Ruleset::evaluate`] gives, in their order.
pub fn evaluate_all<'r, 'c, M>(event: &FlatEvent, members: M) -> impl Iterator<Item = &'r [Action]>
where
    M: IntoIterator<Item = (&'r Ruleset, MemberContext<'c>)>,
{
    let members = members.into_iter();
    members.map(|(rules, member)| rules.evaluate(event, &member))
}

impl Rule {
    /// Returns the kind of the rule.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the ID of the rule, which is unique within its kind.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Tells whether the rule is a default of the server.
    #[must_use]
    pub fn is_default(&self) -> bool {
        self.default
    }

    /// Returns what the rule does where it decides, without what is ignored.
    #[must_use]
    pub fn actions(&self) -> &[Action] {
        &self.actions
    }

    pub(crate) fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    fn compile(listed: &Listed<'_>, user_id: &str) -> Option<Self> {
        let rule = listed.read();
        if !rule.enabled {
            return None;
        }
        let content = rule.content.as_ref()?;
        let conditions = content.conditions(user_id);
        if conditions.iter().any(Condition::is_never) {
            return None;
        }
        Some(Self {
            kind: rule.kind,
            default: rule.default,
            is_legacy_mention: rule.is_legacy_mention(),
            needed: needed_fact(&conditions),
            conditions: conditions.into(),
            actions: content.actions().into(),
            id: rule.id.into(),
        })
    }

    fn matches(&self, event: &FlatEvent, member: &MemberContext<'_>) -> bool {
        if self.is_legacy_mention && event.has_mentions() {
            return false;
        }
        let mut conditions = self.conditions.iter();
        conditions.all(|condition| condition.holds(event, member))
    }
}

impl fmt::Debug for Ruleset {
    /// Shows whose rules these are and how many, and nothing of them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rules = f.debug_struct("Ruleset");
        rules.field("user_id", &self.user_id);
        rules
            .field("rules", &self.rules.len())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Rule {
    /// Shows nothing that a user wrote: the ID too can be a keyword.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rule = f.debug_struct("Rule");
        rule.field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The fact of the condition that most events fail.
fn needed_fact(conditions: &[Condition]) -> Fact {
    let facts = conditions.iter().map(Condition::needed_fact);
    let rarest = facts.max_by_key(|(rarity, _)| *rarity);
    rarest.map_or(Fact::TRUTH, |(_, fact)| fact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_rules_that_name_no_user_are_shared_by_all() {
        for (defaults, shared) in [
            (Defaults::spec(), 12),
            (Defaults::with_legacy_mentions(), 14),
        ] {
            let of = |user_id| {
                let served = served(&Changes::default(), &defaults, user_id);
                Ruleset::compile(&served, user_id)
            };
            let (one, two) = (of("@one:example.org"), of("@two:example.org"));
            let rules = one.rules.iter().zip(&two.rules);
            let same = rules.filter(|(one, two)| Arc::ptr_eq(&one.rule, &two.rule));
            assert_eq!(same.count(), shared);
        }
    }

    #[test]
    fn the_text_of_a_default_rule_is_shared_within_its_kind_alone() {
        let served = served(&Changes::default(), &Defaults::spec(), "@user:server");
        let message = crate::find_rule(&served, Kind::Underride, ".m.rule.message");
        let text = message.unwrap().text;
        let moved = format!(r#"{{"global":{{"override":[{text}]}}}}"#);
        let rules = Ruleset::compile(&moved, "@user:server");
        assert_eq!(rules.rules[0].rule.kind(), Kind::Override);
    }
}
