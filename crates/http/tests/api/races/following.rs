//! What falls between the steps of who follows all devices: subscribe, read, read on, wait.

use std::sync::Arc;

use kitbag_domain::{Limits, MemoryStore};
use kitbag_testkit::pausing::PausingStore;
use serde_json::Value;
use tokio::time::Instant;

use super::{Lab, answered, go_on};
use crate::support::{Call, Session, poll_once};

const CHANGES: &str = "/_kitbag/admin/v1/changes";
const MIB: usize = 1024 * 1024;

fn call(query: &str) -> Call {
    Call::get(format!("{CHANGES}?{query}")).admin()
}

impl Lab {
    async fn tell(&self, session: &Session, event_type: &str, body: String) {
        let path = session.device_data(session.device.as_str(), event_type);
        let put = Call::put(path, body).by(session);
        self.send(put).await.assert_ok();
    }

    async fn delete(&self, session: &Session, event_type: &str) {
        let path = session.device_data(session.device.as_str(), event_type);
        let path = path.replace("v3", "unstable/org.matrix.msc3391");
        self.send(Call::delete(path).by(session)).await.assert_ok();
    }

    /// Returns the `since` behind everything so far.
    async fn followed(&self) -> String {
        let page = self.send(call("")).await.assert_ok();
        assert_eq!(page["has_more"], false);
        format!("since={}", page["next_batch"].as_str().unwrap())
    }
}

/// Returns the types of the changes that a page tells.
fn types(page: &Value) -> Vec<&str> {
    let changes = page["changes"].as_array().unwrap().iter();
    changes.map(|row| row["type"].as_str().unwrap()).collect()
}

/// A change before the reading is in what is read; one behind it wakes, since who waits has
/// subscribed before they read.
#[tokio::test(start_paused = true)]
async fn a_change_between_any_two_steps_of_a_follower_ends_the_wait_at_once() {
    for is_before_reading in [true, false] {
        let lab = Lab::new().await;
        let since = lab.followed().await;
        let started = Instant::now();
        let mut stop = match is_before_reading {
            true => lab.pausing.stop_before("device_changes"),
            false => lab.pausing.stop_after("device_changes"),
        };
        let mut begun = lab.begin(call(&format!("{since}&timeout=30000")));
        assert!(stop.is_reached());
        lab.tell(&lab.tablet, "app.test", "{}".to_owned()).await;
        let page = answered(go_on(stop, &mut begun)).assert_ok();
        assert_eq!(types(&page), ["app.test"], "{is_before_reading}");
        let next = format!("since={}", page["next_batch"].as_str().unwrap());
        let page = lab.send(call(&next)).await.assert_ok();
        assert_eq!(types(&page), [""; 0], "{is_before_reading}: told once");
        assert_eq!(started.elapsed().as_millis(), 0);
    }
}

/// A change that the filter drops, at the same moments, leaves them waiting; the next one is told.
#[tokio::test(start_paused = true)]
async fn a_dropped_change_between_two_steps_leaves_the_follower_waiting() {
    for is_before_reading in [true, false] {
        let lab = Lab::new().await;
        let since = lab.followed().await;
        let mut stop = match is_before_reading {
            true => lab.pausing.stop_before("device_changes"),
            false => lab.pausing.stop_after("device_changes"),
        };
        let mut begun = lab.begin(call(&format!("{since}&timeout=30000&type=app.test")));
        assert!(stop.is_reached());
        lab.tell(&lab.tablet, "app.other", "{}".to_owned()).await;
        assert!(go_on(stop, &mut begun).is_pending(), "{is_before_reading}");
        lab.tell(&lab.tablet, "app.test", "{}".to_owned()).await;
        let page = answered(poll_once(&mut begun)).assert_ok();
        assert_eq!(types(&page), ["app.test"], "{is_before_reading}");
    }
}

/// Two contents fill a page. One is read already when the page must start anew: it is told once, and
/// counted once.
#[tokio::test(start_paused = true)]
async fn a_page_that_starts_anew_in_the_middle_is_as_full_as_any() {
    let limits = Limits {
        device_content_bytes_max: 3 * MIB as u64,
        content_bytes_max: 3 * MIB as u64,
        tombstones_max: 1,
        ..Limits::default()
    };
    let memory = Arc::new(MemoryStore::new(limits.clone(), 1));
    let lab = Lab::limited(PausingStore::over(memory), limits).await;
    for event_type in ["app.gone", "app.gone.too"] {
        lab.tell(&lab.alice, event_type, "{}".to_owned()).await;
    }
    let since = lab.followed().await;
    for event_type in ["app.a", "app.b", "app.c"] {
        let content = format!("{{\"\":\"{}\"}}", "x".repeat(2 * MIB));
        lab.tell(&lab.alice, event_type, content).await;
    }
    let mut stop = lab.pausing.stop_after("device_changes");
    let mut begun = lab.begin(call(&since));
    assert!(stop.is_reached());
    // The first of these deletions is collected, which the follower would never hear of.
    for event_type in ["app.gone", "app.gone.too"] {
        lab.delete(&lab.alice, event_type).await;
    }
    let page = answered(go_on(stop, &mut begun)).assert_ok();
    assert_eq!(page["starts_anew"], true);
    assert_eq!(types(&page), ["app.a", "app.b"]);
    assert_eq!(page["has_more"], true);
}
