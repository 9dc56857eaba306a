//! Remembers that the homeserver cannot be reached, so that not every request finds out by itself.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// Connects that fail in a row before requests are refused at once: one alone can be bad luck.
const FAILURES_MAX: u32 = 5;

/// `ENFILE` and `EMFILE`, which have these numbers on every Unix.
const NO_DESCRIPTORS: [i32; 2] = [23, 24];

/// Counts connects that failed. While it is open, only a probe connects.
#[derive(Default)]
pub(super) struct Breaker {
    failures: AtomicU32,
    is_open: AtomicBool,
    /// Whether the last connects failed for want of something here.
    is_in_want: AtomicBool,
}

/// What the failure of a connect changed.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failed {
    /// The breaker opened.
    Opened,
    /// This machine begins to want what a connection needs.
    InWant,
    /// Nothing.
    Again,
}

impl Breaker {
    /// Tells whether requests are refused at once.
    pub(super) fn is_open(&self) -> bool {
        self.is_open.load(Ordering::Relaxed)
    }

    /// A connect failed. What this machine is in want of says nothing of the homeserver: requests go on
    /// over the connections that there are.
    pub(super) fn failed(&self, error: &io::Error) -> Failed {
        if is_in_want(error) {
            return match self.is_in_want.swap(true, Ordering::Relaxed) {
                true => Failed::Again,
                false => Failed::InWant,
            };
        }
        let failures = self.failures.fetch_add(1, Ordering::Relaxed) + 1;
        match failures >= FAILURES_MAX && !self.is_open.swap(true, Ordering::Relaxed) {
            true => Failed::Opened,
            false => Failed::Again,
        }
    }

    /// A connect was done. Returns whether this closed it.
    pub(super) fn succeeded(&self) -> bool {
        self.failures.store(0, Ordering::Relaxed);
        self.is_in_want.store(false, Ordering::Relaxed);
        self.is_open.swap(false, Ordering::Relaxed)
    }
}

/// Tells whether a connect failed for want of descriptors, of memory or of a free port.
fn is_in_want(error: &io::Error) -> bool {
    let code = error.raw_os_error();
    code.is_some_and(|code| NO_DESCRIPTORS.contains(&code))
        || matches!(
            error.kind(),
            io::ErrorKind::AddrNotAvailable | io::ErrorKind::OutOfMemory
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let breaker = Breaker::default();
        for _ in 1..FAILURES_MAX {
            assert_eq!(breaker.failed(&refused), Failed::Again);
        }
        assert!(!breaker.succeeded());
        for _ in 1..FAILURES_MAX {
            assert_eq!(breaker.failed(&refused), Failed::Again);
        }
        assert!(!breaker.is_open());
        assert_eq!(breaker.failed(&refused), Failed::Opened);
        assert_eq!(breaker.failed(&refused), Failed::Again, "it opens once");
        assert!(breaker.is_open());
        assert!(breaker.succeeded());
        assert!(!breaker.is_open());
    }

    #[test]
    fn what_this_machine_is_in_want_of_does_not_open_it_and_is_told_once() {
        let breaker = Breaker::default();
        for round in 0..2 {
            let wants = [
                io::Error::from_raw_os_error(23),
                io::Error::from_raw_os_error(24),
                io::ErrorKind::AddrNotAvailable.into(),
                io::ErrorKind::OutOfMemory.into(),
            ];
            assert_eq!(breaker.failed(&wants[round]), Failed::InWant);
            for want in wants.iter().cycle().take(20) {
                assert_eq!(breaker.failed(want), Failed::Again);
            }
            assert!(!breaker.is_open());
            assert!(!breaker.succeeded());
        }
    }
}
