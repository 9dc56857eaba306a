//! All live entries of a user, packed.

use std::fmt;

use crate::{Entry, Position, Scope};

/// Everything live of one user, read in one snapshot.
///
/// All names are in one piece of memory and all contents in another: an [`Entry`] each, made, sent
/// to another thread and dropped there, costs several times what reading it does. For whoever goes
/// through all of them once. `Debug` shows no contents: they are private.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Where the stream stands.
    pub head: Position,
    rows: Vec<Row>,
    /// Place and type of each row, one behind the other.
    names: String,
    contents: Vec<u8>,
}

/// One live entry of [`Live`].
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LiveEntry<'a> {
    /// Where it lives.
    pub scope: ScopeRef<'a>,
    /// Its type.
    pub event_type: &'a str,
    /// The JSON object, as it was written: UTF-8, from `{` to `}`.
    pub content: &'a [u8],
}

/// A [`Scope`], borrowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ScopeRef<'a> {
    /// The account itself.
    Global,
    /// A room, by its ID.
    Room(&'a str),
    /// A device of the user, by its ID.
    Device(&'a str),
}

#[derive(Clone, PartialEq, Eq)]
struct Row {
    kind: Kind,
    place_bytes: usize,
    type_bytes: usize,
    content_bytes: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Global,
    Room,
    Device,
}

impl Live {
    /// Begins with no entries and room for about as many as are named.
    #[must_use]
    pub fn with_capacity(head: Position, entries: usize, content_bytes: usize) -> Self {
        const NAME_BYTES_USUAL: usize = 32;
        Self {
            head,
            rows: Vec::with_capacity(entries),
            names: String::with_capacity(entries * NAME_BYTES_USUAL),
            contents: Vec::with_capacity(content_bytes),
        }
    }

    /// Adds an entry.
    pub fn push(&mut self, entry: LiveEntry<'_>) {
        let (kind, place) = match entry.scope {
            ScopeRef::Global => (Kind::Global, ""),
            ScopeRef::Room(room) => (Kind::Room, room),
            ScopeRef::Device(device) => (Kind::Device, device),
        };
        self.rows.push(Row {
            kind,
            place_bytes: place.len(),
            type_bytes: entry.event_type.len(),
            content_bytes: entry.content.len(),
        });
        self.names.push_str(place);
        self.names.push_str(entry.event_type);
        self.contents.extend_from_slice(entry.content);
    }

    /// Returns the entries, in the order of their positions.
    pub fn entries(&self) -> impl ExactSizeIterator<Item = LiveEntry<'_>> {
        let (mut names, mut contents) = (self.names.as_str(), self.contents.as_slice());
        self.rows.iter().map(move |row| {
            let (place, event_type, content);
            (place, names) = names.split_at(row.place_bytes);
            (event_type, names) = names.split_at(row.type_bytes);
            (content, contents) = contents.split_at(row.content_bytes);
            let scope = match row.kind {
                Kind::Global => ScopeRef::Global,
                Kind::Room => ScopeRef::Room(place),
                Kind::Device => ScopeRef::Device(place),
            };
            LiveEntry {
                scope,
                event_type,
                content,
            }
        })
    }
}

impl<'a> LiveEntry<'a> {
    /// Returns what is told of an entry; of a tombstone that its content is `{}` (MSC3391).
    #[must_use]
    pub fn of(entry: &'a Entry) -> Self {
        Self {
            scope: (&entry.key.scope).into(),
            event_type: entry.key.event_type.as_str(),
            content: entry
                .content
                .as_ref()
                .map_or(b"{}", |content| content.bytes()),
        }
    }
}

impl<'a> From<&'a Scope> for ScopeRef<'a> {
    fn from(scope: &'a Scope) -> Self {
        match scope {
            Scope::Global => Self::Global,
            Scope::Room(room) => Self::Room(room.as_str()),
            Scope::Device(device) => Self::Device(device.as_str()),
        }
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Live(at {}: ", self.head)?;
        f.debug_list().entries(self.entries()).finish()?;
        f.write_str(")")
    }
}

impl fmt::Debug for LiveEntry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            scope, event_type, ..
        } = self;
        let bytes = self.content.len();
        write!(f, "{scope:?}/{event_type:?}: {bytes} bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry<'a>(scope: ScopeRef<'a>, event_type: &'a str, content: &'a str) -> LiveEntry<'a> {
        LiveEntry {
            scope,
            event_type,
            content: content.as_bytes(),
        }
    }

    #[test]
    fn entries_come_out_as_they_went_in() {
        let entries = [
            entry(ScopeRef::Global, "é", r#"{"a":1}"#),
            entry(ScopeRef::Room("!r"), "t", "{}"),
            entry(ScopeRef::Device("D"), "tt", r#"{"é":2}"#),
            entry(ScopeRef::Global, "D", "{ }"),
        ];
        for content_bytes in [0, 1_000] {
            let mut live = Live::with_capacity(Position(7), 2, content_bytes);
            entries.into_iter().for_each(|entry| live.push(entry));
            assert_eq!(live.entries().collect::<Vec<_>>(), entries);
        }
    }

    #[test]
    fn debug_does_not_show_the_contents() {
        let mut live = Live::default();
        live.push(entry(ScopeRef::Device("D"), "t", r#"{"secret":1}"#));
        assert_eq!(
            format!("{live:?}"),
            r#"Live(at 0: [Device("D")/"t": 12 bytes])"#
        );
    }
}
