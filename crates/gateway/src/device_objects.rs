//! `GET /devices` and `GET /devices/{deviceId}` with the account data of each device (MSC4331), where
//! the settings say so: the answer of the homeserver, with one member more in a device that has any.

use std::collections::HashMap;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, ETAG};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http_body_util::BodyExt as _;
use kitbag_http::shared::{GatewayError, RequestId};
use serde::Deserialize;
use serde_json::json;
use serde_json::value::RawValue;
use tracing::debug;

use crate::answer::{Answer, Failure};
use crate::aside::aside;
use crate::call::Call;
use crate::credentials::Credentials;
use crate::devices::DEVICES_BYTES_MAX;
use crate::entries::{LISTING_BYTES_MAX, Of, Stored, list_if_small};
use crate::gateway::Gateway;
use crate::memory::Room;
use crate::owed::Standing;
use crate::pass::pass;
use crate::upstream::Upstream;

/// `GET /devices`.
pub(crate) async fn list(gateway: &Gateway, call: Call) -> Answer {
    #[derive(Deserialize)]
    struct List<'a> {
        #[serde(borrow)]
        devices: Vec<&'a RawValue>,
    }
    let devices = |body: &str| {
        let list = serde_json::from_str(body);
        let devices = list.map(|List { devices }| places(body, &devices));
        devices.unwrap_or_default()
    };
    answer(gateway, call, devices).await
}

/// `GET /devices/{deviceId}`.
pub(crate) async fn one(gateway: &Gateway, call: Call) -> Answer {
    let device = |body: &str| {
        let device = serde_json::from_str::<&RawValue>(body);
        let device = device.map(|device| places(body, &[device]));
        device.unwrap_or_default()
    };
    answer(gateway, call, device).await
}

/// A device in an answer: its ID, and where the object ends.
type Place = (String, usize);

/// Bytes of one request while it is read: both answers of the homeserver, and what is made of them.
const REQUEST_BYTES_MAX: usize = 2 * (DEVICES_BYTES_MAX + LISTING_BYTES_MAX);

/// What is sent, and the room that it takes until then.
struct Held {
    bytes: Bytes,
    _room: Room,
}

impl Held {
    /// Gives the room back that the answer does not need.
    fn sent(bytes: Bytes, mut room: Room) -> Bytes {
        room.keep(bytes.len());
        Bytes::from_owner(Self { bytes, _room: room })
    }
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

async fn answer(gateway: &Gateway, call: Call, places: impl Fn(&str) -> Vec<Place>) -> Answer {
    let credentials = call.head.credentials();
    let mut request = call.into_request();
    let is_get = request.method() == Method::GET;
    // So that it can be read; every client takes it plain.
    request.headers_mut().remove(ACCEPT_ENCODING);
    let response = pass(gateway, request).await?;
    if !is_get || response.status() != StatusCode::OK {
        return Ok(response);
    }
    let wait = Duration::from_millis(gateway.settings().upstream.ask_timeout_ms);
    let Some(room) = gateway
        .device_objects()
        .reserve(REQUEST_BYTES_MAX, wait)
        .await
    else {
        debug!("devices are told without their account data, as there is no room for these");
        return Ok(response);
    };
    let (mut parts, body) = response.into_parts();
    let body = match read(body).await? {
        Read::Whole(body) => body,
        Read::Begun(begun, rest) => {
            debug!("devices are told without their account data, as there are too many");
            let begun = Body::from(Held::sent(begun, room)).into_data_stream();
            let body = Body::from_stream(begun.chain(rest.into_data_stream()));
            return Ok(Response::from_parts(parts, body));
        }
    };
    let entries = match entries(gateway, &credentials).await {
        Ok(entries) => entries,
        Err(failure) => {
            // Who has the devices of an account on the screen wants to see them at least.
            debug!(?failure, "devices are told without their account data");
            Vec::new()
        }
    };
    let entries_bytes = entries.iter().map(|entry| entry.content.get().len());
    let bytes = body.len() + entries_bytes.sum::<usize>();
    let added = aside(bytes, || {
        let body = std::str::from_utf8(&body).ok()?;
        add(body, places(body), &entries)
    });
    if added.is_some() {
        parts.headers.remove(CONTENT_LENGTH);
        parts.headers.remove(ETAG);
    }
    let body = Held::sent(added.map_or(body, Bytes::from), room);
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// An answer of the homeserver.
enum Read {
    Whole(Bytes),
    /// More than is gathered here: what came of it, and what is still to come.
    Begun(Bytes, Body),
}

/// Reads an answer, as far as it may be gathered.
async fn read(mut body: Body) -> Result<Read, Failure> {
    let (mut pieces, mut bytes) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| GatewayError::UpstreamBroken)?;
        let Ok(piece) = frame.into_data() else {
            continue;
        };
        bytes += piece.len();
        pieces.push(piece);
        if bytes > DEVICES_BYTES_MAX {
            return Ok(Read::Begun(joined(bytes, &pieces), body));
        }
    }
    Ok(Read::Whole(joined(bytes, &pieces)))
}

fn joined(bytes: usize, pieces: &[Bytes]) -> Bytes {
    aside(bytes, || pieces.concat().into())
}

