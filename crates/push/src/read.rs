//! Reads the served rules, one by one: what is wrong with one hides no other.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

use crate::Kind;
use crate::action::Action;
use crate::condition::Condition;

/// The rule that comes before all others, the user's too [spec, "Default Rules"].
const MASTER: &str = ".m.rule.master";
/// The default rules that look for names in the body. They are not for events that say themselves
/// whom they mention.
const LEGACY_MENTIONS: [(Kind, &str); 3] = [
    (Kind::Override, ".m.rule.contains_display_name"),
    (Kind::Override, ".m.rule.roomnotif"),
    (Kind::Content, ".m.rule.contains_user_name"),
];

/// A rule as it stands in the served text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ServedRule<'a> {
    pub(crate) kind: Kind,
    pub(crate) json: &'a str,
}

/// Returns all rules in the order of evaluation. A text, or a part of it, that is not as it should
/// be has none.
pub(crate) fn rules(served: &str) -> Vec<ServedRule<'_>> {
    let mut rules = Vec::new();
    let Some(global) = global(served) else {
        return rules;
    };
    for kind in Kind::ALL {
        let json = global.of(kind).map_or("[]", RawValue::get);
        let of_kind: Vec<&RawValue> = serde_json::from_str(json).unwrap_or_default();
        let of_kind = of_kind.into_iter().map(RawValue::get);
        rules.extend(of_kind.map(|json| ServedRule { kind, json }));
    }
    if let Some(master) = rules.iter().position(ServedRule::is_master) {
        rules[..=master].rotate_right(1);
    }
    rules
}

fn global(served: &str) -> Option<Global<'_>> {
    let served: Served<'_> = serde_json::from_str(served).ok()?;
    serde_json::from_str(served.global?.get()).ok()
}

impl<'a> ServedRule<'a> {
    /// Reads the rule as far as it can be read.
    pub(crate) fn read(&self) -> ReadRule<'a> {
        let fields: Fields<'a> = serde_json::from_str(self.json).unwrap_or_default();
        let id: Option<Cow<'a, str>> = fields.rule_id.and_then(text);
        let flag = |field: Option<&RawValue>, absent| {
            field.map_or(Some(absent), |flag| serde_json::from_str(flag.get()).ok())
        };
        let default = flag(fields.default, false);
        let enabled = flag(fields.enabled, true);
        let asks = id.clone().and_then(|id| self.asks(&fields, id));
        let actions = fields.actions.and_then(elements);
        let content = match (asks, actions, default, enabled) {
            (Some(asks), Some(actions), Some(_), Some(_)) => Some(Content { asks, actions }),
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

    fn asks(&self, fields: &Fields<'a>, id: Cow<'a, str>) -> Option<Asks<'a>> {
        match self.kind {
            // Without conditions a rule matches always [spec, "Push Rules"].
            Kind::Override | Kind::Underride => match fields.conditions {
                Some(conditions) => elements(conditions).map(Asks::Conditions),
                None => Some(Asks::Conditions(Vec::new())),
            },
            Kind::Content => fields.pattern.and_then(text).map(Asks::BodyMatches),
            Kind::Room => Some(Asks::IsInRoom(id)),
            Kind::Sender => Some(Asks::IsFrom(id)),
        }
    }

    fn is_master(&self) -> bool {
        // The search spares the reading of nearly all.
        if self.kind != Kind::Override || !self.json.contains(MASTER) {
            return false;
        }
        let rule = self.read();
        rule.default && rule.id == MASTER
    }
}

/// A rule as far as it could be read.
#[derive(Debug)]
pub(crate) struct ReadRule<'a> {
    pub(crate) kind: Kind,
    /// It is empty where it could not be read.
    pub(crate) id: Cow<'a, str>,
    pub(crate) default: bool,
    pub(crate) enabled: bool,
    /// None where something that the kind needs is absent or wrong: such a rule never matches.
    pub(crate) content: Option<Content<'a>>,
}

#[derive(Debug)]
pub(crate) struct Content<'a> {
    asks: Asks<'a>,
    actions: Vec<&'a RawValue>,
}

/// What a rule asks of an event.
#[derive(Debug)]
enum Asks<'a> {
    /// All of these.
    Conditions(Vec<&'a RawValue>),
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
        self.default && LEGACY_MENTIONS.contains(&(self.kind, &self.id))
    }
}

impl Content<'_> {
    pub(crate) fn conditions(&self) -> Vec<Condition> {
        match &self.asks {
            Asks::Conditions(conditions) => {
                let conditions = conditions.iter();
                conditions.map(|json| Condition::read(json.get())).collect()
            }
            Asks::BodyMatches(pattern) => vec![Condition::body_matches(pattern)],
            Asks::IsInRoom(room_id) => vec![Condition::is_in_room(room_id)],
            Asks::IsFrom(sender) => vec![Condition::is_from(sender)],
        }
    }

    /// Returns the same conditions as JSON, each as the rule has it, or as one would write what is
    /// in the nature of its kind.
    pub(crate) fn conditions_json(&self) -> Vec<Box<RawValue>> {
        let written = match &self.asks {
            Asks::Conditions(conditions) => {
                return conditions.iter().map(|json| (*json).to_owned()).collect();
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
        vec![to_raw_value(&written).expect("a value is serialisable")]
    }

    pub(crate) fn actions(&self) -> Vec<Action> {
        let actions = self.actions.iter();
        actions.filter_map(|action| Action::read(action)).collect()
    }
}

#[derive(Deserialize)]
struct Served<'a> {
    #[serde(borrow)]
    global: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Global<'a> {
    #[serde(borrow, rename = "override")]
    overrides: Option<&'a RawValue>,
    #[serde(borrow)]
    content: Option<&'a RawValue>,
    #[serde(borrow)]
    room: Option<&'a RawValue>,
    #[serde(borrow)]
    sender: Option<&'a RawValue>,
    #[serde(borrow)]
    underride: Option<&'a RawValue>,
}

impl<'a> Global<'a> {
    fn of(&self, kind: Kind) -> Option<&'a RawValue> {
        match kind {
            Kind::Override => self.overrides,
            Kind::Content => self.content,
            Kind::Room => self.room,
            Kind::Sender => self.sender,
            Kind::Underride => self.underride,
        }
    }
}

#[derive(Default, Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    rule_id: Option<&'a RawValue>,
    #[serde(borrow)]
    default: Option<&'a RawValue>,
    #[serde(borrow)]
    enabled: Option<&'a RawValue>,
    #[serde(borrow)]
    actions: Option<&'a RawValue>,
    #[serde(borrow)]
    conditions: Option<&'a RawValue>,
    #[serde(borrow)]
    pattern: Option<&'a RawValue>,
}

fn elements(array: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(array.get()).ok()
}

fn text(text: &RawValue) -> Option<Cow<'_, str>> {
    let Text(text) = serde_json::from_str(text.get()).ok()?;
    Some(text)
}

/// Serde borrows a text where it can only inside of a type.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
