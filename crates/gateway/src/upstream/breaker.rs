//! Remembers that the homeserver cannot be reached, so that not every request finds out by itself.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Connects that fail in a row before requests are refused at once: one alone can be bad luck.
const FAILURES_MAX: u32 = 5;

/// How long connects may fail in a row, from the first to the latest, before the next requests are
/// refused: where few ask, so many failures would take very long.
const FAILING_MAX: Duration = Duration::from_secs(1);

/// `ENFILE` and `EMFILE`, which have these numbers on every Unix.
const NO_DESCRIPTORS: [i32; 2] = [23, 24];

/// Counts connects that failed. While it is open, only a probe connects.
#[derive(Default)]
pub(super) struct Breaker {
    is_open: AtomicBool,
    /// Whether connects fail since a moment that is known: all who were answered look at it.
    is_failing: AtomicBool,
    row: Mutex<Row>,
}

/// Connects that failed in a row.
#[derive(Default)]
struct Row {
    failures: u32,
    /// When the first of them failed, or the first since an answer came over another connection.
    since: Option<Instant>,
    /// Whether the last ones failed for want of something here.
    is_in_want: bool,
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

    /// A connect failed `now`. What this machine is in want of says nothing of the homeserver: requests
    /// go on over the connections that there are.
    pub(super) fn failed(&self, error: &io::Error, now: Instant) -> Failed {
        let mut row = self.row();
        if is_in_want(error) {
            return match std::mem::replace(&mut row.is_in_want, true) {
                true => Failed::Again,
                false => Failed::InWant,
            };
        }
        row.failures = row.failures.saturating_add(1);
        let since = *row.since.get_or_insert(now);
        self.is_failing.store(true, Ordering::Relaxed);
        let is_too_long = now.duration_since(since) > FAILING_MAX;
        let is_enough = row.failures >= FAILURES_MAX || is_too_long;
        match is_enough && !self.is_open.swap(true, Ordering::Relaxed) {
            true => Failed::Opened,
            false => Failed::Again,
        }
    }

    /// A connect was done. Returns whether this closed it.
    pub(super) fn succeeded(&self) -> bool {
        let mut row = self.row();
        *row = Row::default();
        self.is_failing.store(false, Ordering::Relaxed);
        self.is_open.swap(false, Ordering::Relaxed)
    }

    /// An answer came, over whichever connection: the homeserver is there, and how long connects fail
    /// counts anew. Nothing is written but just behind a failure.
    pub(super) fn answered(&self) {
        if self.is_failing.load(Ordering::Relaxed) {
            let mut row = self.row();
            row.since = None;
            self.is_failing.store(false, Ordering::Relaxed);
        }
    }

    fn row(&self) -> MutexGuard<'_, Row> {
        self.row.lock().unwrap_or_else(PoisonError::into_inner)
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

    fn refused() -> io::Error {
        io::Error::from(io::ErrorKind::ConnectionRefused)
    }

    #[test]
    fn failures_in_a_row_open_it_and_one_success_closes_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        let fails = || breaker.failed(&refused(), now);
        for _ in 1..FAILURES_MAX {
            assert_eq!(fails(), Failed::Again);
        }
        assert!(!breaker.succeeded());
        for _ in 1..FAILURES_MAX {
            assert_eq!(fails(), Failed::Again);
        }
        assert!(!breaker.is_open());
        assert_eq!(fails(), Failed::Opened);
        assert_eq!(fails(), Failed::Again, "it opens once");
        assert!(breaker.is_open());
        assert!(breaker.succeeded());
        assert!(!breaker.is_open());
    }

    #[test]
    fn few_failures_open_it_where_the_first_is_long_ago() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        let fails = |at_ms| breaker.failed(&refused(), start + Duration::from_millis(at_ms));
        assert_eq!(fails(0), Failed::Again);
        assert_eq!(fails(1_000), Failed::Again);
        assert!(!breaker.succeeded());
        assert_eq!(fails(1_001), Failed::Again, "the row begins anew");
        assert_eq!(fails(2_001), Failed::Again);
        assert!(!breaker.is_open());
        assert_eq!(fails(2_002), Failed::Opened);
        assert!(breaker.is_open());
    }

    #[test]
    fn where_answers_come_in_between_only_so_many_failures_open_it() {
        let (breaker, start) = (Breaker::default(), Instant::now());
        let fails = |second| breaker.failed(&refused(), start + Duration::from_secs(second));
        for second in 1..u64::from(FAILURES_MAX) {
            assert_eq!(fails(10 * second), Failed::Again);
            breaker.answered();
        }
        assert!(!breaker.is_open());
        assert_eq!(fails(100), Failed::Opened);
        breaker.answered();
        assert!(breaker.is_open(), "only a connect closes it");
    }

    #[test]
    fn what_this_machine_is_in_want_of_does_not_open_it_and_is_told_once() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        for round in 0..2 {
            let wants = [
                io::Error::from_raw_os_error(23),
                io::Error::from_raw_os_error(24),
                io::ErrorKind::AddrNotAvailable.into(),
                io::ErrorKind::OutOfMemory.into(),
            ];
            assert_eq!(breaker.failed(&wants[round], now), Failed::InWant);
            for want in wants.iter().cycle().take(20) {
                now += FAILING_MAX;
                assert_eq!(breaker.failed(want, now), Failed::Again);
            }
            assert!(!breaker.is_open());
            assert!(!breaker.succeeded());
        }
    }
}
