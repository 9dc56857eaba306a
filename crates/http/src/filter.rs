//! Filters of /sync: read in full, so that a wrong one is refused; applied to account data.
//!
//! Spec: CS API, Filtering.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use kitbag_domain::{RoomId, UserId};
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::error::Category;

use crate::error::ApiError;

/// Patterns in one list of types: each is tried on each entry.
const PATTERNS_MAX: usize = 256;

/// A filter, of which only what something is filtered by is kept: thousands of syncs wait with one.
///
/// Two that are equal let the same pass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Filter {
    account_data: Option<Arc<EventFilter>>,
}

/// What a client sends; absent parts let everything pass.
#[derive(Deserialize)]
#[expect(
    dead_code,
    reason = "parts that nothing is filtered by yet are read to refuse wrong ones"
)]
struct Parts {
    event_fields: Option<Vec<String>>,
    event_format: Option<EventFormat>,
    #[serde(default, deserialize_with = "object")]
    account_data: Option<EventFilter>,
    #[serde(default, deserialize_with = "object")]
    presence: Option<EventFilter>,
    #[serde(default, deserialize_with = "object")]
    room: Option<RoomFilter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum EventFormat {
    Client,
    Federation,
}

/// `limit` is read to be checked alone: dropping data would lose it (D26).
#[derive(Debug, PartialEq, Eq, Hash, Deserialize)]
struct EventFilter {
    limit: Option<u64>,
    #[serde(default, deserialize_with = "patterns")]
    types: Option<Vec<String>>,
    #[serde(default, deserialize_with = "patterns")]
    not_types: Option<Vec<String>>,
    #[serde(default, deserialize_with = "user_ids")]
    senders: Option<Vec<String>>,
    #[serde(default, deserialize_with = "user_ids")]
    not_senders: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read to refuse wrong ones")]
struct RoomFilter {
    #[serde(default, deserialize_with = "room_ids")]
    rooms: Option<Vec<String>>,
    #[serde(default, deserialize_with = "room_ids")]
    not_rooms: Option<Vec<String>>,
    include_leave: Option<bool>,
    account_data: Option<RoomEventFilter>,
    ephemeral: Option<RoomEventFilter>,
    state: Option<RoomEventFilter>,
    timeline: Option<RoomEventFilter>,
}

#[derive(Deserialize)]
#[expect(dead_code, reason = "read to refuse wrong ones")]
struct RoomEventFilter {
    #[serde(flatten)]
    events: EventFilter,
    #[serde(default, deserialize_with = "room_ids")]
    rooms: Option<Vec<String>>,
    #[serde(default, deserialize_with = "room_ids")]
    not_rooms: Option<Vec<String>>,
    contains_url: Option<bool>,
    include_redundant_members: Option<bool>,
    lazy_load_members: Option<bool>,
    unread_thread_notifications: Option<bool>,
}

impl Filter {
    /// Reads a filter.
    /// # Errors
    /// [`ApiError::NotJson`], or [`ApiError::BadJson`] which says what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        let parts: Parts = serde_json::from_str(text).map_err(|error| match error.classify() {
            Category::Data => ApiError::BadJson(format!("the filter: {error}")),
            Category::Eof | Category::Io | Category::Syntax => ApiError::NotJson,
        })?;
        Ok(Self {
            account_data: parts.account_data.map(Arc::new),
        })
    }

    /// Returns about how much memory its texts take.
    pub(crate) fn size_bytes(&self) -> usize {
        self.account_data
            .as_deref()
            .map_or(0, EventFilter::size_bytes)
    }

    /// Tells whether global or device account data of this type passes.
    pub(crate) fn passes_account_data(&self, event_type: &str) -> bool {
        self.account_data
            .as_ref()
            .is_none_or(|filter| filter.passes(event_type))
    }
}

impl EventFilter {
    fn size_bytes(&self) -> usize {
        let lists = [
            &self.types,
            &self.not_types,
            &self.senders,
            &self.not_senders,
        ];
        let texts = lists.into_iter().flatten().flatten();
        size_of::<Self>()
            + texts
                .map(|text| size_of::<String>() + text.len())
                .sum::<usize>()
    }

    /// Account data has no sender: an allow-list of senders lets none pass (D26). `limit` is not
    /// applied, since what it dropped would never come again.
    fn passes(&self, event_type: &str) -> bool {
        let any = |patterns: &[String]| {
            patterns
                .iter()
                .any(|pattern| matches_glob(pattern, event_type))
        };
        let excludes_all = |senders: &[String]| senders.iter().any(|sender| sender == "*");
        self.senders.is_none()
            && !self.not_senders.as_deref().is_some_and(excludes_all)
            && self.types.as_deref().is_none_or(any)
            && !self.not_types.as_deref().is_some_and(any)
    }
}

/// Matches the whole of `text`; `*` stands for any run of characters.
///
/// In linear time whatever the pattern: each part between two `*` is taken where it first occurs,
/// which leaves the most for those behind it.
fn matches_glob(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return rest.is_empty();
    };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

/// Reads a part that is an object: what `derive` makes takes an array of the members too.
fn object<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    let part = Option::<Object<T>>::deserialize(deserializer)?;
    Ok(part.map(|Object(part)| part))
}

struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ObjectVisitor(PhantomData))
    }
}

struct ObjectVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for ObjectVisitor<T> {
    type Value = Object<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Object<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Object)
    }
}

fn patterns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    let patterns = Option::<Vec<String>>::deserialize(deserializer)?;
    if patterns
        .as_ref()
        .is_some_and(|list| list.len() > PATTERNS_MAX)
    {
        let limit = format!("a list of types has more than {PATTERNS_MAX} members");
        return Err(serde::de::Error::custom(limit));
    }
    Ok(patterns)
}

fn user_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    checked(
        deserializer,
        |id| id == "*" || UserId::parse(id).is_ok(),
        "a user ID",
    )
}

fn room_ids<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<String>>, D::Error> {
    checked(deserializer, |id| RoomId::parse(id).is_ok(), "a room ID")
}

fn checked<'de, D: Deserializer<'de>>(
    deserializer: D,
    is_valid: impl Fn(&str) -> bool,
    expected: &'static str,
) -> Result<Option<Vec<String>>, D::Error> {
    let ids = Option::<Vec<String>>::deserialize(deserializer)?;
    match ids.iter().flatten().find(|id| !is_valid(id)) {
        Some(id) => Err(serde::de::Error::invalid_value(
            serde::de::Unexpected::Str(id),
            &expected,
        )),
        None => Ok(ids),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passes(filter: &str, event_type: &str) -> bool {
        Filter::parse(filter)
            .unwrap()
            .passes_account_data(event_type)
    }

    #[test]
    fn globs_match_anywhere() {
        let rows = [
            ("m.*", "m.direct", true),
            ("m.*", "im.vector", false),
            ("*.direct", "m.direct", true),
            ("m*d*t", "m.direct", true),
            ("m*x*t", "m.direct", false),
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("**a**", "a", true),
            ("a*a", "a", false),
            ("m.direct", "m.direct", true),
            ("m.?irect", "m.direct", false),
        ];
        for (pattern, text, matches) in rows {
            assert_eq!(matches_glob(pattern, text), matches, "{pattern} {text}");
        }
        assert!(matches_glob("a*bc*c", "abcc") && !matches_glob("a*bc*c", "abc"));
        let (pattern, text) = (format!("{}b", "*a".repeat(60)), "a".repeat(250));
        assert!(!matches_glob(&pattern, &text), "ends at all");
    }

    #[test]
    fn exclusion_wins_and_an_empty_list_lets_nothing_pass() {
        assert!(passes(r#"{"account_data":{"types":["m.*"]}}"#, "m.direct"));
        let both = r#"{"account_data":{"types":["m.*"],"not_types":["*.direct"]}}"#;
        assert!(!passes(both, "m.direct"));
        assert!(!passes(r#"{"account_data":{"types":[]}}"#, "m.direct"));
        assert!(passes(
            r#"{"account_data":{"not_types":[],"limit":0,"types":null}}"#,
            "m.direct"
        ));
        let room = r#"{"room":{"account_data":{"types":[]}}}"#;
        assert!(
            passes(room, "m.direct"),
            "the room's part is not the account's"
        );
    }

    #[test]
    fn account_data_has_no_sender() {
        assert!(!passes(
            r#"{"account_data":{"senders":["@a:x"]}}"#,
            "m.direct"
        ));
        assert!(!passes(
            r#"{"account_data":{"not_senders":["*"]}}"#,
            "m.direct"
        ));
        assert!(passes(
            r#"{"account_data":{"not_senders":["@a:x"]}}"#,
            "m.direct"
        ));
    }

    #[test]
    fn wrong_filters_are_refused() {
        let mut wrong = vec![
            r#"{"presence":"x"}"#.to_owned(),
            r#"{"room":"x"}"#.to_owned(),
            r#"{"room":[["!a:b"],[],true]}"#.to_owned(),
            r#"{"account_data":[5]}"#.to_owned(),
            r#"{"event_format":"x"}"#.to_owned(),
            r#"{"account_data":{"types":"x"}}"#.to_owned(),
        ];
        for part in ["timeline", "state", "ephemeral", "account_data"] {
            wrong.push(format!(r#"{{"room":{{"{part}":"x"}}}}"#));
        }
        for field in [
            "rooms",
            "not_rooms",
            "senders",
            "not_senders",
            "types",
            "not_types",
        ] {
            wrong.push(format!(r#"{{"room":{{"timeline":{{"{field}":"x"}}}}}}"#));
        }
        for field in ["rooms", "not_rooms", "senders", "not_senders"] {
            wrong.push(format!(r#"{{"room":{{"timeline":{{"{field}":["x"]}}}}}}"#));
        }
        let many = vec!["m"; PATTERNS_MAX + 1].join("\",\"");
        wrong.push(format!(r#"{{"account_data":{{"types":["{many}"]}}}}"#));
        assert!(matches!(Filter::parse("{bad"), Err(ApiError::NotJson)));
        for filter in wrong {
            assert!(
                matches!(Filter::parse(&filter), Err(ApiError::BadJson(_))),
                "{filter}"
            );
        }
        let fine = r#"{"room":{"timeline":{"limit":8,"rooms":["!a"],"x":1},"state":null},"y":2}"#;
        assert!(Filter::parse(fine).is_ok());
    }
}
