//! How often a session may write account data: a client that loops would fill the homeserver's
//! database.

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
    /// When all its writes will have come back.
    settled_at_us: u64,
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

    /// Counts a write of account data, in whichever scope, by whoever shows these credentials.
    ///
    /// # Errors
    /// [`GatewayError::TooManyWrites`], which counts nothing.
    pub(crate) fn count(&self, session: &Fingerprint) -> Result<(), GatewayError> {
        let Some(rate) = self.rate else {
            return Ok(());
        };
        let now_ms = self.clock.now_ms();
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(session) {
            sessions.retain(|_, known| !known.is_done(now_ms));
            if sessions.len() >= SESSIONS_MAX {
                return Ok(());
            }
        }
        sessions.entry(*session).or_default().count(now_ms, rate)
    }
}

impl Session {
    fn count(&mut self, now_ms: UnixMs, rate: Rate) -> Result<(), GatewayError> {
        let now_us = now_ms * 1_000;
        // A clock that went back would lock the session out.
        self.settled_at_us = self.settled_at_us.clamp(now_us, now_us + rate.burst_us);
        let ahead_us = self.settled_at_us + rate.write_us - now_us;
        if ahead_us <= rate.burst_us {
            self.settled_at_us += rate.write_us;
            return Ok(());
        }
        Err(GatewayError::TooManyWrites {
            retry_after: Duration::from_micros(ahead_us - rate.burst_us),
        })
    }

    fn is_done(&self, now_ms: UnixMs) -> bool {
        self.settled_at_us <= now_ms * 1_000
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use kitbag_testkit::clock::TestClock;

    use super::*;
    use crate::credentials::Shown;

    fn session(number: u64) -> Fingerprint {
        let request = Request::builder().header("authorization", number.to_string());
        Shown::of(&request.body(()).unwrap()).fingerprint()
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
        let mut count = (0..tries).map(|_| rates.count(&session(number)));
        count.by_ref().take_while(Result::is_ok).count()
    }

    #[test]
    fn a_burst_goes_at_once_and_then_as_many_as_come_back() {
        let (rates, clock) = rates(3, 60);
        assert_eq!(allowed(&rates, 1, 100), 3);
        assert_eq!(allowed(&rates, 2, 100), 3, "each session for itself");
        let retry_after = Duration::from_secs(1);
        let too_many = GatewayError::TooManyWrites { retry_after };
        assert_eq!(rates.count(&session(1)), Err(too_many));
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
    fn sessions_that_are_remembered_are_bounded_and_stay_limited() {
        let (rates, clock) = rates(1, 60);
        for number in 0..=SESSIONS_MAX as u64 {
            assert!(rates.count(&session(number)).is_ok());
        }
        assert_eq!(rates.sessions.lock().unwrap().len(), SESSIONS_MAX);
        assert!(rates.count(&session(0)).is_err());
        assert!(
            rates.count(&session(SESSIONS_MAX as u64)).is_ok(),
            "not counted"
        );
        clock.advance(60_001);
        assert!(rates.count(&session(SESSIONS_MAX as u64)).is_ok());
        assert!(
            rates.count(&session(SESSIONS_MAX as u64)).is_err(),
            "counted again"
        );
        assert_eq!(rates.sessions.lock().unwrap().len(), 1);
    }
}
