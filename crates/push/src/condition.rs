//! Conditions: what a rule asks of an event.

use std::borrow::Cow;

use crate::context::MemberContext;
use crate::event::{FlatEvent, Scalar, Value};
use crate::fact::Fact;
use crate::json::{Found, Members, string};
use crate::limits::PATTERN_CHARS_MAX;
use crate::path::Path;
use crate::pattern::{Pattern, has_words, lower, required_run, required_word};

/// A condition [spec, "Conditions"], made ready to be asked of many events.
#[derive(Clone, PartialEq)]
pub(crate) enum Condition {
    /// The text at the path matches the pattern: as a whole, and in `content.body` its words.
    EventMatch {
        path: Path,
        pattern: Pattern,
        fact: Fact,
    },
    EventPropertyIs {
        path: Path,
        value: Scalar,
    },
    EventPropertyContains {
        path: Path,
        value: Scalar,
    },
    ContainsDisplayName,
    RoomMemberCount {
        comparison: Comparison,
        count: u64,
    },
    SenderNotificationPermission {
        key: Box<str>,
    },
    /// It never holds.
    Never(Never),
}

/// Why a condition never holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Never {
    NotAnObject,
    UnknownKind,
    /// A field is absent or not what the kind needs.
    Field(&'static str),
    /// The pattern has more than [`PATTERN_CHARS_MAX`] characters.
    LongPattern,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    Less,
    Greater,
    AtLeast,
    AtMost,
}

/// What an event and its room say to a condition.
pub(crate) enum Seen<'a> {
    /// There is no such property.
    NoProperty,
    /// The property.
    Value(&'a Value),
    /// The display name and the body, which is none where it is no text.
    DisplayName {
        name: &'a str,
        body: Option<&'a Value>,
    },
    JoinedMembers(u64),
    PowerLevels {
        sender: Option<i64>,
        needed: i64,
    },
    /// The condition asks nothing.
    Nothing,
}

impl Condition {
    /// Reads a condition as rules have it. What is wrong with it makes that it never holds.
    ///
    /// A pattern that is `name` has no wildcards.
    pub(crate) fn read(condition: &str, name: Option<&str>) -> Self {
        match Members::read(condition) {
            Some(members) => Self::of_members(&members, name).unwrap_or_else(Self::Never),
            None => Self::Never(Never::NotAnObject),
        }
    }

    /// The condition of a content rule, whose pattern has no wildcards where it is `name`.
    pub(crate) fn body_matches(pattern: &str, name: Option<&str>) -> Self {
        Self::event_match(Path::body(), pattern, name)
    }

    /// The condition of a room rule.
    pub(crate) fn is_in_room(room_id: &str) -> Self {
        Self::EventPropertyIs {
            path: Path::room_id(),
            value: Scalar::Text(room_id.into()),
        }
    }

    /// The condition of a sender rule.
    pub(crate) fn is_from(sender: &str) -> Self {
        Self::EventPropertyIs {
            path: Path::sender(),
            value: Scalar::Text(sender.into()),
        }
    }

    fn of_members(members: &Members<'_>, name: Option<&str>) -> Result<Self, Never> {
        match &*text(members, "kind")? {
            "event_match" => {
                let path = Path::parse(&text(members, "key")?);
                Ok(Self::event_match(path, &text(members, "pattern")?, name))
            }
            "event_property_is" => Ok(Self::EventPropertyIs {
                path: Path::parse(&text(members, "key")?),
                value: value(members)?,
            }),
            "event_property_contains" => Ok(Self::EventPropertyContains {
                path: Path::parse(&text(members, "key")?),
                value: value(members)?,
            }),
            "contains_display_name" => Ok(Self::ContainsDisplayName),
            "room_member_count" => {
                let (comparison, count) =
                    member_count(&text(members, "is")?).ok_or(Never::Field("is"))?;
                Ok(Self::RoomMemberCount { comparison, count })
            }
            "sender_notification_permission" => Ok(Self::SenderNotificationPermission {
                key: text(members, "key")?.into(),
            }),
            _ => Err(Never::UnknownKind),
        }
    }

    fn event_match(path: Path, text: &str, name: Option<&str>) -> Self {
        if text.chars().nth(PATTERN_CHARS_MAX).is_some() {
            return Self::Never(Never::LongPattern);
        }
        let words = path.is_body();
        let pattern = match (words, name == Some(text)) {
            (false, false) => Pattern::whole(text),
            (false, true) => Pattern::whole_name(text),
            (true, false) => Pattern::words(text),
            (true, true) => Pattern::words_of_name(text),
        };
        let text = lower(text);
        let of_body = || {
            let word = required_word(&text).map(Fact::word);
            word.or_else(|| required_run(&text).map(Fact::run))
        };
        let fact = match pattern.literal() {
            Some(literal) => Some(Fact::lowered(path.hash(), literal)),
            None if words => of_body(),
            None => None,
        };
        let fact = fact.unwrap_or(Fact::text(path.hash()));
        Self::EventMatch {
            path,
            pattern,
            fact,
        }
    }

