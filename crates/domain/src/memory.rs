//! A store in memory, for tests: simple enough to be seen right.

mod accounts;
mod device_data;
mod entries;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::{
    ApplyError, Device, DeviceId, DeviceWakeups, Entry, Guard, Incarnation, Key, Limits,
    NewAccount, Position, Profile, Refusal, SessionTokens, UnixMs, Usage, UserId, Wakeups,
};
use device_data::Feed;

/// Keeps everything in one map under one lock; nothing survives the process.
pub struct MemoryStore {
    users: Mutex<BTreeMap<UserId, UserState>>,
    feed: Mutex<Feed>,
    wakeups: Arc<Wakeups>,
    device_wakeups: DeviceWakeups,
    limits: Limits,
    epoch: u64,
}

/// Everything of one user.
struct UserState {
    account: NewAccount,
    deactivated_at: Option<UnixMs>,
    position: Position,
    horizon: Position,
    usage: Usage,
    entries: BTreeMap<Key, Entry>,
    devices: BTreeMap<DeviceId, Device>,
    sessions: Vec<SessionState>,
    profile: Profile,
    filters: Vec<Arc<str>>,
}

/// One generation of a device's tokens, in the order of their making.
struct SessionState {
    device: DeviceId,
    tokens: SessionTokens,
}

impl MemoryStore {
    /// Returns an empty store; `epoch` becomes part of its sync tokens.
    #[must_use]
    pub fn new(limits: Limits, epoch: u64) -> Self {
        Self {
            users: Mutex::default(),
            feed: Mutex::default(),
            wakeups: Arc::default(),
            device_wakeups: DeviceWakeups::default(),
            limits,
            epoch,
        }
    }

    fn users(&self) -> MutexGuard<'_, BTreeMap<UserId, UserState>> {
        self.users.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a write of one user and wakes who waits for it.
    ///
    /// Refusals must come before changes: there is no rollback here.
    fn write<T>(
        &self,
        user: &UserId,
        guard: &Guard,
        write: impl FnOnce(&mut UserState) -> Result<T, ApplyError>,
    ) -> Result<T, ApplyError> {
        let mut users = self.users();
        let state = users.get_mut(user).filter(|state| state.admits(guard));
        let state = state.ok_or(Refusal::SessionGone)?;
        let before = state.position;
        let result = write(state)?;
        self.note_device_data(user, state);
        if state.position > before {
            self.wakeups.publish(user, state.position);
        }
        Ok(result)
    }
}

impl UserState {
    fn new(account: NewAccount) -> Self {
        Self {
            account,
            deactivated_at: None,
            position: Position::ZERO,
            horizon: Position::ZERO,
            usage: Usage::default(),
            entries: BTreeMap::new(),
            devices: BTreeMap::new(),
            sessions: Vec::new(),
            profile: Profile::default(),
            filters: Vec::new(),
        }
    }

    fn take_position(&mut self) -> Position {
        self.position = self.position.next();
        self.position
    }

    fn admits(&self, guard: &Guard) -> bool {
        self.deactivated_at.is_none()
            && match guard {
                Guard::Account => true,
                Guard::Device(id, incarnation) => self.incarnation(id) == Some(*incarnation),
            }
    }

    fn incarnation(&self, device: &DeviceId) -> Option<Incarnation> {
        self.devices.get(device).map(|device| device.incarnation)
    }

    /// Drops tombstones that are too old or too many; the horizon follows.
    fn collect_tombstones(&mut self, limits: &Limits, now: UnixMs) {
        let tombstones = self
            .entries
            .values()
            .filter(|entry| entry.content.is_none());
        let by_position: BTreeSet<(Position, UnixMs)> = tombstones
            .map(|entry| (entry.position, entry.written_at))
            .collect();
        let surplus = (by_position.len() as u64).saturating_sub(limits.tombstones_max);
        let oldest = now.saturating_sub(limits.tombstone_age_ms_max);
        for (index, (position, written_at)) in (0_u64..).zip(by_position) {
            if index < surplus || written_at < oldest {
                self.entries.retain(|_, entry| entry.position != position);
                self.horizon = self.horizon.max(position);
            }
        }
    }
}
