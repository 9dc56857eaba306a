//! A JSON pointer (RFC 6901), looked up in a content without building it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use thiserror::Error;

use crate::{Content, limit};

/// A place in a JSON value (RFC 6901), such as `/capabilities/room_versions/0`.
///
/// The empty pointer is the whole value. `~1` stands for `/` in a name, and `~0` for `~`. At most
/// [`limit::POINTER_BYTES_MAX`] bytes and [`limit::POINTER_NAMES_MAX`] names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pointer {
    text: Box<str>,
    /// The names between the slashes, read.
    names: Box<[String]>,
}

/// Why a string is not a [`Pointer`].
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum PointerError {
    /// It is not empty and does not begin with a slash.
    #[error("a JSON pointer is empty or begins with `/`")]
    NoSlash,
    /// A `~` that is not followed by 0 or 1.
    #[error("in a JSON pointer `~` is written `~0`, and `/` within a name `~1`")]
    Escape,
    /// More names than the limit.
    #[error("the JSON pointer has more than {limit} names")]
    TooDeep {
        /// How many are allowed.
        limit: usize,
    },
    /// More bytes than the limit.
    #[error("the JSON pointer is longer than {limit_bytes} bytes")]
    TooLong {
        /// How many are allowed.
        limit_bytes: usize,
    },
}

impl Pointer {
    /// Reads a pointer.
    /// # Errors
    /// [`PointerError`].
    pub fn parse(text: &str) -> Result<Self, PointerError> {
        let limit_bytes = limit::POINTER_BYTES_MAX;
        if text.len() > limit_bytes {
            return Err(PointerError::TooLong { limit_bytes });
        }
        let mut names = text.split('/');
        if names.next() != Some("") {
            return Err(PointerError::NoSlash);
        }
        let names = names.map(unescaped).collect::<Result<Box<[_]>, _>>()?;
        let limit = limit::POINTER_NAMES_MAX;
        if names.len() > limit {
            return Err(PointerError::TooDeep { limit });
        }
        let text = text.into();
        Ok(Self { text, names })
    }

    /// Returns the pointer as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the JSON text of the value at this place of a content; `None` where there is none.
    ///
    /// The text stands in the content, byte for byte; nothing is built, and what lies elsewhere is
    /// passed over. Of duplicate members the last one counts.
    #[must_use]
    pub fn find<'a>(&self, content: &'a Content) -> Option<&'a str> {
        let mut value = content.as_str();
        for name in &self.names {
            value = child(value, name)?;
        }
        Some(value)
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

fn unescaped(name: &str) -> Result<String, PointerError> {
    let mut parts = name.split('~');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (mark, rest) = part.split_at_checked(1).ok_or(PointerError::Escape)?;
        out.push(match mark {
            "0" => '~',
            "1" => '/',
            _ => return Err(PointerError::Escape),
        });
        out.push_str(rest);
    }
    Ok(out)
}

/// Returns the member or element `name` of a value, both as JSON text.
///
/// Level by level, each with a reader of its own: one reader for all of them would end at its bound
/// of nesting, and at a number beyond its range, which a content may both have.
fn child<'a>(value: &'a str, name: &str) -> Option<&'a str> {
    match value.as_bytes().first()? {
        b'{' => member(value, name),
        b'[' => element(value, index(name)?),
        _ => None,
    }
}

/// Returns the last member `name` of an object, both as JSON text.
pub(crate) fn member<'a>(object: &'a str, name: &str) -> Option<&'a str> {
    let mut reader = serde_json::Deserializer::from_str(object);
    reader.deserialize_map(Member(name)).ok().flatten()
}

/// Calls `visit` with the JSON text of each element of an array until it returns true, and tells
/// whether it did.
pub(crate) fn any_element(array: &str, visit: impl FnMut(&str) -> bool) -> bool {
    let mut reader = serde_json::Deserializer::from_str(array);
    reader.deserialize_seq(AnyElement(visit)).unwrap_or(false)
}

fn element(array: &str, index: usize) -> Option<&str> {
    let mut reader = serde_json::Deserializer::from_str(array);
    reader.deserialize_seq(Element(index)).ok().flatten()
}

/// RFC 6901: digits without a leading zero. `-`, the element behind the last, never is there.
fn index(name: &str) -> Option<usize> {
    let is_digits = name.bytes().all(|byte| byte.is_ascii_digit());
    let leads = name.len() > 1 && name.starts_with('0');
    if !is_digits || leads {
        return None;
    }
    name.parse().ok()
}

struct Member<'a>(&'a str);

impl<'de> Visitor<'de> for Member<'_> {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = None;
        while let Some(is_wanted) = map.next_key_seed(Is(self.0))? {
            if is_wanted {
                found = Some(map.next_value::<&RawValue>()?.get());
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(found)
    }
}

/// Whether a name is the wanted one.
struct Is<'a>(&'a str);

impl<'de> DeserializeSeed<'de> for Is<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<bool, D::Error> {
        // Asking for bytes makes serde_json let lone surrogates pass, which JSON allows.
        deserializer.deserialize_bytes(self)
    }
}

impl Visitor<'_> for Is<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<bool, E> {
        Ok(bytes == self.0.as_bytes())
    }
}

struct Element(usize);

