//! Why an event notifies a user, or does not.

use std::borrow::Cow;
use std::fmt::{self, Display, Formatter};

use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value as Json, json};

use crate::action::{Action, notifies};
use crate::condition::{Condition, Never, Seen};
use crate::context::MemberContext;
use crate::event::{FlatEvent, Scalar, Value};
use crate::limits::PATTERN_CHARS_MAX;
use crate::read::{self, ReadRule};
use crate::{Kind, Rule, Ruleset};

/// Characters of a text, or of all texts of an array, that an explanation shows for a condition:
/// bodies can be long, and many rules see them.
pub const SEEN_CHARS_MAX: usize = 200;
/// Elements of an array that an explanation shows.
pub const SEEN_ELEMENTS_MAX: usize = 20;

/// What each rule of a user says to an event, and which of them decides.
///
/// It is written for programs by `serde` and for people by `Display`. Both show parts of the event.
#[derive(Clone, Serialize)]
pub struct Explanation {
    /// The user whose rules these are.
    pub user_id: String,
    /// Whether the user sent the event, which then never notifies.
    pub own_event: bool,
    /// The rule that decides; none where no rule matches or the event is the user's own.
    pub decided_by: Option<RuleName>,
    /// What is done, as [`Ruleset::evaluate`](crate::Ruleset::evaluate) says.
    pub actions: Vec<Action>,
    /// Whether the user is notified.
    pub notifies: bool,
    /// All rules in the order of evaluation.
    pub rules: Vec<RuleExplanation>,
}

/// The name of a rule.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct RuleName {
    /// The kind of the rule.
    #[serde(serialize_with = "by_name")]
    pub kind: Kind,
    /// Its ID, which is unique within the kind; empty where it cannot be read.
    pub rule_id: String,
}

/// What one rule says to an event.
#[derive(Clone, Serialize)]
pub struct RuleExplanation {
    /// The name of the rule.
    #[serde(flatten)]
    pub name: RuleName,
    /// Whether it is a default of the server.
    pub default: bool,
    /// What became of it.
    pub outcome: Outcome,
    /// Its conditions in their order; those of content, room and sender rules are written as others
    /// would have them.
    pub conditions: Vec<ConditionExplanation>,
}

/// What became of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It matches, and no rule before it does: its actions are taken.
    Decides,
    /// It matches, but a rule before it decided, or the event is the user's own.
    Overruled,
    /// A condition does not hold.
    NoMatch,
    /// It is switched off.
    Disabled,
    /// It looks for names in the body, and the event says itself whom it mentions.
    OnlyWithoutMentions,
    /// It lacks something that its kind needs, or has it wrong. It never matches.
    Unreadable,
}

/// What a condition says to an event.
#[derive(Clone, Serialize)]
pub struct ConditionExplanation {
    /// The condition.
    pub condition: Box<RawValue>,
    /// Whether it holds.
    pub holds: bool,
    /// What it was compared with, long texts cut; absent where there is no such thing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<Json>,
    /// Why it does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub because: Option<String>,
}

/// Explains what the rules of a user, given as the text that is served, do with an event.
///
/// Who explains more than one event compiles the rules once, for [`Ruleset::explain`].
#[must_use]
pub fn explain(
    served: &str,
    user_id: &str,
    event: &FlatEvent,
    member: &MemberContext<'_>,
) -> Explanation {
    Ruleset::compile(served, user_id).explain(served, event, member)
}

impl Ruleset {
    /// Explains what the rules do with an event, given the text that they were compiled from.
    ///
    /// The rule that decides is the one that evaluation finds, and the conditions are the very ones
    /// that it asks; those of rules that cannot match are asked too. The time and the result are in
    /// proportion to the rules. With another text, what is told is wrong.
    #[must_use]
    pub fn explain(
        &self,
        served: &str,
        event: &FlatEvent,
        member: &MemberContext<'_>,
    ) -> Explanation {
        let decided = self.decide(event, member);
        let mut compiled = self.placed().peekable();
        let explain = |(listed, place): (&read::Listed<'_>, u32)| {
            let compiled = compiled.next_if(|(other, _)| *other == place);
            let rule = listed.read();
            let conditions = self.explain_conditions(&rule, compiled, event, member);
            let decides = decided.is_some_and(|(decider, _)| decider == place);
            explain_rule(&rule, conditions, decides, event)
        };
        let rules: Vec<_> = read::rules(served).iter().zip(0..).map(explain).collect();
        let decided_by = rules.iter().find(|rule| rule.outcome == Outcome::Decides);
        let actions = decided.map_or(Vec::new(), |(_, rule)| rule.actions().to_vec());
        Explanation {
            user_id: self.user_id().to_owned(),
            own_event: event.sender() == Some(self.user_id()),
            decided_by: decided_by.map(|rule| rule.name.clone()),
            notifies: notifies(&actions),
            actions,
            rules,
        }
    }

