//! Events, flattened once for all members of a room.

use std::fmt;

use serde_json::{Map, Value as Json};

use crate::fact::{Fact, Facts};
use crate::json::{depth, is_json, items, raw_members, string};
use crate::path::{Path, PathHasher};
use crate::pattern::{is_word, lower, runs};

/// The largest integer that events may have, and with a minus the smallest [spec, "Canonical
/// JSON"].
pub(crate) const INTEGER_MAX: i64 = (1 << 53) - 1;

/// Nesting of events, which is what the reader of JSON allows too.
const EVENT_DEPTH_MAX: usize = 127;

const MINUS_ZERO: u64 = (-0.0_f64).to_bits();

/// Where events name whom they mention [spec, "User and room mentions"].
const MENTIONS: &str = r"content.m\.mentions";

/// An event as conditions see it: each property by its path, prepared for any number of rules.
///
/// Texts are there in lower case too, so that nothing of this is done again for each member. The
/// memory is in proportion to the event, however deep it is.
#[derive(Clone)]
pub struct FlatEvent {
    /// Objects too, since they are the parents of others.
    properties: Vec<Property>,
    /// The hash of each path with its property's place above, sorted.
    paths: Vec<(u64, u32)>,
    facts: Facts,
    sender: Option<Box<str>>,
    body: Option<u32>,
    has_mentions: bool,
}

/// Why a text is no event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// It is no JSON, or nests more than 127 deep.
    #[error("the event is not JSON: {0}")]
    NotJson(serde_json::Error),
    /// It is JSON, but no object.
    #[error("the event is not a JSON object")]
    NotAnObject,
}

/// A value that conditions compare: all of JSON without fractions, arrays and objects.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer of at most `INTEGER_MAX`, whatever its sign.
    Integer(i64),
    /// A text.
    Text(Box<str>),
}

#[derive(Clone)]
struct Property {
    name: Box<str>,
    /// Where the object that it is in stands; none for those of the event itself.
    parent: Option<u32>,
    value: Value,
}

/// What a property is.
#[derive(Clone)]
pub(crate) enum Value {
    Text(Text),
    /// Never a text.
    Scalar(Scalar),
    /// Of an array, the elements that can be compared.
    Array(Vec<Scalar>),
    /// An object, or what cannot be read: nothing is equal to it.
    Object,
    /// A fraction or an integer beyond what events may have: nothing is equal to it.
    Number(serde_json::Number),
}

/// A text and its lower case.
#[derive(Clone)]
pub(crate) struct Text {
    exact: Box<str>,
    /// Absent where it is the same.
    lowered: Option<Box<str>>,
}

impl FlatEvent {
    /// Flattens an event, given as JSON in any of its formats.
    ///
    /// What only a server adds (`room_id`, `sender`) has to be there for rules that ask for it; see
    /// [`FlatEvent::in_room`]. Where a name stands twice in an object the later one counts. A number
    /// too large for any type and a text that is no Unicode (a lone surrogate) are equal to nothing
    /// and hide nothing else.
    ///
    /// # Errors
    ///
    /// [`EventError`] for what is no JSON object.
    pub fn parse(event: &str) -> Result<Self, EventError> {
        read(event).map(Self::new)
    }

    /// Flattens an event of a room as sync tells it to clients, which is without `room_id`.
    ///
    /// # Errors
    ///
    /// [`EventError`] for what is no JSON object.
    pub fn in_room(event: &str, room_id: &str) -> Result<Self, EventError> {
        let mut fields = read(event)?;
        fields.insert("room_id".to_owned(), room_id.into());
        Ok(Self::new(fields))
    }

    /// Returns the user who sent the event.
    #[must_use]
    pub fn sender(&self) -> Option<&str> {
        self.sender.as_deref()
    }

    /// Tells whether the event says itself whom it mentions, so that its body need not.
    pub(crate) fn has_mentions(&self) -> bool {
        self.has_mentions
    }

    pub(crate) fn body(&self) -> Option<&Value> {
        self.body
            .map(|place| &self.properties[place as usize].value)
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Value> {
        self.find(path)
            .map(|place| &self.properties[place as usize].value)
    }

    fn find(&self, path: &Path) -> Option<u32> {
        let first = self.paths.partition_point(|(hash, _)| *hash < path.hash());
        let same_hash = self.paths[first..]
            .iter()
            .take_while(|(hash, _)| *hash == path.hash());
        same_hash
            .map(|(_, place)| *place)
            .find(|place| self.is_at(*place, path))
    }

    /// Compares names from the last one upwards.
    fn is_at(&self, place: u32, path: &Path) -> bool {
        let mut next = Some(place);
        for name in path.names().iter().rev() {
            let property = next.map(|place| &self.properties[place as usize]);
            match property {
                Some(property) if property.name == *name => next = property.parent,
                _ => return false,
            }
        }
        next.is_none()
    }

    fn new(fields: Map<String, Json>) -> Self {
        let mut flattening = Flattening::default();
        flattening.object(fields, None, &PathHasher::new());
        flattening.paths.sort_unstable();
        let mut event = Self {
            facts: Facts::new(flattening.facts),
            paths: flattening.paths,
            properties: flattening.properties,
            sender: None,
            body: None,
            has_mentions: false,
        };
        event.body = event.find(&Path::body());
        event.has_mentions = event.find(&Path::parse(MENTIONS)).is_some();
        if let Some(Value::Text(sender)) = event.get(&Path::sender()) {
            event.sender = Some(sender.exact.clone());
        }
        event
    }
}

impl fmt::Debug for FlatEvent {
    /// Shows nothing of what the event says.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlatEvent").finish_non_exhaustive()
    }
}

