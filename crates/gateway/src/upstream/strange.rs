//! What the log says of answers to the gateway's own questions that it cannot use, such as a page of a
//! proxy: clients are told 502 for them, and only who runs the homeserver can mend it.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::Instant;
use tracing::warn;

/// How long the log says nothing of further ones: each request of a client can lead to one.
const TELLING_PAUSE: Duration = Duration::from_secs(60);

/// Answers that could not be used.
#[derive(Default)]
pub(super) struct Strange(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    told_at: Option<Instant>,
    /// Since then.
    count: u64,
}

impl Strange {
    /// Counts one, and tells the operator of it once a minute: by the path alone, since a query can hold
    /// a token and an answer anything.
    pub(super) fn saw(&self, path: &str, status: StatusCode) {
        if let Some(count) = self.count(Instant::now()) {
            warn!(
                path,
                status = status.as_u16(),
                count,
                "the homeserver answered a question of the gateway with what it cannot use"
            );
        }
    }

    /// Returns how many there were since it was told last, where it is to be told `now`.
    fn count(&self, now: Instant) -> Option<u64> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.count += 1;
        let since = seen.told_at.map(|at| now.duration_since(at));
        if since.is_some_and(|since| since < TELLING_PAUSE) {
            return None;
        }
        seen.told_at = Some(now);
        Some(std::mem::take(&mut seen.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_cannot_be_used_are_told_once_a_minute_with_how_many() {
        let (strange, now) = (Strange::default(), Instant::now());
        let minute = TELLING_PAUSE;
        assert_eq!(strange.count(now), Some(1));
        assert_eq!(strange.count(now), None);
        assert_eq!(strange.count(now + minute - Duration::from_millis(1)), None);
        assert_eq!(strange.count(now + minute), Some(3));
        assert_eq!(strange.count(now + minute), None);
    }
}
