//! Room in memory for what is read of the homeserver at once, over all users.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time;

/// Bytes that one kind of work has in memory at once, for all requests: three of the largest, and many
/// usual ones.
const BYTES_MAX: usize = 256 * 1024 * 1024;

/// Room in memory, shared by all requests.
pub(crate) struct Memory(Arc<Semaphore>);

/// Room that is taken until it is dropped.
pub(crate) struct Room(OwnedSemaphorePermit);

impl Default for Memory {
    fn default() -> Self {
        Self::new(BYTES_MAX)
    }
}

impl Memory {
    /// Returns room for so many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes_max)))
    }

    /// Waits for room; `None` where others take it for too long. Who needs more than there is at all
    /// gets none.
    pub(crate) async fn reserve(&self, bytes: usize, wait: Duration) -> Option<Room> {
        let bytes = u32::try_from(bytes).ok()?;
        let room = Arc::clone(&self.0).acquire_many_owned(bytes);
        time::timeout(wait, room).await.ok()?.ok().map(Room)
    }

    /// Returns how many bytes are free.
    #[cfg(test)]
    pub(crate) fn free(&self) -> usize {
        self.0.available_permits()
    }
}

impl Room {
    /// Gives back what is beyond so many bytes.
    pub(crate) fn keep(&mut self, bytes: usize) {
        let spare = self.0.num_permits().saturating_sub(bytes);
        drop(self.0.split(spare));
    }
}
