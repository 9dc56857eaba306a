//! Callers who go away while their write is stopped, and a store that is closed meanwhile.

use std::sync::Arc;
use std::time::Duration;

use kitbag_domain::{ApplyError, EntryStore as _, Expectation, Key, Op, StoreError};
use kitbag_testkit::gate::in_time;
use kitbag_testkit::{Actor, content, global};
use tokio::time::timeout;

use crate::ground::{Client, Ground, STEPS, begin};

/// A write of two entries that has begun is whole also where nobody waits for its answer; siblings
/// are told.
#[tokio::test]
async fn a_write_whose_caller_goes_away_is_whole() {
    let ground = Ground::new().await;
    for (number, step) in STEPS.into_iter().enumerate() {
        // Whose write stands at the step, or waits behind one that does.
        for is_queued in [false, true] {
            let context = format!("{step:?} {is_queued}");
            let (phone, laptop) = ground.user(&format!("user{number}.{is_queued}")).await;
            let mut client = Client::default();
            client.sync(&ground, &laptop).await;
            let mut subscription = laptop.subscribe();
            let keys = [global("a"), phone.own_key("b")];
            let put = |key: &_| Op::Put(Clone::clone(key), content("{}"), Expectation::default());
            let mut stop = ground.stop_at(step);
            let before = is_queued.then(|| begin(Box::pin(laptop.try_put(&keys[0], "{\"n\":0}"))));
            drop(before);
            let write = begin(Box::pin(phone.apply(keys.iter().map(put).collect())));
            stop.reached().await;
            drop(write);
            client.sync(&ground, &laptop).await;
            stop.go_on();
            in_time("the wake-up", subscription.changed()).await;
            // A write behind it in the queue: so it had its turn.
            phone.put(&global("mark"), "{}").await;
            client.sync(&ground, &laptop).await;
            client.assert_knows(ground.since(&laptop, None).await);
            let told = keys.each_ref().map(|key| client.text(key) == Some("{}"));
            // One that had not begun may also be dropped with its caller.
            let may_be_absent = is_queued && told == [false; 2];
            assert!(told == [true; 2] || may_be_absent, "{context}: {told:?}");
        }
    }
}

/// Writes until a write is answered at once: the others wait behind the stopped one.
async fn refusal(actor: &Actor, key: &Key) -> ApplyError {
    loop {
        let write = actor.try_put(key, "{}");
        if let Ok(told) = timeout(Duration::from_millis(1), write).await {
            break told.unwrap_err();
        }
    }
}

/// Writes that wait when the store is closed.
const QUEUED: usize = 2_000;

/// Closing while a commit is stopped: what stands there and what is queued is committed and told,
/// what comes later is refused.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn closing_waits_for_a_stopped_commit_and_for_what_is_queued() {
    for step in STEPS {
        let ground = Ground::new().await;
        let (phone, _) = ground.user("alice").await;
        let mut stop = ground.stop_at(step);
        let (a, b, c) = (global("a"), global("b"), global("late"));
        let stopped = begin(Box::pin(phone.try_put(&a, "{}")));
        stop.reached().await;
        // Several batches, so that it is not by chance that none is left.
        let queue = (0..QUEUED).map(|_| begin(Box::pin(phone.try_put(&b, "{}"))));
        let queued: Vec<_> = queue.collect();
        let store = Arc::clone(&ground.sqlite);
        let closing = tokio::task::spawn_blocking(move || store.close());
        // It lets nothing more in, but waits.
        let refused = in_time("a refusal", refusal(&phone, &c)).await;
        let closed = StoreError::Unavailable("the store is closed".to_owned());
        assert_eq!(refused, closed.into(), "{step:?}");
        assert!(!closing.is_finished(), "{step:?}");
        stop.go_on();
        in_time("the stopped one", stopped).await.unwrap();
        for queued in queued {
            in_time("a queued one", queued).await.unwrap();
        }
        in_time("the closing", closing).await.unwrap();
        assert!(ground.sqlite.get(&phone.user, &a).await.is_err());
    }
}
