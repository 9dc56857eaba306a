//! The device account data of a user, as the homeserver keeps them: listed and emptied.

use axum::http::Method;
use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use kitbag_domain::{DeviceId, EventType, UserId};
use kitbag_http::shared::RequestId;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;

use crate::answer::Failure;
use crate::credentials::Credentials;
use crate::mapped;
use crate::upstream::Upstream;

/// Bytes of a sync that lists them: 250 of the largest entries. Homeservers that look at filters
/// send little else; one that does not, and has more to tell, is not listened to.
pub(crate) const LISTING_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of what the homeserver answers to a write.
pub(crate) const WRITTEN_BYTES_MAX: usize = 64 * 1024;

/// Writes of one emptying at a time: more would only wait in the homeserver.
const WRITES_AT_ONCE: usize = 8;

/// An entry that is there.
pub(crate) struct Stored {
    pub(crate) device: DeviceId,
    pub(crate) event_type: EventType,
    pub(crate) content: Box<RawValue>,
}

#[derive(Deserialize)]
struct Synced {
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

/// Returns the entries of the caller's devices, or of one of them, without those that are deleted.
///
/// `mark` must be another one each time.
///
/// # Errors
/// What the homeserver says, and an answer that cannot be read.
pub(crate) async fn list(
    upstream: &Upstream,
    credentials: &Credentials,
    device: Option<&DeviceId>,
    mark: &RequestId,
) -> Result<Vec<Stored>, Failure> {
    let target = listing(device, mark.as_str());
    let request = credentials.request(Method::GET, &target, Bytes::new())?;
    let told = upstream.ask(request, LISTING_BYTES_MAX).await?.done()?;
    let Synced { account_data } = told.json()?;
    // Not each homeserver looks at filters.
    let stored = account_data.events.into_iter().filter_map(|event| {
        let (of, event_type) = mapped::device_and_type(&event.event_type)?;
        let is_asked_for = device.is_none_or(|device| *device == of);
        let is_there = !mapped::is_tombstone(event.content.get().as_bytes());
        (is_asked_for && is_there).then_some(Stored {
            device: of,
            event_type,
            content: event.content,
        })
    });
    Ok(stored.collect())
}

/// Empties entries and tells of each; all are tried, whatever becomes of one.
///
/// # Errors
/// What the homeserver says to the first that is not done.
pub(crate) async fn empty(
    upstream: &Upstream,
    credentials: &Credentials,
    user: &UserId,
    entries: Vec<Stored>,
    emptied: impl Fn() + Sync,
) -> Result<(), Failure> {
    let emptied = &emptied;
    let writes = entries.into_iter().map(|entry| async move {
        let upstream_type = mapped::upstream_type(&entry.device, &entry.event_type);
        let target = mapped::account_data_path(user, &upstream_type);
        let tombstone = mapped::tombstone().into_bytes();
        let request = credentials.request(Method::PUT, &target, tombstone)?;
        upstream.ask(request, WRITTEN_BYTES_MAX).await?.done()?;
        emptied();
        Ok(())
    });
    let written = stream::iter(writes).buffer_unordered(WRITES_AT_ONCE);
    let written: Vec<Result<(), Failure>> = written.collect().await;
    written.into_iter().collect()
}

/// Returns the sync that tells of nothing else, and of nobody's presence.
///
/// Synapse answers a sync from the start out of a cache where the same one was asked for in the last
/// two minutes, whatever was written meanwhile. So each has a filter of its own, by a type that there
/// is not.
fn listing(device: Option<&DeviceId>, mark: &str) -> String {
    let types = match device {
        Some(device) => format!("{}*", mapped::types_of(device)),
        None => format!("{}*", mapped::PREFIX),
    };
    let filter = json!({
        "account_data": {"types": [types], "not_types": [format!("{}{mark}", mapped::PREFIX)]},
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
    fn no_two_listings_are_the_same_request() {
        let device = DeviceId::parse("PHONE").unwrap();
        let [one, other] = ["RUN-1", "RUN-2"].map(|mark| listing(Some(&device), mark));
        assert!(one.contains("PHONE") && one != other, "{one}");
    }
}
