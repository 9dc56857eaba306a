//! What the log says of push rules that are written through account data and let through: which
//! programs still do so tells when to refuse them.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;
use kitbag_domain::{Clock, UnixMs};
use kitbag_http::shared::user_agent;
use tracing::info;

/// How long the log says nothing of further ones.
const TELLING_PAUSE_MS: u64 = 60_000;

/// What was let through.
pub(crate) struct Observed {
    clock: Arc<dyn Clock>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    told_at_ms: Option<UnixMs>,
    /// Since then.
    count: u64,
}

impl Observed {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            seen: Mutex::default(),
        }
    }

    /// Counts one that is let through, and tells the operator of it once a minute.
    pub(crate) fn saw(&self, headers: &HeaderMap) {
        if let Some(count) = self.count() {
            info!(
                user_agent = user_agent(headers).as_deref(),
                count, "push rules were written through account data, and let through"
            );
        }
    }

    /// Returns how many there were since it was told last, where it is to be told now.
    fn count(&self) -> Option<u64> {
        let now_ms = self.clock.now_ms();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.count += 1;
        let since_ms = seen.told_at_ms.map(|at| now_ms.saturating_sub(at));
        if since_ms.is_some_and(|since_ms| since_ms < TELLING_PAUSE_MS) {
            return None;
        }
        seen.told_at_ms = Some(now_ms);
        Some(std::mem::take(&mut seen.count))
    }
}

#[cfg(test)]
mod tests {
    use kitbag_testkit::clock::TestClock;

    use super::*;

    #[test]
    fn what_is_let_through_is_told_once_a_minute_with_how_many() {
        let clock = Arc::new(TestClock::default());
        let observed = Observed::new(Arc::clone(&clock) as _);
        assert_eq!(observed.count(), Some(1));
        clock.advance(59_999);
        assert_eq!(observed.count(), None);
        assert_eq!(observed.count(), None);
        clock.advance(1);
        assert_eq!(observed.count(), Some(3));
        assert_eq!(observed.count(), None);
    }
}