/// Returns the entries of the caller's devices. Those that are still to be emptied read as none.
async fn entries(gateway: &Gateway, credentials: &Credentials) -> Result<Vec<Stored>, Failure> {
    let upstream = gateway.upstream();
    let mark = || gateway.request_ids().next();
    if gateway.owed().is_empty() {
        return list_all(upstream, credentials, &mark()).await;
    }
    let who = gateway.identities().recent(upstream, credentials).await?;
    // Else they could be emptied in between, by what is then known not to be owed.
    let _turn = gateway.turns().shared(&who.user).await?;
    let mut entries = list_all(upstream, credentials, &mark()).await?;
    let standing = |entry: &Stored| gateway.owed().standing(&who.user, &entry.device);
    entries.retain(|entry| standing(entry) == Standing::Free);
    Ok(entries)
}

async fn list_all(
    upstream: &Upstream,
    credentials: &Credentials,
    mark: &RequestId<'_>,
) -> Result<Vec<Stored>, Failure> {
    let listed = list_if_small(upstream, credentials, Of::All, mark, LISTING_BYTES_MAX).await?;
    let listed = listed.ok_or(GatewayError::UpstreamTooLarge)?;
    Ok(listed.entries)
}

/// Returns where each device of the answer ends, before its closing brace.
fn places(body: &str, devices: &[&RawValue]) -> Vec<Place> {
    #[derive(Deserialize)]
    struct Device {
        device_id: String,
    }
    let places = devices.iter().filter_map(|device| {
        let text = device.get();
        let Device { device_id } = serde_json::from_str(text).ok()?;
        // Borrowed from the body, so its place there is that of its bytes.
        let start = text.as_ptr().addr().checked_sub(body.as_ptr().addr())?;
        Some((device_id, start + text.len() - 1))
    });
    places.collect()
}

/// Returns the answer with the entries; `None` where no device has any.
fn add(body: &str, places: Vec<Place>, entries: &[Stored]) -> Option<String> {
    let mut of_devices: HashMap<&str, Vec<&Stored>> = HashMap::new();
    for entry in entries {
        let of_device = of_devices.entry(entry.device.as_str()).or_default();
        of_device.push(entry);
    }
    let mut out = String::with_capacity(body.len());
    let mut done = 0;
    for (device, end) in places {
        let Some(entries) = of_devices.get(device.as_str()) else {
            continue;
        };
        out.push_str(&body[done..end]);
        out.push_str(",\"account_data\":{\"events\":[");
        for (at, entry) in entries.iter().enumerate() {
            out.push_str(if at == 0 { "" } else { "," });
            out.push_str("{\"type\":");
            out.push_str(&json!(entry.event_type.as_str()).to_string());
            out.push_str(",\"content\":");
            out.push_str(entry.content.get());
            out.push('}');
        }
        out.push_str("]}");
        done = end;
    }
    out.push_str(&body[done..]);
    (done > 0).then_some(out)
}

#[cfg(test)]
mod tests {
    use kitbag_domain::{DeviceId, EventType};

    use super::*;
    use crate::memory::Memory;

    fn stored(device: &str, event_type: &str, content: &str) -> Stored {
        Stored {
            device: DeviceId::parse(device).unwrap(),
            event_type: EventType::parse(event_type).unwrap(),
            content: RawValue::from_string(content.to_owned()).unwrap(),
        }
    }

    #[test]
    fn entries_are_added_to_their_devices_and_all_else_stays_byte_for_byte() {
        let body = r#" {"next": 1.0, "devices": [{"device_id":"A" }, {"a":[], "device_id": "B"}]}"#;
        #[derive(Deserialize)]
        struct List<'a> {
            #[serde(borrow)]
            devices: Vec<&'a RawValue>,
        }
        let List { devices } = serde_json::from_str(body).unwrap();
        let entries = [
            stored("B", "x\"", r#"{"n": 1.0}"#),
            stored("B", "y", "{}"),
            stored("C", "z", "{}"),
        ];
        let added = add(body, places(body, &devices), &entries).unwrap();
        let events = r#"[{"type":"x\"","content":{"n": 1.0}},{"type":"y","content":{}}]"#;
        let expected = format!(
            r#" {{"next": 1.0, "devices": [{{"device_id":"A" }}, {{"a":[], "device_id": "B","account_data":{{"events":{events}}}}}]}}"#
        );
        assert_eq!(added, expected);
        assert_eq!(add(body, places(body, &devices), &entries[2..]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_room_for_some_at_once_and_what_is_sent_takes_its_own_size() {
        let memory = Memory::default();
        let wait = Duration::from_secs(5);
        let mut rooms = Vec::new();
        while let Some(room) = memory.reserve(REQUEST_BYTES_MAX, wait).await {
            rooms.push(room);
        }
        assert_eq!(rooms.len(), 3);
        let free = memory.free();
        let sent = Held::sent(Bytes::from_static(b"abc"), rooms.pop().unwrap());
        assert_eq!(sent, &b"abc"[..]);
        assert_eq!(memory.free(), free + REQUEST_BYTES_MAX - 3);
        assert!(memory.reserve(REQUEST_BYTES_MAX, wait).await.is_some());
        drop(sent);
        assert_eq!(memory.free(), free + REQUEST_BYTES_MAX);
    }
}
