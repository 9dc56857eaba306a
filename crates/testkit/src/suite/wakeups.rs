use std::future::Future as _;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use kitbag_domain::{Change, DeviceSelection, Expectation, Op, Subscription};

use crate::{Actor, Opener, content, device_key, global};

/// How long a waiting task may take; it takes this long only where a wake-up was lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Tells whether a change was published already, without waiting.
fn was_woken(subscription: &mut Subscription) -> bool {
    let mut context = Context::from_waker(Waker::noop());
    pin!(subscription.changed()).poll(&mut context).is_ready()
}

pub async fn a_write_is_published_before_it_is_acknowledged(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let mut subscription = alice.subscribe();
    assert!(!was_woken(&mut subscription));
    let key = global("a");
    alice.put(&key, "{}").await;
    assert!(was_woken(&mut subscription), "put");
    assert!(!was_woken(&mut subscription), "once");
    alice.put(&key, "{}").await;
    assert!(was_woken(&mut subscription), "equal put");
    let update = Box::new(|_: Option<&kitbag_domain::Entry>| Change::Put(content("{}")));
    let applied = alice
        .store
        .update(&alice.user, alice.write(), key.clone(), update);
    applied.await.unwrap();
    assert!(was_woken(&mut subscription), "update");
    alice.delete(&key).await;
    assert!(was_woken(&mut subscription), "delete");
}

pub async fn the_end_of_a_device_is_published(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    alice.login("TABLET").await;
    let mut subscription = laptop.subscribe();
    laptop.log_out().await;
    assert!(was_woken(&mut subscription), "though no entry was dropped");
    let others = Some(DeviceSelection::AllExcept(alice.device.clone()));
    let (write, hash) = (alice.write(), "$new".to_owned());
    let changed = alice.store.set_password(&alice.user, write, hash, others);
    changed.await.unwrap();
    assert!(was_woken(&mut subscription), "password");
    let ended = alice.store.deactivate(&alice.user, alice.write());
    ended.await.unwrap();
    assert!(was_woken(&mut subscription), "deactivation");
}

pub async fn other_users_do_not_wake(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let bob = Actor::register(&fixture.store(), "bob").await;
    let laptop = bob.login("LAPTOP").await;
    let mut subscription = alice.subscribe();
    bob.put(&global("a"), "{}").await;
    bob.put(&bob.own_key("a"), "{}").await;
    bob.delete(&global("a")).await;
    laptop.log_out().await;
    let ended = bob.store.deactivate(&bob.user, bob.write()).await;
    ended.unwrap();
    assert!(!was_woken(&mut subscription));
}

pub async fn refusals_and_what_changes_nothing_do_not_wake(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let laptop = alice.login("LAPTOP").await;
    laptop.log_out().await;
    alice.put(&global("a"), r#"{"m.revision_id":"1"}"#).await;
    let mut subscription = alice.subscribe();
    alice.delete(&global("never")).await;
    alice.apply(Vec::new()).await.unwrap();
    let missing = alice.try_put(&device_key("NOBODY", "a"), "{}").await;
    assert!(missing.is_err());
    assert!(laptop.try_put(&global("a"), "{}").await.is_err());
    let expectation = Expectation {
        stable: Some("0".to_owned()),
        unstable: None,
    };
    let swap = alice.try_swap(&global("a"), "{}", expectation).await;
    assert!(swap.is_err());
    let put = Op::Put(global("b"), content("{}"), Expectation::default());
    let missing = Op::Put(
        device_key("NOBODY", "a"),
        content("{}"),
        Expectation::default(),
    );
    assert!(alice.apply(vec![put, missing]).await.is_err());
    let keep = Box::new(|_: Option<&kitbag_domain::Entry>| Change::Keep);
    let kept = alice
        .store
        .update(&alice.user, alice.write(), global("a"), keep);
    kept.await.unwrap();
    assert!(!was_woken(&mut subscription));
}

pub async fn every_subscription_is_woken(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let mut subscriptions: Vec<_> = (0..20).map(|_| alice.subscribe()).collect();
    alice.put(&global("a"), "{}").await;
    assert!(subscriptions.iter_mut().all(was_woken));
    drop(subscriptions.split_off(1));
    alice.put(&global("a"), "{}").await;
    assert!(was_woken(&mut subscriptions[0]), "others left");
}

/// Two tasks answer each other's writes: one lost wake-up and they stand still.
pub async fn two_waiting_tasks_never_miss_each_other(open: Opener) {
    let fixture = open.open().await;
    let alice = Actor::register(&fixture.store(), "alice").await;
    let player = |own: &'static str, other: &'static str| {
        let alice = alice.clone();
        async move {
            for round in 0..100 {
                let text = format!("{{\"n\":{round}}}");
                alice.put(&global(own), &text).await;
                let mut subscription = alice.subscribe();
                let answered = |text: Option<String>| text.is_some_and(|t| number(&t) >= round);
                while !answered(alice.text(&global(other)).await) {
                    let woken = tokio::time::timeout(PATIENCE, subscription.changed()).await;
                    assert!(woken.is_ok(), "a wake-up was lost in round {round}");
                }
            }
        }
    };
    let (one, two) = (player("ping", "pong"), player("pong", "ping"));
    let (one, two) = (tokio::spawn(one), tokio::spawn(two));
    one.await.unwrap();
    two.await.unwrap();
}

fn number(text: &str) -> u32 {
    let digits = text.trim_matches(|c: char| !c.is_ascii_digit());
    digits.parse().unwrap()
}
