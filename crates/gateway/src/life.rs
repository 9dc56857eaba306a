//! The ends of devices: their account data end with them.
//!
//! `POST /logout` and `/logout/all` take the credentials along, so that entries are emptied just
//! before. `DELETE /devices/{deviceId}`, `POST /delete_devices` and `POST /account/password` often
//! are answered with a challenge first, so that nothing is emptied before the homeserver says 200.
//! All of it is done to its end even where the client goes away meanwhile.
//!
//! What could not be emptied is owed. Before that is paid the homeserver is asked which devices live:
//! those of that ID began anew past this gateway, and keep what they have.
//!
//! Spec: CS API, Login, Device management, Account management. MSC4331.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::ACCEPT_ENCODING;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use http_body_util::{BodyExt as _, Limited};
use kitbag_domain::{DeviceId, UserId};
use kitbag_http::shared::{Denial, GatewayError, read_body_within};
use serde::Deserialize;
use tokio::time::{self, Instant};
use tracing::{Instrument as _, debug};

use crate::answer::{Answer, Failure, Outcome};
use crate::call::Call;
use crate::credentials::Credentials;
use crate::devices;
use crate::entries::{self, Of};
use crate::gateway::Gateway;
use crate::identity::Identity;
use crate::metrics::{self, Cause};
use crate::owed::{Debt, Ended};
use crate::pass::pass;

/// Bytes of a request that ends devices: a list of all those that a user can have.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of an answer to a login.
const LOGIN_BYTES_MAX: usize = 1024 * 1024;

/// Devices that a filter names: it is a part of a path.
const FILTER_DEVICES_MAX: usize = 50;

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
    to_its_end(gateway, |gateway| {
        remove(gateway, call, Cause::Deletion, ended)
    })
    .await
}

/// `POST /delete_devices`.
pub(crate) async fn delete_devices(gateway: &Gateway, call: Call) -> Answer {
    #[derive(Deserialize)]
    struct Named {
        devices: Vec<String>,
    }
    let ended = |body: &[u8]| match serde_json::from_slice(body) {
        Ok(Named { devices }) => {
            let devices = devices.into_iter();
            Ended::these(devices.filter_map(|device| DeviceId::parse(device).ok()))
        }
        // The homeserver may read more in it.
        Err(_) => Ended::others(),
    };
    to_its_end(gateway, |gateway| {
        remove(gateway, call, Cause::Deletion, ended)
    })
    .await
}

/// `POST /account/password`, which logs the other devices out unless it is told not to.
pub(crate) async fn password(gateway: &Gateway, call: Call) -> Answer {
    #[derive(Deserialize)]
    struct Asked {
        logout_devices: Option<bool>,
    }
    let ended = |body: &[u8]| match serde_json::from_slice(body) {
        Ok(Asked {
            logout_devices: Some(false),
        }) => Ended::default(),
        _ => Ended::others(),
    };
    to_its_end(gateway, |gateway| {
        remove(gateway, call, Cause::Password, ended)
    })
    .await
}

/// `POST /login` and `/register`: a device that ended may begin again under the same ID, and what is
/// still to be emptied then is, with its new token, before anybody knows of it.
pub(crate) async fn login(gateway: &Gateway, call: Call) -> Answer {
    to_its_end(gateway, |gateway| log_in(gateway, call)).await
}

/// Empties what is owed to a user, with whichever credentials there are; not soon after it failed.
pub(crate) async fn settle(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
) -> Result<(), Failure> {
    if gateway.owed().due(user).is_none() {
        return Ok(());
    }
    let (credentials, user) = (credentials.clone(), user.clone());
    let settle = |gateway: Gateway| async move {
        let _turn = gateway.turns().alone(&user).await?;
        match gateway.owed().due(&user) {
            Some(debt) => pay(&gateway, &credentials, &user, &debt).await,
            None => Ok(()),
        }
    };
    to_its_end(gateway, settle).await
}

