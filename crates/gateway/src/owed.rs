//! Devices that ended while their entries could not be emptied, as when the credentials died with
//! the device: until that is done, these entries read as none.
//!
//! It is kept in memory alone, and may be lost: then the entries still read as none as long as there
//! is no device of that ID. What gets old is dropped: a device may have begun anew elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kitbag_domain::{Clock, DeviceId, UnixMs, UserId};
use kitbag_http::shared::Gauge;
use tracing::warn;

use crate::metrics::GatewayMetrics;

/// Users about whom this is kept.
const USERS_MAX: usize = 10_000;
/// Devices of one user.
const DEVICES_MAX: usize = 1_000;

/// How long it is not tried again after it failed, but at a login.
pub(crate) const PAUSE_MS: u64 = 30_000;
/// How long a device that logs in is known to be the next one of its ID. Later it may have begun, and
/// been written, by way of another gateway.
const YOUNG_MS: u64 = 60 * 60 * 1_000;
/// How long it is kept.
const AGE_MS_MAX: u64 = 24 * YOUNG_MS;

/// What is still to be emptied, by user.
pub(crate) struct Owed {
    debts: Mutex<BTreeMap<UserId, Debt>>,
    /// Logins under way: the device of each may live, and not be known to have begun.
    logins: AtomicUsize,
    metrics: Arc<GatewayMetrics>,
    clock: Arc<dyn Clock>,
}

/// A login under way, until it is dropped.
pub(crate) struct LoggingIn<'a>(&'a AtomicUsize);

impl Drop for LoggingIn<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What is still to be emptied for one user.
#[derive(Clone, Debug)]
pub(crate) struct Debt {
    pub(crate) ended: Ended,
    /// Devices that began again through this gateway while this was owed: what they have is not
    /// theirs, although they live.
    pub(crate) anew: BTreeSet<DeviceId>,
    /// Since when the oldest of it is owed.
    since_ms: UnixMs,
    /// When it failed last.
    failed_ms: Option<UnixMs>,
}

/// What ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended {
    /// Whether all devices did.
    pub(crate) all: bool,
    /// These did.
    pub(crate) devices: BTreeSet<DeviceId>,
    /// Whether others may have: those that the homeserver does not have any more.
    pub(crate) others: bool,
}

impl Ended {
    /// All devices of a user.
    pub(crate) fn all() -> Self {
        let all = true;
        Self {
            all,
            ..Self::default()
        }
    }

    /// Some devices.
    pub(crate) fn these(devices: impl IntoIterator<Item = DeviceId>) -> Self {
        Self {
            devices: devices.into_iter().collect(),
            ..Self::default()
        }
        .within_bounds()
    }

    /// Those that the homeserver does not have any more.
    pub(crate) fn others() -> Self {
        let others = true;
        Self {
            others,
            ..Self::default()
        }
    }

    /// Returns both.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.all |= more.all;
        self.others |= more.others;
        self.devices.extend(more.devices);
        self.within_bounds()
    }

    /// Those beyond the bound are found among the ones that the homeserver does not have any more.
    fn within_bounds(mut self) -> Self {
        while self.devices.len() > DEVICES_MAX {
            self.devices.pop_first();
            self.others = true;
        }
        self
    }

    /// Tells whether a device is known to have ended.
    pub(crate) fn has(&self, device: &DeviceId) -> bool {
        self.all || self.devices.contains(device)
    }
}

impl Owed {
    pub(crate) fn new(metrics: Arc<GatewayMetrics>, clock: Arc<dyn Clock>) -> Self {
        Self {
            debts: Mutex::default(),
            logins: AtomicUsize::new(0),
            metrics,
            clock,
        }
    }

    /// Returns what is still to be emptied for a user, unless it is too old.
    pub(crate) fn of(&self, user: &UserId) -> Option<Debt> {
        let mut debts = self.lock();
        let debt = debts.get_mut(user)?;
        if self.is_past(debt.since_ms, AGE_MS_MAX) {
            self.count(&debt.ended, Gauge::leave);
            debts.remove(user);
            return None;
        }
        if self.is_past(debt.since_ms, YOUNG_MS) {
            debt.anew.clear();
        }
        Some(debt.clone())
    }

    /// As [`Owed::of`], where it has not failed a short time ago.
    pub(crate) fn due(&self, user: &UserId) -> Option<Debt> {
        let may_try = |debt: &Debt| debt.failed_ms.is_none_or(|at| self.is_past(at, PAUSE_MS));
        self.of(user).filter(may_try)
    }

    /// Tells whether the entries of a device are still to be emptied.
    pub(crate) fn has(&self, user: &UserId, device: &DeviceId) -> bool {
        self.of(user).is_some_and(|debt| debt.ended.has(device))
    }

    /// Tells whether nothing is owed to anybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Keeps what is to be emptied.
    pub(crate) fn add(&self, user: &UserId, ended: Ended) {
        let mut debts = self.lock();
        if debts.len() >= USERS_MAX && !debts.contains_key(user) {
            if let Some((_, lost)) = debts.pop_first() {
                self.count(&lost.ended, Gauge::leave);
            }
            warn!("too much is to be emptied: entries of a device that ended may stay");
        }
        let mut debt = debts.remove(user).unwrap_or_else(|| Debt {
            ended: Ended::default(),
            anew: BTreeSet::new(),
            since_ms: self.clock.now_ms(),
            failed_ms: None,
        });
        self.count(&debt.ended, Gauge::leave);
        debt.ended = debt.ended.and(ended);
        // By other credentials, it may go.
        debt.failed_ms = None;
        self.count(&debt.ended, Gauge::enter);
        debts.insert(user.clone(), debt);
    }

