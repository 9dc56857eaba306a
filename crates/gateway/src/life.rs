//! The ends of devices: their account data end with them.
//!
//! `POST /logout` and `/logout/all` take the credentials along, so that entries are emptied just
//! before. `DELETE /devices/{deviceId}`, `POST /delete_devices` and `POST /account/password` often
//! are answered with a challenge first, so that nothing is emptied before the homeserver says 200.
//! All of it is done to its end even where the client goes away meanwhile, once the homeserver said who
//! asks: before that nothing is begun.
//!
//! What could not be emptied is owed ([`crate::owed`]): nobody reads or writes these devices before it
//! is paid. What ends is written down there before the homeserver is told, so that nothing comes in
//! between, whatever becomes of turns and answers.
//!
//! Spec: CS API, Login, Device management, Account management. MSC4331.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::ACCEPT_ENCODING;
use axum::http::{Request, StatusCode};
use axum::response::Response;
use futures_util::FutureExt as _;
use http_body_util::{BodyExt as _, Limited};
use kitbag_domain::{DeviceId, UserId};
use kitbag_http::shared::{Denial, GatewayError, read_body_within};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time;
use tracing::{Instrument as _, debug};

use crate::answer::{Answer, Failure, Outcome};
use crate::aside::aside;
use crate::call::Call;
use crate::credentials::Credentials;
use crate::devices;
use crate::emptying::{self, Deadline, Emptying, empty, parsed};
use crate::entries::NotEmptied;
use crate::gateway::Gateway;
use crate::identity::Identity;
use crate::metrics::{self, Cause};
use crate::owed::{Became, Debt, Ended, OWED_TO_ONE_MAX};
use crate::pass::pass;
use crate::turns::Turn;
use crate::works::Place;

/// Bytes of a request that ends devices: a list of all those that a user can have.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024;

/// How long a login waits for what is still to be emptied.
const LOGIN_WAIT_MAX: Duration = Duration::from_secs(5);

/// What a client is told to wait where too much goes on for clients that left.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// Bytes of an answer to a login.
const LOGIN_BYTES_MAX: usize = 1024 * 1024;

/// `POST /logout`.
pub(crate) async fn logout(gateway: &Gateway, call: Call) -> Answer {
    log_out(gateway, call, false).await
}

/// `POST /logout/all`.
pub(crate) async fn logout_all(gateway: &Gateway, call: Call) -> Answer {
    log_out(gateway, call, true).await
}

/// `DELETE /devices/{deviceId}`.
pub(crate) async fn delete_device(gateway: &Gateway, call: Call) -> Answer {
    // What cannot be an ID has no entries.
    let device = call.head.path().ok().and_then(|path| path.device().ok());
    let ended = move |_: &[u8]| Ended::these(device);
    remove(gateway, call, Cause::Deletion, ended).await
}

/// `POST /delete_devices`.
pub(crate) async fn delete_devices(gateway: &Gateway, call: Call) -> Answer {
    #[derive(Deserialize)]
    struct Named {
        devices: Vec<String>,
    }
    let ended = |body: &[u8]| match serde_json::from_slice(body) {
        Ok(Named { devices }) if devices.len() <= OWED_TO_ONE_MAX => {
            let devices = devices.into_iter();
            Ended::these(devices.filter_map(|device| DeviceId::parse(device).ok()))
        }
        // The homeserver may read more in it, or knows from a stage before what was asked for; and so
        // many are not written down.
        _ => Ended::others(),
    };
    remove(gateway, call, Cause::Deletion, ended).await
}