    fn explain_conditions(
        &self,
        rule: &ReadRule<'_>,
        compiled: Option<(u32, &Rule)>,
        event: &FlatEvent,
        member: &MemberContext<'_>,
    ) -> Vec<ConditionExplanation> {
        let Some(content) = &rule.content else {
            return Vec::new();
        };
        let conditions = match compiled {
            Some((_, rule)) => Cow::Borrowed(rule.conditions()),
            None => content.conditions(self.user_id()).into(),
        };
        let asked = conditions.iter().zip(content.condition_texts());
        asked
            .map(|(condition, text)| explain_condition(condition, text, event, member))
            .collect()
    }
}

fn explain_rule(
    rule: &ReadRule<'_>,
    conditions: Vec<ConditionExplanation>,
    decides: bool,
    event: &FlatEvent,
) -> RuleExplanation {
    let outcome = if rule.content.is_none() {
        Outcome::Unreadable
    } else if !rule.enabled {
        Outcome::Disabled
    } else if rule.is_legacy_mention() && event.has_mentions() {
        Outcome::OnlyWithoutMentions
    } else if decides {
        Outcome::Decides
    } else if conditions.iter().all(|condition| condition.holds) {
        Outcome::Overruled
    } else {
        Outcome::NoMatch
    };
    RuleExplanation {
        name: RuleName {
            kind: rule.kind,
            rule_id: rule.id.clone().into_owned(),
        },
        default: rule.default,
        outcome,
        conditions,
    }
}

fn explain_condition(
    asked: &Condition,
    text: String,
    event: &FlatEvent,
    member: &MemberContext<'_>,
) -> ConditionExplanation {
    let holds = asked.holds(event, member);
    let seen = asked.see(event, member);
    ConditionExplanation {
        condition: RawValue::from_string(text).expect("it was read as JSON"),
        holds,
        because: (!holds).then(|| because(asked, &seen)),
        seen: shown(&seen),
    }
}

fn because(asked: &Condition, seen: &Seen<'_>) -> String {
    let because = match (asked, seen) {
        (Condition::Never(Never::NotAnObject), _) => "it is no condition: no object",
        (Condition::Never(Never::UnknownKind), _) => "its kind is not known",
        (Condition::Never(Never::Field(field)), _) => {
            return format!("`{field}` is missing or not what it has to be");
        }
        (Condition::Never(Never::LongPattern), _) => {
            return format!("its pattern has more than {PATTERN_CHARS_MAX} characters");
        }
        (_, Seen::NoProperty) => "the event has no such property",
        (Condition::EventMatch { .. }, Seen::Value(Value::Text(_))) => "the pattern does not match",
        (Condition::EventMatch { .. }, _) => "the property is no text",
        (Condition::EventPropertyContains { .. }, Seen::Value(Value::Array(_))) => {
            "the value is not among the elements"
        }
        (Condition::EventPropertyContains { .. }, _) => "the property is no array",
        (Condition::EventPropertyIs { .. }, _) => "the property has another value",
        (_, Seen::DisplayName { name: "", .. }) => "the member has no display name",
        (_, Seen::DisplayName { body, .. }) if !matches!(body, Some(Value::Text(_))) => {
            "the event has no body"
        }
        (_, Seen::DisplayName { .. }) => "the display name is not in the body",
        (_, Seen::PowerLevels { sender: None, .. }) => "the sender's power level is not known",
        (_, Seen::PowerLevels { .. }) => "the sender's power level is too low",
        _ => "the room has another number of members",
    };
    because.to_owned()
}

fn shown(seen: &Seen<'_>) -> Option<Json> {
    match seen {
        Seen::NoProperty | Seen::Nothing => None,
        Seen::Value(value) => Some(shown_value(value)),
        Seen::DisplayName { name, body } => Some(json!({
            "display_name": cut(name),
            "body": body.map(shown_value),
        })),
        Seen::JoinedMembers(joined) => Some(json!({"joined_members": joined})),
        Seen::PowerLevels { sender, needed } => {
            Some(json!({"sender_power_level": sender, "needed": needed}))
        }
    }
}

