//! `GET`, `PUT` and `DELETE` of device account data (MSC4331), kept in the homeserver as global
//! account data: `/user/{userId}/devices/{deviceId}/account_data/{type}`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::{Method, StatusCode};
use axum::response::IntoResponse as _;
use bytes::Bytes;
use kitbag_domain::{
    Content, DeviceId, Expectation, GetError, Key, Limits, PermitError, QuotaExceeded, WriteError,
    WritePolicy,
};
use kitbag_http::shared::{Denial, EmptyObject, GatewayError, expectation, json_response};
use tokio::time;

use crate::answer::{Answer, Failure, may_come_late};
use crate::bodies;
use crate::call::{Call, Head};
use crate::compare::{self, EntryId};
use crate::credentials::Credentials;
use crate::entries::{Of, types_max};
use crate::gateway::Gateway;
use crate::identity::Identity;
use crate::life;
use crate::listing;
use crate::mapped;
use crate::metrics;
use crate::owed::{self, Standing};
use crate::turns::Turn;
use crate::upstream::Told;

/// What is told to wait while a device is ending.
const ENDING_RETRY_AFTER: Duration = Duration::from_secs(1);

/// How late a write may be done whose answer did not come.
const LATE_WRITE_MAX: Duration = Duration::from_secs(10);

pub(crate) async fn get(gateway: &Gateway, call: Call) -> Answer {
    let credentials = call.head.credentials();
    let upstream = gateway.upstream();
    let who = gateway.identities().recent(upstream, &credentials).await?;
    let (key, device) = target(&call.head, &who)?;
    // Where it cannot be done now, what is owed still reads as none.
    drop(life::settle(gateway, &credentials, &who.user).await);
    let turn = gateway.turns().shared(&who.user).await?;
    match gateway.owed().standing(&who.user, &device) {
        Standing::Free => {}
        Standing::Ending => return Err(unsettled(ENDING_RETRY_AFTER)),
        Standing::Owed => return Err(GetError::NotFound.into()),
    }
    let devices = gateway.devices();
    let exists = devices.exists_recently(upstream, &credentials, &who.user, &device);
    if !exists.await? {
        drop(turn);
        life::empty_gone(gateway, &credentials, &who.user, &device).await;
        return Err(PermitError::NoSuchDevice.into());
    }
    let entry = Place::of(&who, &device, &key);
    let content = entry.stored(gateway, &credentials).await?;
    let content = content.ok_or(GetError::NotFound)?;
    Ok(json_response(StatusCode::OK, content.object()?))
}

pub(crate) async fn put(gateway: &Gateway, call: Call) -> Answer {
    let Call { head, body } = call;
    let credentials = head.credentials();
    let limit_bytes = gateway.limits().device_content_bytes_max;
    let measured = bodies::measure(gateway, body, limit_bytes).await;
    let bytes = measured.as_ref().map_or(0, |measured| measured.bytes);
    let (who, key, device) = begin_write(gateway, &head, &credentials, bytes).await?;
    // Read before the turn, in which nothing waits for a client.
    let content = match (may_write(&who, &device, &key), measured) {
        (Ok(()), Ok(measured)) => read_write(gateway, &head, measured.body).await,
        (Ok(()), Err(denial)) => Err(denial),
        (Err(error), _) => Err(error.into()),
    };
    let (expectation, content) = match content {
        Ok(content) => content,
        Err(denial) => {
            let excesses = gateway.excesses();
            excesses.tell(&denial, &head, &who, key.event_type.as_str());
            return Err(behind_device(gateway, &credentials, &who, &device, denial).await);
        }
    };
    let turn = turn_to_write(gateway, &credentials, &who, &device).await?;
    let entry = Place::of(&who, &device, &key);
    let compared = entry.compared(gateway, &key).await?;
    let kept = entry.kept(gateway, &credentials).await?;
    // One that is deleted is written over: it had its room before.
    let is_new_type = kept.is_none();
    let stored = kept.filter(is_there).map(|told| told.body().clone());
    compare::judge(stored.clone(), &expectation)?;
    let counted = match stored {
        Some(_) => None,
        None => Some(room_for_one(gateway, &credentials, &who, &device, is_new_type).await?),
    };
    entry
        .write(gateway, &credentials, content, (turn, counted), compared)
        .await?;
    Ok(EmptyObject.into_response())
}

/// `DELETE` below `/_matrix/client/unstable/org.matrix.msc3391`: also of what is not there.
pub(crate) async fn delete(gateway: &Gateway, call: Call) -> Answer {
    let head = call.head;
    let credentials = head.credentials();
    let (who, key, device) = begin_write(gateway, &head, &credentials, 0).await?;
    let turn = turn_to_write(gateway, &credentials, &who, &device).await?;
    may_write(&who, &device, &key)?;
    let entry = Place::of(&who, &device, &key);
    let compared = entry.compared(gateway, &key).await?;
    if entry.stored(gateway, &credentials).await?.is_some() {
        let tombstone = mapped::tombstone();
        entry
            .write(gateway, &credentials, tombstone, (turn, None), compared)
            .await?;
    }
    Ok(EmptyObject.into_response())
}