/// `POST /account/password`, which logs the other devices out unless it is told not to.
pub(crate) async fn password(gateway: &Gateway, call: Call) -> Answer {
    #[derive(Deserialize)]
    struct Asked {
        new_password: Option<IgnoredAny>,
        logout_devices: Option<bool>,
    }
    let ended = |body: &[u8]| match serde_json::from_slice(body) {
        Ok(Asked {
            new_password: Some(_),
            logout_devices,
        }) => match logout_devices {
            Some(false) => Ended::default(),
            _ => Ended::all(),
        },
        // Synapse lets the last stage have `auth` alone, and knows from the first whether the others
        // are to stay.
        _ => Ended::others(),
    };
    remove(gateway, call, Cause::Password, ended).await
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
    let place = gateway.works().later.take(user);
    let (credentials, user) = (credentials.clone(), user.clone());
    let settle = |gateway: Gateway| async move {
        let _turn = gateway.turns().alone(&user).await?;
        match gateway.owed().due(&user) {
            Some(debt) => pay(&gateway, &credentials, &user, debt).await,
            None => Ok(()),
        }
    };
    to_its_end(gateway, place, settle).await
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
    let place = gateway.works().later.take(user);
    let (credentials, user, device) = (credentials.clone(), user.clone(), device.clone());
    let empty_gone = |gateway: Gateway| async move {
        let _turn = gateway.turns().alone(&user).await?;
        // Asked again: it may be there, and written, since the turn was waited for.
        let devices = gateway.devices();
        let exists = devices.exists_now(gateway.upstream(), &credentials, &device);
        if exists.await? {
            return Ok(());
        }
        let ended = Ended::these([device.clone()]);
        let emptying = Emptying::of(ended.clone(), Cause::Gone);
        let emptied = empty(&gateway, &credentials, &user, &emptying);
        let emptied = Deadline::of(&gateway).keep(&emptying, emptied).await;
        match &emptied {
            Ok(_) => devices.set_emptied(&user, &device),
            // What is done late is not to land behind the write of one that begins anew.
            Err(failed) if failed.is_late => gateway.owed().add_late(&user, &ended),
            // Whoever takes the ID next is not to read what was found.
            Err(_) => gateway.owed().add(&user, &emptying.left()),
        }
        emptied.map(drop).map_err(|failed| failed.failure)
    };
    if let Err(failure) = to_its_end(gateway, place, empty_gone).await {
        debug!(?failure, "entries of a device that is gone stay");
    }
}

/// Does the work also where nobody waits for it any more, if it has a place.
async fn to_its_end<T, F>(
    gateway: &Gateway,
    place: Option<Place>,
    work: impl FnOnce(Gateway) -> F,
) -> Result<T, Failure>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Failure>> + Send + 'static,
{
    let place = place.ok_or(GatewayError::TooManyEnds {
        retry_after: RETRY_AFTER,
    })?;
    let work = work(gateway.clone()).in_current_span();
    let work = tokio::spawn(work.inspect(move |_| drop(place)));
    // Another task, whose time is that of the homeserver.
    metrics::for_client(work)
        .await
        .unwrap_or_else(|_panicked| Err(Denial::panicked().into()))
}

/// Who ends something.
struct Caller {
    credentials: Credentials,
    who: Arc<Identity>,
    /// Whether the homeserver said so just now.
    is_known: bool,
}

async fn log_out(gateway: &Gateway, call: Call, all: bool) -> Answer {
    let credentials = call.head.credentials();
    let identities = gateway.identities();
    // Nothing goes on for a client that left before it is known.
    let asked = identities.fresh(gateway.upstream(), &credentials).await;
    let is_known = asked.is_ok();
    // Homeservers also log out whose token is expired or locked.
    let who = asked.ok().or_else(|| identities.last(&credentials));
    let Some(who) = who else {
        return pass(gateway, call.into_request()).await;
    };
    let caller = Caller {
        credentials,
        who,
        is_known,
    };
    let place = gateway.works().ends.take(&caller.who.user);
    let end = |gateway| end_sessions(gateway, call, caller, all);
    to_its_end(gateway, place, end).await
}

