//! Reads the served rules, one by one: what is wrong with one hides no other.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;

use crate::Kind;
use crate::action::Action;
use crate::condition::Condition;
use crate::defaults::{MASTER, is_legacy_mention, localpart};
use crate::json::{Found, Members, items, string};

/// A rule of the served text and its kind.
#[derive(Clone, Copy)]
pub(crate) struct Listed<'a> {
    pub(crate) kind: Kind,
    pub(crate) text: &'a str,
}

/// Returns all rules in the order of evaluation. A text, or a part of it, that is not as it should
/// be has none.
pub(crate) fn rules(served: &str) -> Vec<Listed<'_>> {
    let mut rules = Vec::new();
    let Ok(Served { global }) = serde_json::from_str(served) else {
        return rules;
    };
    for kind in Kind::ALL {
        let Found::Once(of_kind) = global.find(kind.as_str()) else {
            continue;
        };
        let of_kind = items(of_kind).unwrap_or_default();
        rules.extend(of_kind.into_iter().map(|text| Listed { kind, text }));
    }
    if let Some(master) = rules.iter().position(Listed::is_master) {
        rules[..=master].rotate_right(1);
    }
    rules
}

impl<'a> Listed<'a> {
    /// Reads the rule as far as it can be read.
    pub(crate) fn read(&self) -> ReadRule<'a> {
        let members = Members::read(self.text);
        let find = |name| match members.as_ref().map(|members| members.find(name)) {
            Some(Found::No) => Field::Absent,
            Some(Found::Once(value)) => Field::Value(value),
            Some(Found::Repeated) | None => Field::Unreadable,
        };
        let id = find("rule_id").value().and_then(string);
        let default = find("default").flag(false);
        let enabled = find("enabled").flag(true);
        let asks = id
            .clone()
            .and_then(|id| match (self.kind, find("conditions")) {
                // Without conditions a rule matches always [spec, "Push Rules"].
                (Kind::Override | Kind::Underride, Field::Absent) => {
                    Some(Asks::Conditions(Vec::new()))
                }
                (Kind::Override | Kind::Underride, conditions) => {
                    conditions.value().and_then(items).map(Asks::Conditions)
                }
                (Kind::Content, _) => {
                    let pattern = find("pattern").value();
                    pattern.and_then(string).map(Asks::BodyMatches)
                }
                (Kind::Room, _) => Some(Asks::IsInRoom(id)),
                (Kind::Sender, _) => Some(Asks::IsFrom(id)),
            });
        let actions = find("actions").value().and_then(items);
        let content = match (asks, actions, default, enabled) {
            (Some(asks), Some(actions), Some(is_default), Some(_)) => Some(Content {
                is_default,
                asks,
                actions,
            }),
            _ => None,
        };
        ReadRule {
            kind: self.kind,
            id: id.unwrap_or_default(),
            default: default.unwrap_or(false),
            enabled: enabled.unwrap_or(true),
            content,
        }
    }

    fn is_master(&self) -> bool {
        // The search spares the reading of nearly all.
        if self.kind != Kind::Override || !self.text.contains(MASTER) {
            return false;
        }
        let rule = self.read();
        rule.default && rule.id == MASTER
    }
}

#[derive(Deserialize)]
struct Served<'a> {
    #[serde(borrow)]
    global: Members<'a>,
}

/// What a rule has by a name.
#[derive(Clone, Copy)]
enum Field<'a> {
    Absent,
    Value(&'a str),
    /// It is there more than once, or the rule is no object.
    Unreadable,
}

impl<'a> Field<'a> {
    fn value(self) -> Option<&'a str> {
        match self {
            Self::Value(value) => Some(value),
            Self::Absent | Self::Unreadable => None,
        }
    }

    fn flag(self, absent: bool) -> Option<bool> {
        match self {
            Self::Absent => Some(absent),
            Self::Value(value) => serde_json::from_str(value).ok(),
            Self::Unreadable => None,
        }
    }
}

/// A rule as far as it could be read.
pub(crate) struct ReadRule<'a> {
    pub(crate) kind: Kind,
    /// It is empty where it could not be read.
    pub(crate) id: Cow<'a, str>,
    pub(crate) default: bool,
    pub(crate) enabled: bool,
    /// None where something that the kind needs is absent or wrong: such a rule never matches.
    pub(crate) content: Option<Content<'a>>,
}

pub(crate) struct Content<'a> {
    is_default: bool,
    asks: Asks<'a>,
    actions: Vec<&'a str>,
}

/// What a rule asks of an event.
enum Asks<'a> {
    /// All of these.
    Conditions(Vec<&'a str>),
    /// What is in the nature of content rules, by their pattern.
    BodyMatches(Cow<'a, str>),
    /// The same of room rules, by their ID.
    IsInRoom(Cow<'a, str>),
    /// The same of sender rules, by their ID.
    IsFrom(Cow<'a, str>),
}

impl ReadRule<'_> {
    /// Tells whether the rule is only for events that do not say themselves whom they mention.
    pub(crate) fn is_legacy_mention(&self) -> bool {
        self.default && is_legacy_mention(self.kind, &self.id)
    }
}

impl Content<'_> {
    /// The conditions for this user, whose name in a default rule stands for itself: IDs of old
    /// can have `*` and `?`, and nobody meant these as wildcards.
    pub(crate) fn conditions(&self, user_id: &str) -> Vec<Condition> {
        let name = |name| self.is_default.then_some(name);
        match &self.asks {
            Asks::Conditions(conditions) => {
                let conditions = conditions.iter();
                conditions
                    .map(|condition| Condition::read(condition, name(user_id)))
                    .collect()
            }
            Asks::BodyMatches(pattern) => {
                vec![Condition::body_matches(pattern, name(localpart(user_id)))]
            }
            Asks::IsInRoom(room_id) => vec![Condition::is_in_room(room_id)],
            Asks::IsFrom(sender) => vec![Condition::is_from(sender)],
        }
    }

    /// Returns the same conditions as JSON, each as the rule has it, or as one would write what is
    /// in the nature of its kind.
    pub(crate) fn condition_texts(&self) -> Vec<String> {
        let written = match &self.asks {
            Asks::Conditions(conditions) => {
                return conditions.iter().map(|text| (*text).to_owned()).collect();
            }
            Asks::BodyMatches(pattern) => {
                json!({"kind": "event_match", "key": "content.body", "pattern": pattern})
            }
            Asks::IsInRoom(room_id) => {
                json!({"kind": "event_property_is", "key": "room_id", "value": room_id})
            }
            Asks::IsFrom(sender) => {
                json!({"kind": "event_property_is", "key": "sender", "value": sender})
            }
        };
        vec![written.to_string()]
    }

    pub(crate) fn actions(&self) -> Vec<Action> {
        let actions = self.actions.iter();
        actions.filter_map(|action| Action::read(action)).collect()
    }
}
