//! How the doctor asks: it waits where the homeserver limits rates, and takes what proxies say whose
//! homeserver is down for no answer.

use std::cell::Cell;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use kitbag_gateway::{Homeserver, HomeserverAnswer};
use serde_json::Value;
use tokio::time;

use super::told;
use crate::table::plain;

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
            tries += 1;
            let wait = self.grant(&answer, tries)?;
            if wait >= WAIT_USUAL {
                let (said, seconds) = (plain(&told(&answer)), seconds(wait));
                eprintln!("kitbag: it answered {said}: waiting {seconds} s");
            }
            time::sleep(wait).await;
        }
    }

    /// Returns how long to wait behind an answer that it was asked too often, so many times in a row.
    fn grant(&self, answer: &HomeserverAnswer, tries: u32) -> Result<Duration> {
        let (said, wait) = (told(answer), wait(answer));
        let Some(left) = self.left.get().checked_sub(wait) else {
            let seconds = seconds(wait);
            bail!("it answered {said}: it is to be asked again in {seconds} s");
        };
        ensure!(tries < TRIES_MAX, "it answered {said}, {TRIES_MAX} times");
        self.left.set(left);
        Ok(wait)
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
        if let 502..=599 = answer.status {
            let said = told(&answer);
            bail!("it answered {said}, as where a homeserver behind it is down");
        }
        Ok(answer)
    }
}

/// Returns whole seconds, no fewer than it takes.
fn seconds(wait: Duration) -> u64 {
    wait.as_secs() + u64::from(wait.subsec_nanos() > 0)
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
    use kitbag_gateway::UpstreamSettings;

    use super::*;

    fn patient() -> Patient {
        let url = Some("http://127.0.0.1:1".parse().unwrap());
        let settings = UpstreamSettings {
            url,
            ..UpstreamSettings::default()
        };
        Patient::new(Homeserver::new(settings).unwrap())
    }

    fn limited(retry_after_s: u64) -> HomeserverAnswer {
        HomeserverAnswer {
            status: 429,
            retry_after: Some(Duration::from_secs(retry_after_s)),
            body: "{}".into(),
        }
    }

    #[test]
    fn waits_have_an_end_in_all_and_begin_anew_where_it_is_cleaned_up() {
        let patient = patient();
        let granted = |wait_s| patient.grant(&limited(wait_s), 1).is_ok();
        assert!(!granted(31));
        assert_eq!(
            [12, 12, 12, 6, 1].map(granted),
            [true, true, false, true, false]
        );
        patient.begin_anew();
        assert!(granted(30) && !granted(1));
    }

    #[test]
    fn who_need_not_be_waited_for_is_asked_ten_times() {
        let patient = patient();
        let tries = (1..).take_while(|tries| patient.grant(&limited(0), *tries).is_ok());
        assert_eq!(tries.count(), 9, "and the last of them is told");
    }

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
