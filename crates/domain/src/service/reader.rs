//! What the server itself reads: the account data of all its users.

use super::AccountData;
use crate::{
    Content, DeviceChanges, DeviceEntry, DevicePlace, DeviceSubscription, Entry, EventType,
    FeedPosition, GetError, Key, Selector, StoreError, UserId,
};

/// The server's own eye on account data; [`AccountData::reader`] returns it.
///
/// For programs of the operator and for a homeserver that acts on what devices tell it (MSC4331):
/// nothing here asks whose the data are, so no request of a user may come here.
#[derive(Clone)]
pub struct Reader(AccountData);

impl AccountData {
    /// Returns the server's own eye on all users' account data.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader(self.clone())
    }
}

impl Reader {
    /// Returns the content of one entry as its user would get it.
    /// # Errors
    /// [`GetError::NotFound`] where there is none, or no such user.
    pub async fn content(&self, user: &UserId, key: &Key) -> Result<Content, GetError> {
        self.0.content(user, key).await
    }

    /// Returns the selected live entries of one user, in the order of their keys, as stored.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn list(&self, user: &UserId, selector: Selector) -> Result<Vec<Entry>, StoreError> {
        self.0.store.list(user, selector).await
    }

    /// Returns up to `limit` entries of one type of all devices of all users, those behind `after`.
    ///
    /// In the order in which the accounts were made, and of an account in that of its device IDs.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn device_entries(
        &self,
        event_type: &EventType,
        after: Option<DevicePlace>,
        limit: usize,
    ) -> Result<Vec<DeviceEntry>, StoreError> {
        self.0.store.device_entries(event_type, after, limit).await
    }

    /// Returns up to `limit` changes of device account data behind `after`.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn device_changes(
        &self,
        after: Option<FeedPosition>,
        limit: usize,
    ) -> Result<DeviceChanges, StoreError> {
        self.0.store.device_changes(after, limit).await
    }

    /// Starts to listen for changes of device account data: before reading, so that none is missed.
    #[must_use]
    pub fn subscribe(&self) -> DeviceSubscription {
        self.0.store.subscribe_to_devices()
    }
}
