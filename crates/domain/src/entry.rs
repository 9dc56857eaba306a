//! One entry of account data, and the marks that a store puts on it.

use std::fmt;
use std::sync::Arc;

use crate::{Content, DeviceId, Key, UnixMs};

/// A place in one user's stream of changes.
///
/// Strictly increasing with each change of that user, gaps allowed; positions of two users have
/// nothing to do with each other. At most `i64::MAX`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Position(pub u64);

impl Position {
    /// The place before the first change.
    pub const ZERO: Self = Self(0);

    /// Returns the place behind this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Tells two devices of the same ID apart: the position that the user's stream had when the device
/// was created. A device that was removed and made again has another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Incarnation(pub u64);

/// Who made a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Writer {
    /// The operator.
    Admin,
    /// A device of the user.
    Device {
        /// The device.
        id: DeviceId,
        /// What it called itself, at most [`USER_AGENT_BYTES_MAX`](crate::limit) bytes.
        user_agent: Option<Arc<str>>,
    },
    /// The server, for instance where it clears up behind a device.
    Server,
}

/// One entry: `(user, scope, type) -> content`, with the marks of its latest change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name within the user's account.
    pub key: Key,
    /// The content; `None` where the entry was deleted and this is its tombstone.
    pub content: Option<Content>,
    /// Where its latest change stands in the user's stream.
    pub position: Position,
    /// Who made the latest change.
    pub writer: Writer,
    /// When the latest change was made.
    pub written_at: UnixMs,
}

impl Entry {
    /// Returns what the entry counts towards the quota: content, type and room or device ID.
    ///
    /// Zero for a tombstone.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.content.as_ref().map_or(0, |content| {
            entry_size_bytes(&self.key, content.size_bytes())
        })
    }
}

/// An entry without its content: what lists tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryDescription {
    /// Its name within the user's account.
    pub key: Key,
    /// What it counts towards the quota, see [`Entry::size_bytes`].
    pub size_bytes: u64,
    /// Where its latest change stands in the user's stream.
    pub position: Position,
    /// Who made the latest change.
    pub writer: Writer,
    /// When the latest change was made.
    pub written_at: UnixMs,
}

impl From<&Entry> for EntryDescription {
    fn from(entry: &Entry) -> Self {
        Self {
            key: entry.key.clone(),
            size_bytes: entry.size_bytes(),
            position: entry.position,
            writer: entry.writer.clone(),
            written_at: entry.written_at,
        }
    }
}

/// Returns what a content of that size under `key` counts towards the quota, in bytes.
#[must_use]
pub fn entry_size_bytes(key: &Key, content_bytes: u64) -> u64 {
    let names = key.event_type.as_str().len() + key.scope.place().len();
    content_bytes + names as u64
}
