//! The ends of devices: their account data end with them.
//!
//! `POST /logout` and `/logout/all` take the credentials along, so that entries are emptied just
//! before. `DELETE /devices/{deviceId}`, `POST /delete_devices` and `POST /account/password` often
//! are answered with a challenge first, so that nothing is emptied before the homeserver says 200.
//! All of it is done to its end even where the client goes away meanwhile.
//!
//! Spec: CS API, Login, Device management, Account management. MSC4331.

use axum::body::Body;
use axum::http::header::ACCEPT_ENCODING;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::{BodyExt as _, Limited};
use kitbag_domain::{DeviceId, UserId};
use kitbag_http::shared::{Denial, GatewayError, read_body_within};
use serde::Deserialize;
use std::time::Duration;
use tracing::{Instrument as _, debug};

use crate::answer::{Answer, Failure};
use crate::call::Call;
use crate::credentials::Credentials;
use crate::devices;
use crate::entries;
use crate::gateway::Gateway;
use crate::metrics::{self, Cause};
use crate::owed::Ended;
use crate::pass::pass;

/// Bytes of a request that ends devices: a list of all those that a user can have.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of an answer to a login.
const LOGIN_BYTES_MAX: usize = 1024 * 1024;

/// `POST /logout`.
pub(crate) async fn logout(gateway: &Gateway, call: Call) -> Answer {
    to_its_end(gateway, |gateway| log_out(gateway, call, false)).await
}

/// `POST /logout/all`.
pub(crate) async fn logout_all(gateway: &Gateway, call: Call) -> Answer {
    to_its_end(gateway, |gateway| log_out(gateway, call, true)).await
}

/// `DELETE /devices/{deviceId}`.
pub(crate) async fn delete_device(gateway: &Gateway, call: Call) -> Answer {
    // What cannot be an ID has no entries.
    let device = call.head.path().ok().and_then(|path| path.device().ok());
    let ended = move |_: &[u8]| Ended::these(device);
    to_its_end(gateway, |gateway| remove(gateway, call, ended)).await
}

/// `POST /delete_devices`.
pub(crate) async fn delete_devices(gateway: &Gateway, call: Call) -> Answer {
    #[derive(Deserialize)]
    struct Named {
        devices: Vec<String>,
    }
    let ended = |body: &[u8]| {
        let named = serde_json::from_slice(body).map(|Named { devices }| devices);
        let named = named.unwrap_or_default().into_iter();
        Ended::these(named.filter_map(|device| DeviceId::parse(device).ok()))
    };
    to_its_end(gateway, |gateway| remove(gateway, call, ended)).await
}

/// `POST /account/password`, which logs the other devices out unless it is told not to.
pub(crate) async fn password(gateway: &Gateway, call: Call) -> Answer {
    let ended = |_: &[u8]| Ended::others();
    to_its_end(gateway, |gateway| remove(gateway, call, ended)).await
}

/// `POST /login` and `/register`: a device that ended may begin again under the same ID, and what is
/// still to be emptied then is, with its new token, before anybody knows of it.
pub(crate) async fn login(gateway: &Gateway, call: Call) -> Answer {
    to_its_end(gateway, |gateway| log_in(gateway, call)).await
}

/// Empties what is owed to a user, with whichever credentials there are.
pub(crate) async fn settle(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
) -> Result<(), Failure> {
    if gateway.owed().of(user).is_none() {
        return Ok(());
    }
    let _turn = gateway.turns().alone(user).await?;
    let Some(ended) = gateway.owed().of(user) else {
        return Ok(());
    };
    empty(gateway, credentials, user, &ended, Cause::Gone).await?;
    gateway.owed().settle(user);
    Ok(())
}

/// Empties the entries of a device that somebody asked for and that is not there: it was removed
/// past the gateway. Whatever becomes of it, they read as none.
pub(crate) async fn empty_gone(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    device: &DeviceId,
) {
    let devices = gateway.devices();
    if devices.is_emptied(user, device) {
        return;
    }
    let Ok(_turn) = gateway.turns().alone(user).await else {
        return;
    };
    // Asked again: it may be there, and written, since the turn was waited for.
    let exists = devices.exists_now(gateway.upstream(), credentials, device);
    if !matches!(exists.await, Ok(false)) {
        return;
    }
    let ended = Ended::these([device.clone()]);
    let emptied = empty(gateway, credentials, user, &ended, Cause::Gone);
    if emptied.await.is_ok() {
        devices.set_emptied(user, device);
    }
}

/// Does the work also where nobody waits for it any more.
async fn to_its_end<F>(gateway: &Gateway, work: impl FnOnce(Gateway) -> F) -> Answer
where
    F: Future<Output = Answer> + Send + 'static,
{
    let work = tokio::spawn(work(gateway.clone()).in_current_span());
    // Another task, whose time is that of the homeserver.
    metrics::for_client(work)
        .await
        .unwrap_or_else(|_panicked| Err(Denial::panicked().into()))
}

