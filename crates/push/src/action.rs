//! What a matching rule does.

use std::fmt;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;

use crate::json::{Found, Members, string};

/// An action of a rule as evaluation gives it out [spec, "Actions"].
///
/// The legacy `dont_notify` and `coalesce` do nothing and are never given out.
#[derive(Clone)]
pub enum Action {
    /// `"notify"`: the event notifies.
    Notify,
    /// The tweak `sound` with the name of the sound.
    Sound(Box<str>),
    /// The tweak `highlight`; without a value it is `true`.
    Highlight(bool),
    /// Any other action, as the client wrote it.
    Other(Box<RawValue>),
}

const IGNORED: [&str; 2] = ["dont_notify", "coalesce"];

impl Action {
    /// Reads an action; none for those that do nothing.
    pub(crate) fn read(action: &str) -> Option<Self> {
        if let Some(name) = string(action) {
            if IGNORED.contains(&&*name) {
                return None;
            }
            if name == "notify" {
                return Some(Self::Notify);
            }
        }
        Self::read_tweak(action).or_else(|| {
            let action = RawValue::from_string(action.to_owned());
            action.ok().map(Self::Other)
        })
    }

    fn read_tweak(action: &str) -> Option<Self> {
        let members = Members::read(action)?;
        let Found::Once(tweak) = members.find("set_tweak") else {
            return None;
        };
        match (&*string(tweak)?, members.find("value")) {
            ("highlight", Found::No) => Some(Self::Highlight(true)),
            ("highlight", Found::Once(value)) => {
                serde_json::from_str(value).ok().map(Self::Highlight)
            }
            ("sound", Found::Once(value)) => string(value).map(|sound| Self::Sound(sound.into())),
            _ => None,
        }
    }
}

/// Tells whether these actions notify the user at all.
#[must_use]
pub fn notifies(actions: &[Action]) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::Notify))
}

/// Tells whether these actions highlight the event; where they do not say so, they do not.
#[must_use]
pub fn highlights(actions: &[Action]) -> bool {
    actions
        .iter()
        .any(|action| matches!(action, Action::Highlight(true)))
}

/// Returns the sound that these actions play.
#[must_use]
pub fn sound(actions: &[Action]) -> Option<&str> {
    actions.iter().find_map(|action| match action {
        Action::Sound(sound) => Some(&**sound),
        _ => None,
    })
}

impl fmt::Debug for Action {
    /// Shows nothing that a user wrote.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Notify => f.write_str("Notify"),
            Self::Sound(_) => f.write_str("Sound(..)"),
            Self::Highlight(highlight) => write!(f, "Highlight({highlight})"),
            Self::Other(_) => f.write_str("Other(..)"),
        }
    }
}

impl PartialEq for Action {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Notify, Self::Notify) => true,
            (Self::Sound(one), Self::Sound(two)) => one == two,
            (Self::Highlight(one), Self::Highlight(two)) => one == two,
            (Self::Other(one), Self::Other(two)) => one.get() == two.get(),
            _ => false,
        }
    }
}

impl Serialize for Action {
    /// Writes the action as rules can have it: tweaks with their value, also where the client left
    /// it out.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Notify => serializer.serialize_str("notify"),
            Self::Sound(sound) => {
                let mut tweak = serializer.serialize_map(Some(2))?;
                tweak.serialize_entry("set_tweak", "sound")?;
                tweak.serialize_entry("value", sound)?;
                tweak.end()
            }
            Self::Highlight(highlight) => {
                let mut tweak = serializer.serialize_map(Some(2))?;
                tweak.serialize_entry("set_tweak", "highlight")?;
                tweak.serialize_entry("value", highlight)?;
                tweak.end()
            }
            Self::Other(action) => action.serialize(serializer),
        }
    }
}
