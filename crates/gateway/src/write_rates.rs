//! How often, and how much, a session may write account data: a client that loops would fill the
//! homeserver's database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kitbag_domain::{Clock, UnixMs};
use kitbag_http::shared::GatewayError;

use crate::credentials::Fingerprint;
use crate::settings::WriteRateSettings;

/// Sessions that are counted at a time: those that wrote within the last minutes. Where there are
/// more, the further ones are not limited until some of these are done.
const SESSIONS_MAX: usize = 16_384;

/// How often it is looked at most which of so many are done: that takes a while, and all wait for it.
const SWEEP_PAUSE_MS: u64 = 1_000;

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
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    known: HashMap<Fingerprint, Session>,
    /// When those that are done were taken out last.
    swept_ms: Option<UnixMs>,
}

/// What was counted of a session, and when.
pub(crate) struct Counted {
    session: Fingerprint,
    /// In how much time it comes back.
    writes_us: u64,
    at_ms: UnixMs,
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
        // As of the rate limits of the API.
        let is_limited = settings.enabled && settings.per_minute > 0;
        let per_minute = u64::from(settings.per_minute.max(1));
        let write_us = MINUTE_US / per_minute;
        let rate = Rate {
            write_us,
            burst_us: write_us * u64::from(settings.burst.max(1)),
        };
        Self {
            rate: is_limited.then_some(rate),
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
    ) -> Result<Counted, GatewayError> {
        let now_ms = self.clock.now_ms();
        let counted = |writes_us| Counted {
            session: *session,
            writes_us,
            at_ms: now_ms,
        };
        let Some(rate) = self.rate else {
            return Ok(counted(0));
        };
        let writes = writes_of(content_bytes, path_bytes);
        let mut sessions = self.lock();
        let is_known = sessions.known.contains_key(session);
        if !is_known && !sessions.have_room(now_ms) {
            return Ok(counted(0));
        }
        let known = sessions.known.entry(*session).or_default();
        known.count(now_ms, writes, rate).map(counted)
    }

