//! How often, and how much, a session may write account data: a client that loops would fill the
//! homeserver's database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kitbag_domain::{Clock, UnixMs};
use kitbag_http::shared::GatewayError;

use crate::credentials::Fingerprint;
use crate::settings::WriteRateSettings;

/// Sessions that are counted at a time: those that wrote within the last minutes. Where there are
/// more, the further ones are not limited until some of these are done.
const SESSIONS_MAX: usize = 16_384;

/// Bytes that count as one write, and each further ones as one more. A device may write all that it
/// may keep, 64 entries of 64 KiB, in the burst that is the default.
const WRITE_BYTES: u64 = 16 * 1024;

/// Bytes of a path that count nothing. What is beyond them counts as content does.
const PATH_FREE_BYTES: usize = 1024;

const MINUTE_US: u64 = 60_000_000;

/// Counts the writes of all sessions. One is a token: whom it acts as is for the homeserver to heed
/// or not, so that an application service has one limit for all.
pub(crate) struct WriteRates {
    rate: Option<Rate>,
    clock: Arc<dyn Clock>,
    sessions: Mutex<HashMap<Fingerprint, Session>>,
}

/// In how much time a write comes back, and how much of it a session can be ahead.
#[derive(Clone, Copy)]
struct Rate {
    write_us: u64,
    burst_us: u64,
}

/// What is remembered of a session, until it is as if it had never written.
#[derive(Clone, Copy, Default)]
struct Session {
    /// In how much time all its writes come back.
    ahead_us: u64,
    /// As of when.
    as_of_ms: UnixMs,
}

impl WriteRates {
    pub(crate) fn new(settings: WriteRateSettings, clock: Arc<dyn Clock>) -> Self {
        let per_minute = u64::from(settings.per_minute.max(1));
        let write_us = MINUTE_US / per_minute;
        let rate = Rate {
            write_us,
            burst_us: write_us * u64::from(settings.burst.max(1)),
        };
        Self {
            rate: settings.enabled.then_some(rate),
            clock,
            sessions: Mutex::default(),
        }
    }

    /// Counts a write of account data, in whichever scope, by whoever shows these credentials: by the
    /// bytes of its content, and of its path, where homeservers may let names be long.
    ///
    /// # Errors
    /// [`GatewayError::TooManyWrites`], which counts nothing.
    pub(crate) fn count(
        &self,
        session: &Fingerprint,
        content_bytes: u64,
        path_bytes: usize,
    ) -> Result<(), GatewayError> {
        let Some(rate) = self.rate else {
            return Ok(());
        };
        let writes = writes_of(content_bytes, path_bytes);
        let now_ms = self.clock.now_ms();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(session) {
            sessions.retain(|_, known| !known.is_done(now_ms));
            if sessions.len() >= SESSIONS_MAX {
                return Ok(());
            }
        }
        let session = sessions.entry(*session).or_default();
        session.count(now_ms, writes, rate)
    }
}

impl Session {
    fn count(&mut self, now_ms: UnixMs, writes: u64, rate: Rate) -> Result<(), GatewayError> {
        self.ahead_us = self.ahead_us_at(now_ms);
        self.as_of_ms = now_ms;
        let writes_us = writes.saturating_mul(rate.write_us);
        // One that counts as more than a burst takes a whole one, and its rest comes back behind it:
        // else it could never be written.
        let needed_us = self.ahead_us.saturating_add(writes_us.min(rate.burst_us));
        if needed_us <= rate.burst_us {
            self.ahead_us += writes_us;
            return Ok(());
        }
        Err(GatewayError::TooManyWrites {
            retry_after: Duration::from_micros(needed_us - rate.burst_us),
        })
    }

    /// Where the clock went back nothing came back meanwhile, and what follows does: a session is
    /// locked out for no longer than without that.
    fn ahead_us_at(&self, now_ms: UnixMs) -> u64 {
        let passed_ms = now_ms.saturating_sub(self.as_of_ms);
        self.ahead_us
            .saturating_sub(passed_ms.saturating_mul(1_000))
    }

    fn is_done(&self, now_ms: UnixMs) -> bool {
        self.ahead_us_at(now_ms) == 0
    }
}

