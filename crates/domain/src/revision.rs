//! Compare-and-swap (MSC4547): the comparison, pure.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::Content;

/// The two sets of names that MSC4547 gives; a request's names are those of its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevisionNames {
    /// `m.revision_id`, `expect_revision_id`.
    Stable,
    /// `com.beeper.revision_id`, `com.beeper.expect_revision_id`.
    Unstable,
}

impl RevisionNames {
    /// Returns the name of the content's member that holds the revision.
    #[must_use]
    pub fn content_field(self) -> &'static str {
        match self {
            Self::Stable => "m.revision_id",
            Self::Unstable => "com.beeper.revision_id",
        }
    }
}

/// The revisions that a writer expects to replace, by the name of the query parameter.
///
/// Each is compared with the content's member of its own name form; any mismatch conflicts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expectation {
    /// The value of `expect_revision_id`.
    pub stable: Option<String>,
    /// The value of `com.beeper.expect_revision_id`.
    pub unstable: Option<String>,
}

impl Expectation {
    /// Tells whether the writer expects nothing, so that the write is unconditional.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.stable.is_none() && self.unstable.is_none()
    }

    /// Returns the names to answer with: the stable ones where they were used.
    #[must_use]
    pub fn names(&self) -> RevisionNames {
        if self.stable.is_some() {
            RevisionNames::Stable
        } else {
            RevisionNames::Unstable
        }
    }
}

/// Tells whether a write with this expectation must not replace `stored`.
///
/// Nothing stored, no revision, and a revision that is not a string match any expectation; a string
/// matches itself only (MSC4547). Of duplicate members the last one counts.
#[must_use]
pub fn conflicts(stored: Option<&Content>, expectation: &Expectation) -> bool {
    let Some(content) = stored.filter(|_| !expectation.is_empty()) else {
        return false;
    };
    let revisions = Revisions::of(content);
    let differs = |expected: &Option<String>, stored: &Option<String>| match (expected, stored) {
        (Some(expected), Some(stored)) => expected != stored,
        _ => false,
    };
    differs(&expectation.stable, &revisions.stable)
        || differs(&expectation.unstable, &revisions.unstable)
}

/// The string revisions of a content.
#[derive(Default)]
struct Revisions {
    stable: Option<String>,
    unstable: Option<String>,
}

impl Revisions {
    fn of(content: &Content) -> Self {
        let mut reader = serde_json::Deserializer::from_slice(content.bytes());
        // The content was checked where it entered, so the reader meets nothing that it refuses.
        reader.deserialize_map(RevisionsVisitor).unwrap_or_default()
    }
}

struct RevisionsVisitor;

impl<'de> Visitor<'de> for RevisionsVisitor {
    type Value = Revisions;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Revisions, A::Error> {
        let mut revisions = Revisions::default();
        while let Some(Text(name)) = map.next_key()? {
            if name.as_deref() == Some(RevisionNames::Stable.content_field()) {
                revisions.stable = string(map.next_value()?);
            } else if name.as_deref() == Some(RevisionNames::Unstable.content_field()) {
                revisions.unstable = string(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(revisions)
    }
}

/// Returns a string, `None` for a value of another kind: which must not end the reading, since a
/// later member counts.
fn string(value: &RawValue) -> Option<String> {
    let text = serde_json::from_str::<Text>(value.get());
    text.ok().and_then(|Text(text)| text)
}

/// A string; `None` for one with lone surrogates, which JSON allows and Rust does not.
struct Text(Option<String>);

impl<'de> serde::Deserialize<'de> for Text {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Asking for bytes makes serde_json let lone surrogates pass.
        deserializer.deserialize_bytes(TextVisitor)
    }
}

struct TextVisitor;

impl Visitor<'_> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Text, E> {
        Ok(Text(String::from_utf8(bytes.to_vec()).ok()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Limits;

    fn content(text: &str) -> Content {
        Content::parse(text.to_owned().into(), &Limits::default()).unwrap()
    }

    fn stable(expected: &str) -> Expectation {
        Expectation {
            stable: Some(expected.to_owned()),
            unstable: None,
        }
    }

    #[test]
    fn the_table_of_the_msc() {
        let rows = [
            (None, "", false),
            (None, "x", false),
            (Some("{}"), "", false),
            (Some("{}"), "x", false),
            (Some(r#"{"m.revision_id":7}"#), "7", false),
            (Some(r#"{"m.revision_id":null}"#), "x", false),
            (
                Some(r#"{"m.revision_id":{"m.revision_id":"y"}}"#),
                "x",
                false,
            ),
            (Some(r#"{"m.revision_id":["y"]}"#), "x", false),
            (Some(r#"{"m.revision_id":"R"}"#), "R", false),
            (Some(r#"{"m.revision_id":"R"}"#), "", true),
            (Some(r#"{"m.revision_id":"R"}"#), "r", true),
            (Some(r#"{"m.revision_id":""}"#), "", false),
            (Some(r#"{"m.revision_id":""}"#), "x", true),
        ];
        for (stored, expected, conflict) in rows {
            let stored = stored.map(content);
            assert_eq!(
                conflicts(stored.as_ref(), &stable(expected)),
                conflict,
                "{expected:?}"
            );
        }
    }

    #[test]
    fn names_pair_up() {
        let stored = content(r#"{"m.revision_id":"S","com.beeper.revision_id":"U"}"#);
        let unstable = Expectation {
            stable: None,
            unstable: Some("S".to_owned()),
        };
        assert!(conflicts(Some(&stored), &unstable));
        assert_eq!(unstable.names(), RevisionNames::Unstable);
        let mut both = Expectation {
            stable: Some("S".to_owned()),
            unstable: Some("U".to_owned()),
        };
        assert!(!conflicts(Some(&stored), &both));
        assert_eq!(both.names(), RevisionNames::Stable);
        both.unstable = Some("x".to_owned());
        assert!(conflicts(Some(&stored), &both));
    }

    #[test]
    fn without_an_expectation_nothing_conflicts() {
        let stored = content(r#"{"m.revision_id":"R"}"#);
        assert!(!conflicts(Some(&stored), &Expectation::default()));
    }

    #[test]
    fn the_last_of_duplicate_members_counts() {
        let stored = content(r#"{"m.revision_id":"a","x":[1e999],"m.revision_id":"b"}"#);
        assert!(!conflicts(Some(&stored), &stable("b")));
        assert!(conflicts(Some(&stored), &stable("a")));
    }

    #[test]
    fn what_is_no_string_hides_no_other_member() {
        for value in ["7", "1e999", "null", "true", "[\"b\"]", r#"{"a":"b"}"#] {
            let stored = format!(r#"{{"m.revision_id":{value},"com.beeper.revision_id":"U"}}"#);
            let unstable = Expectation {
                stable: Some("x".to_owned()),
                unstable: Some("x".to_owned()),
            };
            assert!(conflicts(Some(&content(&stored)), &unstable), "{stored}");
            let stored = format!(r#"{{"m.revision_id":{value},"m.revision_id":"b"}}"#);
            assert!(conflicts(Some(&content(&stored)), &stable("a")), "{stored}");
            assert!(
                !conflicts(Some(&content(&stored)), &stable("b")),
                "{stored}"
            );
        }
    }

    #[test]
    fn escapes_and_lone_surrogates_are_read() {
        let stored = content(r#"{"\ud800":"\udfff","m.revision\u005fid":"\u0041"}"#);
        assert!(!conflicts(Some(&stored), &stable("A")));
        assert!(conflicts(Some(&stored), &stable("B")));
    }
}
