//! IDs of users' own rules.

use std::fmt;

use thiserror::Error;

use crate::Limits;

/// The ID of a rule that a user may make: a free string, compared byte for byte.
///
/// Not empty, at most [`Limits::rule_id_bytes_max`] bytes, no leading `.` (such IDs are those of
/// the defaults), no `/` and no `\` [spec, "Push Rules: API"]. It need not be a room ID or a user
/// ID where the kind is `room` or `sender`, and may hold any other Unicode.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RuleId(Box<str>);

/// Why a user cannot make a rule with this ID.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum RuleIdError {
    /// The ID is empty.
    #[error("the rule ID is empty")]
    Empty,
    /// The ID begins as those of the default rules do.
    #[error("rule IDs with a leading dot are for default rules")]
    LeadingDot,
    /// The ID holds a character that no rule ID may have.
    #[error("a rule ID has neither slashes nor backslashes")]
    Slash,
    /// The ID has more bytes than allowed.
    #[error("the rule ID is longer than {limit_bytes} bytes")]
    TooLong {
        /// The length allowed.
        limit_bytes: usize,
    },
}

impl RuleId {
    /// Checks the form and keeps the string.
    /// # Errors
    /// [`RuleIdError`] says which rule the string breaks.
    pub fn parse(text: &str, limits: &Limits) -> Result<Self, RuleIdError> {
        if text.is_empty() {
            return Err(RuleIdError::Empty);
        }
        if text.starts_with('.') {
            return Err(RuleIdError::LeadingDot);
        }
        if text.contains(['/', '\\']) {
            return Err(RuleIdError::Slash);
        }
        let limit_bytes = limits.rule_id_bytes_max;
        if text.len() > limit_bytes {
            return Err(RuleIdError::TooLong { limit_bytes });
        }
        Ok(Self(text.into()))
    }

    /// Returns the ID as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RuleId, RuleIdError> {
        let limits = Limits {
            rule_id_bytes_max: 30,
            ..Limits::default()
        };
        RuleId::parse(text, &limits)
    }

    #[test]
    fn free_strings_are_ids_whatever_the_kind() {
        for text in [
            "#spam:example.com",
            "тест",
            "a.b",
            " ",
            "%2F",
            "a\nb\0",
            &"x".repeat(30),
        ] {
            assert_eq!(parse(text).unwrap().as_str(), text);
        }
    }

    #[test]
    fn ids_of_defaults_and_paths_are_refused() {
        for (text, error) in [
            ("", RuleIdError::Empty),
            (".", RuleIdError::LeadingDot),
            (".m.rule.master", RuleIdError::LeadingDot),
            ("a/b", RuleIdError::Slash),
            ("a\\b", RuleIdError::Slash),
        ] {
            assert_eq!(parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn length_counts_bytes() {
        let error = RuleIdError::TooLong { limit_bytes: 30 };
        assert_eq!(parse(&"x".repeat(31)), Err(error));
        assert_eq!(parse(&"т".repeat(16)), Err(error));
    }
}
