//! JSON objects by their members, whose values stay the text that they are.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The members of an object in their order: names decoded, values byte for byte.
///
/// A name may stand there more than once, as in the text.
pub(crate) struct Members<'a>(Vec<(Name<'a>, &'a str)>);

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
        let mut values = self.0.iter().filter(|(Name(other), _)| other == name);
        match (values.next(), values.next()) {
            (None, _) => Found::No,
            (Some((_, value)), None) => Found::Once(value),
            (Some(_), Some(_)) => Found::Repeated,
        }
    }

    /// Takes out the first member of this name.
    pub(crate) fn take(&mut self, name: &str) -> Option<&'a str> {
        let place = self.0.iter().position(|(Name(other), _)| other == name)?;
        Some(self.0.remove(place).1)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &'a str)> {
        self.0
            .iter()
            .map(|(Name(name), value)| (name.as_ref(), *value))
    }

    /// Returns the object that these were read of without all members of these names, and with all
    /// else byte for byte.
    pub(crate) fn without(&self, object: &str, names: &[&str]) -> String {
        let (mut out, mut behind) = (String::from("{"), 1);
        for (index, (name, value)) in self.iter().enumerate() {
            let from = std::mem::replace(&mut behind, offset(object, value) + value.len());
            if names.contains(&name) {
                continue;
            }
            let member = &object[from..behind];
            // Between two values the first comma parts them; the first member has none before it.
            let first = member
                .split_once(',')
                .filter(|_| index > 0 && out.len() == 1);
            out.push_str(first.map_or(member, |(_, member)| member));
        }
        out.push_str(&object[behind..]);
        out
    }
}

/// Returns where a part of a text begins.
fn offset(text: &str, part: &str) -> usize {
    part.as_ptr().addr() - text.as_ptr().addr()
}

/// Returns the text with another one in the place of this part of it.
pub(crate) fn replace_part(text: &str, part: &str, other: &str) -> String {
    let at = offset(text, part);
    [&text[..at], other, &text[at + part.len()..]].concat()
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let members = deserializer.deserialize_map(MembersVisitor(PhantomData))?;
        Ok(Self(members))
    }
}

struct MembersVisitor<N>(PhantomData<N>);

/// Borrowed where the text has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de, N: Deserialize<'de>> Visitor<'de> for MembersVisitor<N> {
    type Value = Vec<(N, &'de str)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some((name, value)) = map.next_entry::<_, &RawValue>()? {
            members.push((name, value.get()));
        }
        Ok(members)
    }
}

/// Tells whether the text is JSON, whether or not its values can be read.
pub(crate) fn is_json(text: &str) -> bool {
    serde_json::from_str::<&RawValue>(text).is_ok()
}

/// Reads an object, names too as the text that they are: not each has to be Unicode.
pub(crate) fn raw_members(text: &str) -> Option<Vec<(&RawValue, &str)>> {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_map(MembersVisitor(PhantomData)).ok()
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