async fn end_sessions(gateway: Gateway, call: Call, caller: Caller, all: bool) -> Answer {
    let Caller {
        credentials,
        who,
        is_known,
    } = caller;
    let request = read(&gateway, call).await?;
    let user = &who.user;
    // Where the turn does not come, the user is logged out all the same.
    let mut turn = gateway.turns().alone(user).await.ok();
    let deadline = Deadline::of(&gateway);
    let (ended, emptying, lives) = match all {
        true => match living(&gateway, &credentials, &who).await {
            // Those that begin later are not to be shut out.
            Ok(living) => (everybody(&gateway, user, &living), Ended::all(), living),
            Err(_) => (Ended::all(), Ended::all(), Ended::all()),
        },
        false => {
            let own = Ended::these(who.device.clone());
            (own.clone(), own.clone(), own)
        }
    };
    let ending = gateway.owed().begin(user, ended.clone(), None);
    let emptying = Emptying::of(emptying, Cause::Logout);
    let emptied = match turn.is_some() && is_known {
        true => {
            let emptied = empty(&gateway, &credentials, user, &emptying);
            Some(deadline.keep(&emptying, emptied).await)
        }
        false => None,
    };
    let is_emptied = matches!(emptied, Some(Ok(_)));
    let is_late = is_late(&emptied);
    if is_emptied && let Some(debt) = gateway.owed().due(user) {
        drop(pay(&gateway, &credentials, user, debt).await);
    }
    let response = pass_in_turn(&gateway, request, &mut turn).await;
    gateway.forget(user);
    let outcome = outcome(&response);
    if outcome != Outcome::Done {
        // Found although they do not live: they ended before, whatever becomes of this.
        gateway.owed().add(user, &emptying.left_but(&lives));
    }
    match outcome {
        Outcome::Done if !is_emptied => {
            gateway.owed().add(user, &emptying.left());
            ending.became(Became::Owed, is_late);
        }
        // What lives on is not to write what is then emptied.
        Outcome::Refused | Outcome::Unknown if is_late => ending.became(Became::MayBeOwed, true),
        Outcome::Done | Outcome::Refused => ending.became(Became::Nothing, false),
        Outcome::Unknown => {
            drop(ending);
            // Credentials that were dead before tell nothing of it.
            let gone = Some(ended).filter(|_| is_known).unwrap_or_default();
            look(&gateway, credentials, who, gone, turn);
        }
    }
    response
}

async fn remove(
    gateway: &Gateway,
    call: Call,
    cause: Cause,
    ended: impl FnOnce(&[u8]) -> Ended + Send + 'static,
) -> Answer {
    let credentials = call.head.credentials();
    let identities = gateway.identities();
    let who = match identities.fresh(gateway.upstream(), &credentials).await {
        Ok(who) => who,
        // What is wrong with the token is for the homeserver to say.
        Err(failure) if failure.is_unauthorized() => {
            return pass(gateway, call.into_request()).await;
        }
        Err(failure) => return Err(failure),
    };
    let caller = Caller {
        credentials,
        who,
        is_known: true,
    };
    let place = gateway.works().ends.take(&caller.who.user);
    let end = |gateway| end_devices(gateway, call, caller, cause, ended);
    to_its_end(gateway, place, end).await
}

async fn end_devices(
    gateway: Gateway,
    call: Call,
    caller: Caller,
    cause: Cause,
    ended: impl FnOnce(&[u8]) -> Ended,
) -> Answer {
    let Caller {
        credentials, who, ..
    } = caller;
    let (parts, body) = read(&gateway, call).await?.into_parts();
    let body = body.collect().await.expect("it was read").to_bytes();
    let mut ended = aside(body.len(), || ended(&body));
    let user = &who.user;
    let mut turn = gateway.turns().alone(user).await.ok();
    let had_turn = turn.is_some();
    if ended.are_all() {
        // Which it ends nobody can tell afterwards: one may have begun anew.
        ended = match living(&gateway, &credentials, &who).await {
            Ok(living) => everybody(&gateway, user, &living).but(who.device.as_ref()),
            Err(_) => Ended::all_but(who.device.clone()),
        };
    }
    // A new password keeps the session that sets it.
    let stays = who.device.clone();
    let stays = stays.filter(|_| matches!(cause, Cause::Password));
    let ending = gateway.owed().begin(user, ended.clone(), stays);
    let request = Request::from_parts(parts, Body::from(body));
    let response = pass_in_turn(&gateway, request, &mut turn).await;
    match outcome(&response) {
        Outcome::Done => {
            gateway.forget(user);
            // The caller's own device may be among them, and its credentials with it.
            let emptying = Emptying::of(ended, cause);
            let emptied = match had_turn {
                true => {
                    let emptied = empty(&gateway, &credentials, user, &emptying);
                    Some(Deadline::of(&gateway).keep(&emptying, emptied).await)
                }
                // A write from before may still be under way.
                false => None,
            };
            match emptied {
                Some(Ok(_)) => ending.became(Became::Nothing, false),
                emptied => {
                    gateway.owed().add(user, &emptying.left());
                    ending.became(Became::Owed, is_late(&emptied));
                }
            }
        }
        Outcome::Unknown => {
            gateway.forget(user);
            drop(ending);
            let own = who.device.clone().filter(|own| ended.has(own));
            look(&gateway, credentials, who, Ended::these(own), turn);
        }
        Outcome::Refused => ending.became(Became::Nothing, false),
    }
    response
}

