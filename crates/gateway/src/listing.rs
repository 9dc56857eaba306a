//! Entries that are listed to be counted or emptied, within the memory that there is for all users.

use std::time::Duration;

use kitbag_http::shared::GatewayError;

use crate::answer::Failure;
use crate::credentials::Credentials;
use crate::entries::{self, LISTING_BYTES_MAX, Listed, Of, Stored};
use crate::gateway::Gateway;
use crate::memory::Room;

/// Bytes of a usual listing, which is asked for first: hundreds of these have room at once.
const USUAL_BYTES_MAX: usize = 256 * 1024;

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
    for bytes_max in [USUAL_BYTES_MAX, LISTING_BYTES_MAX] {
        // What came, and what is made of it.
        let room = gateway.listings().reserve(2 * bytes_max, wait).await;
        let room = room.ok_or(GatewayError::UpstreamTimeout)?;
        let mark = gateway.request_ids().next();
        let upstream = gateway.upstream();
        let listed = entries::list_if_small(upstream, credentials, of, &mark, bytes_max).await?;
        if let Some(Listed { entries, deleted }) = listed {
            return Ok(Some(Listing {
                entries,
                deleted,
                _room: room,
            }));
        }
    }
    Ok(None)
}
