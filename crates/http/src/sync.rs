//! What a /sync tells: the snapshot of account data, filtered and written.

use std::mem;

use bytes::Bytes;
use kitbag_domain::{DeviceId, Entry, PUSH_RULES, Scope, Snapshot, SyncToken};
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
            if index % YIELD_ENTRIES == YIELD_ENTRIES - 1 {
                task::yield_now().await;
            }
            let in_view = match entry.key.scope {
                Scope::Global => true,
                Scope::Room(_) => false,
                Scope::Device(_) => tells_device_data,
            };
            if in_view && filter.passes_account_data(entry.key.event_type.as_str()) {
                kept.push(entry);
            }
        }
        // A sync that waits because of what was dropped must not hold the room of it.
        snapshot.entries = if kept.is_empty() { Vec::new() } else { kept };
        if !filter.passes_account_data(PUSH_RULES) {
            snapshot.push_rules = None;
        }
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
        let mut body = JsonObject::for_entries(entries, push_rules.as_ref());
        body.string("next_batch", &next.to_string());
        body.object("account_data", |out| {
            let rules = push_rules
                .iter()
                .map(|content| (PUSH_RULES, content.as_str()));
            let global = entries
                .iter()
                .filter(|entry| entry.key.scope == Scope::Global);
            write_pairs(out, rules.chain(global.map(pair)));
        });
        body.members(CONSTANT_MEMBERS);
        let devices = by_device(entries);
        if !devices.is_empty() {
            body.object(DEVICE_ACCOUNT_DATA, |out| {
                for (device, entries) in devices {
                    out.object(device.as_str(), |out| write_events(out, entries));
                }
            });
        }
        body.finish()
    }
}

/// Writes `"events": [{"type", "content"}]`.
pub(crate) fn write_events<'a>(out: &mut JsonObject, entries: impl IntoIterator<Item = &'a Entry>) {
    write_pairs(out, entries.into_iter().map(pair));
}

fn write_pairs<'a>(out: &mut JsonObject, events: impl Iterator<Item = (&'a str, &'a str)>) {
    out.array("events", events, |out, (event_type, content)| {
        out.string("type", event_type);
        out.raw("content", content);
    });
}

/// Returns type and content; that of a tombstone is `{}` (MSC3391).
fn pair(entry: &Entry) -> (&str, &str) {
    let content = entry
        .content
        .as_ref()
        .map_or("{}", |content| content.as_str());
    (entry.key.event_type.as_str(), content)
}

/// Groups the entries of devices, in the order of their IDs.
fn by_device(entries: &[Entry]) -> Vec<(&DeviceId, Vec<&Entry>)> {
    let mut devices = std::collections::BTreeMap::<&DeviceId, Vec<&Entry>>::new();
    for entry in entries {
        if let Some(device) = entry.key.scope.device() {
            devices.entry(device).or_default().push(entry);
        }
    }
    devices.into_iter().collect()
}
