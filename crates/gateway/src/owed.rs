//! Devices that ended while their entries could not be emptied, as when the credentials died with
//! the device: until that is done, these entries read as none.
//!
//! It is kept in memory alone, and may be lost: then the entries still read as none as long as there
//! is no device of that ID.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kitbag_domain::{DeviceId, UserId};
use kitbag_http::shared::Gauge;
use tracing::warn;

use crate::metrics::GatewayMetrics;

/// Users about whom this is kept.
const USERS_MAX: usize = 10_000;
/// Devices of one user.
const DEVICES_MAX: usize = 1_000;

/// What is still to be emptied, by user.
pub(crate) struct Owed {
    ended: Mutex<BTreeMap<UserId, Ended>>,
    metrics: Arc<GatewayMetrics>,
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
            devices: devices.into_iter().take(DEVICES_MAX).collect(),
            ..Self::default()
        }
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
        while self.devices.len() > DEVICES_MAX {
            self.devices.pop_first();
        }
        self
    }

    /// Tells whether a device is known to have ended.
    pub(crate) fn has(&self, device: &DeviceId) -> bool {
        self.all || self.devices.contains(device)
    }
}

impl Owed {
    pub(crate) fn new(metrics: Arc<GatewayMetrics>) -> Self {
        Self {
            ended: Mutex::default(),
            metrics,
        }
    }

    /// Returns what is still to be emptied for a user.
    pub(crate) fn of(&self, user: &UserId) -> Option<Ended> {
        self.lock().get(user).cloned()
    }

    /// Tells whether nothing is owed to anybody.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// Keeps what is to be emptied.
    pub(crate) fn add(&self, user: &UserId, ended: Ended) {
        let mut owed = self.lock();
        if owed.len() >= USERS_MAX && !owed.contains_key(user) {
            if let Some((_, lost)) = owed.pop_first() {
                self.count(&lost, Gauge::leave);
            }
            warn!("too much is to be emptied: entries of a device that ended may stay");
        }
        let before = owed.remove(user).unwrap_or_default();
        self.count(&before, Gauge::leave);
        let ended = before.and(ended);
        self.count(&ended, Gauge::enter);
        owed.insert(user.clone(), ended);
    }

    /// All that was owed to a user is done.
    pub(crate) fn settle(&self, user: &UserId) {
        if let Some(done) = self.lock().remove(user) {
            self.count(&done, Gauge::leave);
        }
    }

    /// Devices whose number is not known count as one.
    fn count(&self, ended: &Ended, change: fn(&Gauge)) {
        let devices = ended.devices.len() + usize::from(ended.all) + usize::from(ended.others);
        for _ in 0..devices {
            change(&self.metrics.emptyings_pending);
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<UserId, Ended>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_adds_up_until_it_is_done_and_has_bounds() {
        let user = |number: usize| UserId::parse(format!("@{number:05}:x")).unwrap();
        let device = |number: usize| DeviceId::parse(format!("D{number:05}")).unwrap();
        let owed = Owed::new(Arc::default());
        assert!(owed.is_empty());
        owed.add(&user(0), Ended::these([device(1)]));
        owed.add(&user(0), Ended::these([device(2)]));
        assert_eq!(owed.metrics.emptyings_pending.read(), 2);
        let ended = owed.of(&user(0)).unwrap();
        assert!(ended.has(&device(1)) && ended.has(&device(2)) && !ended.has(&device(3)));
        owed.add(&user(0), Ended::all());
        assert!(owed.of(&user(0)).unwrap().has(&device(3)));
        owed.settle(&user(0));
        assert_eq!(owed.of(&user(0)), None);
        assert_eq!(owed.metrics.emptyings_pending.read(), 0);
        for number in 0..=USERS_MAX {
            owed.add(&user(number), Ended::others());
        }
        assert_eq!(owed.lock().len(), USERS_MAX);
        let many = (0..=DEVICES_MAX).map(device);
        for device in many {
            owed.add(&user(1), Ended::these([device]));
        }
        assert_eq!(owed.of(&user(1)).unwrap().devices.len(), DEVICES_MAX);
    }
}