/// Hands on what ends devices, and keeps others of the user waiting for a while at most: what ends is
/// not read or written meanwhile in any case.
async fn pass_in_turn(
    gateway: &Gateway,
    request: Request<Body>,
    turn: &mut Option<Turn>,
) -> Answer {
    let mut passed = pin!(pass(gateway, request));
    match time::timeout(emptying::ask_timeout(gateway), &mut passed).await {
        Ok(answer) => answer,
        Err(_) => {
            *turn = None;
            passed.await
        }
    }
}

/// Tells whether something may still be emptied, where that was tried.
fn is_late<T>(emptied: &Option<Result<T, NotEmptied>>) -> bool {
    matches!(emptied, Some(Err(failed)) if failed.is_late)
}

/// Looks what became of an end whose answer did not come, while nobody else has a turn. Where the
/// credentials died, those that are `gone` with them did.
fn look(
    gateway: &Gateway,
    credentials: Credentials,
    who: Arc<Identity>,
    gone: Ended,
    turn: Option<Turn>,
) {
    let gateway = gateway.clone();
    let look = async move {
        let (user, owed) = (&who.user, gateway.owed());
        let _turn = turn?;
        let debt = owed.of(user)?;
        let paid = pay(&gateway, &credentials, user, debt).await;
        if let Err(failure) = paid
            && is_of_no_session(failure).await
        {
            owed.add(user, &gone);
        }
        Some(())
    };
    tokio::spawn(look.in_current_span());
}

/// Returns the devices that the caller has now.
async fn living(
    gateway: &Gateway,
    credentials: &Credentials,
    who: &Identity,
) -> Result<Ended, Failure> {
    let living = devices::all(gateway.upstream(), credentials).await?;
    Ok(Ended::these(parsed(&living).chain(who.device.clone())))
}

/// Returns all devices of a user, by their names as far as these are known: later one of them may
/// have begun anew. Those that may have ended before have, where they are not there any more.
fn everybody(gateway: &Gateway, user: &UserId, living: &Ended) -> Ended {
    let uncertain = gateway.owed().uncertain(user);
    let named = living.clone().and(Ended::these(uncertain));
    named.and(Ended::others())
}

/// What became of a request that ends devices; where no answer came nobody knows.
fn outcome(answer: &Answer) -> Outcome {
    let status = answer.as_ref().map(Response::status);
    status.map_or(Outcome::Unknown, Outcome::of)
}

/// Tells whether credentials were refused as those of no session. One that is only to log in again,
/// as an expired or a locked one, keeps its device.
async fn is_of_no_session(failure: Failure) -> bool {
    #[derive(Deserialize)]
    struct Refusal {
        errcode: String,
        #[serde(default)]
        soft_logout: bool,
    }
    let told = match failure {
        Failure::Relayed(told) if told.status() == StatusCode::UNAUTHORIZED => told,
        Failure::Relayed(_) | Failure::Denied(_) => return false,
    };
    // It was read within bounds.
    let Ok(body) = told.into_body().collect().await else {
        return false;
    };
    let refusal = serde_json::from_slice(&body.to_bytes());
    refusal.is_ok_and(|told: Refusal| told.errcode == "M_UNKNOWN_TOKEN" && !told.soft_logout)
}

