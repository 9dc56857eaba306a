//! What falls between the steps of a waiting sync: subscribe, read, wait, look at the session.

use std::task::Poll;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::{C3, Lab, answered, event, events, go_on, login_call, session_of};
use crate::support::{Call, Session, poll_once};

fn long(since: &str) -> String {
    format!("since={since}&timeout=30000")
}

/// A change before the reading is in what is read; one behind it wakes.
#[tokio::test(start_paused = true)]
async fn a_change_between_any_two_steps_of_a_sync_ends_it_at_once() {
    for is_before_reading in [true, false] {
        let lab = Lab::new().await;
        let since = lab.now().await;
        let started = Instant::now();
        let mut stop = match is_before_reading {
            true => lab.pausing.stop_before("changes"),
            false => lab.pausing.stop_after("changes"),
        };
        let mut begun = lab.begin(lab.sync(&long(&since)));
        assert!(stop.is_reached());
        lab.put(&lab.tablet, &lab.tablet.global("app.test"), "{\"n\":1}")
            .await;
        let told = answered(go_on(stop, &mut begun)).assert_ok();
        assert_eq!(events(&told), [event("app.test", 1)], "{is_before_reading}");
        let next = told["next_batch"].as_str().unwrap();
        assert_eq!(events(&lab.told(&lab.alice, next).await.0), []);
        assert_eq!(started.elapsed().as_millis(), 0);
    }
}

/// A change that its filter drops, at the same moments, leaves it waiting; the next one is told.
#[tokio::test(start_paused = true)]
async fn a_dropped_change_between_two_steps_leaves_it_waiting() {
    let filter = "filter=%7B%22account_data%22:%7B%22not_types%22:%5B%22drop.%2A%22%5D%7D%7D";
    for is_before_reading in [true, false] {
        let lab = Lab::new().await;
        let since = lab.now().await;
        let mut stop = match is_before_reading {
            true => lab.pausing.stop_before("changes"),
            false => lab.pausing.stop_after("changes"),
        };
        let mut begun = lab.begin(lab.sync(&format!("{}&{filter}", long(&since))));
        assert!(stop.is_reached());
        lab.put(&lab.tablet, &lab.tablet.global("drop.test"), "{\"n\":1}")
            .await;
        assert!(go_on(stop, &mut begun).is_pending(), "{is_before_reading}");
        lab.put(&lab.tablet, &lab.tablet.global("app.test"), "{\"n\":2}")
            .await;
        let told = answered(poll_once(&mut begun)).assert_ok();
        assert_eq!(events(&told), [event("app.test", 2)], "{is_before_reading}");
    }
}

/// A device that can refresh, and a sync of it that a change has woken.
struct Refreshing {
    lab: Lab,
    device: Session,
    refresh_token: Value,
    since: String,
}

impl Refreshing {
    async fn new() -> Self {
        let lab = Lab::new().await;
        let login = lab.send(login_call("FRESH")).await.assert_ok();
        let since = lab.now().await;
        Self {
            device: session_of(&lab.alice, "FRESH", &login),
            refresh_token: login["refresh_token"].clone(),
            lab,
            since,
        }
    }

    fn sync(&self) -> Call {
        self.lab.sync(&long(&self.since)).by(&self.device)
    }

    async fn change(&self) {
        let (lab, path) = (&self.lab, self.lab.tablet.global("app.test"));
        lab.put(&lab.tablet, &path, "{\"n\":1}").await;
    }

    /// Replaces the tokens; only the first use of the new ones ends the old.
    async fn refresh(&self, is_used: bool) -> Session {
        let body = json!({"refresh_token": self.refresh_token}).to_string();
        let reply = self
            .lab
            .send(Call::post(format!("{C3}/refresh"), body))
            .await;
        let renewed = session_of(&self.device, "FRESH", &reply.assert_ok());
        if is_used {
            let call = Call::get(format!("{C3}/account/whoami")).by(&renewed);
            assert_eq!(self.lab.send(call).await.status, 200);
        }
        renewed
    }

    async fn log_out(&self, by: &Session) {
        let call = Call::post(format!("{C3}/logout"), "").by(by);
        assert_eq!(self.lab.send(call).await.status, 200);
    }
}

