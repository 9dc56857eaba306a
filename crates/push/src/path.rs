//! Paths of properties: `content.m\.mentions.user_ids` [spec, "Dot-separated property paths"].

use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, LazyLock};

use crate::fact::hasher;

/// The path of a property as a condition writes it: names with dots between them.
///
/// In a name, `\.` is a dot and `\\` a backslash; a backslash before anything else stands for
/// itself.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Path {
    names: Arc<[Box<str>]>,
    hash: u64,
}

/// Those of content, room and sender rules, of which users can have thousands.
static BODY: LazyLock<Path> = LazyLock::new(|| Path::parse("content.body"));
static ROOM_ID: LazyLock<Path> = LazyLock::new(|| Path::parse("room_id"));
static TYPE: LazyLock<Path> = LazyLock::new(|| Path::parse("type"));
static SENDER: LazyLock<Path> = LazyLock::new(|| Path::parse("sender"));

impl Path {
    pub(crate) fn body() -> Self {
        BODY.clone()
    }

    pub(crate) fn room_id() -> Self {
        ROOM_ID.clone()
    }

    pub(crate) fn sender() -> Self {
        SENDER.clone()
    }

    pub(crate) fn parse(text: &str) -> Self {
        let mut names = Vec::new();
        let mut name = String::new();
        let mut chars = text.chars().peekable();
        while let Some(c) = chars.next() {
            match (c, chars.peek()) {
                ('.', _) => names.push(std::mem::take(&mut name).into_boxed_str()),
                ('\\', Some('.' | '\\')) => name.extend(chars.next()),
                _ => name.push(c),
            }
        }
        names.push(name.into_boxed_str());
        let mut hash = PathHasher::new();
        for name in &names {
            hash.enter(name);
        }
        Self {
            hash: hash.finish(),
            names: names.into(),
        }
    }

    pub(crate) fn names(&self) -> &[Box<str>] {
        &self.names
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn is_type(&self) -> bool {
        *self == *TYPE
    }

    pub(crate) fn is_body(&self) -> bool {
        *self == *BODY
    }
}

/// Hashes a path name by name, so that all properties of an object go on from its hash.
#[derive(Clone)]
pub(crate) struct PathHasher(DefaultHasher);

impl PathHasher {
    pub(crate) fn new() -> Self {
        Self(hasher())
    }

    pub(crate) fn enter(&mut self, name: &str) {
        // 0xff is in no text, so no two lists of names are written alike.
        self.0.write(name.as_bytes());
        self.0.write_u8(0xff);
    }

    pub(crate) fn finish(&self) -> u64 {
        self.0.finish()
    }
}
