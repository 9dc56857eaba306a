//! What clients send: a rule, its actions, whether it is on.

use std::fmt;

use thiserror::Error;

use crate::condition::{Condition, Never};
use crate::json::{Found, Members, depth, items, replace_part, string};
use crate::limits::{PATTERN_CHARS_MAX, RULE_DEPTH_MAX};
use crate::{Kind, Limits};

/// Members of a served rule that are the server's: what a client sends by these names is dropped.
///
/// Clients that send back a rule as they got it have them in the body; a new rule is on, whatever
/// its body says.
const SERVERS_OWN: [&str; 3] = ["rule_id", "default", "enabled"];

/// Actions without parameters: the last two are of old and mean nothing, yet are kept.
const ACTIONS: [&str; 3] = ["notify", "dont_notify", "coalesce"];

/// A rule as a client sent it, checked: the body of `PUT …/pushrules/global/{kind}/{ruleId}`.
///
/// It is kept byte for byte, unknown members, conditions and tweaks too. Only `rule_id`, `default`
/// and `enabled` are the server's and are cut out.
#[derive(Clone, PartialEq, Eq)]
pub struct NewRule {
    kind: Kind,
    body: Box<str>,
}

/// A list of actions as a client sent it, checked, and kept byte for byte.
#[derive(Clone, PartialEq, Eq)]
pub struct Actions(Box<str>);

/// Why what a client sent is no rule, no actions or no `enabled`.
///
/// The text names members and numbers alone, never what the client sent.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RuleError {
    /// An action is neither a known word nor a tweak.
    #[error("action {index} is neither `notify` nor an object with a `set_tweak`")]
    BadAction {
        /// Its place in the list, from 0.
        index: usize,
    },
    /// A condition lacks something, or has it in a wrong form.
    #[error("condition {index}: {problem}")]
    BadCondition {
        /// Its place in the list, from 0.
        index: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A member has the wrong form.
    #[error("`{member}` must be {expected}")]
    Malformed {
        /// Its name.
        member: &'static str,
        /// What it should have been.
        expected: &'static str,
    },
    /// A member that a rule of this kind must have is not there.
    #[error("`{member}` is missing")]
    Missing {
        /// Its name.
        member: &'static str,
    },
    /// The text is not JSON.
    #[error("the body is not JSON")]
    NotJson,
    /// The text is a JSON value of another kind.
    #[error("the body is not a JSON object")]
    NotObject,
    /// A member stands there more than once, so that readers would disagree.
    #[error("`{member}` is there more than once")]
    Repeated {
        /// Its name.
        member: &'static str,
    },
    /// The text nests too deep.
    #[error("the rule nests deeper than {limit}")]
    TooDeep {
        /// The depth allowed.
        limit: usize,
    },
    /// The text has more bytes than allowed.
    #[error("the rule is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The size allowed.
        limit_bytes: usize,
    },
    /// There are more parts of one sort than allowed.
    #[error("more than {limit} {parts}")]
    TooMany {
        /// What there is too much of.
        parts: &'static str,
        /// The number allowed.
        limit: usize,
    },
}

impl NewRule {
    /// Checks a rule of this kind.
    ///
    /// All kinds need `actions`; override and underride rules need `conditions` too, which may be
    /// empty, and content rules a `pattern`. Conditions of kinds that the specification does not
    /// know are kept unchecked. Members that a kind does not have are kept like unknown ones.
    /// # Errors
    /// [`RuleError`] says what is wrong, or which limit is passed.
    pub fn parse(kind: Kind, body: &str, limits: &Limits) -> Result<Self, RuleError> {
        let (body, members) = read_object(body, limits)?;
        check_actions(required(&members, "actions")?, limits)?;
        if kind.has_conditions() {
            check_conditions(required(&members, "conditions")?, limits)?;
        }
        if kind == Kind::Content {
            let pattern = required(&members, "pattern")?;
            let pattern = string(pattern).ok_or(RuleError::Malformed {
                member: "pattern",
                expected: "a string",
            })?;
            check_pattern(&pattern, limits)?;
        }
        let body = members.without(body, &SERVERS_OWN).into();
        Ok(Self { kind, body })
    }

    /// Returns the kind that the rule was checked for.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Returns the rule as it is kept: a JSON object without the members that are the server's.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.body
    }
}

impl Actions {
    /// Checks the body of `PUT …/{ruleId}/actions`, which is `{"actions":[…]}`.
    /// # Errors
    /// [`RuleError`] says what is wrong, or which limit is passed.
    pub fn parse(body: &str, limits: &Limits) -> Result<Self, RuleError> {
        let (_, members) = read_object(body, limits)?;
        let actions = required(&members, "actions")?;
        check_actions(actions, limits)?;
        Ok(Self(actions.into()))
    }

