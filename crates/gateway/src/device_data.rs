//! `GET`, `PUT` and `DELETE` of device account data (MSC4331), kept in the homeserver as global
//! account data: `/user/{userId}/devices/{deviceId}/account_data/{type}`.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use kitbag_domain::{Content, DeviceId, GetError, Key, Limits, PermitError, WritePolicy};
use kitbag_http::shared::{EmptyObject, json_response, read_body_within};

use crate::answer::{Answer, Failure};
use crate::call::{Call, Head};
use crate::credentials::Credentials;
use crate::gateway::Gateway;
use crate::identity::Identity;
use crate::mapped;
use crate::metrics;

/// Bytes of what the homeserver answers to a write.
const WRITTEN_BYTES_MAX: usize = 64 * 1024;

pub(crate) async fn get(gateway: &Gateway, call: Call) -> Answer {
    let credentials = call.head.credentials();
    let upstream = gateway.upstream();
    let who = gateway.identities().recent(upstream, &credentials).await?;
    let (key, device) = target(&call.head, &who)?;
    gateway
        .devices()
        .exists_recently(upstream, &credentials, &who.user, &device)
        .await?;
    let content = stored(gateway, &credentials, &who, &device, &key).await?;
    let content = content.ok_or(GetError::NotFound)?;
    Ok(json_response(StatusCode::OK, content))
}

pub(crate) async fn put(gateway: &Gateway, call: Call) -> Answer {
    let credentials = call.head.credentials();
    let (who, key, device) = may_write(gateway, &call.head, &credentials).await?;
    let limits = Limits {
        content_bytes_max: gateway.limits().device_content_bytes_max,
        ..gateway.limits().clone()
    };
    let allowed = Duration::from_millis(gateway.settings().listener.body_timeout_ms);
    let body = read_body_within(call.body, limits.content_bytes_max, allowed);
    let body = metrics::for_client(body).await?;
    let content = Content::parse(body, &limits)?;
    write(gateway, &credentials, &who, &device, &key, content).await?;
    Ok(EmptyObject.into_response())
}

/// `DELETE` below `/_matrix/client/unstable/org.matrix.msc3391`: also of what is not there.
pub(crate) async fn delete(gateway: &Gateway, call: Call) -> Answer {
    let credentials = call.head.credentials();
    let (who, key, device) = may_write(gateway, &call.head, &credentials).await?;
    let stored = stored(gateway, &credentials, &who, &device, &key).await?;
    if stored.is_some() {
        let tombstone = mapped::tombstone();
        write(gateway, &credentials, &who, &device, &key, tombstone).await?;
    }
    Ok(EmptyObject.into_response())
}

/// Returns the entry that the path names, in the account of whoever asks.
fn target(head: &Head, who: &Identity) -> Result<(Key, DeviceId), Failure> {
    let path = head.own_path(&who.user)?;
    let key = path.key()?;
    Ok((key, path.device()?))
}

/// Checks everything but the body, in the order that the API has.
async fn may_write(
    gateway: &Gateway,
    head: &Head,
    credentials: &Credentials,
) -> Result<(Arc<Identity>, Key, DeviceId), Failure> {
    let upstream = gateway.upstream();
    let who = gateway.identities().fresh(upstream, credentials).await?;
    let (key, device) = target(head, &who)?;
    let devices = gateway.devices();
    devices.exists_now(upstream, credentials, &device).await?;
    match WritePolicy::of(&key) {
        WritePolicy::ServerManaged => {
            Err(PermitError::ServerManaged(key.event_type.clone()).into())
        }
        WritePolicy::OwnDevice if who.device.as_ref() != Some(&device) => {
            Err(PermitError::NotOwnDevice.into())
        }
        WritePolicy::AnyDevice | WritePolicy::OwnDevice => Ok((who, key, device)),
    }
}

/// Returns what the homeserver has; `None` for nothing and for a tombstone.
async fn stored(
    gateway: &Gateway,
    credentials: &Credentials,
    who: &Identity,
    device: &DeviceId,
    key: &Key,
) -> Result<Option<Bytes>, Failure> {
    let upstream_type = mapped::upstream_type(device, &key.event_type);
    let target = mapped::account_data_path(&who.user, &upstream_type);
    let request = credentials.request(Method::GET, &target, Bytes::new());
    let bytes_max = gateway.limits().content_bytes_max;
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let told = gateway.upstream().ask(request, bytes_max).await?;
    if told.status() == StatusCode::NOT_FOUND {
        return Ok(None);
    }
    let told = told.done()?;
    let content = told.body();
    Ok((!mapped::is_tombstone(content)).then(|| content.clone()))
}

async fn write(
    gateway: &Gateway,
    credentials: &Credentials,
    who: &Identity,
    device: &DeviceId,
    key: &Key,
    content: Content,
) -> Result<(), Failure> {
    let upstream_type = mapped::upstream_type(device, &key.event_type);
    let target = mapped::account_data_path(&who.user, &upstream_type);
    let request = credentials.request(Method::PUT, &target, content.into_bytes());
    let told = gateway.upstream().ask(request, WRITTEN_BYTES_MAX).await?;
    told.done().map(drop)
}
