//! The feed of device data, where a batch is lost.

use super::*;

#[tokio::test]
async fn a_failed_commit_wakes_who_follows_the_feed_and_its_number_is_given_again() {
    let mut bench = Bench::new(options());
    let mut waiting = bench.writer.setup.device_wakeups.subscribe();
    let take = |bench: &Bench| -> Reply<i64> {
        let take = |tx: &mut Tx<'_>| Ok(tx.feed.take_number(tx.connection)?);
        bench.queue.submit(Weight::default(), take)
    };
    let doubtful = take(&bench);
    let deferred = bench.run("PRAGMA defer_foreign_keys = ON");
    let orphan = bench.run("INSERT INTO filters (user, number, filter) VALUES (99, 0, '')");
    bench.step();
    for reply in [deferred, orphan] {
        assert!(reply.await.is_err());
    }
    assert!(matches!(doubtful.await, Err(StoreError::OutcomeUnknown(_))));
    in_time("the wake-up", waiting.changed()).await;
    let replies = [take(&bench), take(&bench)];
    bench.step();
    for (reply, expected) in replies.into_iter().zip(1..) {
        assert_eq!(reply.await.unwrap(), expected);
    }
    let next = take(&bench);
    bench.step();
    assert_eq!(
        next.await.unwrap(),
        3,
        "the head was written with its batch"
    );
}
