//! Which devices there are: the homeserver is asked, with the caller's credentials.

use std::collections::HashSet;
use std::sync::Arc;

use axum::http::Method;
use bytes::Bytes;
use kitbag_domain::{Clock, DeviceId, UnixMs, UserId};
use quick_cache::sync::Cache;
use serde::Deserialize;

use crate::answer::Failure;
use crate::credentials::Credentials;
use crate::mapped::segment;
use crate::recent::{ITEMS_MAX, Recent, Remembered};
use crate::upstream::Upstream;

/// Bytes of a list of devices: some thousands.
pub(crate) const DEVICES_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of what the homeserver says of one device.
const DEVICE_BYTES_MAX: usize = 64 * 1024;

/// How long a device that is gone counts as emptied: it may have been written past this gateway.
const EMPTIED_MS: u64 = 60_000;

type Key = (UserId, DeviceId);

/// What the homeserver says of a device.
#[derive(Deserialize)]
struct Device {
    device_id: String,
}

/// The IDs of devices, whatever these look like.
pub(crate) type Ids = HashSet<String>;

/// The devices that the homeserver told of.
pub(crate) struct Devices {
    /// Those that are there; of others nothing is remembered.
    recent: Recent<Key, ()>,
    /// When those that are gone had no entries any more, so that reading these costs nobody a sync.
    emptied: Cache<Key, UnixMs>,
    clock: Arc<dyn Clock>,
}

impl Devices {
    pub(crate) fn new(remembered: Remembered) -> Self {
        Self {
            clock: Arc::clone(&remembered.clock),
            recent: Recent::new(remembered),
            emptied: Cache::new(ITEMS_MAX),
        }
    }

    /// Asks now whether the caller has a device.
    ///
    /// # Errors
    /// What the homeserver says where it is neither there nor not.
    pub(crate) async fn exists_now(
        &self,
        upstream: &Upstream,
        credentials: &Credentials,
        device: &DeviceId,
    ) -> Result<bool, Failure> {
        let target = format!("/_matrix/client/v3/devices/{}", segment(device.as_str()));
        let request = credentials.request(Method::GET, &target, Bytes::new())?;
        let told = upstream.ask(request, DEVICE_BYTES_MAX).await?;
        match told.found()? {
            // Else it is the page of a proxy, say, and tells nothing of the device.
            Some(told) => told.json::<Device>().map(|_| true),
            None => Ok(false),
        }
    }

    /// As [`Devices::exists_now`], as it was told a short time ago at most where it is there.
    pub(crate) async fn exists_recently(
        &self,
        upstream: &Upstream,
        credentials: &Credentials,
        user: &UserId,
        device: &DeviceId,
    ) -> Result<bool, Failure> {
        let key = (user.clone(), device.clone());
        let counts = |_: &(), asking| self.recent.counts(asking, user);
        if self.recent.get(&key, counts).is_some() {
            return Ok(true);
        }
        let asking = self.recent.asking();
        let exists = self.exists_now(upstream, credentials, device).await?;
        if exists {
            self.recent.keep(key, (), asking);
        }
        Ok(exists)
    }

    /// Tells whether a device that is gone is known to have no entries.
    pub(crate) fn is_emptied(&self, user: &UserId, device: &DeviceId) -> bool {
        let key = (user.clone(), device.clone());
        self.emptied.get(&key).is_some_and(|at_ms| {
            // A clock that goes back makes it old too.
            let age_ms = self.clock.now_ms().checked_sub(at_ms);
            age_ms.is_some_and(|age_ms| age_ms < EMPTIED_MS)
        })
    }

    /// Keeps that a device that is gone has no entries.
    pub(crate) fn set_emptied(&self, user: &UserId, device: &DeviceId) {
        let key = (user.clone(), device.clone());
        self.emptied.insert(key, self.clock.now_ms());
    }

    /// A device is about to be written.
    pub(crate) fn set_written(&self, user: &UserId, device: &DeviceId) {
        self.emptied.remove(&(user.clone(), device.clone()));
    }
}

/// Asks now for all devices of the caller.
///
/// # Errors
/// What the homeserver says, and an answer that cannot be read.
pub(crate) async fn all(upstream: &Upstream, credentials: &Credentials) -> Result<Ids, Failure> {
    #[derive(Deserialize)]
    struct List {
        devices: Vec<Device>,
    }
    let target = "/_matrix/client/v3/devices";
    let request = credentials.request(Method::GET, target, Bytes::new())?;
    let told = upstream.ask(request, DEVICES_BYTES_MAX).await?.done()?;
    let List { devices } = told.json()?;
    Ok(devices.into_iter().map(|device| device.device_id).collect())
}

#[cfg(test)]
mod tests {
    use kitbag_testkit::clock::TestClock;

    use super::*;
    use crate::metrics::Memory;

    #[test]
    fn a_device_counts_as_emptied_for_a_minute_or_until_it_is_written() {
        let clock = Arc::new(TestClock::default());
        let devices = Devices::new(Remembered {
            what: Memory::Devices,
            forgotten: Arc::default(),
            clock: Arc::clone(&clock) as _,
            remember_ms: 5_000,
            metrics: Arc::default(),
        });
        let user = UserId::parse("@alice:x").unwrap();
        let device = DeviceId::parse("PHONE").unwrap();
        let is_emptied = || devices.is_emptied(&user, &device);
        devices.set_emptied(&user, &device);
        clock.advance(59_999);
        assert!(is_emptied());
        clock.advance(1);
        assert!(!is_emptied());
        devices.set_emptied(&user, &device);
        assert!(is_emptied());
        devices.set_written(&user, &device);
        assert!(!is_emptied());
    }
}
