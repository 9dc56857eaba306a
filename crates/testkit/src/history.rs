//! What was asked and what was answered, as the oracle judges it.

use std::fmt;
use std::sync::Arc;

use kitbag_domain::{
    DeviceId, DeviceSelection, Expectation, Incarnation, Key, Limits, RevisionNames, UnixMs, UserId,
};
use serde_json::Value;

/// The record of a run.
#[derive(Clone, Debug)]
pub struct History {
    /// The limits of the store that was run.
    pub limits: Limits,
    /// What happened, in any order.
    pub events: Vec<Event>,
}

impl History {
    /// Writes down what happened to one user, a line for each operation, for people to read.
    #[must_use]
    pub fn of(&self, user: &UserId) -> String {
        let mut events: Vec<&Event> = self.events.iter().collect();
        events.retain(|event| event.user == *user);
        events.sort_by_key(|event| event.began);
        let lines: Vec<String> = events.into_iter().map(ToString::to_string).collect();
        lines.join("\n")
    }
}

/// One operation from its invocation to its answer.
#[derive(Clone, Debug)]
pub struct Event {
    /// Whose account it was about.
    pub user: UserId,
    /// The device of the session; `None` for a session without one.
    pub who: Option<(DeviceId, Incarnation)>,
    /// The time of day that was given along.
    pub at: UnixMs,
    /// Drawn from one counter before the invocation.
    pub began: u64,
    /// Drawn from the same counter after the answer; `u64::MAX` where none came.
    pub ended: u64,
    /// What was asked.
    pub call: Call,
    /// What was answered.
    pub answer: Answer,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            user,
            who,
            began,
            ended,
            call,
            answer,
            ..
        } = self;
        match who {
            Some((device, incarnation)) => write!(f, "{user} {device}#{}", incarnation.0)?,
            None => write!(f, "{user}")?,
        }
        match answer {
            Answer::Unknown => write!(f, " [{began}, never] {call:?}"),
            _ => write!(f, " [{began}, {ended}] {call:?} -> {answer:?}"),
        }
    }
}

/// What was asked.
#[derive(Clone, Debug)]
pub enum Call {
    /// To end the account.
    Deactivate,
    /// To delete an entry.
    Delete(Key),
    /// To edit the push rules, noting a number.
    Edit(u64),
    /// To delete an entry if its revision is the expected one: a put that deletes (MSC3391).
    Erase(Key, Expectation),
    /// To tell everything, and what was deleted behind a position (`full_state`).
    Everything(Option<u64>),
    /// To read an entry.
    Get(Key),
    /// To log a device in.
    Login(DeviceId),
    /// To change the password, the devices staying.
    Password,
    /// To replace an entry.
    Put(Key, Arc<str>, Expectation),
    /// To replace the tokens of a session.
    Refresh,
    /// To remove devices, alone or with a change of the password.
    Remove(DeviceSelection),
    /// To tell what changed behind a position; `None` where the token was none of the user's.
    Sync(Option<u64>),
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It was done.
    Done,
    /// The device has a session, in this incarnation.
    LoggedIn(Incarnation),
    /// It was refused.
    Refused(Why),
    /// The devices were removed; named, where the door names them.
    Removed(Option<Vec<DeviceId>>),
    /// Something was told.
    Told(Told),
    /// No answer came: the write may or may not have been made.
    Unknown,
    /// The content of the entry, if there is one.
    Value(Option<Arc<str>>),
    /// It was written, at this position if anything had to be written.
    Written(Option<u64>),
}

/// The answer to a sync.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// The entries, in the order in which they were told.
    pub entries: Vec<ToldEntry>,
    /// Where the next sync starts.
    pub head: u64,
    /// Whether everything was told.
    pub is_full: bool,
    /// What was told of `m.push_rules`.
    pub rules: Option<Arc<str>>,
}

/// One entry of [`Told`].
#[derive(Clone, PartialEq, Eq)]
pub struct ToldEntry {
    /// Its key.
    pub key: Key,
    /// Its content; `None` for a tombstone.
    pub text: Option<Arc<str>>,
    /// Its position.
    pub position: u64,
    /// The device that wrote it.
    pub writer: Option<DeviceId>,
    /// When it was written.
    pub at: UnixMs,
}

