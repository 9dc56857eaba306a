//! Empties the entries of devices that ended, as far as that is done within a time.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kitbag_domain::{DeviceId, UserId};
use kitbag_http::shared::GatewayError;
use tokio::time::{self, Instant};

use crate::credentials::Credentials;
use crate::devices;
use crate::entries::{self, NotEmptied, Of};
use crate::gateway::Gateway;
use crate::listing;
use crate::metrics::Cause;
use crate::owed::{Debt, Ended, Whose};

/// Devices that a filter names: it is a part of a path.
const FILTER_DEVICES_MAX: usize = 50;

/// How long it may take to empty what is owed, at first.
const PAYMENT_TIMEOUT: Duration = Duration::from_secs(5);

/// Which entries are to be emptied.
pub(crate) struct Emptying {
    /// Those of these, whoever uses their IDs now.
    sure: Ended,
    /// Those of these, where the homeserver does not have them.
    gone: Ended,
    cause: Cause,
    /// Devices of whose listed entries nobody knows yet that they are emptied.
    left: Mutex<BTreeSet<DeviceId>>,
}

impl Emptying {
    /// Of what ends now.
    pub(crate) fn of(ended: Ended, cause: Cause) -> Self {
        Self::of_parts(ended.parts(), cause)
    }

    /// Of what ended for sure, and of what is to be emptied where the homeserver does not have it.
    pub(crate) fn of_parts([sure, gone]: [Ended; 2], cause: Cause) -> Self {
        Self {
            sure,
            gone,
            cause,
            left: Mutex::default(),
        }
    }

    /// Returns the devices whose entries were found and may be there still, also where the time was
    /// over amid it: later one of them may have begun anew.
    pub(crate) fn left(&self) -> Ended {
        Ended::these(self.lock_left().iter().cloned())
    }

    /// As [`Emptying::left`], without those that are known otherwise.
    pub(crate) fn left_but(&self, known: &Ended) -> Ended {
        let left = self.lock_left();
        let left = left.iter().filter(|device| !known.has(device));
        Ended::these(left.cloned())
    }

    fn lock_left(&self) -> MutexGuard<'_, BTreeSet<DeviceId>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Of what is tried once more, while others of the user wait.
    pub(crate) fn of_debt(gateway: &Gateway, debt: &Debt) -> Self {
        let allowed = payment_timeout(debt.failures(), ask_timeout(gateway));
        Self(Instant::now() + allowed)
    }

    /// Empties as long as there is time.
    pub(crate) async fn keep<T>(
        self,
        emptying: &Emptying,
        emptied: impl Future<Output = Result<T, NotEmptied>>,
    ) -> Result<T, NotEmptied> {
        let done = time::timeout_at(self.0, emptied).await;
        done.unwrap_or_else(|_| {
            Err(NotEmptied {
                failure: GatewayError::UpstreamTimeout.into(),
                // What is listed is written over at once.
                is_late: !emptying.lock_left().is_empty(),
            })
        })
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
        let Some(mut listing) = listing::list(gateway, credentials, of).await? else {
            return Ok::<_, NotEmptied>(None);
        };
        let mut entries = std::mem::take(&mut listing.entries);
        entries.retain(|entry| emptying.has(&entry.device, living));
        let found: BTreeSet<_> = entries.iter().map(|entry| entry.device.clone()).collect();
        emptying.lock_left().extend(found.iter().cloned());
        let emptied = || gateway.metrics().emptied(emptying.cause);
        entries::empty(upstream, credentials, user, entries, emptied).await?;
        emptying.lock_left().retain(|left| !found.contains(left));
        Ok(Some(()))
    };
    let too_large = || NotEmptied::from(GatewayError::UpstreamTooLarge);
    let named = || emptying.sure.devices().chain(emptying.gone.devices());
    let of = match (named().next(), named().nth(1)) {
        (Some(device), None) if emptying.are_known() => Of::Device(device),
        _ => Of::All,
    };
    if empty_of(of).await?.is_some() {
        return Ok(());
    }
    if let Of::Device(device) = of
        && emptying.has(device, living)
    {
        // It would be the same listing again.
        return Err(too_large());
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

/// Returns how long a debt may take: twice as long after each failure, as the pause before, so that
/// others of the user wait for a part of the time alone, and a slow homeserver is waited for at last.
fn payment_timeout(failures: u32, timeout_max: Duration) -> Duration {
    let doubled = failures.min(u32::BITS - 1);
    PAYMENT_TIMEOUT
        .saturating_mul(1 << doubled)
        .min(timeout_max)
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[test]
    fn a_debt_may_take_longer_after_each_failure() {
        let seconds = |failures| payment_timeout(failures, Duration::from_secs(30)).as_secs();
        assert_eq!([0, 1, 2, 3, 1_000].map(seconds), [5, 10, 20, 30, 30]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_emptied_in_time_may_still_be_done_where_it_was_begun() {
        let started = Instant::now();
        let deadline = Deadline(started + Duration::from_secs(30));
        let emptying = Emptying::of(Ended::all(), Cause::Gone);
        let never = || pending::<Result<(), NotEmptied>>();
        let cut = deadline.keep(&emptying, never()).await;
        assert!(!cut.unwrap_err().is_late, "nothing was sent yet");
        let device = DeviceId::parse("PHONE").unwrap();
        emptying.lock_left().insert(device.clone());
        let cut = deadline.keep(&emptying, never()).await;
        assert!(cut.unwrap_err().is_late);
        emptying.lock_left().remove(&device);
        let cut = deadline.keep(&emptying, never()).await;
        assert!(!cut.unwrap_err().is_late, "all that was sent is done");
        assert!(started.elapsed() < Duration::from_secs(31));
    }
}
