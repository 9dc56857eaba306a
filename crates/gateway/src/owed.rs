//! Devices that ended while their entries could not be emptied, as when the credentials died with
//! the device: until that is done, these entries read as none, and the device is not written.
//!
//! It is kept in memory alone, and may be lost: then the entries still read as none as long as there
//! is no device of that ID.

mod ended;
mod ledger;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kitbag_domain::{Clock, DeviceId, UnixMs, UserId};
use tracing::warn;

pub(crate) use self::ended::{Ended, Whose};
use self::ledger::Ledger;
pub(crate) use self::ledger::{Became, Debt, OWED_TO_ONE_MAX, PAUSE_MS, Standing};
use crate::metrics::GatewayMetrics;

/// What is still to be emptied, by user.
#[derive(Clone)]
pub(crate) struct Owed(Arc<Shared>);

struct Shared {
    ledger: Mutex<Ledger>,
    metrics: Arc<GatewayMetrics>,
    clock: Arc<dyn Clock>,
}

/// An end that is on its way to the homeserver. Dropped before it is known what became of it, its
/// devices may have ended.
pub(crate) struct Ending {
    owed: Owed,
    user: UserId,
    number: u64,
    became: Became,
    is_late: bool,
}

impl Ending {
    /// It is known what became of it; `is_late` where some of it may still be emptied.
    pub(crate) fn became(mut self, became: Became, is_late: bool) {
        (self.became, self.is_late) = (became, is_late);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        let now_ms = self.owed.0.clock.now_ms();
        let (user, became, is_late) = (&self.user, self.became, self.is_late);
        self.owed
            .change(|ledger| ledger.finish(user, self.number, became, is_late, now_ms));
    }
}

impl Owed {
    pub(crate) fn new(metrics: Arc<GatewayMetrics>, clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared {
            ledger: Mutex::default(),
            metrics,
            clock,
        }))
    }

    /// An end is about to be sent to the homeserver; what `stays` is known not to end.
    pub(crate) fn begin(&self, user: &UserId, ended: Ended, stays: Option<DeviceId>) -> Ending {
        Ending {
            owed: self.clone(),
            user: user.clone(),
            number: self.lock().begin(user, ended, stays),
            became: Became::MayBeOwed,
            is_late: false,
        }
    }

    /// Devices ended, and their entries are still there.
    pub(crate) fn add(&self, user: &UserId, ended: &Ended) {
        let now_ms = self.0.clock.now_ms();
        self.change(|ledger| ledger.add(user, ended, true, now_ms));
    }

    /// As [`Owed::add`], and some of it may still be emptied.
    pub(crate) fn add_late(&self, user: &UserId, ended: &Ended) {
        let now_ms = self.0.clock.now_ms();
        self.change(|ledger| ledger.add_late(user, ended, now_ms));
    }

    /// Tells how it stands with a device.
    pub(crate) fn standing(&self, user: &UserId, device: &DeviceId) -> Standing {
        let now_ms = self.0.clock.now_ms();
        self.lock().standing(user, device, now_ms)
    }

    /// Returns the devices of a user that may have ended.
    pub(crate) fn uncertain(&self, user: &UserId) -> Vec<DeviceId> {
        self.lock().uncertain(user)
    }

    /// Tells whether nothing is owed to anybody, and no device is ending.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Tells whether something is owed to a user, or may soon be.
    pub(crate) fn knows(&self, user: &UserId) -> bool {
        self.lock().knows(user)
    }

    /// Returns what is owed to a user and can be tried.
    pub(crate) fn of(&self, user: &UserId) -> Option<Debt> {
        self.asked(user, Ledger::of)
    }

    /// As [`Owed::of`], where it has not failed a short time ago.
    pub(crate) fn due(&self, user: &UserId) -> Option<Debt> {
        self.asked(user, Ledger::due)
    }

    fn asked(
        &self,
        user: &UserId,
        ask: impl FnOnce(&Ledger, &UserId, UnixMs) -> Option<Debt>,
    ) -> Option<Debt> {
        let now_ms = self.0.clock.now_ms();
        self.change(|ledger| {
            ledger.give_up(user, now_ms);
            ask(ledger, user, now_ms)
        })
    }

    /// A debt was paid; `lives` tells which devices the homeserver had before.
    pub(crate) fn settle(&self, user: &UserId, paid: &Debt, lives: impl Fn(&DeviceId) -> bool) {
        let now_ms = self.0.clock.now_ms();
        self.change(|ledger| ledger.settle(user, paid, lives, now_ms));
    }

    /// A debt could not be paid now; `is_late` where something of it may still be done.
    pub(crate) fn failed(&self, user: &UserId, debt: &Debt, is_late: bool) {
        let now_ms = self.0.clock.now_ms();
        self.change(|ledger| ledger.failed(user, debt, is_late, now_ms));
    }

    fn change<T>(&self, step: impl FnOnce(&mut Ledger) -> T) -> T {
        let mut ledger = self.lock();
        let before = ledger.failing();
        let told = step(&mut ledger);
        let pending = &self.0.metrics.emptyings_pending;
        (before..ledger.failing()).for_each(|_| pending.enter());
        (ledger.failing()..before).for_each(|_| pending.leave());
        let lost = ledger.take_lost();
        drop(ledger);
        if lost > 0 {
            warn!(
                lost,
                "too much is to be emptied, or for too long: entries of devices that ended may stay"
            );
        }
        told
    }

    fn lock(&self) -> MutexGuard<'_, Ledger> {
        let ledger = self.0.ledger.lock();
        ledger.unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use kitbag_testkit::clock::TestClock;

    use super::*;

    #[test]
    fn what_fails_is_counted_until_it_is_done_and_a_lost_end_may_be_owed() {
        let metrics = Arc::<GatewayMetrics>::default();
        let owed = Owed::new(Arc::clone(&metrics), Arc::new(TestClock::default()));
        let user = UserId::parse("@alice:x").unwrap();
        let device = DeviceId::parse("PHONE").unwrap();
        let ended = Ended::these([device.clone()]);
        let begin = || owed.begin(&user, ended.clone(), None);
        begin().became(Became::Nothing, false);
        assert!(owed.is_empty());
        drop(begin());
        assert_eq!(owed.of(&user).unwrap().parts(), [Ended::default(), ended]);
        let debt = owed.due(&user).unwrap();
        assert_eq!(metrics.emptyings_pending.read(), 0);
        owed.failed(&user, &debt, false);
        assert_eq!(metrics.emptyings_pending.read(), 1);
        owed.settle(&user, &debt, |_| false);
        assert_eq!(metrics.emptyings_pending.read(), 0);
        assert!(owed.is_empty());
    }
}