/// `DELETE` on the paths of `GET` and `PUT`, which no specification has: what the server manages is
/// refused as such.
pub(crate) async fn delete_where_there_is_none(gateway: &Gateway, call: Call) -> Answer {
    let credentials = call.head.credentials();
    let identities = gateway.identities();
    let who = identities.recent(gateway.upstream(), &credentials).await?;
    let (key, _) = target(&call.head, &who)?;
    Err(match WritePolicy::of(&key) {
        WritePolicy::ServerManaged => PermitError::ServerManaged(key.event_type).into(),
        WritePolicy::AnyDevice | WritePolicy::OwnDevice => Denial::method_not_allowed().into(),
    })
}

/// Returns the entry that the path names, in the account of whoever asks.
fn target(head: &Head, who: &Identity) -> Result<(Key, DeviceId), Failure> {
    let path = head.own_path(&who.user)?;
    let key = path.key()?;
    Ok((key, path.device()?))
}

/// Counts a write, and returns who writes what. One too many costs the homeserver nothing but to say
/// who it is of, which may be remembered.
async fn begin_write(
    gateway: &Gateway,
    head: &Head,
    credentials: &Credentials,
    content_bytes: u64,
) -> Result<(Arc<Identity>, Key, DeviceId), Failure> {
    let (identities, upstream) = (gateway.identities(), gateway.upstream());
    let (session, path_bytes) = (credentials.session(), head.parts.uri.path().len());
    let rates = gateway.write_rates();
    let counted = rates.count(&session, content_bytes, path_bytes);
    let who = match &counted {
        Ok(counted) => {
            let fresh = identities.fresh(upstream, credentials).await;
            fresh.inspect_err(|failure| {
                if failure.is_unauthorized() {
                    rates.take_back(counted);
                }
            })?
        }
        Err(_) => identities.recent(upstream, credentials).await?,
    };
    let (key, device) = target(head, &who)?;
    if let Err(too_many) = counted {
        let denial = Denial::from(too_many);
        let excesses = gateway.excesses();
        excesses.tell(&denial, head, &who, key.event_type.as_str());
        return Err(denial.into());
    }
    Ok((who, key, device))
}

/// Checks who may write what; whether there is such a device is for [`turn_to_write`].
fn may_write(who: &Identity, device: &DeviceId, key: &Key) -> Result<(), PermitError> {
    match WritePolicy::of(key) {
        WritePolicy::ServerManaged => Err(PermitError::ServerManaged(key.event_type.clone())),
        WritePolicy::OwnDevice if who.device.as_ref() != Some(device) => {
            Err(PermitError::NotOwnDevice)
        }
        WritePolicy::AnyDevice | WritePolicy::OwnDevice => Ok(()),
    }
}

/// Returns why a write is refused: where there is no such device that comes first. As nothing is
/// written, it may be remembered.
async fn behind_device(
    gateway: &Gateway,
    credentials: &Credentials,
    who: &Identity,
    device: &DeviceId,
    denial: Denial,
) -> Failure {
    let (upstream, devices) = (gateway.upstream(), gateway.devices());
    let exists = devices.exists_recently(upstream, credentials, &who.user, device);
    match exists.await {
        Ok(true) => denial.into(),
        Ok(false) => PermitError::NoSuchDevice.into(),
        Err(failure) => failure,
    }
}

/// Waits for the turn to write a device, which is there and whose session is, as of then.
async fn turn_to_write(
    gateway: &Gateway,
    credentials: &Credentials,
    who: &Identity,
    device: &DeviceId,
) -> Result<Turn, Failure> {
    let settled = life::settle(gateway, credentials, &who.user).await;
    let turn = gateway.turns().shared(&who.user).await?;
    // First: where the session ended while it waited, that is what it is told.
    let (upstream, devices) = (gateway.upstream(), gateway.devices());
    if !devices.exists_now(upstream, credentials, device).await? {
        return Err(PermitError::NoSuchDevice.into());
    }
    // What is owed of other devices is none of this one's concern.
    match gateway.owed().standing(&who.user, device) {
        Standing::Free => Ok(turn),
        Standing::Ending => Err(unsettled(ENDING_RETRY_AFTER)),
        Standing::Owed => {
            settled?;
            Err(unsettled(Duration::from_millis(owed::PAUSE_MS)))
        }
    }
}

/// The device ended, or is about to, and what it had is not emptied yet.
fn unsettled(retry_after: Duration) -> Failure {
    GatewayError::EndUnsettled { retry_after }.into()
}

