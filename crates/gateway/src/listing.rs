//! Entries that are listed to be counted or emptied, within the memory that there is for all users.

use std::time::Duration;

use kitbag_http::shared::GatewayError;

use crate::answer::Failure;
use crate::credentials::Credentials;
use crate::entries::{self, LISTING_BYTES_MAX, Listed, Of, Stored};
use crate::gateway::Gateway;
use crate::memory::{Memory, Room};

/// Bytes of a usual listing, which is asked for first.
const USUAL_BYTES_MAX: usize = 256 * 1024;

/// Usual listings at once: they have room of their own, so that none waits for large ones.
const USUAL_AT_ONCE: usize = 128;

/// The room for what is listed.
pub(crate) struct Listings {
    usual: Memory,
    large: Memory,
}

impl Default for Listings {
    fn default() -> Self {
        Self {
            usual: Memory::new(USUAL_AT_ONCE * with_what_is_made_of(USUAL_BYTES_MAX)),
            large: Memory::default(),
        }
    }
}

/// Entries, and the room that they take until they are dropped.
pub(crate) struct Listing {
    pub(crate) entries: Vec<Stored>,
    /// How many types are deleted.
    pub(crate) deleted: usize,
    _room: Room,
}

/// Lists entries of the caller's devices; `None` where there is more
/// than is read at once.
///
/// # Errors
/// What the homeserver says, an answer that cannot be read, and where others take the room for too
/// long.
pub(crate) async fn list(
    gateway: &Gateway,
    credentials: &Credentials,
    of: Of<'_>,
) -> Result<Option<Listing>, Failure> {
    let wait = Duration::from_millis(gateway.settings().upstream.ask_timeout_ms);
    let Listings { usual, large } = gateway.listings();
    for (memory, bytes_max) in [(usual, USUAL_BYTES_MAX), (large, LISTING_BYTES_MAX)] {
        let room = memory.reserve(with_what_is_made_of(bytes_max), wait).await;
        let mut room = room.ok_or(GatewayError::UpstreamTimeout)?;
        let mark = gateway.request_ids().next();
        let upstream = gateway.upstream();
        let listed = entries::list_if_small(upstream, credentials, of, &mark, bytes_max).await?;
        if let Some(Listed { entries, deleted }) = listed {
            // What came is gone, and these may be kept until all of them are emptied.
            let bytes = entries.iter().map(Stored::bytes).sum();
            room.keep(bytes);
            return Ok(Some(Listing {
                entries,
                deleted,
                _room: room,
            }));
        }
    }
    Ok(None)
}

/// Returns how many bytes a listing of so many takes, with the entries that are made of it.
const fn with_what_is_made_of(bytes_max: usize) -> usize {
    2 * bytes_max
}