/// `POST /login` and `/register`: a device that ended may begin again under the same ID, and what is
/// still to be emptied then is, with its new token, before anybody knows of it.
pub(crate) async fn login(gateway: &Gateway, call: Call) -> Answer {
    #[derive(Deserialize)]
    struct Session {
        user_id: String,
        access_token: String,
    }
    let credentials = call.head.credentials();
    let mut request = call.into_request();
    // So that it can be read; every client takes it plain.
    request.headers_mut().remove(ACCEPT_ENCODING);
    let response = pass(gateway, request).await?;
    // What ends is written down before the homeserver knows of it.
    if response.status() != StatusCode::OK || gateway.owed().is_empty() {
        return Ok(response);
    }
    let (parts, body) = response.into_parts();
    let body = Limited::new(body, LOGIN_BYTES_MAX).collect().await;
    let body = body.map_err(|_| GatewayError::UpstreamBroken)?.to_bytes();
    let session = serde_json::from_slice(&body);
    let session = session.ok().and_then(|session: Session| {
        let user = UserId::parse(session.user_id).ok()?;
        Some((user, credentials.bearer(&session.access_token)?))
    });
    if let Some((user, credentials)) = session
        && gateway.owed().knows(&user)
    {
        let place = gateway.works().ends.take(&user);
        let settle = |gateway: Gateway| async move {
            // An end that is under way is waited for: its device may be this one.
            let _turn = gateway.turns().alone(&user).await?;
            match gateway.owed().of(&user) {
                Some(debt) => pay(&gateway, &credentials, &user, debt).await,
                None => Ok(()),
            }
        };
        // It goes on behind that; what ended for sure is shut meanwhile.
        match time::timeout(LOGIN_WAIT_MAX, to_its_end(gateway, place, settle)).await {
            Ok(Ok(())) => {}
            Ok(Err(failure)) => debug!(?failure, "what a login was to empty stays"),
            Err(_) => debug!("what a login is to empty takes long"),
        }
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Empties what is owed, each part whatever becomes of the other, unless nothing can be done any more
/// or it would be done behind something late; who calls has the turn.
async fn pay(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    debt: Debt,
) -> Result<(), Failure> {
    let deadline = Deadline::of_debt(gateway, &debt);
    let mut paid = Ok(());
    for part in debt.apart() {
        match pay_part(gateway, credentials, user, &part, deadline).await {
            Ok(()) => {}
            // These credentials ended meanwhile, those of others need not have.
            Err(failed) if failed.failure.is_unauthorized() => return Err(failed.failure),
            Err(NotEmptied { failure, is_late }) => {
                gateway.owed().failed(user, &part, is_late);
                paid = paid.and(Err(failure));
                if is_late {
                    break;
                }
            }
        }
    }
    paid
}

async fn pay_part(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    debt: &Debt,
    deadline: Deadline,
) -> Result<(), NotEmptied> {
    let emptying = Emptying::of_parts(debt.parts(), Cause::Gone);
    let emptied = empty(gateway, credentials, user, &emptying);
    let living = deadline.keep(&emptying, emptied).await.inspect_err(|_| {
        // What only may have ended has, where it was found. What is known to have is not added anew:
        // it would never have failed.
        let [sure, _] = debt.parts();
        gateway.owed().add(user, &emptying.left_but(&sure));
    })?;
    let lives = |device: &DeviceId| living.contains(device.as_str());
    gateway.owed().settle(user, debt, lives);
    Ok(())
}

/// Reads the body before anything is locked: a slow client holds up nobody, not even itself.
async fn read(gateway: &Gateway, call: Call) -> Result<Request<Body>, Failure> {
    let (parts, body) = call.into_request().into_parts();
    let allowed = Duration::from_millis(gateway.settings().listener.body_timeout_ms);
    let body = read_body_within(body, REQUEST_BYTES_MAX, allowed).await?;
    Ok(Request::from_parts(parts, Body::from(body)))
}
