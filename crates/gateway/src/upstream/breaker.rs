//! Remembers that the homeserver cannot be reached, so that not every request finds out by itself.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Connects that fail in a row before requests are refused at once: one alone can be bad luck.
const FAILURES_MAX: u32 = 5;

/// Counts connects that failed. While it is open, only a probe connects.
#[derive(Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    is_open: AtomicBool,
}

impl Breaker {
    /// Tells whether requests are refused at once.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// A connect failed. Returns whether this opened it.
    pub(super) fn failed(&self) -> bool {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        failures >= FAILURES_MAX && !self.is_open.swap(true, Ordering::Relaxed)
    }

    /// A connect was done. Returns whether this closed it.
    pub(super) fn succeeded(&self) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        self.is_open.swap(false, Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            assert!(!breaker.failed());
        }
        assert!(!breaker.succeeded());
        for _ in 1..FAILURES_MAX {
            assert!(!breaker.failed());
        }
        assert!(!breaker.is_open());
        assert!(breaker.failed());
        assert!(!breaker.failed(), "it opens once");
        assert!(breaker.is_open());
        assert!(breaker.succeeded());
        assert!(!breaker.is_open());
    }
}