    pub(crate) fn is_never(&self) -> bool {
        matches!(self, Self::Never(_))
    }

    /// Returns a fact without which the condition does not hold, and how few events have it.
    pub(crate) fn needed_fact(&self) -> (Rarity, Fact) {
        match self {
            Self::EventMatch { path, fact, .. } if *fact == Fact::text(path.hash()) => {
                (Rarity::Common, *fact)
            }
            Self::EventMatch { path, fact, .. } if path.is_type() => (Rarity::Often, *fact),
            Self::EventMatch { fact, .. } => (Rarity::Rare, *fact),
            Self::EventPropertyIs { path, value } => (Rarity::Rare, Fact::is(path.hash(), value)),
            Self::EventPropertyContains { path, value } => {
                (Rarity::Rare, Fact::contains(path.hash(), value))
            }
            Self::ContainsDisplayName => (Rarity::Common, Fact::text(Path::body().hash())),
            Self::RoomMemberCount { .. }
            | Self::SenderNotificationPermission { .. }
            | Self::Never(_) => (Rarity::Always, Fact::TRUTH),
        }
    }

    /// Tells whether the condition holds. Nothing is allocated but for long display names, as
    /// [`has_words`] says.
    pub(crate) fn holds(&self, event: &FlatEvent, member: &MemberContext<'_>) -> bool {
        match (self, self.see(event, member)) {
            (Self::EventMatch { pattern, .. }, Seen::Value(Value::Text(text))) => {
                pattern.matches_lowered(text.lowered())
            }
            (Self::EventPropertyIs { value, .. }, Seen::Value(seen)) => seen.is(value),
            (Self::EventPropertyContains { value, .. }, Seen::Value(seen)) => seen.contains(value),
            (Self::ContainsDisplayName, Seen::DisplayName { name, body }) => body.is_some_and(
                |body| matches!(body, Value::Text(body) if has_words(body.lowered(), name)),
            ),
            (Self::RoomMemberCount { comparison, count }, Seen::JoinedMembers(joined)) => {
                comparison.holds(joined, *count)
            }
            (Self::SenderNotificationPermission { .. }, Seen::PowerLevels { sender, needed }) => {
                sender.is_some_and(|sender| sender >= needed)
            }
            _ => false,
        }
    }

    /// Looks up what the condition asks about.
    pub(crate) fn see<'a>(&self, event: &'a FlatEvent, member: &MemberContext<'a>) -> Seen<'a> {
        match self {
            Self::EventMatch { path, .. }
            | Self::EventPropertyIs { path, .. }
            | Self::EventPropertyContains { path, .. } => {
                event.get(path).map_or(Seen::NoProperty, Seen::Value)
            }
            Self::ContainsDisplayName => Seen::DisplayName {
                name: member.display_name(),
                body: event.body(),
            },
            Self::RoomMemberCount { .. } => Seen::JoinedMembers(member.room().joined_members),
            Self::SenderNotificationPermission { key } => Seen::PowerLevels {
                sender: member.room().sender_power_level,
                needed: member.room().notification_level(key),
            },
            Self::Never(_) => Seen::Nothing,
        }
    }
}

/// How few events have a fact: the fewer, the better it tells that a rule does not match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rarity {
    Always,
    Common,
    Often,
    Rare,
}

impl Comparison {
    fn holds(self, joined: u64, count: u64) -> bool {
        match self {
            Self::Equal => joined == count,
            Self::Less => joined < count,
            Self::Greater => joined > count,
            Self::AtLeast => joined >= count,
            Self::AtMost => joined <= count,
        }
    }
}

fn text<'a>(members: &Members<'a>, name: &'static str) -> Result<Cow<'a, str>, Never> {
    match members.find(name) {
        Found::Once(text) => string(text).ok_or(Never::Field(name)),
        Found::No | Found::Repeated => Err(Never::Field(name)),
    }
}

fn value(members: &Members<'_>) -> Result<Scalar, Never> {
    let Found::Once(value) = members.find("value") else {
        return Err(Never::Field("value"));
    };
    let value = serde_json::from_str(value).ok();
    value
        .and_then(|value| Scalar::of(value).ok())
        .ok_or(Never::Field("value"))
}

/// Reads `is` of a count of members: digits, behind one of the comparisons or none.
fn member_count(is: &str) -> Option<(Comparison, u64)> {
    // The longer ones first: one begins with another.
    let comparisons = [
        ("==", Comparison::Equal),
        ("<=", Comparison::AtMost),
        (">=", Comparison::AtLeast),
        ("<", Comparison::Less),
        (">", Comparison::Greater),
        ("", Comparison::Equal),
    ];
    let (digits, comparison) = comparisons
        .into_iter()
        .find_map(|(sign, comparison)| Some((is.strip_prefix(sign)?, comparison)))?;
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // What is larger than any room compares like the largest count.
    Some((comparison, digits.parse().unwrap_or(u64::MAX)))
}