/// Reads an event; what of it cannot be read stands there as an empty object.
fn read(event: &str) -> Result<Map<String, Json>, EventError> {
    let read = serde_json::from_str(event).or_else(|error| {
        // The second way goes on where the first one gives up, and is for few events: it looks at
        // a text once for each level around it.
        let is_json = depth(event) <= EVENT_DEPTH_MAX && is_json(event);
        is_json.then(|| read_rest(event)).ok_or(error)
    });
    match read.map_err(EventError::NotJson)? {
        Json::Object(fields) => Ok(fields),
        _ => Err(EventError::NotAnObject),
    }
}

/// Calls itself once a level, of which there are [`EVENT_DEPTH_MAX`] at most.
fn read_rest(text: &str) -> Json {
    if let Some(elements) = items(text) {
        return elements.into_iter().map(read_rest).collect();
    }
    if let Some(members) = raw_members(text) {
        let members = members.into_iter();
        let known =
            members.filter_map(|(name, value)| Some((string(name.get())?.into_owned(), value)));
        return known
            .map(|(name, value)| (name, read_rest(value)))
            .collect();
    }
    serde_json::from_str(text).unwrap_or_else(|_| Map::new().into())
}

#[derive(Default)]
struct Flattening {
    properties: Vec<Property>,
    paths: Vec<(u64, u32)>,
    facts: Vec<Fact>,
}

impl Flattening {
    /// Calls itself once a level; the parser has bounded these.
    fn object(&mut self, fields: Map<String, Json>, parent: Option<u32>, above: &PathHasher) {
        for (name, value) in fields {
            let mut path = above.clone();
            path.enter(&name);
            let place = u32::try_from(self.properties.len()).expect("a text has fewer properties");
            self.paths.push((path.finish(), place));
            let (value, fields) = match value {
                Json::Object(fields) => (Value::Object, Some(fields)),
                other => (Value::of(other), None),
            };
            self.say(path.finish(), &value);
            let is_body = parent.is_some_and(|parent| self.is_content(parent)) && name == "body";
            if is_body && let Value::Text(text) = &value {
                self.say_words(text.lowered());
            }
            self.properties.push(Property {
                name: name.into(),
                parent,
                value,
            });
            if let Some(fields) = fields {
                self.object(fields, Some(place), &path);
            }
        }
    }

    fn is_content(&self, place: u32) -> bool {
        let property = &self.properties[place as usize];
        property.parent.is_none() && &*property.name == "content"
    }

    fn say(&mut self, path: u64, value: &Value) {
        match value {
            Value::Text(text) => {
                let exact = Scalar::Text(text.exact.clone());
                self.facts.push(Fact::text(path));
                self.facts.push(Fact::lowered(path, text.lowered()));
                self.facts.push(Fact::is(path, &exact));
            }
            Value::Scalar(scalar) => self.facts.push(Fact::is(path, scalar)),
            Value::Array(elements) => {
                let facts = elements.iter().map(|element| Fact::contains(path, element));
                self.facts.extend(facts);
            }
            Value::Object | Value::Number(_) => {}
        }
    }

    fn say_words(&mut self, lowered: &str) {
        let words = lowered.split(|c: char| !u8::try_from(c).is_ok_and(is_word));
        let words = words.filter(|word| !word.is_empty());
        self.facts.extend(words.map(Fact::word));
        self.facts.extend(runs(lowered).map(Fact::run));
    }
}

impl Value {
    fn of(json: Json) -> Self {
        match Scalar::of(json) {
            Ok(Scalar::Text(exact)) => Self::Text(Text::new(exact)),
            Ok(scalar) => Self::Scalar(scalar),
            Err(Json::Array(elements)) => {
                let elements = elements.into_iter().map(Scalar::of);
                Self::Array(elements.filter_map(Result::ok).collect())
            }
            Err(Json::Number(number)) => Self::Number(number),
            Err(_) => Self::Object,
        }
    }

    /// Tells whether this is exactly that value, of the same type.
    pub(crate) fn is(&self, wanted: &Scalar) -> bool {
        match (self, wanted) {
            (Self::Text(text), Scalar::Text(wanted)) => text.exact == *wanted,
            (Self::Scalar(scalar), wanted) => scalar == wanted,
            _ => false,
        }
    }

    pub(crate) fn contains(&self, wanted: &Scalar) -> bool {
        matches!(self, Self::Array(elements) if elements.contains(wanted))
    }
}

impl Text {
    fn new(exact: Box<str>) -> Self {
        let lowered = match lower(&exact) {
            std::borrow::Cow::Owned(lowered) => Some(lowered.into_boxed_str()),
            std::borrow::Cow::Borrowed(_) => None,
        };
        Self { exact, lowered }
    }

    pub(crate) fn exact(&self) -> &str {
        &self.exact
    }

    pub(crate) fn lowered(&self) -> &str {
        self.lowered.as_deref().unwrap_or(&self.exact)
    }
}

impl Scalar {
    /// Takes a JSON value that conditions can compare, and gives any other back.
    pub(crate) fn of(json: Json) -> Result<Self, Json> {
        match json {
            Json::Null => Ok(Self::Null),
            Json::Bool(bool) => Ok(Self::Bool(bool)),
            Json::String(text) => Ok(Self::Text(text.into())),
            // `-0`, which readers of JSON take for a fraction.
            Json::Number(number) if number.as_f64().map(f64::to_bits) == Some(MINUS_ZERO) => {
                Ok(Self::Integer(0))
            }
            Json::Number(number) => match number.as_i64() {
                Some(integer) if integer.unsigned_abs() <= INTEGER_MAX.unsigned_abs() => {
                    Ok(Self::Integer(integer))
                }
                _ => Err(Json::Number(number)),
            },
            other => Err(other),
        }
    }
}