    /// Returns the list as the client wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the body of `PUT …/{ruleId}/enabled`: `{"enabled":true}`, or, as of old, `true` alone.
/// # Errors
/// [`RuleError`] says what is wrong.
pub fn parse_enabled(body: &str, limits: &Limits) -> Result<bool, RuleError> {
    if let Ok(enabled) = serde_json::from_str(body) {
        return Ok(enabled);
    }
    let (_, members) = read_object(body, limits)?;
    let enabled = required(&members, "enabled")?;
    serde_json::from_str(enabled).map_err(|_| RuleError::Malformed {
        member: "enabled",
        expected: "`true` or `false`",
    })
}

/// Tells whether the text is what [`NewRule::as_str`] returned, as far as serving it needs: then
/// the members that are the server's can be put before it, and its actions be replaced.
pub(crate) fn is_body(text: &str) -> bool {
    let Some(members) = Members::read(text) else {
        return false;
    };
    let is_absent = |name: &&str| matches!(members.find(name), Found::No);
    matches!(members.find("actions"), Found::Once(_)) && SERVERS_OWN.iter().all(is_absent)
}

/// Returns the rule with other actions, and all else byte for byte.
pub(crate) fn with_actions(body: &str, actions: &Actions) -> Box<str> {
    let members = Members::read(body).expect("what is kept as a rule was read before");
    let Found::Once(old) = members.find("actions") else {
        unreachable!("what is kept as a rule has one `actions`");
    };
    replace_part(body, old, actions.as_str()).into()
}

/// Reads an object within the limits: its text without white space around it, and its members.
fn read_object<'a>(body: &'a str, limits: &Limits) -> Result<(&'a str, Members<'a>), RuleError> {
    let body = body.trim_matches([' ', '\t', '\n', '\r']);
    let limit_bytes = limits.rule_bytes_max;
    if body.len() > limit_bytes {
        return Err(RuleError::TooLarge { limit_bytes });
    }
    // Before anything reads it: readers of JSON recurse.
    if depth(body) > RULE_DEPTH_MAX {
        let limit = RULE_DEPTH_MAX;
        return Err(RuleError::TooDeep { limit });
    }
    if let Some(members) = Members::read(body) {
        return Ok((body, members));
    }
    match serde_json::from_str::<serde::de::IgnoredAny>(body) {
        Ok(_) if !body.starts_with('{') => Err(RuleError::NotObject),
        _ => Err(RuleError::NotJson),
    }
}

fn required<'a>(members: &Members<'a>, member: &'static str) -> Result<&'a str, RuleError> {
    match members.find(member) {
        Found::No => Err(RuleError::Missing { member }),
        Found::Once(value) => Ok(value),
        Found::Repeated => Err(RuleError::Repeated { member }),
    }
}

fn list<'a>(member: &'static str, value: &'a str, limit: usize) -> Result<Vec<&'a str>, RuleError> {
    let items = items(value).ok_or(RuleError::Malformed {
        member,
        expected: "a list",
    })?;
    if items.len() > limit {
        let parts = member;
        return Err(RuleError::TooMany { parts, limit });
    }
    Ok(items)
}

fn check_actions(value: &str, limits: &Limits) -> Result<(), RuleError> {
    for (index, action) in list("actions", value, limits.actions_max)?
        .iter()
        .enumerate()
    {
        let is_known = match string(action) {
            Some(word) => ACTIONS.contains(&word.as_ref()),
            None => is_tweak(action),
        };
        if !is_known {
            return Err(RuleError::BadAction { index });
        }
    }
    Ok(())
}

fn is_tweak(action: &str) -> bool {
    let Some(members) = Members::read(action) else {
        return false;
    };
    // Readers would disagree about a `value` that is there twice.
    matches!(members.find("set_tweak"), Found::Once(tweak) if string(tweak).is_some())
        && !matches!(members.find("value"), Found::Repeated)
}

fn check_conditions(value: &str, limits: &Limits) -> Result<(), RuleError> {
    let conditions = list("conditions", value, limits.conditions_max)?;
    for (index, condition) in conditions.iter().enumerate() {
        check_condition(condition, limits).map_err(|error| match error {
            Fault::Condition(problem) => RuleError::BadCondition { index, problem },
            Fault::Rule(error) => error,
        })?;
    }
    Ok(())
}

/// What is wrong with a condition, where its place in the list is not known yet.
enum Fault {
    Condition(&'static str),
    Rule(RuleError),
}

/// Refuses what evaluation could not read, so that no rule looks as if it did something; kinds that
/// are unknown never match, and are free.
fn check_condition(condition: &str, limits: &Limits) -> Result<(), Fault> {
    match Condition::read(condition, None) {
        Condition::Never(Never::NotAnObject) => Err(Fault::Condition("it is not an object")),
        Condition::Never(Never::Field(field)) => Err(Fault::Condition(needed(field))),
        Condition::Never(Never::LongPattern) => Err(Fault::Rule(LONG_PATTERN)),
        Condition::EventMatch { .. } => {
            let members = Members::read(condition);
            let pattern = match members.as_ref().map(|members| members.find("pattern")) {
                Some(Found::Once(pattern)) => string(pattern),
                _ => None,
            };
            let pattern = pattern.expect("the condition was read with it");
            check_pattern(&pattern, limits).map_err(Fault::Rule)
        }
        _ => Ok(()),
    }
}

/// What a condition lacks where this member of it could not be read.
fn needed(field: &str) -> &'static str {
    match field {
        "kind" => "it needs one `kind`, a string",
        "key" => "it needs one `key`, a string",
        "pattern" => "it needs one `pattern`, a string",
        "value" => "it needs one `value`: a string, an integer, `true`, `false` or `null`",
        "is" => "it needs one `is`, such as \"2\" or \">=10\"",
        _ => "a member is missing or wrong",
    }
}

const LONG_PATTERN: RuleError = RuleError::TooMany {
    parts: "characters in a pattern",
    limit: PATTERN_CHARS_MAX,
};

fn check_pattern(pattern: &str, limits: &Limits) -> Result<(), RuleError> {
    if pattern.chars().count() > PATTERN_CHARS_MAX {
        return Err(LONG_PATTERN);
    }
    let limit = limits.wildcards_max;
    if pattern.matches(['*', '?']).count() > limit {
        let parts = "wildcards in a pattern";
        return Err(RuleError::TooMany { parts, limit });
    }
    Ok(())
}

/// Hides the text, which is a user's: it may say whom they mute.
impl fmt::Debug for NewRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("NewRule");
        debug.field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// Hides the text, which is a user's.
impl fmt::Debug for Actions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Actions").finish_non_exhaustive()
    }
}