impl<'de> Visitor<'de> for Element {
    type Value = Option<&'de str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        for _ in 0..self.0 {
            if seq.next_element::<IgnoredAny>()?.is_none() {
                return Ok(None);
            }
        }
        let found = seq.next_element::<&RawValue>()?.map(RawValue::get);
        // To the end, since a reader refuses an array that was left in the middle.
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(found)
    }
}

struct AnyElement<F>(F);

impl<'de, F: FnMut(&str) -> bool> Visitor<'de> for AnyElement<F> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut seq: A) -> Result<bool, A::Error> {
        let mut was_found = false;
        while let Some(element) = seq.next_element::<&RawValue>()? {
            was_found = was_found || (self.0)(element.get());
        }
        Ok(was_found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    fn find(pointer: &str, content: &str) -> Option<String> {
        let content = Content::parse(content.to_owned().into(), &Limits::default()).unwrap();
        let found = Pointer::parse(pointer).unwrap().find(&content);
        found.map(str::to_owned)
    }

    #[test]
    fn the_table_of_the_rfc() {
        let content = r#"{"foo": ["bar", "baz"], "": 0, "a/b": 1, "c%d": 2, "e^f": 3, "g|h": 4,
            "i\\j": 5, "k\"l": 6, " ": 7, "m~n": 8}"#;
        assert_eq!(find("", content).as_deref(), Some(content));
        let rows = [
            ("/foo", r#"["bar", "baz"]"#),
            ("/foo/0", "\"bar\""),
            ("/", "0"),
            ("/a~1b", "1"),
            ("/c%d", "2"),
            ("/e^f", "3"),
            ("/g|h", "4"),
            ("/i\\j", "5"),
            ("/k\"l", "6"),
            ("/ ", "7"),
            ("/m~0n", "8"),
        ];
        for (pointer, value) in rows {
            assert_eq!(find(pointer, content).as_deref(), Some(value), "{pointer}");
        }
    }

    #[test]
    fn what_is_not_there_is_none() {
        let content = r#"{"a":[[1],{"b":"c"}],"d":"e","n":null}"#;
        let rows = [
            "/A",
            "/a/2",
            "/a/-",
            "/a/00",
            "/a/01",
            "/a/+0",
            "/a/",
            "/a/b",
            "/d/0",
            "/d/e",
            "/n/0",
            "/a/1/b/c",
            "/a/99999999999999999999999999",
        ];
        for pointer in rows {
            assert_eq!(find(pointer, content), None, "{pointer}");
        }
        assert_eq!(find("/n", content).as_deref(), Some("null"));
        assert_eq!(find("/a/1/b", content).as_deref(), Some("\"c\""));
    }

    #[test]
    fn the_last_of_duplicate_members_counts() {
        let content = r#"{"a":{"b":1},"x":2,"a":{"c":3}}"#;
        assert_eq!(find("/a/c", content).as_deref(), Some("3"));
        assert_eq!(find("/a/b", content), None);
    }

    #[test]
    fn numbers_out_of_range_and_lone_surrogates_hide_nothing() {
        let content = r#"{"n":1e999,"\ud800":"\ud800","l":[1e999,"\udfff",2],"\u0061":1}"#;
        assert_eq!(find("/n", content).as_deref(), Some("1e999"));
        assert_eq!(find("/n/x", content), None);
        assert_eq!(find("/l/2", content).as_deref(), Some("2"));
        assert_eq!(find("/l/0", content).as_deref(), Some("1e999"));
        assert_eq!(find("/a", content).as_deref(), Some("1"));
    }

    #[test]
    fn the_deepest_place_of_the_deepest_content_is_found() {
        let deep = limit::JSON_DEPTH_MAX - 1;
        let content = format!("{{\"a\":{}7{}}}", "[".repeat(deep), "]".repeat(deep));
        let pointer = format!("/a{}", "/0".repeat(deep));
        assert_eq!(find(&pointer, &content).as_deref(), Some("7"));
    }

    #[test]
    fn what_is_no_pointer_is_refused() {
        let limit_bytes = limit::POINTER_BYTES_MAX;
        let limit = limit::POINTER_NAMES_MAX;
        let rows = [
            ("a".to_owned(), PointerError::NoSlash),
            ("#/a".to_owned(), PointerError::NoSlash),
            ("/a~".to_owned(), PointerError::Escape),
            ("/a~2".to_owned(), PointerError::Escape),
            ("/~/a".to_owned(), PointerError::Escape),
            ("/~é".to_owned(), PointerError::Escape),
            ("/".repeat(limit + 1), PointerError::TooDeep { limit }),
            (
                format!("/{}", "a".repeat(limit_bytes)),
                PointerError::TooLong { limit_bytes },
            ),
        ];
        for (text, error) in rows {
            assert_eq!(Pointer::parse(&text), Err(error), "{text}");
        }
        assert!(Pointer::parse(&"/".repeat(limit)).is_ok());
    }

    #[test]
    fn elements_are_visited_until_one_is_the_wanted_one() {
        let mut seen = Vec::new();
        let found = any_element("[1, \"a\" ,[2],3]", |element| {
            seen.push(element.to_owned());
            element == "[2]"
        });
        assert!(found);
        assert_eq!(seen, ["1", "\"a\"", "[2]"]);
        assert!(!any_element("[]", |_| true));
        assert!(!any_element("{}", |_| true));
    }
}