impl fmt::Debug for ToldEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.text.as_deref().unwrap_or("deleted");
        write!(f, "{:?}={text} @{}", self.key, self.position)
    }
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Why {
    /// Another revision is stored, in this content.
    Conflict(Arc<str>),
    /// The account is gone or the password is another one.
    LoginRefused,
    /// There is no such device.
    NoSuchDevice,
    /// The entry belongs to another device.
    NotOwnDevice,
    /// The user's bytes.
    QuotaBytes,
    /// The device's entries.
    QuotaDevice,
    /// The user's entries.
    QuotaEntries,
    /// The type is the server's.
    ServerManaged,
    /// The session is gone.
    SessionGone,
}

/// How much of what matters occurred: a test that met none of it shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Operations.
    pub events: usize,
    /// Pairs of neighbours that overlapped in time.
    pub overlaps: usize,
    /// Acknowledged writes.
    pub writes: usize,
    /// Acknowledged writes that had an expectation.
    pub swaps: usize,
    /// Refusals by another revision.
    pub conflicts: usize,
    /// Refusals by a quota.
    pub quota: usize,
    /// Refusals because the type is the server's.
    pub managed: usize,
    /// Refusals because the entry belongs to another device.
    pub not_own: usize,
    /// Refusals because there is no such device.
    pub no_device: usize,
    /// Refusals because the session had ended.
    pub session_gone: usize,
    /// Devices that were removed.
    pub deaths: usize,
    /// Tombstones that were told.
    pub tombstones: usize,
    /// Syncs that were told everything though they had a token of the user.
    pub past_horizon: usize,
    /// Writes of which no answer came.
    pub unknown: usize,
    /// Accounts that were ended.
    pub deactivations: usize,
    /// Edits of push rules.
    pub edits: usize,
    /// Entries that a put deleted.
    pub erasures: usize,
    /// Syncs that asked for everything.
    pub full_states: usize,
    /// Sessions that got new tokens.
    pub refreshes: usize,
}

impl Tally {
    /// Counts what occurred in `history`.
    pub fn count(&mut self, history: &History) {
        let mut by_time: Vec<&Event> = history.events.iter().collect();
        by_time.sort_by_key(|event| event.began);
        let pairs = by_time.windows(2);
        self.overlaps += pairs.filter(|pair| pair[1].began < pair[0].ended).count();
        for event in by_time {
            self.events += 1;
            self.count_event(event);
        }
    }

    fn count_event(&mut self, event: &Event) {
        match &event.answer {
            Answer::Done => {
                self.deactivations += usize::from(matches!(event.call, Call::Deactivate));
                self.refreshes += usize::from(matches!(event.call, Call::Refresh));
            }
            Answer::LoggedIn(_) | Answer::Value(_) => {}
            Answer::Refused(why) => match why {
                Why::Conflict(_) => self.conflicts += 1,
                Why::LoginRefused | Why::SessionGone => self.session_gone += 1,
                Why::NoSuchDevice => self.no_device += 1,
                Why::NotOwnDevice => self.not_own += 1,
                Why::QuotaBytes | Why::QuotaDevice | Why::QuotaEntries => self.quota += 1,
                Why::ServerManaged => self.managed += 1,
            },
            Answer::Removed(devices) => self.deaths += devices.as_ref().map_or(0, Vec::len),
            Answer::Told(told) => {
                let had_token = matches!(event.call, Call::Sync(Some(since)) if since <= told.head);
                self.past_horizon += usize::from(had_token && told.is_full);
                self.full_states += usize::from(matches!(event.call, Call::Everything(_)));
                self.tombstones += told.entries.iter().filter(|e| e.text.is_none()).count();
            }
            Answer::Unknown => self.unknown += 1,
            Answer::Written(position) => {
                self.writes += usize::from(position.is_some());
                self.edits += usize::from(matches!(event.call, Call::Edit(_)));
                self.erasures += usize::from(matches!(event.call, Call::Erase(..)));
                let swap = matches!(&event.call, Call::Put(.., expected) if !expected.is_empty());
                self.swaps += usize::from(swap);
            }
        }
    }
}

/// Returns the revision of a content, read in the plainest way.
pub(crate) fn revision(text: &str, names: RevisionNames) -> Option<String> {
    // Numbers beyond what a value can hold are made small: only top-level strings matter.
    let content: Value = serde_json::from_str(&text.replace("1e400", "1")).unwrap();
    let name = match names {
        RevisionNames::Stable => "m.revision_id",
        RevisionNames::Unstable => "com.beeper.revision_id",
    };
    content.get(name)?.as_str().map(str::to_owned)
}