    /// A login begins.
    pub(crate) fn log_in(&self) -> LoggingIn<'_> {
        self.logins.fetch_add(1, Ordering::SeqCst);
        LoggingIn(&self.logins)
    }

    /// Tells whether a login is under way, be it anybody's.
    pub(crate) fn is_any_login(&self) -> bool {
        self.logins.load(Ordering::SeqCst) > 0
    }

    /// A device logged in while its entries are to be emptied.
    pub(crate) fn began(&self, user: &UserId, device: &DeviceId) {
        if let Some(debt) = self.lock().get_mut(user)
            && debt.ended.has(device)
            && debt.anew.len() < DEVICES_MAX
        {
            debt.anew.insert(device.clone());
        }
    }

    /// It could not be done now.
    pub(crate) fn failed(&self, user: &UserId) {
        if let Some(debt) = self.lock().get_mut(user) {
            debt.failed_ms = Some(self.clock.now_ms());
        }
    }

    /// What was owed to a user is done, unless it changed since.
    pub(crate) fn settle(&self, user: &UserId, done: &Debt) {
        let mut debts = self.lock();
        let is_same = |debt: &Debt| debt.ended == done.ended && debt.anew == done.anew;
        if debts.get(user).is_some_and(is_same) {
            debts.remove(user);
            self.count(&done.ended, Gauge::leave);
        }
    }

    /// Where a clock went back it is past too.
    fn is_past(&self, since_ms: UnixMs, allowed_ms: u64) -> bool {
        let age_ms = self.clock.now_ms().checked_sub(since_ms);
        age_ms.is_none_or(|age_ms| age_ms >= allowed_ms)
    }

    /// Devices whose number is not known count as one.
    fn count(&self, ended: &Ended, change: fn(&Gauge)) {
        let devices = ended.devices.len() + usize::from(ended.all) + usize::from(ended.others);
        for _ in 0..devices {
            change(&self.metrics.emptyings_pending);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UserId, Debt>> {
        self.debts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use kitbag_testkit::clock::TestClock;

    use super::*;

    #[test]
    fn what_is_owed_adds_up_until_it_is_done_and_has_bounds() {
        let user = |number: usize| UserId::parse(format!("@{number:05}:x")).unwrap();
        let device = |number: usize| DeviceId::parse(format!("D{number:05}")).unwrap();
        let owed = Owed::new(Arc::default(), Arc::new(TestClock::default()));
        assert!(owed.is_empty());
        owed.add(&user(0), Ended::these([device(1)]));
        owed.add(&user(0), Ended::these([device(2)]));
        assert_eq!(owed.metrics.emptyings_pending.read(), 2);
        let has = |number| owed.has(&user(0), &device(number));
        assert!(has(1) && has(2) && !has(3));
        let before = owed.of(&user(0)).unwrap();
        owed.add(&user(0), Ended::all());
        assert!(has(3));
        owed.settle(&user(0), &before);
        assert!(has(3), "more is owed than that");
        owed.settle(&user(0), &owed.of(&user(0)).unwrap());
        assert!(owed.of(&user(0)).is_none());
        assert_eq!(owed.metrics.emptyings_pending.read(), 0);
        for number in 0..=USERS_MAX {
            owed.add(&user(number), Ended::others());
        }
        assert_eq!(owed.lock().len(), USERS_MAX);
        let many = (0..=DEVICES_MAX).map(device);
        for device in many {
            owed.add(&user(1), Ended::these([device]));
        }
        let ended = owed.of(&user(1)).unwrap().ended;
        assert_eq!(ended.devices.len(), DEVICES_MAX);
        for number in [DEVICES_MAX, DEVICES_MAX + 1] {
            let ended = Ended::these((0..number).map(device));
            assert_eq!(ended.others, number > DEVICES_MAX);
            assert_eq!(ended.devices.len(), DEVICES_MAX);
        }
    }

    #[test]
    fn what_is_owed_rests_after_a_failure_and_gets_old() {
        let clock = Arc::<TestClock>::default();
        let owed = Owed::new(Arc::default(), Arc::clone(&clock) as Arc<dyn Clock>);
        let user = UserId::parse("@alice:x").unwrap();
        let device = DeviceId::parse("PHONE").unwrap();
        owed.add(&user, Ended::these([device.clone()]));
        owed.began(&user, &device);
        owed.failed(&user);
        clock.advance(PAUSE_MS - 1);
        assert!(owed.due(&user).is_none());
        clock.advance(1);
        assert!(owed.due(&user).is_some());
        clock.advance(YOUNG_MS - PAUSE_MS - 1);
        assert!(owed.of(&user).unwrap().anew.contains(&device));
        clock.advance(1);
        assert!(owed.of(&user).unwrap().anew.is_empty());
        clock.advance(AGE_MS_MAX - YOUNG_MS - 1);
        assert!(owed.has(&user, &device));
        clock.advance(1);
        assert!(!owed.has(&user, &device) && owed.is_empty());
        assert_eq!(owed.metrics.emptyings_pending.read(), 0);
    }
}
