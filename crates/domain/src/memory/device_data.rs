use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};

use super::{MemoryStore, UserState};
use crate::{
    BoxFuture, Device, DeviceChange, DeviceChanges, DeviceDataStore, DeviceEntry, DevicePlace,
    DeviceSubscription, EventType, FeedPosition, Key, Position, Scope, StoreError, UserId,
};

/// What the store keeps beside the users' own data, so that it can tell of all devices.
#[derive(Default)]
pub(super) struct Feed {
    /// The number of the latest change.
    head: u64,
    /// The number of the latest deletion that was collected.
    floor: u64,
    /// All accounts, in the order in which they were made.
    accounts: Vec<UserId>,
    /// Where the stream stands with each user.
    users: BTreeMap<UserId, UserFeed>,
}

/// What the stream knows of one user.
#[derive(Default)]
struct UserFeed {
    /// Each entry and tombstone at device scope: its position, and the number of the change.
    marks: BTreeMap<Key, (Position, u64)>,
    /// The number of the account's end.
    ended: Option<u64>,
}

impl DeviceDataStore for MemoryStore {
    fn device_entries(
        &self,
        event_type: &EventType,
        after: Option<DevicePlace>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeviceEntry>, StoreError>> {
        let users = self.users();
        let accounts = self.feed().accounts.clone();
        let begin = match &after {
            None => 0,
            Some(after) => {
                let at = accounts.iter().position(|user| *user == after.user);
                at.unwrap_or(accounts.len())
            }
        };
        let mut found = Vec::new();
        for user in &accounts[begin..] {
            for device in users[user].devices.values() {
                let is_behind = after
                    .as_ref()
                    .is_none_or(|after| after.user != *user || device.id > after.device);
                if is_behind && found.len() < limit {
                    found.extend(users[user].device_entry(user, device, event_type));
                }
            }
        }
        drop(users);
        Box::pin(async { Ok(found) })
    }

    fn device_changes(
        &self,
        after: Option<FeedPosition>,
        limit: usize,
    ) -> BoxFuture<'_, Result<DeviceChanges, StoreError>> {
        let users = self.users();
        let feed = self.feed();
        let known = FeedPosition::known(after, feed.head, feed.floor);
        let from = known.unwrap_or(FeedPosition::beginning(feed.head));
        let mut behind: Vec<(u64, DeviceChange)> = Vec::new();
        for (user, user_feed) in &feed.users {
            let ended = user_feed.ended.filter(|number| *number > from.number);
            behind.extend(ended.map(|number| (number, DeviceChange::AccountEnded(user.clone()))));
            for (key, (_, number)) in &user_feed.marks {
                if *number > from.number {
                    let entry = users[user].entries[key].clone();
                    behind.push((*number, DeviceChange::Entry(user.clone(), entry)));
                }
            }
        }
        let changes = DeviceChanges::page(known, feed.head, behind, limit);
        drop((feed, users));
        Box::pin(async { Ok(changes) })
    }

    fn subscribe_to_devices(&self) -> DeviceSubscription {
        self.device_wakeups.subscribe()
    }
}

impl MemoryStore {
    fn feed(&self) -> MutexGuard<'_, Feed> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that an account was made; the caller holds the users' lock.
    pub(super) fn note_account(&self, user: &UserId) {
        self.feed().accounts.push(user.clone());
    }

    /// Gives numbers to what changed of a user's device account data; the caller holds the users' lock.
    pub(super) fn note_device_data(&self, user: &UserId, state: &UserState) {
        let feed = &mut *self.feed();
        let before = feed.head;
        let known = feed.users.entry(user.clone()).or_default();
        let has_ended = state.deactivated_at.is_some();
        known.marks.retain(|key, (_, number)| {
            let is_there = state.entries.contains_key(key);
            if !is_there && !has_ended {
                feed.floor = feed.floor.max(*number);
            }
            is_there
        });
        let in_order: BTreeMap<Position, &Key> = state
            .entries
            .values()
            .filter(|entry| entry.key.scope.device().is_some())
            .map(|entry| (entry.position, &entry.key))
            .collect();
        for (position, key) in in_order {
            if known.marks.get(key).is_none_or(|mark| mark.0 != position) {
                feed.head += 1;
                known.marks.insert(key.clone(), (position, feed.head));
            }
        }
        if has_ended && known.ended.is_none() {
            feed.head += 1;
            known.ended = Some(feed.head);
        }
        if feed.head > before {
            self.device_wakeups.publish(feed.head);
        }
    }
}

impl UserState {
    fn device_entry(
        &self,
        user: &UserId,
        device: &Device,
        event_type: &EventType,
    ) -> Option<DeviceEntry> {
        let key = Key::new(Scope::Device(device.id.clone()), event_type.clone());
        Some(DeviceEntry {
            user: user.clone(),
            display_name: device.display_name.clone(),
            entry: self.live(&key)?.clone(),
        })
    }
}
