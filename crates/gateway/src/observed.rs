//! What the log says of push rules that are written through account data and let through: which
//! programs still do so tells when to refuse them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::header::USER_AGENT;
use axum::http::{HeaderMap, HeaderValue};
use kitbag_domain::Clock;
use kitbag_http::shared::user_agent;
use tracing::info;

use crate::metrics;
use crate::telling::Telling;

/// What was let through.
pub(crate) struct Observed {
    clock: Arc<dyn Clock>,
    /// By the kind of program, of which there are a few.
    seen: Mutex<HashMap<&'static str, Telling>>,
}

impl Observed {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            seen: Mutex::default(),
        }
    }

    /// Counts one that is let through, and tells the operator of it once a minute for each kind of
    /// program.
    pub(crate) fn saw(&self, headers: &HeaderMap) {
        let agent = metrics::agent(headers.get(USER_AGENT).map(HeaderValue::as_bytes));
        if let Some(count) = self.count(agent) {
            info!(
                user_agent = user_agent(headers).as_deref(),
                agent, count, "push rules were written through account data, and let through"
            );
        }
    }

    /// Returns how many there were of this kind since it was told last, where it is to be told now.
    fn count(&self, agent: &'static str) -> Option<u64> {
        let now_ms = self.clock.now_ms();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = seen.entry(agent).or_default();
        seen.count(now_ms)
    }
}

#[cfg(test)]
mod tests {
    use kitbag_testkit::clock::TestClock;

    use super::*;

    #[test]
    fn what_is_let_through_is_told_once_a_minute_with_how_many_of_its_kind() {
        let clock = Arc::new(TestClock::default());
        let observed = Observed::new(Arc::clone(&clock) as _);
        assert_eq!(observed.count("cinny"), Some(1));
        clock.advance(59_999);
        assert_eq!(observed.count("cinny"), None);
        assert_eq!(observed.count("cinny"), None);
        assert_eq!(observed.count("element"), Some(1));
        clock.advance(1);
        assert_eq!(observed.count("element"), None);
        assert_eq!(observed.count("cinny"), Some(3));
        assert_eq!(observed.count("cinny"), None);
    }
}