fn shown_value(value: &Value) -> Json {
    match value {
        Value::Text(text) => cut(text.exact()).into(),
        Value::Scalar(scalar) => shown_scalar(scalar),
        Value::Array(elements) => {
            let mut shown_chars = 0;
            let elements = elements.iter().take(SEEN_ELEMENTS_MAX);
            let elements = elements.take_while(|element| {
                let has_room = shown_chars < SEEN_CHARS_MAX;
                if let Scalar::Text(text) = element {
                    shown_chars += text.chars().take(SEEN_CHARS_MAX).count();
                }
                has_room
            });
            elements.map(shown_scalar).collect()
        }
        Value::Number(number) => number.clone().into(),
        Value::Object => json!({}),
    }
}

fn shown_scalar(scalar: &Scalar) -> Json {
    match scalar {
        Scalar::Null => Json::Null,
        Scalar::Bool(bool) => (*bool).into(),
        Scalar::Integer(integer) => (*integer).into(),
        Scalar::Text(text) => cut(text).into(),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SEEN_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands references in"
)]
fn by_name<S: Serializer>(kind: &Kind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.as_str())
}

impl fmt::Debug for Explanation {
    /// Shows the verdict alone: logs are not the place for the rest.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut explanation = f.debug_struct("Explanation");
        let explanation = explanation.field("decided_by", &self.decided_by);
        explanation
            .field("notifies", &self.notifies)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RuleExplanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut rule = f.debug_struct("RuleExplanation");
        let rule = rule.field("name", &self.name);
        rule.field("outcome", &self.outcome).finish_non_exhaustive()
    }
}

impl fmt::Debug for ConditionExplanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut condition = f.debug_struct("ConditionExplanation");
        condition
            .field("holds", &self.holds)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for RuleName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut name = f.debug_struct("RuleName");
        name.field("kind", &self.kind).finish_non_exhaustive()
    }
}

impl Display for Explanation {
    /// Writes the decision on the first line, then each rule, with what it saw. What users chose is
    /// escaped, so that it cannot command a terminal.
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let user = printable(&self.user_id);
        let verdict = if self.notifies {
            "is notified"
        } else {
            "is not notified"
        };
        match &self.decided_by {
            Some(rule) => writeln!(f, "{user} {verdict}: {rule} decides")?,
            None if self.own_event => writeln!(f, "{user} {verdict}: the event is the user's own")?,
            None => writeln!(f, "{user} {verdict}: no rule matches")?,
        }
        for rule in &self.rules {
            let mark = if rule.outcome == Outcome::Decides {
                '>'
            } else {
                ' '
            };
            write!(f, "{mark} {}: {}", rule.name, rule.outcome)?;
            if rule.outcome == Outcome::Decides {
                let actions = serde_json::to_string(&self.actions).unwrap_or_default();
                write!(f, ", {}", printable(&actions))?;
            }
            writeln!(f)?;
            for condition in &rule.conditions {
                writeln!(f, "    {condition}")?;
            }
        }
        Ok(())
    }
}

impl Display for RuleName {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, printable(&self.rule_id))
    }
}

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Decides => "decides",
            Self::Overruled => "would match too",
            Self::NoMatch => "does not match",
            Self::Disabled => "is switched off",
            Self::OnlyWithoutMentions => "is only for events without m.mentions",
            Self::Unreadable => "cannot be read",
        })
    }
}

impl Display for ConditionExplanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let sign = if self.holds { '+' } else { '-' };
        // Once more through the parser: without line breaks, however the client wrote it. What has
        // a value that cannot be read stays as it was written.
        let text = self.condition.get();
        let condition = serde_json::from_str(text).map(|condition: Json| condition.to_string());
        let condition = condition.unwrap_or_else(|_| text.to_owned());
        write!(f, "{sign} {}", printable(&cut(&condition)))?;
        if let Some(because) = &self.because {
            write!(f, ": {because}")?;
        }
        if let Some(seen) = &self.seen {
            write!(f, "; saw {}", printable(&seen.to_string()))?;
        }
        Ok(())
    }
}

/// Escapes what is not to be printed, and leaves quotes and backslashes as they are.
fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => printable.push(c),
            _ => printable.extend(c.escape_debug()),
        }
    }
    printable
}