/// Empties the entries of a device that somebody asked for and that is not there: it was removed
/// past the gateway. Whatever becomes of it, they read as none.
pub(crate) async fn empty_gone(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    device: &DeviceId,
) {
    if gateway.devices().is_emptied(user, device) {
        return;
    }
    let (credentials, user, device) = (credentials.clone(), user.clone(), device.clone());
    let empty_gone = |gateway: Gateway| async move {
        let _turn = gateway.turns().alone(&user).await?;
        // Asked again: it may be there, and written, since the turn was waited for.
        let devices = gateway.devices();
        let exists = devices.exists_now(gateway.upstream(), &credentials, &device);
        if !exists.await? {
            let ended = Ended::these([device.clone()]);
            let emptying = Emptying::of(&ended, Cause::Gone);
            empty(&gateway, &credentials, &user, emptying).await?;
            devices.set_emptied(&user, &device);
        }
        Ok(())
    };
    if let Err(failure) = to_its_end(gateway, empty_gone).await {
        debug!(?failure, "entries of a device that is gone stay");
    }
}

/// Does the work also where nobody waits for it any more.
async fn to_its_end<T, F>(gateway: &Gateway, work: impl FnOnce(Gateway) -> F) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
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
        return pass_of_unknown(&gateway, call.into_request(), &credentials).await;
    };
    let request = read(&gateway, call).await?;
    let user = &who.user;
    // Where the turn does not come, the user is logged out all the same.
    let turn = gateway.turns().alone(user).await;
    let ended = match (all, &who.device) {
        (true, _) => Ended::all(),
        (false, device) => Ended::these(device.clone()),
    };
    let deadline = Instant::now() + ask_timeout(&gateway);
    let emptying = Emptying::of(&ended, Cause::Logout);
    let emptied = empty(&gateway, &credentials, user, emptying);
    let is_emptied = matches!(time::timeout_at(deadline, emptied).await, Ok(Ok(_)));
    let is_done = is_emptied && turn.is_ok();
    if is_done && let Some(debt) = gateway.owed().due(user) {
        let paid = pay(&gateway, &credentials, user, &debt);
        drop(time::timeout_at(deadline, paid).await);
    }
    let response = pass(&gateway, request).await;
    gateway.forget(user);
    match outcome(&response) {
        Outcome::Done if !is_done => gateway.owed().add(user, ended),
        Outcome::Unknown => gateway.owed().add(user, Ended::others()),
        Outcome::Done | Outcome::Refused => {}
    }
    drop(turn);
    response
}

async fn remove(
    gateway: Gateway,
    call: Call,
    cause: Cause,
    ended: impl FnOnce(&[u8]) -> Ended,
) -> Answer {
    let credentials = call.head.credentials();
    let identities = gateway.identities();
    let Ok(who) = identities.fresh(gateway.upstream(), &credentials).await else {
        return pass_of_unknown(&gateway, call.into_request(), &credentials).await;
    };
    let (parts, body) = read(&gateway, call).await?.into_parts();
    let body = body.collect().await.expect("it was read").to_bytes();
    let mut ended = ended(&body);
    let user = &who.user;
    let turn = gateway.turns().alone(user).await;
    if matches!(cause, Cause::Password) && ended.others {
        // Now they can be named: later one of them may have begun anew.
        ended = others(&gateway, &credentials, &who).await.unwrap_or(ended);
    }
    let request = Request::from_parts(parts, Body::from(body));
    let response = pass(&gateway, request).await;
    match outcome(&response) {
        Outcome::Done => {
            gateway.forget(user);
            // The caller's own device may be among them, and its credentials with it.
            let emptying = Emptying::of(&ended, cause);
            let emptied = empty(&gateway, &credentials, user, emptying).await;
            if emptied.is_err() || turn.is_err() {
                gateway.owed().add(user, ended);
            }
        }
        Outcome::Unknown => {
            gateway.forget(user);
            gateway.owed().add(user, Ended::others());
        }
        Outcome::Refused => {}
    }
    drop(turn);
    response
}

