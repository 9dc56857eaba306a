//! Law 10: of many syncs at once few read, and the others wait for their turn instead of failing.

use kitbag_domain::SyncToken;
use tokio::task;

use super::{Begun, Lab, answered, go_on};
use crate::support::poll_once;

/// Those of the server's `SyncTurns`.
const FULL_MAX: usize = 4;
const READS_MAX: usize = 512;

/// Stops as many syncs as may read at once by that call, and looks when one more of them reads.
async fn see_turns(lab: &Lab, query: &str, reads: &'static str, turns: usize) {
    let mut reading = Vec::new();
    for _ in 0..turns {
        let stop = lab.pausing.stop_after(reads);
        let sync = lab.begin(lab.sync(query));
        reading.push((stop, sync));
        // Else tokio makes this test wait, which has done much without a break.
        task::yield_now().await;
    }
    let mut stop = lab.pausing.stop_before(reads);
    let mut one_more: Begun<'_> = lab.begin(lab.sync(query));
    assert!(!stop.is_reached(), "{query}: it waits for its turn");
    let (first, mut sync) = reading.remove(0);
    answered(go_on(first, &mut sync)).assert_ok();
    task::yield_now().await;
    assert!(poll_once(&mut one_more).is_pending(), "{query}");
    assert!(stop.is_reached(), "{query}: its turn has come");
    answered(go_on(stop, &mut one_more)).assert_ok();
}

#[tokio::test(start_paused = true)]
async fn initial_and_full_syncs_take_turns() {
    let lab = Lab::new().await;
    let mut foreign: SyncToken = lab.now().await.parse().unwrap();
    foreign.epoch += 1;
    let foreign = format!("since={foreign}");
    for (query, reads) in [
        ("", "live"),
        ("full_state=true", "changes"),
        (&foreign, "live"),
    ] {
        see_turns(&lab, query, reads, FULL_MAX).await;
    }
}

#[tokio::test(start_paused = true)]
async fn reads_of_syncs_take_turns() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    see_turns(&lab, &format!("since={since}"), "changes", READS_MAX).await;
}
