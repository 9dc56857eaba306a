//! How often a session may write account data: a client that loops would fill the homeserver's
//! database.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use kitbag_domain::{Clock, UnixMs};
use kitbag_http::shared::{GatewayError, user_agent};
use tracing::warn;

use crate::call::Head;
use crate::credentials::Fingerprint;
use crate::identity::Identity;
use crate::settings::WriteRateSettings;

/// Sessions that are counted at a time: those that wrote within the last minutes. Where there are
/// more, the further ones are not limited until some of these are done.
const SESSIONS_MAX: usize = 16_384;

const MINUTE_US: u64 = 60_000_000;

/// How long a session that writes too often is not told of again in the log.
const TELLING_PAUSE_MS: u64 = 60_000;

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
    told_at_ms: Option<UnixMs>,
}

/// A write too many.
#[derive(Debug)]
pub(crate) struct TooManyWrites {
    retry_after: Duration,
    is_news: bool,
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

    /// Counts a write by somebody who is known, and refuses one too many.
    ///
    /// # Errors
    /// [`GatewayError::TooManyWrites`].
    pub(crate) fn limit(
        &self,
        head: &Head,
        who: &Identity,
        event_type: &str,
    ) -> Result<(), GatewayError> {
        let counted = self.count(&head.credentials().session());
        counted.map_err(|too_many| too_many.tell(who, event_type, &head.parts.headers))
    }

    /// Counts a write of account data, in whichever scope, by whoever shows these credentials.
    pub(crate) fn count(&self, session: &Fingerprint) -> Result<(), TooManyWrites> {
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
    fn count(&mut self, now_ms: UnixMs, rate: Rate) -> Result<(), TooManyWrites> {
        let now_us = now_ms * 1_000;
        // A clock that went back would lock the session out.
        self.settled_at_us = self.settled_at_us.clamp(now_us, now_us + rate.burst_us);
        let ahead_us = self.settled_at_us + rate.write_us - now_us;
        if ahead_us <= rate.burst_us {
            self.settled_at_us += rate.write_us;
            return Ok(());
        }
        let told_since_ms = self.told_at_ms.map(|at| now_ms.saturating_sub(at));
        let is_news = told_since_ms.is_none_or(|since_ms| since_ms >= TELLING_PAUSE_MS);
        if is_news {
            self.told_at_ms = Some(now_ms);
        }
        Err(TooManyWrites {
            retry_after: Duration::from_micros(ahead_us - rate.burst_us),
            is_news,
        })
    }

    fn is_done(&self, now_ms: UnixMs) -> bool {
        let is_told = |at: UnixMs| now_ms.saturating_sub(at) < TELLING_PAUSE_MS;
        self.settled_at_us <= now_ms * 1_000 && !self.told_at_ms.is_some_and(is_told)
    }
}

impl TooManyWrites {
    /// Tells the operator, once a minute for each session, and returns what the client is told.
    pub(crate) fn tell(
        self,
        who: &Identity,
        event_type: &str,
        headers: &HeaderMap,
    ) -> GatewayError {
        if self.is_news {
            warn!(
                user = %who.user.as_str(),
                device = who.device.as_ref().map(kitbag_domain::DeviceId::as_str),
                event_type,
                user_agent = user_agent(headers).as_deref(),
                "a client writes account data too often, and is told to wait"
            );
        }
        GatewayError::TooManyWrites {
            retry_after: self.retry_after,
        }
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
        let wait = rates.count(&session(1)).unwrap_err().retry_after;
        assert_eq!(wait, Duration::from_secs(1));
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

    #[test]
    fn a_session_is_news_once_a_minute() {
        let (rates, clock) = rates(1, 1);
        let news = |advance_ms| {
            clock.advance(advance_ms);
            rates
                .count(&session(1))
                .err()
                .map(|too_many| too_many.is_news)
        };
        assert_eq!(news(0), None);
        assert_eq!(news(1), Some(true));
        assert_eq!(news(30_000), Some(false));
        assert_eq!(news(29_999), None, "it was a minute");
        assert_eq!(news(1), Some(true));
    }
}