async fn log_out(gateway: Gateway, call: Call, all: bool) -> Answer {
    let credentials = call.head.credentials();
    let identities = gateway.identities();
    let Ok(who) = identities.fresh(gateway.upstream(), &credentials).await else {
        // What is wrong with the token is for the homeserver to say.
        return pass(&gateway, call.into_request()).await;
    };
    let request = read(&gateway, call).await?;
    let user = &who.user;
    // Where the turn does not come, the user is logged out all the same.
    let turn = gateway.turns().alone(user).await;
    let ended = match (all, &who.device) {
        (true, _) => Ended::all(),
        (false, device) => Ended::these(device.clone()),
    };
    let owed = gateway.owed().of(user);
    let ended = owed.into_iter().fold(ended, Ended::and);
    let emptied = empty(&gateway, &credentials, user, &ended, Cause::Logout).await;
    let response = pass(&gateway, request).await;
    gateway.forget(user);
    let is_out = matches!(&response, Ok(response) if response.status() == StatusCode::OK);
    match emptied {
        Ok(()) => gateway.owed().settle(user),
        Err(_) if is_out => gateway.owed().add(user, ended),
        Err(_) => {}
    }
    drop(turn);
    response
}

async fn remove(gateway: Gateway, call: Call, ended: impl FnOnce(&[u8]) -> Ended) -> Answer {
    let credentials = call.head.credentials();
    let identities = gateway.identities();
    let Ok(who) = identities.fresh(gateway.upstream(), &credentials).await else {
        return pass(&gateway, call.into_request()).await;
    };
    let (parts, body) = read(&gateway, call).await?.into_parts();
    let body = body.collect().await.expect("it was read").to_bytes();
    let ended = ended(&body);
    let user = &who.user;
    let turn = gateway.turns().alone(user).await;
    let request = Request::from_parts(parts, Body::from(body));
    let response = pass(&gateway, request).await?;
    if response.status() == StatusCode::OK {
        gateway.forget(user);
        // The caller's own device may be among them, and its credentials with it.
        let cause = match ended.others {
            true => Cause::Password,
            false => Cause::Deletion,
        };
        let emptied = empty(&gateway, &credentials, user, &ended, cause).await;
        if emptied.is_err() {
            gateway.owed().add(user, ended);
        }
    }
    drop(turn);
    Ok(response)
}

async fn log_in(gateway: Gateway, call: Call) -> Answer {
    #[derive(Deserialize)]
    struct Session {
        user_id: String,
        access_token: String,
    }
    let credentials = call.head.credentials();
    let mut request = call.into_request();
    // So that it can be read; every client takes it plain.
    request.headers_mut().remove(ACCEPT_ENCODING);
    let response = pass(&gateway, request).await?;
    let is_anything_due = gateway.turns().is_any_alone() || !gateway.owed().is_empty();
    if response.status() != StatusCode::OK || !is_anything_due {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LOGIN_BYTES_MAX).collect().await;
    let body = body.map_err(|_| GatewayError::UpstreamBroken)?.to_bytes();
    let session = serde_json::from_slice(&body);
    let session = session.ok().and_then(
        |Session {
             user_id,
             access_token,
         }| {
            Some((
                UserId::parse(user_id).ok()?,
                credentials.bearer(&access_token)?,
            ))
        },
    );
    if let Some((user, credentials)) = session {
        // An end that is under way is waited for: its device may be this one.
        drop(gateway.turns().shared(&user).await);
        if let Err(failure) = settle(&gateway, &credentials, &user).await {
            debug!(?failure, "what a login was to empty stays");
        }
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Empties the entries of devices that ended; who calls has the turn.
async fn empty(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    ended: &Ended,
    cause: Cause,
) -> Result<(), Failure> {
    let upstream = gateway.upstream();
    if *ended == Ended::default() {
        return Ok(());
    }
    // Asked for before the entries: of a device that begins in between, the entries are not its own.
    let living = match ended.others && !ended.all {
        true => Some(devices::all(upstream, credentials).await?),
        false => None,
    };
    let only = match (&living, ended.all, ended.devices.len()) {
        (None, false, 1) => ended.devices.first(),
        _ => None,
    };
    let mark = gateway.request_ids().next();
    let mut entries = entries::list(upstream, credentials, only, &mark).await?;
    entries.retain(|entry| {
        let is_alive = |living: &devices::Ids| living.contains(entry.device.as_str());
        ended.has(&entry.device) || living.as_ref().is_some_and(|living| !is_alive(living))
    });
    let emptied = || gateway.metrics().emptied(cause);
    entries::empty(upstream, credentials, user, entries, emptied).await
}

/// Reads the body before anything is locked: a slow client holds up nobody, not even itself.
async fn read(gateway: &Gateway, call: Call) -> Result<Request<Body>, Failure> {
    let (parts, body) = call.into_request().into_parts();
    let allowed = Duration::from_millis(gateway.settings().listener.body_timeout_ms);
    let body = read_body_within(body, REQUEST_BYTES_MAX, allowed).await?;
    Ok(Request::from_parts(parts, Body::from(body)))
}
