//! [`DeviceDataStore`]: what the server reads of all users' devices.

use kitbag_domain::{
    BoxFuture, DeviceChanges, DeviceDataStore, DeviceEntry, DevicePlace, DeviceSubscription,
    EventType, FeedPosition, StoreError,
};

use crate::SqliteStore;

impl DeviceDataStore for SqliteStore {
    fn device_entries(
        &self,
        _event_type: &EventType,
        _after: Option<DevicePlace>,
        _limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeviceEntry>, StoreError>> {
        Box::pin(async { Err(unbuilt()) })
    }

    fn device_changes(
        &self,
        _after: Option<FeedPosition>,
        _limit: usize,
    ) -> BoxFuture<'_, Result<DeviceChanges, StoreError>> {
        Box::pin(async { Err(unbuilt()) })
    }

    fn subscribe_to_devices(&self) -> DeviceSubscription {
        self.device_wakeups.subscribe()
    }
}

/// The format has no index for it yet.
fn unbuilt() -> StoreError {
    StoreError::Unavailable("the store cannot read across users yet".to_owned())
}
