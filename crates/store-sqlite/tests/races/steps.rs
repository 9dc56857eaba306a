//! Laws 1 and 3 at the steps of a commit: who sees it, who is woken, who is answered.

use std::pin::pin;
use std::task::{Context, Waker};

use kitbag_domain::{DeviceChanges, DeviceDataStore as _, DeviceSubscription, FeedPosition};
use kitbag_store_sqlite::Step;
use kitbag_testkit::gate::in_time;
use kitbag_testkit::global;

use crate::ground::{Client, Ground, STEPS, begin, was_woken};

/// Between COMMIT and wake-up a write is there for whoever looks, though nobody was told of it yet;
/// whoever saw it never sees less afterwards.
#[tokio::test]
async fn a_write_is_seen_from_its_commit_on_and_waiters_are_woken_before_its_writer_is_told() {
    let ground = Ground::new().await;
    for (number, step) in STEPS.into_iter().enumerate() {
        let (phone, laptop) = ground.user(&format!("user{number}")).await;
        let key = global("a");
        phone.put(&key, "{\"n\":0}").await;
        let (mut early, mut waiting) = (Client::default(), Client::default());
        early.sync(&ground, &laptop).await;
        waiting.sync(&ground, &laptop).await;
        let (mut first, mut second) = (laptop.subscribe(), laptop.subscribe());

        let mut stop = ground.stop_at(step);
        let requester = phone.requester();
        let put = async { ground.put(&requester, &key, "{\"n\":1}").await };
        let mut put = begin(Box::pin(put));
        stop.reached().await;
        let noop = &mut Context::from_waker(Waker::noop());
        assert!(put.as_mut().poll(noop).is_pending(), "{step:?}");
        let is_woken = step == Step::BeforeAcknowledgement;
        assert_eq!(was_woken(&mut first), is_woken, "{step:?}");
        assert_eq!(was_woken(&mut second), is_woken, "{step:?}");
        early.sync(&ground, &laptop).await;
        let is_durable = step != Step::BeforeCommit;
        let seen = if is_durable { "{\"n\":1}" } else { "{\"n\":0}" };
        assert_eq!(early.text(&key), Some(seen), "{step:?}");
        assert_eq!(laptop.text(&key).await.as_deref(), Some(seen), "{step:?}");

        stop.go_on();
        let position = in_time("the put", put).await.unwrap();
        // Woken at the latest now, and once.
        for subscription in [&mut first, &mut second] {
            assert_eq!(was_woken(subscription), !is_woken, "{step:?}");
        }
        for client in [&mut early, &mut waiting] {
            client.sync(&ground, &laptop).await;
            assert_eq!(client.text(&key), Some("{\"n\":1}"), "{step:?}");
            assert_eq!(client.token.unwrap().position, position, "{step:?}");
            client.assert_knows(ground.since(&laptop, None).await);
        }
    }
}

/// The same for who follows the device data of all users.
#[tokio::test]
async fn who_follows_the_feed_is_woken_behind_the_commit_and_before_the_writer_is_told() {
    let ground = Ground::new().await;
    for (number, step) in STEPS.into_iter().enumerate() {
        let (phone, _) = ground.user(&format!("user{number}")).await;
        let key = phone.own_key("a");
        let before = feed(&ground, None).await.next;
        let mut following = ground.sqlite.subscribe_to_devices();
        let mut stop = ground.stop_at(step);
        let mut put = begin(Box::pin(phone.try_put(&key, "{}")));
        stop.reached().await;
        let noop = &mut Context::from_waker(Waker::noop());
        assert!(put.as_mut().poll(noop).is_pending(), "{step:?}");
        let is_woken = step == Step::BeforeAcknowledgement;
        assert_eq!(hears(&mut following), is_woken, "{step:?}");
        let told = feed(&ground, Some(before)).await.changes.len();
        assert_eq!(told, usize::from(step != Step::BeforeCommit), "{step:?}");
        stop.go_on();
        in_time("the put", put).await.unwrap();
        assert_eq!(hears(&mut following), !is_woken, "{step:?}");
        assert_eq!(feed(&ground, Some(before)).await.changes.len(), 1);
    }
}

async fn feed(ground: &Ground, after: Option<FeedPosition>) -> DeviceChanges {
    ground.sqlite.device_changes(after, 100).await.unwrap()
}

/// Tells whether a change was published already, without waiting.
fn hears(subscription: &mut DeviceSubscription) -> bool {
    let noop = &mut Context::from_waker(Waker::noop());
    pin!(subscription.changed()).poll(noop).is_ready()
}

/// A subscription that begins at any step either reads the write or is woken by it.
#[tokio::test]
async fn a_wait_that_begins_while_a_commit_is_stopped_misses_nothing() {
    let ground = Ground::new().await;
    for (number, step) in STEPS.into_iter().enumerate() {
        for reads_while_stopped in [true, false] {
            let name = format!("user{number}.{reads_while_stopped}");
            let (phone, laptop) = ground.user(&name).await;
            let mut client = Client::default();
            client.sync(&ground, &laptop).await;
            let key = global("a");
            let mut stop = ground.stop_at(step);
            let put = begin(Box::pin(phone.try_put(&key, "{}")));
            stop.reached().await;
            let mut subscription = laptop.subscribe();
            if reads_while_stopped {
                client.sync(&ground, &laptop).await;
            }
            stop.go_on();
            in_time("the put", put).await.unwrap();
            if !reads_while_stopped {
                client.sync(&ground, &laptop).await;
            }
            if client.text(&key).is_none() {
                in_time("the wake-up", subscription.changed()).await;
                client.sync(&ground, &laptop).await;
            }
            assert_eq!(client.text(&key), Some("{}"), "{step:?}");
        }
    }
}
