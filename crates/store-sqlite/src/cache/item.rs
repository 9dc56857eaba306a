//! What the cache holds, under which name, and what that weighs.

use std::hash::{Hash, Hasher};

use kitbag_domain::{Content, Entry, Key, Position, Session, TokenHash, UserId};
use quick_cache::{Equivalent, Lifecycle, Weighter};

/// What one value costs besides its texts: itself, its name, and its place in the map.
const ITEM_BYTES: u64 = 256;

/// What is asked for of one user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Item<'a> {
    /// A live entry.
    Entry(&'a Key),
    /// The head of the stream.
    Head,
    /// The session of an access token.
    Session(&'a TokenHash),
}

/// What the file held; `None` where it held nothing.
#[derive(Clone, Debug)]
pub(crate) enum Value {
    Entry(Option<Entry>),
    Head(Option<Position>),
    Session(Option<Session>),
}

impl Value {
    /// Returns the content of an entry.
    pub(crate) fn content(&self) -> Option<Option<Content>> {
        match self {
            Self::Entry(entry) => Some(entry.as_ref().and_then(|entry| entry.content.clone())),
            Self::Head(_) | Self::Session(_) => None,
        }
    }

    /// Returns a session.
    pub(crate) fn session(&self) -> Option<Option<&Session>> {
        match self {
            Self::Session(session) => Some(session.as_ref()),
            Self::Entry(_) | Self::Head(_) => None,
        }
    }
}

/// The name of a value in the map.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) user: UserId,
    item: OwnedItem,
}

#[derive(Debug)]
enum OwnedItem {
    Entry(Key),
    Head,
    Session(TokenHash),
}

/// The same name, borrowed for a look-up.
pub(super) struct Wanted<'a> {
    pub(super) user: &'a UserId,
    pub(super) item: &'a Item<'a>,
}

impl Wanted<'_> {
    pub(super) fn to_owned(&self) -> Owned {
        Owned {
            user: self.user.clone(),
            item: match *self.item {
                Item::Entry(key) => OwnedItem::Entry(key.clone()),
                Item::Head => OwnedItem::Head,
                Item::Session(token) => OwnedItem::Session(*token),
            },
        }
    }
}

impl Owned {
    fn item(&self) -> Item<'_> {
        match &self.item {
            OwnedItem::Entry(key) => Item::Entry(key),
            OwnedItem::Head => Item::Head,
            OwnedItem::Session(token) => Item::Session(token),
        }
    }
}

impl PartialEq for Owned {
    fn eq(&self, other: &Self) -> bool {
        self.user == other.user && self.item() == other.item()
    }
}

impl Eq for Owned {}

impl Hash for Owned {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let item = &self.item();
        Wanted {
            user: &self.user,
            item,
        }
        .hash(state);
    }
}

impl Hash for Wanted<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.user.hash(state);
        self.item.hash(state);
    }
}

impl Equivalent<Owned> for Wanted<'_> {
    fn equivalent(&self, owned: &Owned) -> bool {
        *self.user == owned.user && *self.item == owned.item()
    }
}

/// Weighs values in bytes.
#[derive(Clone, Copy)]
pub(super) struct Weigher;

impl Weighter<Owned, Value> for Weigher {
    /// Names are counted though mostly shared with others: rather too much than too little.
    fn weight(&self, name: &Owned, value: &Value) -> u64 {
        let key = match &name.item {
            OwnedItem::Entry(key) => key.scope.place().len() + key.event_type.as_str().len(),
            OwnedItem::Head | OwnedItem::Session(_) => 0,
        };
        let content = match value {
            Value::Entry(Some(entry)) => entry.content.as_ref().map_or(0, Content::size_bytes),
            Value::Entry(None) | Value::Head(_) | Value::Session(_) => 0,
        };
        ITEM_BYTES + (name.user.as_str().len() + key) as u64 + content
    }
}

/// Counts what an insertion throws out: itself, where it is too large, and not what it replaces.
#[derive(Clone, Copy)]
pub(super) struct CountEvicted;

impl Lifecycle<Owned, Value> for CountEvicted {
    type RequestState = u64;

    fn before_evict(&self, evicted: &mut u64, _name: &Owned, _value: &mut Value) {
        *evicted += 1;
    }
}
