//! What a /sync tells: the snapshot of account data, filtered and written.

use std::collections::BTreeMap;
use std::mem;

use bytes::Bytes;
use kitbag_domain::{
    Content, InitialSnapshot, LiveEntry, PUSH_RULES, ScopeRef, Snapshot, SyncToken,
};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task;

use crate::filter::Filter;
use crate::json::JsonObject;

/// Entries that are filtered before another task gets its turn.
const YIELD_ENTRIES: usize = 256;
const DEVICE_ACCOUNT_DATA: &str = "org.matrix.msc4331.device_account_data";

/// Members that SDKs parse whether or not there is something to tell.
const CONSTANT_MEMBERS: &str = concat!(
    r#""device_lists":{"changed":[],"left":[]},"#,
    r#""device_one_time_keys_count":{},"#,
    r#""device_unused_fallback_key_types":[],"#,
    r#""presence":{"events":[]},"#,
    r#""rooms":{"join":{},"invite":{},"leave":{},"knock":{}},"#,
    r#""to_device":{"events":[]}"#,
);

/// Reads of syncs in the store's queue at once: when thousands wait for one user, a change wakes them
/// all, and nobody else's reads must be refused for it.
const READS_MAX: usize = 512;
/// Initial syncs at once: each holds all of a user's data, up to 128 MiB, twice.
const FULL_MAX: usize = 4;

/// Turns that syncs wait for, instead of failing where many come at once.
pub(crate) struct SyncTurns {
    full: Semaphore,
    reads: Semaphore,
}

impl Default for SyncTurns {
    fn default() -> Self {
        Self {
            full: Semaphore::new(FULL_MAX),
            reads: Semaphore::new(READS_MAX),
        }
    }
}

impl SyncTurns {
    /// Waits for a turn to read and write everything of one user.
    pub(crate) async fn full(&self) -> SemaphorePermit<'_> {
        turn(&self.full).await
    }

    /// Waits for a turn to read what changed.
    pub(crate) async fn read(&self) -> SemaphorePermit<'_> {
        turn(&self.reads).await
    }
}

async fn turn(turns: &Semaphore) -> SemaphorePermit<'_> {
    let turn = turns.acquire().await;
    turn.expect("the semaphore is never closed")
}

/// The part of a snapshot that a client asked for.
pub(crate) struct Answer {
    snapshot: Snapshot,
}

impl Answer {
    /// Drops what the filter drops, and room entries: there are no rooms in view.
    ///
    /// Lets others run in between, as there may be many entries and patterns.
    pub(crate) async fn new(
        mut snapshot: Snapshot,
        filter: &Filter,
        tells_device_data: bool,
    ) -> Self {
        let entries = mem::take(&mut snapshot.entries);
        let mut kept = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            take_turns(index).await;
            if is_told(&LiveEntry::of(&entry), filter, tells_device_data) {
                kept.push(entry);
            }
        }
        // A sync that waits because of what was dropped must not hold the room of it.
        snapshot.entries = if kept.is_empty() { Vec::new() } else { kept };
        snapshot.push_rules = told_rules(snapshot.push_rules, filter);
        Self { snapshot }
    }

    /// Returns the token that stands behind what is told.
    pub(crate) fn next(&self) -> SyncToken {
        self.snapshot.next
    }

    /// Tells whether a waiting sync ends with this.
    pub(crate) fn has_news(&self) -> bool {
        let Snapshot {
            entries,
            is_full,
            push_rules,
            ..
        } = &self.snapshot;
        *is_full || push_rules.is_some() || !entries.is_empty()
    }

    /// Writes the body.
    pub(crate) fn body(&self) -> Bytes {
        let Snapshot {
            entries,
            push_rules,
            next,
            ..
        } = &self.snapshot;
        let entries: Vec<_> = entries.iter().map(LiveEntry::of).collect();
        body(&entries, push_rules.as_ref(), *next)
    }
}

/// Writes the body of an initial sync, as [`Answer`] does of others.
pub(crate) async fn initial_body(
    snapshot: InitialSnapshot,
    filter: &Filter,
    tells_device_data: bool,
) -> Bytes {
    let mut kept = Vec::with_capacity(snapshot.entries().size_hint().1.unwrap_or(0));
    for (index, entry) in snapshot.entries().enumerate() {
        take_turns(index).await;
        if is_told(&entry, filter, tells_device_data) {
            kept.push(entry);
        }
    }
    let push_rules = told_rules(Some(snapshot.push_rules.clone()), filter);
    body(&kept, push_rules.as_ref(), snapshot.next)
}

/// Gives another task its turn now and then, as there may be many entries and patterns.
async fn take_turns(index: usize) {
    if index % YIELD_ENTRIES == YIELD_ENTRIES - 1 {
        task::yield_now().await;
    }
}

/// Tells whether an entry is in view and passes the filter: there are no rooms in view.
fn is_told(entry: &LiveEntry<'_>, filter: &Filter, tells_device_data: bool) -> bool {
    let in_view = match entry.scope {
        ScopeRef::Global => true,
        ScopeRef::Room(_) => false,
        ScopeRef::Device(_) => tells_device_data,
    };
    in_view && filter.passes_account_data(entry.event_type)
}

fn told_rules(push_rules: Option<Content>, filter: &Filter) -> Option<Content> {
    push_rules.filter(|_| filter.passes_account_data(PUSH_RULES))
}

fn body(entries: &[LiveEntry<'_>], push_rules: Option<&Content>, next: SyncToken) -> Bytes {
    let mut body = JsonObject::for_events(entries, push_rules);
    body.string("next_batch", &next.to_string());
    body.object("account_data", |out| {
        let rules = push_rules
            .iter()
            .map(|content| (PUSH_RULES, content.bytes().as_ref()));
        let global = entries.iter().copied();
        let global = global.filter(|entry| entry.scope == ScopeRef::Global);
        write_pairs(out, rules.chain(global.map(pair)));
    });
    body.members(CONSTANT_MEMBERS);
    let devices = by_device(entries);
    if !devices.is_empty() {
        body.object(DEVICE_ACCOUNT_DATA, |out| {
            for (device, entries) in devices {
                out.object(device, |out| write_events(out, entries));
            }
        });
    }
    body.finish()
}

/// Writes `"events": [{"type", "content"}]`.
pub(crate) fn write_events<'a>(
    out: &mut JsonObject,
    entries: impl IntoIterator<Item = LiveEntry<'a>>,
) {
    write_pairs(out, entries.into_iter().map(pair));
}

fn write_pairs<'a>(out: &mut JsonObject, events: impl Iterator<Item = (&'a str, &'a [u8])>) {
    out.array("events", events, |out, (event_type, content)| {
        out.event(event_type, content);
    });
}

fn pair(entry: LiveEntry<'_>) -> (&str, &[u8]) {
    (entry.event_type, entry.content)
}

/// Groups the entries of devices, in the order of their IDs.
fn by_device<'a>(entries: &[LiveEntry<'a>]) -> BTreeMap<&'a str, Vec<LiveEntry<'a>>> {
    let mut devices = BTreeMap::<_, Vec<_>>::new();
    for entry in entries {
        if let ScopeRef::Device(device) = entry.scope {
            devices.entry(device).or_default().push(*entry);
        }
    }
    devices
}