/// The tokens are replaced right when the woken sync looks whether its own is valid. Whatever it
/// finds, the client loses nothing: it is told now, or asks again with the new token.
#[tokio::test(start_paused = true)]
async fn a_wake_up_meets_the_refresh_of_the_token() {
    for (is_before_look, is_used) in [(true, true), (true, false), (false, true), (false, false)] {
        let context = format!("{is_before_look} {is_used}");
        let race = Refreshing::new().await;
        let lab = &race.lab;
        let mut begun = lab.begin(race.sync());
        race.change().await;
        let mut stop = match is_before_look {
            true => lab.pausing.stop_before("session"),
            false => lab.pausing.stop_after("session"),
        };
        assert!(poll_once(&mut begun).is_pending());
        assert!(stop.is_reached(), "{context}");
        let renewed = race.refresh(is_used).await;
        let told = answered(go_on(stop, &mut begun)).assert_ok();
        let is_replaced = is_before_look && is_used;
        let expected = if is_replaced {
            vec![]
        } else {
            vec![event("app.test", 1)]
        };
        assert_eq!(events(&told), expected, "{context}");
        let next = told["next_batch"].as_str().unwrap();
        assert_eq!(next == race.since, is_replaced, "{context}");
        // What it was not told then it is told now, and nothing twice.
        let (again, _) = lab.told(&renewed, next).await;
        assert_eq!(events(&again).len(), usize::from(is_replaced), "{context}");
    }
}

/// Between the two looks, at the session and at the device, the device goes, or goes and returns.
#[tokio::test(start_paused = true)]
async fn a_woken_sync_of_a_replaced_token_ends_with_its_device() {
    for returns in [false, true] {
        let race = Refreshing::new().await;
        let lab = &race.lab;
        let mut begun = lab.begin(race.sync());
        let renewed = race.refresh(true).await;
        race.change().await;
        let mut stop = lab.pausing.stop_before("device");
        assert!(poll_once(&mut begun).is_pending());
        assert!(stop.is_reached());
        race.log_out(&renewed).await;
        if returns {
            lab.send(login_call("FRESH")).await.assert_ok();
        }
        let reply = answered(go_on(stop, &mut begun));
        reply.assert_is(401, "M_UNKNOWN_TOKEN");
        assert_eq!(reply.json()["soft_logout"], false, "{returns}");
    }
}

/// The session ends at each step of its woken sync: it hangs at none, and the next one is refused.
#[tokio::test(start_paused = true)]
async fn a_logout_at_any_step_of_a_woken_sync_ends_it() {
    for (number, gate) in ["session", "session", "changes", "changes"]
        .iter()
        .enumerate()
    {
        let race = Refreshing::new().await;
        let lab = &race.lab;
        let mut begun = lab.begin(race.sync());
        race.change().await;
        let mut stop = match number % 2 {
            0 => lab.pausing.stop_before(gate),
            _ => lab.pausing.stop_after(gate),
        };
        assert!(poll_once(&mut begun).is_pending());
        assert!(stop.is_reached(), "{number}");
        race.log_out(&race.device).await;
        let reply = answered(go_on(stop, &mut begun));
        match number {
            0 => reply.assert_is(401, "M_UNKNOWN_TOKEN"),
            // It was valid when it was looked at, as with any request.
            _ => assert_eq!(events(&reply.assert_ok()), [event("app.test", 1)]),
        }
        let again = lab.send(race.sync()).await;
        again.assert_is(401, "M_UNKNOWN_TOKEN");
    }
}

/// The server stops while a sync stands between two steps: it is answered with what it has.
#[tokio::test(start_paused = true)]
async fn a_stop_of_the_server_at_any_step_of_a_sync_answers_it() {
    for (number, gate) in ["changes", "changes", "session", "session"]
        .iter()
        .enumerate()
    {
        let lab = Lab::new().await;
        let since = lab.now().await;
        let is_woken = *gate == "session";
        let stop_it = || match number % 2 {
            0 => lab.pausing.stop_before(gate),
            _ => lab.pausing.stop_after(gate),
        };
        let (mut begun, mut stop);
        if is_woken {
            begun = lab.begin(lab.sync(&long(&since)));
            let path = lab.tablet.global("app.test");
            lab.put(&lab.tablet, &path, "{\"n\":1}").await;
            stop = stop_it();
            assert!(poll_once(&mut begun).is_pending());
        } else {
            stop = stop_it();
            begun = lab.begin(lab.sync(&long(&since)));
        }
        assert!(stop.is_reached(), "{number}");
        lab.server.stop.send_replace(true);
        let polled = go_on(stop, &mut begun);
        assert!(matches!(polled, Poll::Ready(_)), "{number}");
        let told = answered(polled).assert_ok();
        assert_eq!(events(&told).len(), usize::from(is_woken), "{number}");
    }
}
