//! The world outside: the one place that reads clock and randomness.

use std::time::{SystemTime, UNIX_EPOCH};

use kitbag_domain::{Clock, UnixMs};
use kitbag_http::Random;

/// The system's clock.
pub(crate) struct SystemClock;

impl Clock for SystemClock {
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the Clock that others take"
    )]
    fn now_ms(&self) -> UnixMs {
        let since_epoch = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMs::try_from(since_epoch.as_millis()).unwrap_or(UnixMs::MAX)
    }
}

/// The system's source of randomness.
pub(crate) struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&self, bytes: &mut [u8]) {
        // Without randomness no secret can be made: there is no way to go on.
        getrandom::fill(bytes).expect("the system has a source of randomness");
    }
}

impl SystemRandom {
    pub(crate) fn number(&self) -> u64 {
        let mut bytes = [0; 8];
        self.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}
