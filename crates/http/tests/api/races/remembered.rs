//! Initial syncs that are answered from memory: what may be told again, and what may not.

use std::sync::Arc;
use std::task::Poll;

use kitbag_domain::{Limits, MemoryStore};
use kitbag_testkit::pausing::PausingStore;

use super::{C3, Lab, answered, event, events, go_on};
use crate::support::{Call, Reply, Session, poll_once};

async fn lab() -> Lab {
    let memory = Arc::new(MemoryStore::new(Limits::default(), 1));
    Lab::paused(PausingStore::over(memory).telling_heads()).await
}

/// Returns the answer to an initial sync that must not read, or nothing where it would.
fn at_once(lab: &Lab, by: &Session, query: &str) -> Option<Reply> {
    let _stop = lab.pausing.stop_before("live");
    let call = lab.sync(query).by(by);
    match poll_once(&mut Box::pin(lab.send(call))) {
        Poll::Ready(reply) => Some(reply),
        Poll::Pending => None,
    }
}

#[tokio::test]
async fn while_nothing_changes_an_initial_sync_is_told_again_to_any_device() {
    let lab = lab().await;
    assert!(
        at_once(&lab, &lab.alice, "").is_none(),
        "nobody has asked before"
    );
    let first = lab.send(lab.sync("")).await;
    for device in [&lab.alice, &lab.tablet] {
        let again = at_once(&lab, device, "").expect("it is remembered");
        assert_eq!((again.status, &again.body), (200, &first.body));
    }
}

#[tokio::test]
async fn every_change_of_the_user_is_in_the_next_initial_sync() {
    let lab = lab().await;
    lab.now().await;
    lab.put(&lab.tablet, &lab.tablet.global("app.test"), "{\"n\":1}")
        .await;
    assert!(at_once(&lab, &lab.alice, "").is_none(), "a put");
    let told = lab.send(lab.sync("")).await.assert_ok();
    assert!(events(&told).contains(&event("app.test", 1)));
    let device = lab.tablet.device_data("TABLET", "app.test");
    lab.put(&lab.tablet, &device, "{\"n\":2}").await;
    assert!(
        at_once(&lab, &lab.alice, "").is_none(),
        "a put of device data"
    );
    lab.now().await;
    let logout = Call::post(format!("{C3}/logout"), "{}").by(&lab.tablet);
    lab.send(logout).await.assert_ok();
    assert!(
        at_once(&lab, &lab.alice, "").is_none(),
        "the end of a device"
    );
    let refused = lab.send(lab.sync("").by(&lab.tablet)).await;
    assert_eq!(refused.status, 401, "its session is told nothing");
}

/// What it read lacks the change, and so it is not what is to be told at the head of now.
#[tokio::test]
async fn a_change_while_an_initial_sync_reads_is_in_the_next_one() {
    for is_before_reading in [true, false] {
        let lab = lab().await;
        let stop = match is_before_reading {
            true => lab.pausing.stop_before("live"),
            false => lab.pausing.stop_after("live"),
        };
        let mut begun = lab.begin(lab.sync(""));
        lab.put(&lab.tablet, &lab.tablet.global("app.test"), "{\"n\":1}")
            .await;
        let told = answered(go_on(stop, &mut begun)).assert_ok();
        drop(begun);
        let is_told = events(&told).contains(&event("app.test", 1));
        assert_eq!(is_told, is_before_reading);
        let next = lab.send(lab.sync("")).await.assert_ok();
        assert!(events(&next).contains(&event("app.test", 1)), "{next}");
    }
}

#[tokio::test]
async fn what_is_remembered_is_told_neither_to_others_nor_by_another_filter() {
    let lab = lab().await;
    let bob = lab.server.user("bob").await;
    lab.put(&lab.alice, &lab.alice.global("app.test"), "{\"n\":1}")
        .await;
    lab.put(&bob, &bob.global("app.test"), "{\"n\":2}").await;
    let filter = "filter=%7B%22account_data%22:%7B%22types%22:%5B%22other%22%5D%7D%7D";
    for _ in 0..2 {
        let told = lab.send(lab.sync("")).await.assert_ok();
        assert!(events(&told).contains(&event("app.test", 1)));
        let told = lab.send(lab.sync("").by(&bob)).await.assert_ok();
        assert!(events(&told).contains(&event("app.test", 2)));
        let told = lab.send(lab.sync(filter)).await.assert_ok();
        assert_eq!(events(&told), []);
    }
}