/// Returns all devices but the caller's own.
async fn others(
    gateway: &Gateway,
    credentials: &Credentials,
    who: &Identity,
) -> Result<Ended, Failure> {
    let living = devices::all(gateway.upstream(), credentials).await?;
    let own = who.device.as_ref();
    let living = parsed(living).filter(|device| Some(device) != own);
    Ok(Ended::these(living))
}

/// Hands on what ends devices of somebody unknown: what is wrong with the token is for the homeserver
/// to say. It may also have been in trouble for a moment only, and end them now.
async fn pass_of_unknown(
    gateway: &Gateway,
    request: Request<Body>,
    credentials: &Credentials,
) -> Answer {
    let response = pass(gateway, request).await;
    gateway.identities().forget(credentials.fingerprint());
    response
}

/// What became of a request that ends devices; where no answer came nobody knows.
fn outcome(answer: &Answer) -> Outcome {
    let status = answer.as_ref().map(Response::status);
    status.map_or(Outcome::Unknown, Outcome::of)
}

async fn log_in(gateway: Gateway, call: Call) -> Answer {
    #[derive(Deserialize)]
    struct Session {
        user_id: String,
        access_token: String,
        device_id: Option<String>,
    }
    let credentials = call.head.credentials();
    let login = gateway.owed().log_in();
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
    let session = session.ok().and_then(|session: Session| {
        let user = UserId::parse(session.user_id).ok()?;
        let device = session.device_id.and_then(|id| DeviceId::parse(id).ok());
        Some((user, device, credentials.bearer(&session.access_token)?))
    });
    if let Some((user, device, credentials)) = session {
        if let Some(device) = &device {
            gateway.owed().began(&user, device);
        }
        // From here on it is known that the device began.
        drop(login);
        if let Err(failure) = settle_at_login(&gateway, &credentials, &user, device).await {
            debug!(?failure, "what a login was to empty stays");
        }
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Empties what is owed to somebody who logged in, also of the device that did.
async fn settle_at_login(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    device: Option<DeviceId>,
) -> Result<(), Failure> {
    let owed = gateway.owed();
    // An end that is under way is waited for: its device may be this one.
    drop(gateway.turns().shared(user).await?);
    if let Some(device) = device {
        owed.began(user, &device);
    }
    if owed.of(user).is_none() {
        return Ok(());
    }
    let _turn = gateway.turns().alone(user).await?;
    match gateway.owed().of(user) {
        Some(debt) => pay(gateway, credentials, user, &debt).await,
        None => Ok(()),
    }
}

/// Which entries are to be emptied.
struct Emptying<'a> {
    ended: &'a Ended,
    cause: Cause,
    /// Where it ended some time ago devices that live keep theirs, but for these.
    anew: Option<&'a BTreeSet<DeviceId>>,
}

impl<'a> Emptying<'a> {
    /// Of what ends now.
    fn of(ended: &'a Ended, cause: Cause) -> Self {
        Self {
            ended,
            cause,
            anew: None,
        }
    }

    fn needs_living(&self) -> bool {
        self.anew.is_some() || (self.ended.others && !self.ended.all)
    }

    fn has(&self, device: &DeviceId, living: Option<&devices::Ids>) -> bool {
        let is_gone = living.is_some_and(|living| !living.contains(device.as_str()));
        let keeps = self.anew.is_some_and(|anew| !anew.contains(device));
        let is_known = self.ended.has(device);
        (is_known && !keeps) || (is_gone && (is_known || self.ended.others))
    }
}

/// Empties what is owed; who calls has the turn.
async fn pay(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    debt: &Debt,
) -> Result<(), Failure> {
    let emptying = Emptying {
        anew: Some(&debt.anew),
        ..Emptying::of(&debt.ended, Cause::Gone)
    };
    let paid = empty(gateway, credentials, user, emptying).await;
    let owed = gateway.owed();
    match &paid {
        // Who lives may be about to log in through this gateway: nobody knows yet.
        Ok(Spared::Some) if owed.is_any_login() => {}
        Ok(_) => owed.settle(user, debt),
        // These credentials ended meanwhile, those of others need not have.
        Err(Failure::Relayed(told)) if told.status() == StatusCode::UNAUTHORIZED => {}
        Err(_) => owed.failed(user),
    }
    paid.map(drop)
}

/// Whether devices that ended live, and kept their entries.
enum Spared {
    None,
    Some,
}

/// Empties the entries of devices that ended; who calls has the turn.
async fn empty(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    emptying: Emptying<'_>,
) -> Result<Spared, Failure> {
    let upstream = gateway.upstream();
    let ended = emptying.ended;
    if *ended == Ended::default() {
        return Ok(Spared::None);
    }
    // Asked for before the entries: of a device that begins in between, the entries are not its own.
    let living = match emptying.needs_living() {
        true => Some(devices::all(upstream, credentials).await?),
        false => None,
    };
    empty_listed(gateway, credentials, user, &emptying, living.as_ref()).await?;
    let is_spared = |device: &DeviceId| ended.has(device) && !emptying.has(device, living.as_ref());
    let mut those = parsed(living.iter().flatten().cloned());
    Ok(match those.any(|device| is_spared(&device)) {
        true => Spared::Some,
        false => Spared::None,
    })
}

/// Lists entries and empties those of devices that ended: at once where there are not too many.
async fn empty_listed(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    emptying: &Emptying<'_>,
    living: Option<&devices::Ids>,
) -> Result<(), Failure> {
    let upstream = gateway.upstream();
    let ended = emptying.ended;
    let are_known = !ended.all && !ended.others;
    let empty_of = async |of: Of<'_>| {
        let mark = gateway.request_ids().next();
        let listed = entries::list_if_small(upstream, credentials, of, &mark).await?;
        let Some(mut entries) = listed else {
            return Ok::<_, Failure>(None);
        };
        entries.retain(|entry| emptying.has(&entry.device, living));
        let emptied = || gateway.metrics().emptied(emptying.cause);
        entries::empty(upstream, credentials, user, entries, emptied).await?;
        Ok(Some(()))
    };
    let too_large = || Failure::from(GatewayError::UpstreamTooLarge);
    let of = match ended.devices.first() {
        Some(device) if are_known && ended.devices.len() == 1 => Of::Device(device),
        _ => Of::All,
    };
    if empty_of(of).await?.is_some() {
        return Ok(());
    }
    let devices: Vec<DeviceId> = match (are_known, living) {
        (true, _) => ended.devices.iter().cloned().collect(),
        // These keep what they have, all others are asked for.
        (false, Some(living)) if living.len() <= FILTER_DEVICES_MAX => {
            let living = parsed(living.iter().cloned()).collect::<Vec<_>>();
            return empty_of(Of::AllBut(&living)).await?.ok_or_else(too_large);
        }
        (false, _) => parsed(devices::all(upstream, credentials).await?).collect(),
    };
    // One by one to its end: all contents at once could be as much as an account can have.
    for device in &devices {
        empty_of(Of::Device(device)).await?.ok_or_else(too_large)?;
    }
    Ok(())
}

fn parsed(ids: impl IntoIterator<Item = String>) -> impl Iterator<Item = DeviceId> {
    ids.into_iter().filter_map(|id| DeviceId::parse(id).ok())
}

fn ask_timeout(gateway: &Gateway) -> Duration {
    Duration::from_millis(gateway.settings().upstream.ask_timeout_ms)
}

/// Reads the body before anything is locked: a slow client holds up nobody, not even itself.
async fn read(gateway: &Gateway, call: Call) -> Result<Request<Body>, Failure> {
    let (parts, body) = call.into_request().into_parts();
    let allowed = Duration::from_millis(gateway.settings().listener.body_timeout_ms);
    let body = read_body_within(body, REQUEST_BYTES_MAX, allowed).await?;
    Ok(Request::from_parts(parts, Body::from(body)))
}
