//! The device account data of a user, as the homeserver keeps them: listed and emptied.

use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::Method;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use kitbag_domain::{DeviceId, EventType, Limits, UserId};
use kitbag_http::shared::{GatewayError, RequestId};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::json;
use serde_json::value::RawValue;

use crate::answer::{Failure, may_come_late};
use crate::aside::aside;
use crate::credentials::Credentials;
use crate::mapped;
use crate::upstream::{Told, Upstream};

/// Bytes of a sync that lists them: 64 of the largest entries, however these are told. Homeservers
/// that look at filters send little else; one that does not, and has more to tell, is not listened to.
pub(crate) const LISTING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes that one byte of a content is told as at most: a homeserver may write JSON anew and tell it
/// as an escape, such as Synapse a DEL as `\u007f`.
pub(crate) const TOLD_BYTES_OF_ONE: u64 = 6;

/// Bytes of an entry in such a sync beside its content: the type that names device and type, and JSON.
pub(crate) const ENTRY_EXTRA_BYTES: u64 = 2 * 1024;

/// Returns how many types the entries of a device may have had in all: what is deleted is told too,
/// for ever. However many of them are there, as far as their number is allowed, they can be listed.
pub(crate) fn types_max(limits: &Limits) -> u64 {
    let told_bytes_max = limits
        .device_content_bytes_max
        .saturating_mul(TOLD_BYTES_OF_ONE);
    let contents_bytes_max = told_bytes_max.saturating_mul(limits.quota.device_entries_max);
    (LISTING_BYTES_MAX as u64).saturating_sub(contents_bytes_max) / ENTRY_EXTRA_BYTES
}

/// Bytes of what the homeserver answers to a write.
pub(crate) const WRITTEN_BYTES_MAX: usize = 64 * 1024;

/// Writes of one emptying at a time: more would only wait in the homeserver.
const WRITES_AT_ONCE: usize = 8;

/// What a listing tells.
#[derive(Default)]
pub(crate) struct Listed {
    /// What is there.
    pub(crate) entries: Vec<Stored>,
    /// How many types are deleted.
    pub(crate) deleted: usize,
}

/// An entry that is there.
pub(crate) struct Stored {
    pub(crate) device: DeviceId,
    pub(crate) event_type: EventType,
    pub(crate) content: Box<RawValue>,
}

impl Stored {
    /// Returns how many bytes it takes in memory, about.
    pub(crate) fn bytes(&self) -> usize {
        let names = self.device.as_str().len() + self.event_type.as_str().len();
        size_of::<Self>() + names + self.content.get().len()
    }
}

#[derive(Deserialize)]
struct Synced {
    /// Each sync has it, also one that tells of nothing.
    #[serde(rename = "next_batch")]
    _next_batch: IgnoredAny,
    #[serde(default)]
    account_data: Events,
}

#[derive(Default, Deserialize)]
struct Events {
    #[serde(default)]
    events: Vec<Event>,
}

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    event_type: String,
    content: Box<RawValue>,
}

