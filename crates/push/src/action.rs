//! What a matching rule does.

use std::borrow::Cow;

use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

/// An action of a rule as evaluation gives it out [spec, "Actions"].
///
/// The legacy `dont_notify` and `coalesce` do nothing and are never given out.
#[derive(Clone, Debug)]
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
    pub(crate) fn read(action: &RawValue) -> Option<Self> {
        if let Ok(name) = serde_json::from_str::<Cow<'_, str>>(action.get()) {
            if IGNORED.contains(&&*name) {
                return None;
            }
            if name == "notify" {
                return Some(Self::Notify);
            }
        }
        let tweak: Option<Tweak<'_>> = serde_json::from_str(action.get()).ok();
        let tweak = tweak.as_ref().and_then(Self::of_tweak);
        Some(tweak.unwrap_or_else(|| Self::Other(action.to_owned())))
    }

    fn of_tweak(tweak: &Tweak<'_>) -> Option<Self> {
        let value = tweak.value.map(RawValue::get);
        match (&*tweak.set_tweak, value) {
            ("highlight", None) => Some(Self::Highlight(true)),
            ("highlight", Some(value)) => serde_json::from_str(value).ok().map(Self::Highlight),
            ("sound", Some(value)) => serde_json::from_str(value).ok().map(Self::Sound),
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Tweak<'a> {
    #[serde(borrow)]
    set_tweak: Cow<'a, str>,
    #[serde(borrow)]
    value: Option<&'a RawValue>,
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
    /// Writes the action as rules have it.
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
