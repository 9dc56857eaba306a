//! What the log says of writes of account data beyond a limit: a client that runs in circles is
//! somebody's to mend.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::StatusCode;
use kitbag_domain::{Clock, DeviceId, UnixMs};
use kitbag_http::shared::{Denial, user_agent};
use tracing::warn;

use crate::call::Head;
use crate::credentials::Fingerprint;
use crate::identity::Identity;

/// How long a session is not told of again for the same limit.
const TELLING_PAUSE_MS: u64 = 60_000;

/// Sessions that were told of within that time; beyond it further ones are not.
const TOLD_MAX: usize = 16_384;

/// Who was told of, for which limit, and when.
pub(crate) struct Excesses {
    clock: Arc<dyn Clock>,
    told: Mutex<HashMap<(Fingerprint, StatusCode), UnixMs>>,
}

impl Excesses {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            clock,
            told: Mutex::default(),
        }
    }

    /// Tells the operator of a write that is refused for a limit of size or rate, once a minute for
    /// each session; nothing where it is refused for something else.
    pub(crate) fn tell(&self, refused: &Denial, head: &Head, who: &Identity, event_type: &str) {
        let what = match refused.status() {
            StatusCode::TOO_MANY_REQUESTS => "too often or too much, and is told to wait",
            StatusCode::PAYLOAD_TOO_LARGE => "that is too large, and is refused",
            _ => return,
        };
        if self.is_news(head.credentials().session(), refused.status()) {
            warn!(
                user = %who.user.as_str(),
                device = who.device.as_ref().map(DeviceId::as_str),
                event_type,
                user_agent = user_agent(&head.parts.headers).as_deref(),
                "a client writes account data {what}"
            );
        }
    }

    fn is_news(&self, session: Fingerprint, limit: StatusCode) -> bool {
        let now_ms = self.clock.now_ms();
        // Where the clock went back it is news too.
        let is_old = |at: UnixMs| {
            now_ms
                .checked_sub(at)
                .is_none_or(|ms| ms >= TELLING_PAUSE_MS)
        };
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.len() >= TOLD_MAX {
            told.retain(|_, at| !is_old(*at));
        }
        match told.get(&(session, limit)) {
            Some(at) if !is_old(*at) => false,
            None if told.len() >= TOLD_MAX => false,
            _ => {
                told.insert((session, limit), now_ms);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use kitbag_testkit::clock::TestClock;

    use super::*;
    use crate::credentials::Shown;

    const RATE: StatusCode = StatusCode::TOO_MANY_REQUESTS;
    const SIZE: StatusCode = StatusCode::PAYLOAD_TOO_LARGE;

    fn session(number: usize) -> Fingerprint {
        let request = Request::builder().header("authorization", number.to_string());
        let request = request.body(()).unwrap();
        Shown::of(request.headers(), request.uri()).fingerprint()
    }

    fn excesses() -> (Excesses, Arc<TestClock>) {
        let clock = Arc::new(TestClock::default());
        (Excesses::new(Arc::clone(&clock) as _), clock)
    }

    #[test]
    fn a_session_is_news_once_a_minute_for_each_limit() {
        let (excesses, clock) = excesses();
        let is_news = |number, limit| excesses.is_news(session(number), limit);
        assert!(is_news(1, RATE) && is_news(1, SIZE) && is_news(2, RATE));
        clock.advance(TELLING_PAUSE_MS - 1);
        assert!(!is_news(1, RATE) && !is_news(1, SIZE));
        clock.advance(1);
        assert!(is_news(1, RATE) && !is_news(1, RATE) && is_news(1, SIZE));
        clock.set(TestClock::START_MS - 1);
        assert!(is_news(1, RATE), "a clock that went back silences nobody");
    }

    #[test]
    fn sessions_that_were_told_of_are_bounded() {
        let (excesses, clock) = excesses();
        for number in 0..TOLD_MAX {
            assert!(excesses.is_news(session(number), RATE));
        }
        assert!(!excesses.is_news(session(TOLD_MAX), RATE));
        assert!(!excesses.is_news(session(0), RATE));
        clock.advance(TELLING_PAUSE_MS);
        assert!(excesses.is_news(session(TOLD_MAX), RATE));
        assert_eq!(excesses.told.lock().unwrap().len(), 1);
    }
}
