use super::{BoxFuture, StoreError};
use crate::{DeviceId, DeviceSubscription, Entry, EventType, UserId};

/// Device account data of all users at once: what the server itself reads (MSC4331's motive).
///
/// These are the only calls that look at more than one user.
pub trait DeviceDataStore: Send + Sync + 'static {
    /// Returns up to `limit` live entries of one type at device scope, those behind `after`.
    ///
    /// In the order in which the accounts were made, and of an account in that of its device IDs. An
    /// `after` need not have the entry any more; behind a user that never was there is nothing.
    fn device_entries(
        &self,
        event_type: &EventType,
        after: Option<DevicePlace>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeviceEntry>, StoreError>>;

    /// Returns up to `limit` changes of entries at device scope behind `after`: one snapshot.
    ///
    /// Each entry stands once, at its latest change, in the order of the changes. Everything from the
    /// beginning (`starts_anew`) where `after` is `None`, lies behind the head, or before a deletion
    /// that was collected since; deletions that the caller never needs may be among it.
    fn device_changes(
        &self,
        after: Option<FeedPosition>,
        limit: usize,
    ) -> BoxFuture<'_, Result<DeviceChanges, StoreError>>;

    /// Starts to listen for changes of entries at device scope, of any user.
    fn subscribe_to_devices(&self) -> DeviceSubscription;
}

/// One device of one user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DevicePlace {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
}

/// An entry at device scope, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceEntry {
    /// The user.
    pub user: UserId,
    /// The device's name for people.
    pub display_name: Option<String>,
    /// The entry; its scope names the device.
    pub entry: Entry,
}

impl DeviceEntry {
    /// Returns the device, which is where the next page begins.
    #[must_use]
    pub fn place(&self) -> DevicePlace {
        let device = self.entry.key.scope.device();
        DevicePlace {
            user: self.user.clone(),
            device: device.expect("the entry is at device scope").clone(),
        }
    }
}

/// A place in the stream of changes of all users' device account data.
///
/// Numbers belong to one store and one epoch; they have nothing to do with the
/// [`Position`](crate::Position)s of users.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FeedPosition {
    /// The number of the last change that was told. Strictly increasing, gaps allowed, at most
    /// `i64::MAX`.
    pub number: u64,
    /// Up to where collected deletions do not matter to the caller, who began later: the head of the
    /// stream at that time, as what was deleted by then was gone before they heard of anything.
    pub floor: u64,
}

impl FeedPosition {
    /// Tells where a caller with `after` goes on in a stream with this head and this floor, the number
    /// of the latest deletion that was collected: `None` where they begin anew.
    #[must_use]
    pub fn known(after: Option<Self>, head: u64, floor: u64) -> Option<Self> {
        after.filter(|after| after.number <= head && floor <= after.number.max(after.floor))
    }

    /// Returns the beginning of a stream with this head.
    ///
    /// What was deleted before, the caller never hears of: it may be collected while they read.
    #[must_use]
    pub fn beginning(head: u64) -> Self {
        Self {
            number: 0,
            floor: head,
        }
    }
}

/// A part of the stream of changes of all users' device account data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceChanges {
    /// Where the next call goes on.
    pub next: FeedPosition,
    /// Whether this is the beginning of everything instead of what followed: what the caller
    /// knows from before is to be forgotten.
    pub starts_anew: bool,
    /// Whether more is there already.
    pub has_more: bool,
    /// The changes.
    pub changes: Vec<DeviceChange>,
}

impl DeviceChanges {
    /// Returns the first `limit` of the changes behind a position, with their numbers.
    ///
    /// `known` and `head` are those of the same snapshot, see [`FeedPosition::known`]. One change more
    /// than `limit` is enough to show that there are more.
    #[must_use]
    pub fn page(
        known: Option<FeedPosition>,
        head: u64,
        mut behind: Vec<(u64, DeviceChange)>,
        limit: usize,
    ) -> Self {
        let from = known.unwrap_or(FeedPosition::beginning(head));
        behind.sort_by_key(|(number, _)| *number);
        let has_more = behind.len() > limit;
        behind.truncate(limit);
        let number = match behind.last() {
            _ if !has_more => head,
            Some((number, _)) => *number,
            None => from.number,
        };
        Self {
            next: FeedPosition { number, ..from },
            starts_anew: known.is_none(),
            has_more,
            changes: behind.into_iter().map(|(_, change)| change).collect(),
        }
    }
}

/// One change of device account data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceChange {
    /// The account was deactivated: none of its devices has an entry any more.
    AccountEnded(UserId),
    /// An entry has a new content, or none any more.
    Entry(UserId, Entry),
}
