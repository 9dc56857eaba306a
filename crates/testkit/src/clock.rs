//! A clock that tests set.

use std::sync::atomic::{AtomicU64, Ordering};

use kitbag_domain::{Clock, UnixMs};

/// Shows the time that it was told last; starts at [`TestClock::START_MS`].
#[derive(Debug)]
pub struct TestClock {
    now_ms: AtomicU64,
}

impl TestClock {
    /// A time at which every age limit lies in the positive: 2001-09-09.
    pub const START_MS: UnixMs = 1_000_000_000_000;

    /// Returns a clock that shows `now_ms`.
    #[must_use]
    pub fn at(now_ms: UnixMs) -> Self {
        Self {
            now_ms: AtomicU64::new(now_ms),
        }
    }

    /// Sets the time, which may also go back.
    pub fn set(&self, now_ms: UnixMs) {
        self.now_ms.store(now_ms, Ordering::SeqCst);
    }

    /// Lets time pass.
    pub fn advance(&self, by_ms: u64) {
        self.now_ms.fetch_add(by_ms, Ordering::SeqCst);
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::at(Self::START_MS)
    }
}

impl Clock for TestClock {
    fn now_ms(&self) -> UnixMs {
        self.now_ms.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_what_it_was_told() {
        let clock = TestClock::default();
        clock.advance(5);
        assert_eq!(clock.now_ms(), TestClock::START_MS + 5);
        clock.set(7);
        assert_eq!(clock.now_ms(), 7);
    }
}
