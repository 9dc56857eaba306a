//! The content of an entry: a JSON object, kept byte for byte.

use std::fmt;

use bytes::Bytes;
use thiserror::Error;

use crate::json::{self, JsonError};
use crate::{Limits, Scope};

/// A JSON object exactly as the client wrote it, from `{` to `}`.
///
/// Validated once, where it enters; white space, number forms and duplicate keys stay as they came
/// (law 8, "verbatim"). Cloning shares the bytes. `Debug` shows the size only: contents are private.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Content(Bytes);

/// Why bytes are not an acceptable content.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ContentError {
    /// Not UTF-8, not JSON, empty, or more than one value.
    #[error("the content is not valid JSON")]
    NotJson,
    /// A JSON value of another kind.
    #[error("the content must be a JSON object")]
    NotObject,
    /// Nested deeper than the limit.
    #[error("the content is nested deeper than {limit} levels")]
    TooDeep {
        /// The depth allowed.
        limit: usize,
    },
    /// Larger than the limit of its scope.
    #[error("the content is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The size allowed.
        limit_bytes: u64,
    },
}

impl Content {
    /// Checks a body and keeps what stands from `{` to `}`.
    /// # Errors
    /// [`ContentError`], the size (`limits.content_bytes_max`) being checked first.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "the content takes the body over"
    )]
    pub fn parse(body: Bytes, limits: &Limits) -> Result<Self, ContentError> {
        let limit_bytes = limits.content_bytes_max;
        if body.len() as u64 > limit_bytes {
            return Err(ContentError::TooLarge { limit_bytes });
        }
        match json::check_object(&body, limits.json_depth_max) {
            Ok(range) => Ok(Self(body.slice(range))),
            Err(JsonError::NotJson) => Err(ContentError::NotJson),
            Err(JsonError::NotObject) => Err(ContentError::NotObject),
            Err(JsonError::TooDeep) => Err(ContentError::TooDeep {
                limit: limits.json_depth_max,
            }),
        }
    }

    /// Takes bytes that were a content before, as a store reads them back.
    ///
    /// Whoever cannot be sure of it checks that they are UTF-8, from `{` to `}`.
    #[must_use]
    pub fn from_stored(bytes: Bytes) -> Self {
        Self(bytes)
    }

    /// Returns the empty object.
    #[must_use]
    pub fn empty() -> Self {
        Self(Bytes::from_static(b"{}"))
    }

    /// Returns the bytes, shared.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.0
    }

    /// Returns the bytes.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Returns the text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("a content is checked to be UTF-8 where it enters")
    }

    /// Tells whether the object has no members.
    #[must_use]
    pub fn is_empty_object(&self) -> bool {
        self.0[1..self.0.len() - 1]
            .iter()
            .all(u8::is_ascii_whitespace)
    }

    /// Returns the size in bytes.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.0.len() as u64
    }

    pub(crate) fn check_scope(&self, scope: &Scope, limits: &Limits) -> Result<(), ContentError> {
        let limit_bytes = limits.content_bytes_max_in(scope);
        if self.size_bytes() > limit_bytes {
            return Err(ContentError::TooLarge { limit_bytes });
        }
        Ok(())
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Content, ContentError> {
        Content::parse(Bytes::copy_from_slice(text.as_bytes()), &Limits::default())
    }

    #[test]
    fn size_limit_is_inclusive() {
        let limits = Limits {
            content_bytes_max: 10,
            ..Limits::default()
        };
        assert!(Content::parse("{\"a\":1234}".into(), &limits).is_ok());
        let error = Content::parse("{\"a\":12345}".into(), &limits).unwrap_err();
        assert_eq!(error, ContentError::TooLarge { limit_bytes: 10 });
    }

    #[test]
    fn depth_limit_is_inclusive() {
        let nested = |depth| format!("{{\"a\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
        assert!(parse(&nested(127)).is_ok());
        assert_eq!(
            parse(&nested(128)),
            Err(ContentError::TooDeep { limit: 128 })
        );
    }

    #[test]
    fn white_space_around_the_braces_is_no_part_of_it() {
        let content = parse(" \n{ \"a\" : 1.0 }\t ").unwrap();
        assert_eq!(content.as_str(), "{ \"a\" : 1.0 }");
    }

    #[test]
    fn empty_objects_are_told_apart() {
        assert!(parse("{ \n}").unwrap().is_empty_object());
        assert!(!parse("{\"a\":{}}").unwrap().is_empty_object());
    }

    #[test]
    fn debug_does_not_show_the_content() {
        assert_eq!(
            format!("{:?}", parse("{\"secret\":1}").unwrap()),
            "Content(12 bytes)"
        );
    }
}
