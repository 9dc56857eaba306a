//! What the log says of writes that fail.
//!
//! Once when it begins and once when it is over; meanwhile, or where it comes again and again, one
//! line in [`limit::LOG_INTERVAL_MS`], with the number of writes. A full disk fails each large
//! write and takes each small one: without this it would fill the log too. For the same reason an
//! outage is not over when the files could be opened, but when the next batch was committed, or
//! nothing failed for a while.
//!
//! [`limit::LOG_INTERVAL_MS`]: crate::limit::LOG_INTERVAL_MS

use std::mem;
use std::time::Instant;

use kitbag_domain::StoreError;

use crate::error::Failure;
use crate::seldom::is_due;

/// The failures of writes, as far as the log has not told of them.
#[derive(Debug, Default)]
pub(super) struct Outage {
    /// When a line was last written.
    told_at: Option<Instant>,
    /// Writes that failed and that no line has counted.
    untold: u64,
    /// The outage that is under way.
    present: Option<Present>,
}

#[derive(Debug)]
struct Present {
    began: Instant,
    /// When the files were opened anew, if nothing failed since.
    mended: Option<Instant>,
    writes: u64,
    /// Whether a line told of it, so that one must tell of its end.
    is_told: bool,
}

impl Outage {
    /// Notes a batch that failed; with a fault an outage begins.
    pub(super) fn fail(&mut self, now: Instant, error: &StoreError, writes: u64, is_fault: bool) {
        self.untold += writes;
        if is_fault {
            let present = self.present.get_or_insert(Present {
                began: now,
                mended: None,
                writes: 0,
                is_told: false,
            });
            present.mended = None;
            present.writes += writes;
        }
        let Some(writes) = self.tell(now) else { return };
        if is_fault {
            tracing::error!(%error, writes, "the store takes no writes until its files work again");
        } else {
            tracing::error!(%error, writes, "gave up a batch of writes");
        }
    }

    /// Notes writes that were refused while an outage lasts.
    pub(super) fn refuse(&mut self, writes: u64) {
        self.untold += writes;
        if let Some(present) = &mut self.present {
            present.writes += writes;
        }
    }

    /// Notes that the files still do not work.
    pub(super) fn go_on(&mut self, now: Instant, failure: &Failure) {
        if let Some(writes) = self.tell(now) {
            tracing::error!(%failure, writes, "the store still takes no writes");
        } else {
            tracing::debug!(%failure, "the store still takes no writes");
        }
    }

    /// Notes that the files were opened and took a write of the store's own.
    pub(super) fn mend(&mut self, now: Instant) {
        if let Some(present) = &mut self.present {
            present.mended = Some(now);
        }
    }

    /// Notes that a batch was committed, or nothing asked for a while; tells what is to be told.
    ///
    /// Returns whether an outage has ended with this.
    pub(super) fn pass(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let ended = self.present.take_if(|present| present.mended.is_some());
        if let Some(present) = &ended
            && let Some(mended) = present.mended
            && present.is_told
        {
            let outage_ms = mended.saturating_duration_since(present.began).as_millis();
            let writes = present.writes;
            self.untold = 0;
            tracing::info!(outage_ms, writes, "the store takes writes again");
        }
        if self.untold > 0
            && let Some(writes) = self.tell(now())
        {
            tracing::warn!(writes, "writes failed since the last line about them");
        }
        ended.is_some()
    }

    /// Returns the writes to be told of, where a line may be written now.
    fn tell(&mut self, now: Instant) -> Option<u64> {
        if !is_due(self.told_at, now) {
            return None;
        }
        self.told_at = Some(now);
        if let Some(present) = &mut self.present {
            present.is_told = true;
        }
        Some(mem::take(&mut self.untold))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::options::limit::LOG_INTERVAL_MS;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns what is logged, without the times.
    fn logged(work: impl FnOnce(&dyn Fn(u64) -> Instant)) -> Vec<String> {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_target(false)
            .with_ansi(false)
            .without_time()
            .finish();
        let start = Instant::now();
        tracing::subscriber::with_default(subscriber, || {
            work(&|ms| start + Duration::from_millis(ms));
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }

    fn full() -> StoreError {
        StoreError::OutcomeUnknown("full".to_owned())
    }

    const BEGINS: &str = "ERROR the store takes no writes until its files work again \
        error=the outcome of the write is unknown: full";

    #[test]
    fn an_outage_is_told_of_when_it_begins_every_minute_and_when_it_ends() {
        let lines = logged(|at| {
            let mut outage = Outage::default();
            outage.fail(at(0), &full(), 2, true);
            for second in 0..70 {
                outage.refuse(100);
                outage.go_on(at(second * 1_000), &Failure::Closing);
            }
            outage.mend(at(70_000));
            assert!(outage.pass(|| at(70_000 + LOG_INTERVAL_MS)));
            assert!(!outage.pass(|| at(70_000 + 2 * LOG_INTERVAL_MS)));
        });
        let expected = [
            format!("{BEGINS} writes=2"),
            "ERROR the store still takes no writes failure=the files are being closed writes=6100"
                .to_owned(),
            "INFO the store takes writes again outage_ms=70000 writes=7002".to_owned(),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn outages_without_end_are_told_of_once_a_minute() {
        let lines = logged(|at| {
            let mut outage = Outage::default();
            for number in 0..1_000 {
                outage.fail(at(number * 100), &full(), 1, true);
                outage.mend(at(number * 100 + 50));
                outage.pass(|| at(number * 100 + 60));
            }
            outage.pass(|| at(3 * LOG_INTERVAL_MS));
            outage.pass(|| at(5 * LOG_INTERVAL_MS));
        });
        let expected = [
            format!("{BEGINS} writes=1"),
            "INFO the store takes writes again outage_ms=50 writes=1".to_owned(),
            // Found after the next commit, or when nothing is written for a while.
            format!("{BEGINS} writes=600"),
            "INFO the store takes writes again outage_ms=50 writes=1".to_owned(),
            "WARN writes failed since the last line about them writes=399".to_owned(),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn an_outage_lasts_until_a_batch_is_committed() {
        let lines = logged(|at| {
            let mut outage = Outage::default();
            for number in 0..1_000 {
                outage.fail(at(number * 100), &full(), 1, true);
                outage.mend(at(number * 100 + 50));
            }
            assert!(outage.pass(|| at(100_000)));
        });
        let expected = [
            format!("{BEGINS} writes=1"),
            format!("{BEGINS} writes=600"),
            "INFO the store takes writes again outage_ms=99950 writes=1000".to_owned(),
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn batches_that_fail_without_a_fault_are_told_of_once_a_minute() {
        let lines = logged(|at| {
            let mut outage = Outage::default();
            for number in 0..1_000 {
                outage.fail(at(number), &full(), 3, false);
            }
            outage.pass(|| at(LOG_INTERVAL_MS));
        });
        let expected = [
            "ERROR gave up a batch of writes error=the outcome of the write is unknown: full \
             writes=3",
            "WARN writes failed since the last line about them writes=2997",
        ];
        assert_eq!(lines, expected);
    }
}