/// Returns as how many writes one counts.
fn writes_of(content_bytes: u64, path_bytes: usize) -> u64 {
    let of_path = path_bytes.saturating_sub(PATH_FREE_BYTES) as u64;
    let bytes = content_bytes.saturating_add(of_path);
    bytes.div_ceil(WRITE_BYTES).max(1)
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use kitbag_testkit::clock::TestClock;

    use super::*;
    use crate::credentials::Shown;

    const CONTENT_BYTES_MAX: u64 = 1024 * 1024;

    fn session(number: u64) -> Fingerprint {
        let request = Request::builder().header("authorization", number.to_string());
        let request = request.body(()).unwrap();
        Shown::of(request.headers(), request.uri()).fingerprint()
    }

    fn rates(burst: u32, per_minute: u32) -> (WriteRates, Arc<TestClock>) {
        let clock = Arc::new(TestClock::default());
        let settings = WriteRateSettings {
            enabled: true,
            burst,
            per_minute,
        };
        (WriteRates::new(settings, Arc::clone(&clock) as _), clock)
    }

    fn allowed(rates: &WriteRates, number: u64, tries: usize) -> usize {
        allowed_of(rates, number, tries, 0)
    }

    fn allowed_of(rates: &WriteRates, number: u64, tries: usize, bytes: u64) -> usize {
        let mut count = (0..tries).map(|_| rates.count(&session(number), bytes, 0));
        count.by_ref().take_while(Result::is_ok).count()
    }

    #[test]
    fn a_burst_goes_at_once_and_then_as_many_as_come_back() {
        let (rates, clock) = rates(3, 60);
        assert_eq!(allowed(&rates, 1, 100), 3);
        assert_eq!(allowed(&rates, 2, 100), 3, "each session for itself");
        let retry_after = Duration::from_secs(1);
        let too_many = GatewayError::TooManyWrites { retry_after };
        assert_eq!(rates.count(&session(1), 0, 0), Err(too_many));
        clock.advance(999);
        assert_eq!(allowed(&rates, 1, 100), 0);
        clock.advance(1);
        assert_eq!(
            allowed(&rates, 1, 100),
            1,
            "what was refused counts nothing"
        );
        clock.advance(60_000);
        assert_eq!(allowed(&rates, 1, 100), 3, "never more than a burst");
    }

    #[test]
    fn a_clock_that_goes_back_locks_nobody_out() {
        let (rates, clock) = rates(3, 60);
        assert_eq!(allowed(&rates, 1, 100), 3);
        clock.set(TestClock::START_MS - 1_000_000);
        clock.advance(1_000);
        assert_eq!(allowed(&rates, 1, 100), 0);
        clock.advance(1_000);
        assert_eq!(allowed(&rates, 1, 100), 1);
    }

    #[test]
    fn any_numbers_make_a_limit() {
        for (burst, per_minute) in [(u32::MAX, 1), (u32::MAX, u32::MAX), (0, 0), (1, u32::MAX)] {
            let (rates, _clock) = rates(burst, per_minute);
            let burst = usize::try_from(burst.clamp(1, 100)).unwrap();
            let expected = if per_minute == u32::MAX { 100 } else { burst };
            assert_eq!(allowed(&rates, 1, 100), expected, "{burst} {per_minute}");
        }
    }

    #[test]
    fn a_write_counts_by_the_bytes_that_it_has_stored() {
        for (bytes, expected) in [(0, 300), (16_384, 300), (16_385, 150), (65_536, 75)] {
            let (rates, _clock) = rates(300, 120);
            assert_eq!(allowed_of(&rates, 1, 1_000, bytes), expected, "{bytes}");
        }
        let (rates, clock) = rates(300, 120);
        assert_eq!(allowed_of(&rates, 1, 100, CONTENT_BYTES_MAX), 4);
        // 20 of the 44 that are left are taken, and 64 come back in 32 seconds.
        assert_eq!(allowed(&rates, 1, 20), 20);
        let retry_after = Duration::from_secs(20);
        let too_many = Err(GatewayError::TooManyWrites { retry_after });
        assert_eq!(rates.count(&session(1), CONTENT_BYTES_MAX, 0), too_many);
        clock.advance(20_000);
        assert_eq!(allowed_of(&rates, 1, 100, CONTENT_BYTES_MAX), 1);
    }

    /// Names are stored as well, where the homeserver lets them be long.
    #[test]
    fn of_a_path_what_is_beyond_1_kib_counts_together_with_the_content() {
        for (content_bytes, path_bytes, expected) in [
            (0, 0, 1),
            (16_384, 1_024, 1),
            (16_384, 1_025, 2),
            (0, 17 * 1_024, 1),
            (0, 17 * 1_024 + 1, 2),
            (16_384, 16_383, 2),
            (16_384, 49 * 1_024, 4),
            (u64::MAX, usize::MAX, u64::MAX.div_ceil(WRITE_BYTES)),
        ] {
            let writes = writes_of(content_bytes, path_bytes);
            assert_eq!(writes, expected, "{content_bytes} {path_bytes}");
        }
        let (rates, _clock) = rates(300, 120);
        for _ in 0..64 {
            assert_eq!(rates.count(&session(1), 65_536, 1_024), Ok(()));
        }
        assert_eq!(allowed(&rates, 1, 1_000), 300 - 256);
    }

    #[test]
    fn one_that_counts_as_more_than_a_burst_waits_for_a_whole_one_and_is_paid_behind_it() {
        let (rates, clock) = rates(2, 60);
        assert_eq!(allowed(&rates, 1, 1), 1);
        let retry_after = Duration::from_secs(1);
        let too_many = Err(GatewayError::TooManyWrites { retry_after });
        assert_eq!(rates.count(&session(1), CONTENT_BYTES_MAX, 0), too_many);
        clock.advance(1_000);
        assert_eq!(rates.count(&session(1), CONTENT_BYTES_MAX, 0), Ok(()));
        let retry_after = Duration::from_secs(63);
        let too_many = Err(GatewayError::TooManyWrites { retry_after });
        assert_eq!(rates.count(&session(1), 0, 0), too_many);
        clock.set(TestClock::START_MS - 1_000_000);
        assert_eq!(allowed(&rates, 1, 1), 0);
        clock.advance(63_000);
        assert_eq!(
            allowed(&rates, 1, 100),
            1,
            "no later for the clock that went back"
        );
    }

    #[test]
    fn sessions_that_are_remembered_are_bounded_and_stay_limited() {
        let (rates, clock) = rates(1, 60);
        for number in 0..=SESSIONS_MAX as u64 {
            assert!(rates.count(&session(number), 0, 0).is_ok());
        }
        assert_eq!(rates.sessions.lock().unwrap().len(), SESSIONS_MAX);
        assert!(rates.count(&session(0), 0, 0).is_err());
        assert!(
            rates.count(&session(SESSIONS_MAX as u64), 0, 0).is_ok(),
            "not counted"
        );
        clock.advance(60_001);
        assert!(rates.count(&session(SESSIONS_MAX as u64), 0, 0).is_ok());
        assert!(
            rates.count(&session(SESSIONS_MAX as u64), 0, 0).is_err(),
            "counted again"
        );
        assert_eq!(rates.sessions.lock().unwrap().len(), 1);
    }
}