    /// Takes back what was counted of a write whose token the homeserver does not know: else tokens
    /// that somebody made up would leave no room for sessions. No more than that is taken, since a
    /// token can be shown in a form that the homeserver does not take.
    pub(crate) fn take_back(&self, counted: &Counted) {
        let now_ms = self.clock.now_ms();
        // Of it, this came back meanwhile.
        let passed_us = now_ms.saturating_sub(counted.at_ms).saturating_mul(1_000);
        let left_us = counted.writes_us.saturating_sub(passed_us);
        let mut sessions = self.lock();
        if let Some(known) = sessions.known.get_mut(&counted.session) {
            known.ahead_us = known.ahead_us.saturating_sub(left_us);
            if known.is_done(now_ms) {
                sessions.known.remove(&counted.session);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Sessions> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// Tells whether one more can be counted.
    fn have_room(&mut self, now_ms: UnixMs) -> bool {
        if self.known.len() < SESSIONS_MAX {
            return true;
        }
        let is_due = self.swept_ms.is_none_or(|swept_ms| {
            // Where the clock went back it is due too.
            let age_ms = now_ms.checked_sub(swept_ms);
            age_ms.is_none_or(|age_ms| age_ms >= SWEEP_PAUSE_MS)
        });
        if is_due {
            self.swept_ms = Some(now_ms);
            self.known.retain(|_, known| !known.is_done(now_ms));
        }
        self.known.len() < SESSIONS_MAX
    }
}

impl Session {
    /// Returns in how much time these come back.
    fn count(&mut self, now_ms: UnixMs, writes: u64, rate: Rate) -> Result<u64, GatewayError> {
        self.ahead_us = self.ahead_us_at(now_ms);
        self.as_of_ms = now_ms;
        let writes_us = writes.saturating_mul(rate.write_us);
        // One that counts as more than a burst takes a whole one, and its rest comes back behind it:
        // else it could never be written.
        let needed_us = self.ahead_us.saturating_add(writes_us.min(rate.burst_us));
        if needed_us <= rate.burst_us {
            self.ahead_us += writes_us;
            return Ok(writes_us);
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

    fn count(
        rates: &WriteRates,
        number: u64,
        content_bytes: u64,
        path_bytes: usize,
    ) -> Result<(), GatewayError> {
        let counted = rates.count(&session(number), content_bytes, path_bytes);
        counted.map(drop)
    }

    fn allowed(rates: &WriteRates, number: u64, tries: usize) -> usize {
        allowed_of(rates, number, tries, 0)
    }

    fn allowed_of(rates: &WriteRates, number: u64, tries: usize, bytes: u64) -> usize {
        let mut counts = (0..tries).map(|_| count(rates, number, bytes, 0));
        counts.by_ref().take_while(Result::is_ok).count()
    }

    #[test]
    fn a_burst_goes_at_once_and_then_as_many_as_come_back() {
        let (rates, clock) = rates(3, 60);
        assert_eq!(allowed(&rates, 1, 100), 3);
        assert_eq!(allowed(&rates, 2, 100), 3, "each session for itself");
        let retry_after = Duration::from_secs(1);
        let too_many = GatewayError::TooManyWrites { retry_after };
        assert_eq!(count(&rates, 1, 0, 0), Err(too_many));
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
        for (burst, per_minute) in [(u32::MAX, 1), (u32::MAX, u32::MAX), (0, 1), (1, u32::MAX)] {
            let (rates, _clock) = rates(burst, per_minute);
            let burst = usize::try_from(burst.clamp(1, 100)).unwrap();
            let expected = if per_minute == u32::MAX { 100 } else { burst };
            assert_eq!(allowed(&rates, 1, 100), expected, "{burst} {per_minute}");
        }
    }

    #[test]
    fn none_in_a_minute_is_no_limit() {
        for burst in [0, 1, u32::MAX] {
            let (rates, _clock) = rates(burst, 0);
            assert_eq!(
                allowed_of(&rates, 1, 1_000, CONTENT_BYTES_MAX),
                1_000,
                "{burst}"
            );
            assert!(rates.lock().known.is_empty());
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
        assert_eq!(count(&rates, 1, CONTENT_BYTES_MAX, 0), too_many);
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
            assert_eq!(count(&rates, 1, 65_536, 1_024), Ok(()));
        }
        assert_eq!(allowed(&rates, 1, 1_000), 300 - 256);
    }

    #[test]
    fn one_that_counts_as_more_than_a_burst_waits_for_a_whole_one_and_is_paid_behind_it() {
        let (rates, clock) = rates(2, 60);
        assert_eq!(allowed(&rates, 1, 1), 1);
        let retry_after = Duration::from_secs(1);
        let too_many = Err(GatewayError::TooManyWrites { retry_after });
        assert_eq!(count(&rates, 1, CONTENT_BYTES_MAX, 0), too_many);
        clock.advance(1_000);
        assert_eq!(count(&rates, 1, CONTENT_BYTES_MAX, 0), Ok(()));
        let retry_after = Duration::from_secs(63);
        let too_many = Err(GatewayError::TooManyWrites { retry_after });
        assert_eq!(count(&rates, 1, 0, 0), too_many);
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
            assert!(count(&rates, number, 0, 0).is_ok());
        }
        assert_eq!(rates.lock().known.len(), SESSIONS_MAX);
        assert!(count(&rates, 0, 0, 0).is_err());
        assert!(
            count(&rates, SESSIONS_MAX as u64, 0, 0).is_ok(),
            "not counted"
        );
        clock.advance(60_001);
        assert!(count(&rates, SESSIONS_MAX as u64, 0, 0).is_ok());
        assert!(
            count(&rates, SESSIONS_MAX as u64, 0, 0).is_err(),
            "counted again"
        );
        assert_eq!(rates.lock().known.len(), 1);
    }

    #[test]
    fn who_is_done_is_looked_for_once_a_second() {
        // Each has its one write back in 10 ms.
        let (rates, clock) = rates(1, 6_000);
        let fill = |from: u64| {
            for number in from..from + SESSIONS_MAX as u64 {
                assert!(count(&rates, number, 0, 0).is_ok());
            }
            rates.lock().known.len()
        };
        let is_counted = |number| {
            assert!(count(&rates, number, 0, 0).is_ok());
            count(&rates, number, 0, 0).is_err()
        };
        assert_eq!(fill(0), SESSIONS_MAX);
        assert!(!is_counted(u64::MAX), "none of these is done");
        clock.advance(999);
        assert!(!is_counted(u64::MAX), "it was looked at a moment ago");
        clock.advance(1);
        assert!(is_counted(u64::MAX));
        assert_eq!(rates.lock().known.len(), 1);
        // As where the clock went back.
        fill(0);
        clock.set(TestClock::START_MS - 1_000_000);
        assert!(!is_counted(u64::MAX - 1));
        let swept_ms = rates.lock().swept_ms;
        assert_eq!(swept_ms, Some(TestClock::START_MS - 1_000_000));
    }

    #[test]
    fn what_is_taken_back_is_as_if_it_had_not_been_counted_and_no_more() {
        let (rates, clock) = rates(3, 60);
        let counted = |bytes| rates.count(&session(1), bytes, 0).unwrap();
        rates.take_back(&counted(16_385));
        assert!(rates.lock().known.is_empty(), "there is room for another");
        assert_eq!(allowed(&rates, 1, 1), 1);
        rates.take_back(&counted(16_385));
        assert_eq!(allowed(&rates, 1, 100), 2);
        clock.advance(2_000);
        // Half of it came back by itself, and has been used since.
        let late = counted(16_385);
        clock.advance(1_000);
        assert_eq!(allowed(&rates, 1, 100), 1);
        rates.take_back(&late);
        assert_eq!(allowed(&rates, 1, 100), 1);
        // Nor is it where the clock went back.
        clock.advance(1_000);
        let late = counted(0);
        clock.set(TestClock::START_MS - 1_000_000);
        rates.take_back(&late);
        assert_eq!(allowed(&rates, 1, 100), 1);
    }
}
