//! Requests against commits that are stopped at each step, over the real store.

use std::sync::Arc;

use kitbag_domain::Store;
use kitbag_store_sqlite::Step;
use serde_json::json;

use super::{Begun, C3, Lab, event, events, until};
use crate::support::{Call, STEPS, SteppingStore, poll_once};

/// A lab over the real store.
struct Ground {
    // Before the store's directory.
    lab: Lab,
    stepping: SteppingStore,
}

impl Ground {
    async fn new() -> Self {
        let stepping = SteppingStore::new();
        let store: Arc<dyn Store> = stepping.store.clone();
        Self {
            lab: Lab::over(store).await,
            stepping,
        }
    }

    fn send(&self, call: Call) -> Begun<'_> {
        self.lab.start(call)
    }
}

/// Law 1 and 3: who reads between COMMIT and wake-up sees the write, the one who waits is woken a
/// little later, and neither ever sees less.
#[tokio::test]
async fn two_syncs_meet_a_commit_that_is_stopped_at_each_step() {
    for step in STEPS {
        let ground = Ground::new().await;
        let lab = &ground.lab;
        let path = lab.alice.global("app.test");
        lab.put(&lab.alice, &path, "{\"n\":0}").await;
        let since = lab.now().await;
        // It stands between reading and waiting, so that it waits when the commit begins.
        let mut reads = lab.pausing.stop_after("changes");
        let query = format!("since={since}&timeout=20000");
        let mut waiting = ground.send(lab.sync(&query).by(&lab.tablet));
        until(&mut reads, &mut waiting).await;
        reads.go_on();

        let mut stop = ground.stepping.stop_at(step);
        let mut put = ground.send(Call::put(&path, "{\"n\":1}").by(&lab.alice));
        until(&mut stop, &mut put).await;
        let is_durable = step != Step::BeforeCommit;
        let expected = if is_durable {
            vec![event("app.test", 1)]
        } else {
            vec![]
        };
        let (told, next) = lab.told(&lab.alice, &since).await;
        assert_eq!(events(&told), expected, "{step:?}");
        let get = Call::get(&path).by(&lab.tablet);
        let seen = lab.send(get.clone()).await;
        let text = if is_durable { "{\"n\":1}" } else { "{\"n\":0}" };
        assert_eq!(seen.text(), text, "{step:?}");
        // Whoever waits is told before the writer is.
        let woken = if step == Step::BeforeAcknowledgement {
            Some(waiting.as_mut().await)
        } else {
            let polled = poll_once(&mut waiting);
            assert!(polled.is_pending(), "{step:?}: not woken yet");
            None
        };

        stop.go_on();
        assert_eq!(put.await.status, 200, "{step:?}");
        let woken = match woken {
            Some(reply) => reply.assert_ok(),
            None => waiting.await.assert_ok(),
        };
        assert_eq!(events(&woken), [event("app.test", 1)], "{step:?}");
        assert_eq!(lab.send(get).await.text(), "{\"n\":1}", "{step:?}");
        let (told, _) = lab.told(&lab.alice, &next).await;
        let rest = usize::from(!is_durable);
        assert_eq!(events(&told).len(), rest, "{step:?}: each change once");
    }
}

/// Law 9 over the wire: the loser is shown what the winner put, wherever the winner's batch stands.
#[tokio::test]
async fn two_swaps_of_one_revision_meet_a_commit_that_is_stopped_at_each_step() {
    for step in STEPS {
        let ground = Ground::new().await;
        let lab = &ground.lab;
        let path = lab.alice.global("app.test");
        lab.put(&lab.alice, &path, "{\"m.revision_id\":\"1\"}")
            .await;
        let swap = |body: &'static str| {
            Call::put(format!("{path}?expect_revision_id=1"), body).by(&lab.tablet)
        };
        let mut stop = ground.stepping.stop_at(step);
        let mut first = ground.send(swap("{\"m.revision_id\":\"2a\"}"));
        until(&mut stop, &mut first).await;
        let mut queueing = lab.pausing.stop_before("apply");
        let mut second = ground.send(swap("{\"m.revision_id\":\"2b\"}"));
        until(&mut queueing, &mut second).await;
        queueing.go_on();
        assert!(poll_once(&mut second).is_pending(), "{step:?}: queued");
        stop.go_on();
        assert_eq!(first.await.status, 200, "{step:?}");
        let lost = second.await;
        lost.assert_is(409, "M_REVISION_ID_MISMATCH");
        let current = &lost.json()["current_content"];
        assert_eq!(*current, json!({"m.revision_id": "2a"}), "{step:?}");
        let seen = lab.send(Call::get(&path).by(&lab.alice)).await;
        assert_eq!(seen.text(), "{\"m.revision_id\":\"2a\"}", "{step:?}");
    }
}

/// A client that disconnects while its write is stopped: the write is whole, and told to siblings.
#[tokio::test]
async fn a_client_that_goes_away_leaves_a_whole_write() {
    for step in STEPS {
        let ground = Ground::new().await;
        let lab = &ground.lab;
        let since = lab.now().await;
        let path = lab.alice.global("app.test");
        let mut stop = ground.stepping.stop_at(step);
        let mut put = ground.send(Call::put(&path, "{\"n\":1}").by(&lab.alice));
        until(&mut stop, &mut put).await;
        drop(put);
        let query = format!("since={since}&timeout=20000");
        let waiting = ground.send(lab.sync(&query).by(&lab.tablet));
        let (told, ()) = tokio::join!(waiting, async { stop.go_on() });
        assert_eq!(
            events(&told.assert_ok()),
            [event("app.test", 1)],
            "{step:?}"
        );
        let logout = Call::post(format!("{C3}/logout"), "").by(&lab.alice);
        assert_eq!(ground.send(logout).await.status, 200, "{step:?}: it serves");
    }
}
