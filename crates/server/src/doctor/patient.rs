//! How the doctor asks: it waits where the homeserver limits rates, and takes what proxies say whose
//! homeserver is down for no answer.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Result, bail};
use kitbag_gateway::{Homeserver, HomeserverAnswer};
use serde_json::Value;
use tokio::time;

use super::told;

/// How long it is waited in all, and once more to take away what was written: homeservers mostly say
/// a second or a few. Who says minutes, as of logins, is told of instead.
const WAITS_MAX: Duration = Duration::from_secs(30);

/// How often something is asked, should the homeserver say that it need not be waited.
const TRIES_MAX: u32 = 10;

/// How long to wait where it does not say.
const WAIT_USUAL: Duration = Duration::from_secs(1);

/// The way to a homeserver.
pub(super) struct Patient {
    homeserver: Homeserver,
    /// How long may still be waited.
    left: Cell<Duration>,
}

impl Patient {
    pub(super) fn new(homeserver: Homeserver) -> Self {
        Self {
            homeserver,
            left: Cell::new(WAITS_MAX),
        }
    }

    /// Has all of the time to wait again.
    pub(super) fn begin_anew(&self) {
        self.left.set(WAITS_MAX);
    }

    /// Sends a request and returns the answer of the homeserver, whatever its status else.
    ///
    /// # Errors
    /// Where there is none, nor one but that it was asked too often.
    pub(super) async fn ask(
        &self,
        method: &str,
        target: &str,
        token: Option<&str>,
        body: &str,
    ) -> Result<HomeserverAnswer> {
        let mut tries = 0;
        loop {
            let answer = self.ask_once(method, target, token, body).await?;
            if answer.status != 429 {
                return Ok(answer);
            }
            let (said, wait) = (told(&answer), wait(&answer));
            tries += 1;
            let Some(left) = self.left.get().checked_sub(wait) else {
                let seconds = wait.as_secs_f64();
                bail!("it answered {said}: it is to be asked again in {seconds:.0} s");
            };
            if tries == TRIES_MAX {
                bail!("it answered {said}, {TRIES_MAX} times");
            }
            self.left.set(left);
            time::sleep(wait).await;
        }
    }

    /// As [`Patient::ask`], but returns a 429 too: for what must not be sent later.
    pub(super) async fn ask_once(
        &self,
        method: &str,
        target: &str,
        token: Option<&str>,
        body: &str,
    ) -> Result<HomeserverAnswer> {
        let body = body.to_owned();
        let answer = self.homeserver.ask(method, target, token, body).await?;
        if let 502..=504 = answer.status {
            let said = told(&answer);
            bail!("it answered {said}, as where a homeserver behind it is down");
        }
        Ok(answer)
    }
}

/// Returns how long to wait before it is asked again.
fn wait(answer: &HomeserverAnswer) -> Duration {
    let of_body = || {
        let body: Value = serde_json::from_slice(&answer.body).ok()?;
        Some(Duration::from_millis(body["retry_after_ms"].as_u64()?))
    };
    let wait = answer.retry_after.or_else(of_body);
    wait.unwrap_or(WAIT_USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_to_wait_is_in_the_header_or_in_the_body() {
        let wait_s = |retry_after_s: Option<u64>, body: &'static str| {
            wait(&HomeserverAnswer {
                status: 429,
                retry_after: retry_after_s.map(Duration::from_secs),
                body: body.into(),
            })
            .as_secs_f64()
        };
        for (header_s, body, expected_s) in [
            (Some(2), "{}", 2.0),
            (Some(2), r#"{"retry_after_ms": 1500}"#, 2.0),
            (None, r#"{"retry_after_ms": 1500}"#, 1.5),
            (None, r#"{"retry_after_ms": "soon"}"#, 1.0),
            (None, "<html>", 1.0),
        ] {
            assert_eq!(wait_s(header_s, body), expected_s, "{header_s:?} {body}");
        }
    }
}
