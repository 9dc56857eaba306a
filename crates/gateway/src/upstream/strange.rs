//! What the log says of answers to the gateway's own questions that it cannot use, such as a page of a
//! proxy: clients are told 502 for them, and only who runs the homeserver can mend it.

use std::sync::{Mutex, PoisonError};

use axum::http::StatusCode;
use tokio::time::Instant;
use tracing::warn;

use crate::telling::Telling;

/// Answers that could not be used.
pub(super) struct Strange {
    start: Instant,
    seen: Mutex<Telling>,
}

impl Default for Strange {
    fn default() -> Self {
        Self {
            start: Instant::now(),
            seen: Mutex::default(),
        }
    }
}

impl Strange {
    /// Counts one, and tells the operator of it once a minute: by the path alone, since a query can hold
    /// a token and an answer anything.
    pub(super) fn saw(&self, path: &str, status: StatusCode) {
        let now_ms = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = seen.count(now_ms) {
            drop(seen);
            warn!(
                path,
                status = status.as_u16(),
                count,
                "the homeserver answered a question of the gateway with what it cannot use"
            );
        }
    }
}
