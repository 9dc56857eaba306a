//! The five kinds of rules.

use std::fmt;

/// A kind of push rules [spec, "Push Rules"], in the order in which they are asked.
///
/// Rule IDs are unique within a kind: the same ID may stand in two of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// Conditions of any form, before all others.
    Override,
    /// A pattern for the body of messages.
    Content,
    /// The rule of one room: its ID is the room's.
    Room,
    /// The rule of one sender: its ID is the user's.
    Sender,
    /// Conditions of any form, behind all others.
    Underride,
}

impl Kind {
    /// All kinds in the order of evaluation, which is that of the served text too.
    pub const ALL: [Self; 5] = [
        Self::Override,
        Self::Content,
        Self::Room,
        Self::Sender,
        Self::Underride,
    ];

    /// Reads a kind as it is written in paths and in the served text; case matters.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Returns the kind as it is written in paths and in the served text.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Override => "override",
            Self::Content => "content",
            Self::Room => "room",
            Self::Sender => "sender",
            Self::Underride => "underride",
        }
    }

    /// Tells whether rules of this kind have conditions.
    #[must_use]
    pub const fn has_conditions(self) -> bool {
        matches!(self, Self::Override | Self::Underride)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_told_by_their_names_in_the_order_of_evaluation() {
        let names = ["override", "content", "room", "sender", "underride"];
        assert_eq!(Kind::ALL.map(Kind::as_str), names);
        assert_eq!(names.map(Kind::parse), Kind::ALL.map(Some));
        for text in ["", "Override", "postcontent", "override "] {
            assert_eq!(Kind::parse(text), None, "{text}");
        }
    }
}