/// Which devices' entries are listed.
#[derive(Clone, Copy)]
pub(crate) enum Of<'a> {
    /// Those of all.
    All,
    /// Those of one.
    Device(&'a DeviceId),
    /// Those of all but these, as far as the homeserver looks at filters.
    AllBut(&'a [DeviceId]),
}

/// Returns the entries of the caller's devices; `None` where the homeserver's answer has more than
/// `bytes_max`.
///
/// `mark` must be another one each time.
///
/// # Errors
/// What the homeserver says, and an answer that cannot be read.
pub(crate) async fn list_if_small(
    upstream: &Upstream,
    credentials: &Credentials,
    devices: Of<'_>,
    mark: &RequestId<'_>,
    bytes_max: usize,
) -> Result<Option<Listed>, Failure> {
    let target = listing(devices, &mark.to_string());
    let request = credentials.request(Method::GET, &target, Bytes::new())?;
    let told = match upstream.ask(request, bytes_max).await {
        Err(GatewayError::UpstreamTooLarge) => return Ok(None),
        told => told?.done()?,
    };
    aside(told.body().len(), || read(&told, devices)).map(Some)
}

fn read(told: &Told, devices: Of<'_>) -> Result<Listed, Failure> {
    let Synced { account_data, .. } = told.json()?;
    // Not each homeserver looks at filters.
    let mut listed = Listed::default();
    for event in account_data.events {
        let Some((of, event_type)) = mapped::device_and_type(&event.event_type) else {
            continue;
        };
        let is_asked_for = match devices {
            Of::Device(device) => *device == of,
            Of::All | Of::AllBut(_) => true,
        };
        let is_deleted = mapped::is_tombstone(event.content.get().as_bytes());
        match (is_asked_for, is_deleted) {
            (true, true) => listed.deleted += 1,
            (true, false) => listed.entries.push(Stored {
                device: of,
                event_type,
                content: event.content,
            }),
            (false, _) => {}
        }
    }
    Ok(listed)
}

/// Why entries were not emptied.
#[derive(Debug)]
pub(crate) struct NotEmptied {
    pub(crate) failure: Failure,
    /// Whether something of it may still be done, behind what is done next.
    pub(crate) is_late: bool,
}

/// Nothing was sent.
impl<E: Into<Failure>> From<E> for NotEmptied {
    fn from(error: E) -> Self {
        Self {
            failure: error.into(),
            is_late: false,
        }
    }
}

/// Empties entries and tells of each; all are tried, whatever becomes of one, until the homeserver
/// does not answer any more.
///
/// # Errors
/// What the homeserver says to the first that may still be done, or else to the first that is not.
pub(crate) async fn empty(
    upstream: &Upstream,
    credentials: &Credentials,
    user: &UserId,
    entries: Vec<Stored>,
    emptied: impl Fn() + Sync,
) -> Result<(), NotEmptied> {
    let emptied = &emptied;
    let is_stuck = &AtomicBool::new(false);
    let writes = entries.into_iter().map(|entry| async move {
        let upstream_type = mapped::upstream_type(&entry.device, &entry.event_type);
        let target = mapped::account_data_path(user, &upstream_type);
        let tombstone = mapped::tombstone().into_bytes();
        let request = credentials.request(Method::PUT, &target, tombstone)?;
        if is_stuck.load(Ordering::Relaxed) {
            return Err(GatewayError::UpstreamTimeout.into());
        }
        let told = upstream.ask(request, WRITTEN_BYTES_MAX).await;
        if matches!(told, Err(GatewayError::UpstreamTimeout)) {
            is_stuck.store(true, Ordering::Relaxed);
        }
        let is_late = may_come_late(&told);
        let written = told.map_err(Failure::from).and_then(Told::written);
        written.map_err(|failure| NotEmptied { failure, is_late })?;
        emptied();
        Ok(())
    });
    let written = stream::iter(writes).buffer_unordered(WRITES_AT_ONCE);
    let written: Vec<Result<(), NotEmptied>> = written.collect().await;
    let failed = written.into_iter().filter_map(Result::err);
    let told = failed.min_by_key(|failed| !failed.is_late);
    told.map_or(Ok(()), Err)
}

/// Returns the sync that tells of nothing else, and of nobody's presence.
///
/// Synapse answers a sync from the start out of a cache where the same one was asked for in the last
/// two minutes, whatever was written meanwhile. So each has a filter of its own, by a type that there
/// is not.
fn listing(devices: Of<'_>, mark: &str) -> String {
    let all_of = |device: &DeviceId| format!("{}*", mapped::types_of(device));
    let types = match devices {
        Of::Device(device) => all_of(device),
        Of::All | Of::AllBut(_) => format!("{}*", mapped::PREFIX),
    };
    let mut not_types = vec![format!("{}{mark}", mapped::PREFIX)];
    if let Of::AllBut(devices) = devices {
        not_types.extend(devices.iter().map(all_of));
    }
    let filter = json!({
        "account_data": {"types": [types], "not_types": not_types},
        "presence": {"not_types": ["*"]},
        "room": {"rooms": []},
    });
    let filter = filter.to_string();
    let filter = utf8_percent_encode(&filter, NON_ALPHANUMERIC);
    format!("/_matrix/client/v3/sync?timeout=0&set_presence=offline&filter={filter}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_device_may_keep_leaves_room_for_what_is_deleted() {
        let types_max = |entries, bytes| {
            let mut limits = Limits {
                device_content_bytes_max: bytes,
                ..Limits::default()
            };
            limits.quota.device_entries_max = entries;
            types_max(&limits)
        };
        let defaults = Limits::default();
        assert_eq!(super::types_max(&defaults), 4_096);
        for (entries, bytes, expected) in [
            (64, 64 * 1024, 4_096),
            (64, 85 * 1024, 64),
            (64, 85 * 1024 + 1, 63),
            (64, u64::MAX, 0),
            (u64::MAX, 1, 0),
            (0, 1, 16_384),
        ] {
            assert_eq!(types_max(entries, bytes), expected, "{entries} of {bytes}");
        }
    }

    #[test]
    fn no_two_listings_are_the_same_request() {
        let device = DeviceId::parse("PHONE").unwrap();
        let [one, other] = ["RUN-1", "RUN-2"].map(|mark| listing(Of::Device(&device), mark));
        assert!(one.contains("PHONE") && one != other, "{one}");
    }
}