/// Reads what is to be written in place of what; expectations count where they are switched on.
async fn read_write(
    gateway: &Gateway,
    head: &Head,
    body: Body,
) -> Result<(Expectation, Content), Denial> {
    let expectation = match gateway.compare().is_enabled() {
        true => expectation(&head.parts.uri)?,
        false => Expectation::default(),
    };
    Ok((expectation, read_content(gateway, body).await?))
}

async fn read_content(gateway: &Gateway, body: Body) -> Result<Content, Denial> {
    let limits = Limits {
        content_bytes_max: gateway.limits().device_content_bytes_max,
        ..gateway.limits().clone()
    };
    let body = bodies::whole(gateway, body, limits.content_bytes_max).await?;
    Ok(bodies::content(body, &limits)?)
}

/// Checks that a device may have one entry more, and where it is of a new type, that one too. The turn
/// keeps others from counting at once.
async fn room_for_one(
    gateway: &Gateway,
    credentials: &Credentials,
    who: &Identity,
    device: &DeviceId,
    is_new_type: bool,
) -> Result<Turn, Failure> {
    let turn = gateway.additions().alone(&who.user).await?;
    let limit = gateway.limits().quota.device_entries_max;
    let listing = listing::list(gateway, credentials, Of::Device(device)).await?;
    let listing = listing.ok_or(GatewayError::UpstreamTooLarge)?;
    if listing.entries.len() as u64 >= limit {
        let exceeded = QuotaExceeded::DeviceEntries { limit };
        return Err(WriteError::from(exceeded).into());
    }
    let (types, limit) = (
        listing.entries.len() + listing.deleted,
        types_max(gateway.limits()),
    );
    if is_new_type && types as u64 >= limit {
        return Err(GatewayError::TooManyTypes { limit }.into());
    }
    Ok(turn)
}

/// Tells whether what the homeserver has is not deleted.
fn is_there(kept: &Told) -> bool {
    !mapped::is_tombstone(kept.body())
}

/// Holds the ends of the user's devices up for a while, so that a late write is not behind them.
fn hold(turn: Turn) {
    tokio::spawn(async move {
        time::sleep(LATE_WRITE_MAX).await;
        drop(turn);
    });
}

/// Where the homeserver keeps an entry.
struct Place<'a> {
    who: &'a Identity,
    device: &'a DeviceId,
    target: String,
}

impl<'a> Place<'a> {
    fn of(who: &'a Identity, device: &'a DeviceId, key: &Key) -> Self {
        let upstream_type = mapped::upstream_type(device, &key.event_type);
        let target = mapped::account_data_path(&who.user, &upstream_type);
        Self {
            who,
            device,
            target,
        }
    }

    /// Waits for the turn of the entry, where writes are compared with what is stored.
    async fn compared(&self, gateway: &Gateway, key: &Key) -> Result<compare::Turn, Failure> {
        let (device, event_type) = (Some(self.device.as_str()), key.event_type.as_str());
        let entry = EntryId::new(&self.who.user, None, device, event_type);
        Ok(gateway.compare().turn(entry).await?)
    }

    /// As [`Place::kept`], and `None` for what is deleted.
    async fn stored(
        &self,
        gateway: &Gateway,
        credentials: &Credentials,
    ) -> Result<Option<Told>, Failure> {
        let kept = self.kept(gateway, credentials).await?;
        Ok(kept.filter(is_there))
    }

    /// Returns what the homeserver has, a tombstone too; `None` for nothing.
    async fn kept(
        &self,
        gateway: &Gateway,
        credentials: &Credentials,
    ) -> Result<Option<Told>, Failure> {
        let request = credentials.request(Method::GET, &self.target, Bytes::new())?;
        let bytes_max = compare::stored_bytes_max(gateway.limits());
        let told = gateway.upstream().ask(request, bytes_max).await?;
        told.found()
    }

    /// Writes it. The turns are held until the homeserver has answered, also where the client goes
    /// away: else the write could land behind the emptying of its device.
    async fn write(
        &self,
        gateway: &Gateway,
        credentials: &Credentials,
        content: Content,
        turns: (Turn, Option<Turn>),
        compared: compare::Turn,
    ) -> Result<(), Failure> {
        gateway.devices().set_written(&self.who.user, self.device);
        let request = credentials.request(Method::PUT, &self.target, content.into_bytes())?;
        let gateway = gateway.clone();
        let write = async move {
            let told = compared.write(gateway.upstream(), request).await;
            let (turn, _counted) = turns;
            if may_come_late(&told) {
                hold(turn);
            }
            told
        };
        // Another task, whose time is that of the homeserver.
        let told = metrics::for_client(tokio::spawn(write))
            .await
            .map_err(|_| Denial::panicked())?;
        told?.written()
    }
}
