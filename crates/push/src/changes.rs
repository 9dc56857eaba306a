//! What a user changed: all that is stored.

use std::collections::HashSet;
use std::fmt;

use thiserror::Error;

use crate::Kind;
use crate::json::{Members, items, push_comma, push_member, push_string, string, truth};
use crate::rule::is_body;

/// The version of the stored form that is written and read.
const VERSION: &str = "1";

/// What a user changed about push rules: rules of their own, and overrides of default ones.
///
/// This is what is stored, as JSON of a form of its own:
///
/// ```json
/// {"version":1,
///  "own":{"content":[{"rule_id":"cake","enabled":true,"rule":{"actions":["notify"],"pattern":"cake"}}]},
///  "defaults":{"underride":[{"rule_id":".m.rule.call","enabled":false,"actions":["notify"]}]}}
/// ```
///
/// `rule` is what the client sent. Rules stand in the order of evaluation, kinds without any are
/// left out. An override names `enabled`, `actions` or both; one of a default rule that is not
/// there (any more) waits for its return.
///
/// A stored rule that cannot be read, and every member that this version does not know, is kept as
/// it is and in its place: it is not served, and hides nothing else.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Changes {
    pub(crate) own: Section<OwnRule>,
    pub(crate) defaults: Section<Override>,
    rest: Rest,
}

/// Why a stored text cannot be read at all.
///
/// Who serves it serves the defaults then, and who edits it must refuse to, lest it be lost.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ChangesError {
    /// The text is no object, or its parts are not of the form of [`Changes`].
    #[error("the stored push rules are not of the form of this program")]
    Malformed,
    /// The text has another version than this one, which was written by a newer program.
    #[error("the stored push rules have a version that this program does not know")]
    UnknownVersion,
}

impl Changes {
    /// Reads what was stored; an empty object is what a user without any changes has.
    /// # Errors
    /// [`ChangesError`] where nothing of it can be read.
    pub fn parse(stored: &str) -> Result<Self, ChangesError> {
        let mut members = Members::read_unique(stored).ok_or(ChangesError::Malformed)?;
        let version = members.take("version");
        if version.is_none() && members.iter().next().is_none() {
            return Ok(Self::default());
        }
        if version != Some(VERSION) {
            return Err(ChangesError::UnknownVersion);
        }
        Ok(Self {
            own: Section::read(members.take("own"))?,
            defaults: Section::read(members.take("defaults"))?,
            rest: rest(&members),
        })
    }

    /// Returns the text to store, which [`parse`](Self::parse) reads.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut out = String::from("{");
        push_member(&mut out, "version", VERSION);
        self.own.write("own", &mut out);
        self.defaults.write("defaults", &mut out);
        push_rest(&mut out, &self.rest);
        out.push('}');
        out
    }

    /// Returns how many rules of their own the user has, over all kinds; unreadable ones count.
    #[must_use]
    pub fn own_rules(&self) -> usize {
        self.own.kinds.iter().map(Vec::len).sum()
    }
}

/// Records by kind.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Section<T> {
    kinds: [Vec<Slot<T>>; Kind::ALL.len()],
    rest: Rest,
}

/// A record, or what stands in the place of one.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Slot<T> {
    Record(T),
    Unreadable(Box<str>),
}

/// Members that this version does not know: names and values.
type Rest = Vec<(Box<str>, Box<str>)>;

/// A rule of the user's own.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct OwnRule {
    pub(crate) id: Box<str>,
    pub(crate) is_enabled: bool,
    /// An object with `actions` and without the members that are the server's.
    pub(crate) body: Box<str>,
    pub(crate) rest: Rest,
}

/// What the user changed about a default rule.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Override {
    pub(crate) id: Box<str>,
    pub(crate) is_enabled: Option<bool>,
    pub(crate) actions: Option<Box<str>>,
    pub(crate) rest: Rest,
}

/// What a section holds.
pub(crate) trait Record: Sized {
    fn read(members: &mut Members<'_>, id: Box<str>) -> Option<Self>;
    fn id(&self) -> &str;
    fn write(&self, out: &mut String);
}

impl<T> Section<T> {
    pub(crate) fn slots(&self, kind: Kind) -> &[Slot<T>] {
        &self.kinds[kind as usize]
    }

    pub(crate) fn slots_mut(&mut self, kind: Kind) -> &mut Vec<Slot<T>> {
        &mut self.kinds[kind as usize]
    }

    pub(crate) fn records(&self, kind: Kind) -> impl Iterator<Item = &T> {
        self.slots(kind).iter().filter_map(Slot::record)
    }
}

impl<T: Record> Section<T> {
    /// Returns where the record of this ID stands among the slots of its kind.
    pub(crate) fn find(&self, kind: Kind, id: &str) -> Option<usize> {
        let is_it = |slot: &Slot<T>| slot.record().is_some_and(|record| record.id() == id);
        self.slots(kind).iter().position(is_it)
    }

