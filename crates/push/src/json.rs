//! JSON objects by their members, whose values stay the text that they are.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order: names decoded, values byte for byte.
///
/// A name may stand there more than once, as in the text.
pub(crate) struct Members<'a>(Vec<(Cow<'a, str>, &'a str)>);

/// How often a member stands in an object.
pub(crate) enum Found<'a> {
    /// Not at all.
    No,
    /// Once: its value.
    Once(&'a str),
    /// More than once, so that readers would disagree about its value.
    Repeated,
}

impl<'a> Members<'a> {
    /// Reads an object; `None` for other values, and for what is not JSON.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Reads an object whose names all differ.
    pub(crate) fn read_unique(text: &'a str) -> Option<Self> {
        let members = Self::read(text)?;
        let is_once = |(name, _): (&str, _)| matches!(members.find(name), Found::Once(_));
        let are_once = members.iter().all(is_once);
        are_once.then_some(members)
    }

    pub(crate) fn find(&self, name: &str) -> Found<'a> {
        let mut values = self.0.iter().filter(|(other, _)| other == name);
        match (values.next(), values.next()) {
            (None, _) => Found::No,
            (Some((_, value)), None) => Found::Once(value),
            (Some(_), Some(_)) => Found::Repeated,
        }
    }

    /// Takes out the first member of this name.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a str> {
        let place = self.0.iter().position(|(other, _)| other == name)?;
        Some(self.0.remove(place).1)
    }

    /// Drops all members of these names; tells whether there were any.
    pub(crate) fn drop_all(&mut self, names: &[&str]) -> bool {
        let count = self.0.len();
        self.0.retain(|(name, _)| !names.contains(&name.as_ref()));
        self.0.len() != count
    }

    /// Puts another value in the place of each member of this name.
    pub(crate) fn replace(&mut self, name: &str, value: &'a str) {
        let members = self.0.iter_mut().filter(|(other, _)| other == name);
        members.for_each(|member| member.1 = value);
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0.iter().map(|(name, value)| (name.as_ref(), *value))
    }

    pub(crate) fn write(&self) -> String {
        let mut out = String::from("{");
        for (name, value) in self.iter() {
            push_member(&mut out, name, value);
        }
        out.push('}');
        out
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

/// Borrowed where the text has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((Name(name), value)) = map.next_entry::<_, &RawValue>()? {
            members.push((name, value.get()));
        }
        Ok(Members(members))
    }
}

/// Reads a list; `None` for other values, and for what is not JSON.
pub(crate) fn items(text: &str) -> Option<Vec<&str>> {
    let items: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    Some(items.into_iter().map(RawValue::get).collect())
}

/// Reads a string; `None` for other values, and where it is no Unicode (a lone surrogate).
pub(crate) fn string(text: &str) -> Option<Cow<'_, str>> {
    serde_json::from_str::<Name<'_>>(text)
        .ok()
        .map(|Name(text)| text)
}

/// Writes `"name":value`, with a comma where the object or list so far has something.
pub(crate) fn push_member(out: &mut String, name: &str, value: &str) {
    push_comma(out);
    push_string(out, name);
    out.push(':');
    out.push_str(value);
}

/// Writes a comma unless an object or a list has just begun.
pub(crate) fn push_comma(out: &mut String) {
    if !out.ends_with(['{', '[']) {
        out.push(',');
    }
}

pub(crate) fn push_string(out: &mut String, text: &str) {
    let is_special = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
    if text.bytes().any(is_special) {
        out.push_str(&serde_json::to_string(text).expect("a string is serialisable"));
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}

/// Returns a truth value as JSON has it.
pub(crate) const fn truth(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

/// Returns how deep brackets nest outside of strings; what is not JSON has a depth too.
pub(crate) fn depth(text: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}
