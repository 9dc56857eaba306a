//! Empties the entries of devices that ended, as far as that is done within a time.

use std::collections::BTreeSet;
use std::time::Duration;

use kitbag_domain::{DeviceId, UserId};
use kitbag_http::shared::GatewayError;
use tokio::time::{self, Instant};

use crate::answer::Failure;
use crate::credentials::Credentials;
use crate::devices;
use crate::entries::{self, Of};
use crate::gateway::Gateway;
use crate::metrics::Cause;
use crate::owed::{Ended, Whose};

/// Devices that a filter names: it is a part of a path.
const FILTER_DEVICES_MAX: usize = 50;

/// Which entries are to be emptied.
pub(crate) struct Emptying {
    /// Those of these, whoever uses their IDs now.
    sure: Ended,
    /// Those of these, where the homeserver does not have them.
    gone: Ended,
    cause: Cause,
}

impl Emptying {
    /// Of what ends now.
    pub(crate) fn of(ended: Ended, cause: Cause) -> Self {
        Self::of_parts(ended.parts(), cause)
    }

    /// Of what ended for sure, and of what is to be emptied where the homeserver does not have it.
    pub(crate) fn of_parts([sure, gone]: [Ended; 2], cause: Cause) -> Self {
        Self { sure, gone, cause }
    }

    fn has(&self, device: &DeviceId, living: Option<&devices::Ids>) -> bool {
        let is_gone = living.is_some_and(|living| !living.contains(device.as_str()));
        let may_be = self.gone.has(device) || self.gone.contains(&Whose::Others);
        self.sure.has(device) || (is_gone && may_be)
    }

    /// Tells whether those whose entries are to be emptied can all be named.
    fn are_known(&self) -> bool {
        let is_open = |ended: &Ended| ended.are_all() || ended.contains(&Whose::Others);
        !is_open(&self.sure) && !is_open(&self.gone)
    }
}

/// Until when the gateway empties entries while somebody waits: what is left then is owed.
#[derive(Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    /// As long as an answer of the homeserver may take.
    pub(crate) fn of(gateway: &Gateway) -> Self {
        Self(Instant::now() + ask_timeout(gateway))
    }

    /// Empties as long as there is time.
    pub(crate) async fn keep<T>(
        self,
        emptying: impl Future<Output = Result<T, NotEmptied>>,
    ) -> Result<T, NotEmptied> {
        let done = time::timeout_at(self.0, emptying).await;
        done.unwrap_or_else(|_| {
            let too_late = GatewayError::UpstreamTimeout.into();
            Err(NotEmptied::while_written(too_late))
        })
    }
}

/// Why entries were not emptied.
#[derive(Debug)]
pub(crate) struct NotEmptied {
    pub(crate) failure: Failure,
    /// Whether something of it may still be done, behind what is done next.
    pub(crate) is_late: bool,
}

/// Nothing was written yet.
impl From<Failure> for NotEmptied {
    fn from(failure: Failure) -> Self {
        let is_late = false;
        Self { failure, is_late }
    }
}

impl NotEmptied {
    /// It failed amid the writes.
    fn while_written(failure: Failure) -> Self {
        let is_late = entries::is_late(&failure);
        Self { failure, is_late }
    }
}

/// Empties the entries of devices that ended; who calls has the turn, or had it when they ended.
/// Returns the devices that lived before, where it was asked for them.
pub(crate) async fn empty(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    emptying: &Emptying,
) -> Result<devices::Ids, NotEmptied> {
    let upstream = gateway.upstream();
    // Asked for before the entries: of a device that begins in between, the entries are not its own.
    let living = match emptying.gone.is_empty() {
        true => None,
        false => Some(devices::all(upstream, credentials).await?),
    };
    if !(emptying.sure.is_empty() && emptying.gone.is_empty()) {
        empty_listed(gateway, credentials, user, emptying, living.as_ref()).await?;
    }
    Ok(living.unwrap_or_default())
}

/// Lists entries and empties those of devices that ended: at once where there are not too many.
async fn empty_listed(
    gateway: &Gateway,
    credentials: &Credentials,
    user: &UserId,
    emptying: &Emptying,
    living: Option<&devices::Ids>,
) -> Result<(), NotEmptied> {
    let upstream = gateway.upstream();
    let empty_of = async |of: Of<'_>| {
        let mark = gateway.request_ids().next();
        let listed = entries::list_if_small(upstream, credentials, of, &mark).await?;
        let Some(mut entries) = listed else {
            return Ok::<_, NotEmptied>(None);
        };
        entries.retain(|entry| emptying.has(&entry.device, living));
        let emptied = || gateway.metrics().emptied(emptying.cause);
        let emptied = entries::empty(upstream, credentials, user, entries, emptied).await;
        emptied.map_err(NotEmptied::while_written)?;
        Ok(Some(()))
    };
    let too_large = || NotEmptied::from(Failure::from(GatewayError::UpstreamTooLarge));
    let named = || emptying.sure.devices().chain(emptying.gone.devices());
    let of = match (named().next(), named().nth(1)) {
        (Some(device), None) if emptying.are_known() => Of::Device(device),
        _ => Of::All,
    };
    if empty_of(of).await?.is_some() {
        return Ok(());
    }
    let everybody: Vec<DeviceId> = match living {
        Some(living) => parsed(living).collect(),
        None if emptying.sure.are_all() => {
            let all = devices::all(upstream, credentials).await?;
            parsed(&all).collect()
        }
        None => Vec::new(),
    };
    let known: BTreeSet<&DeviceId> = named().chain(&everybody).collect();
    let known = known.into_iter();
    let (ended, kept): (Vec<_>, Vec<_>) = known.partition(|one| emptying.has(one, living));
    // One by one to its end: all contents at once could be as much as an account can have.
    for device in ended {
        empty_of(Of::Device(device)).await?.ok_or_else(too_large)?;
    }
    if emptying.are_known() {
        return Ok(());
    }
    // What is left is of devices that nobody can name, but for what the living ones keep.
    let kept = kept.into_iter().cloned();
    let kept: Vec<DeviceId> = kept.take(FILTER_DEVICES_MAX).collect();
    empty_of(Of::AllBut(&kept)).await?.ok_or_else(too_large)
}

/// Returns those that are IDs here too.
pub(crate) fn parsed(ids: &devices::Ids) -> impl Iterator<Item = DeviceId> {
    ids.iter().filter_map(|id| DeviceId::parse(id.clone()).ok())
}

/// Returns how long an answer may take that the gateway waits for.
pub(crate) fn ask_timeout(gateway: &Gateway) -> Duration {
    Duration::from_millis(gateway.settings().upstream.ask_timeout_ms)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_emptied_in_time_may_still_be_done() {
        let started = Instant::now();
        let deadline = Deadline(started + Duration::from_secs(30));
        let cut = deadline.keep(pending::<Result<(), NotEmptied>>()).await;
        assert!(cut.unwrap_err().is_late);
        assert!(started.elapsed() < Duration::from_secs(31));
        let failed = NotEmptied::from(Failure::from(GatewayError::UpstreamBroken));
        let failed = deadline.keep(async { Err::<(), _>(failed) }).await;
        assert!(!failed.unwrap_err().is_late, "nothing was written yet");
    }
}