    pub(crate) fn get_mut(&mut self, kind: Kind, id: &str) -> Option<&mut T> {
        let mut records = self.slots_mut(kind).iter_mut().filter_map(Slot::record_mut);
        records.find(|record| record.id() == id)
    }

    fn read(text: Option<&str>) -> Result<Self, ChangesError> {
        let mut section = Self::default();
        let Some(text) = text else {
            return Ok(section);
        };
        let mut members = Members::read_unique(text).ok_or(ChangesError::Malformed)?;
        for kind in Kind::ALL {
            let Some(list) = members.take(kind.as_str()) else {
                continue;
            };
            let texts = items(list).ok_or(ChangesError::Malformed)?;
            *section.slots_mut(kind) = slots(&texts);
        }
        section.rest = rest(&members);
        Ok(section)
    }

    fn write(&self, name: &str, out: &mut String) {
        if self.rest.is_empty() && self.kinds.iter().all(Vec::is_empty) {
            return;
        }
        push_member(out, name, "{");
        for kind in Kind::ALL
            .into_iter()
            .filter(|kind| !self.slots(*kind).is_empty())
        {
            push_member(out, kind.as_str(), "[");
            for slot in self.slots(kind) {
                push_comma(out);
                match slot {
                    Slot::Record(record) => record.write(out),
                    Slot::Unreadable(text) => out.push_str(text),
                }
            }
            out.push(']');
        }
        push_rest(out, &self.rest);
        out.push('}');
    }
}

/// Reads the records of a kind; one whose ID was there before cannot be told from it.
fn slots<T: Record>(texts: &[&str]) -> Vec<Slot<T>> {
    let mut ids = HashSet::new();
    let slot = |text: &&str| {
        let record = read_record::<T>(text).filter(|record| ids.insert(record.id().to_owned()));
        record.map_or_else(|| Slot::Unreadable((*text).into()), Slot::Record)
    };
    texts.iter().map(slot).collect()
}

fn read_record<T: Record>(text: &str) -> Option<T> {
    let mut members = Members::read_unique(text)?;
    let id = string(members.take("rule_id")?)?.into();
    T::read(&mut members, id)
}

impl<T> Slot<T> {
    fn record(&self) -> Option<&T> {
        match self {
            Self::Record(record) => Some(record),
            Self::Unreadable(_) => None,
        }
    }

    fn record_mut(&mut self) -> Option<&mut T> {
        match self {
            Self::Record(record) => Some(record),
            Self::Unreadable(_) => None,
        }
    }
}

impl<T> Default for Section<T> {
    fn default() -> Self {
        Self {
            kinds: [const { Vec::new() }; Kind::ALL.len()],
            rest: Rest::new(),
        }
    }
}

impl Record for OwnRule {
    fn read(members: &mut Members<'_>, id: Box<str>) -> Option<Self> {
        // With a leading dot it could be there twice, as a default too.
        if id.is_empty() || id.starts_with('.') {
            return None;
        }
        let is_enabled = serde_json::from_str(members.take("enabled")?).ok()?;
        let body = members.take("rule")?;
        is_body(body).then(|| Self {
            id,
            is_enabled,
            body: body.into(),
            rest: rest(members),
        })
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn write(&self, out: &mut String) {
        push_record(out, &self.id, Some(self.is_enabled));
        push_member(out, "rule", &self.body);
        push_rest(out, &self.rest);
        out.push('}');
    }
}

impl Record for Override {
    fn read(members: &mut Members<'_>, id: Box<str>) -> Option<Self> {
        let enabled = members.take("enabled").map(serde_json::from_str);
        let actions = members.take("actions");
        if actions.is_some_and(|actions| items(actions).is_none()) {
            return None;
        }
        Some(Self {
            id,
            is_enabled: enabled.transpose().ok()?,
            actions: actions.map(Into::into),
            rest: rest(members),
        })
    }

    fn id(&self) -> &str {
        &self.id
    }

    fn write(&self, out: &mut String) {
        push_record(out, &self.id, self.is_enabled);
        if let Some(actions) = &self.actions {
            push_member(out, "actions", actions);
        }
        push_rest(out, &self.rest);
        out.push('}');
    }
}

fn push_record(out: &mut String, id: &str, is_enabled: Option<bool>) {
    out.push_str("{\"rule_id\":");
    push_string(out, id);
    if let Some(is_enabled) = is_enabled {
        push_member(out, "enabled", truth(is_enabled));
    }
}

fn rest(members: &Members<'_>) -> Rest {
    let members = members.iter();
    members
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

fn push_rest(out: &mut String, rest: &Rest) {
    for (name, value) in rest {
        push_member(out, name, value);
    }
}

/// Shows how much there is, not what: rules say whom a user mutes.
impl fmt::Debug for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Changes");
        debug
            .field("own_rules", &self.own_rules())
            .finish_non_exhaustive()
    }
}
