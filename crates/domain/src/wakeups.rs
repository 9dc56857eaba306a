//! Wakes the syncs that wait for a change of one user.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::{Position, UserId};

/// Locks among which the users are spread: many more than cores, so that they seldom meet.
const SHARDS: usize = 64;

type Shard = HashMap<UserId, watch::Sender<Position>>;

/// One channel for each user that somebody waits for, and none for the others.
///
/// A waiter subscribes, *then* reads, then waits: so a change falls either into what it reads or
/// behind its subscription, and no wake-up is lost (law 3). A store publishes after COMMIT and
/// before it acknowledges.
pub struct Wakeups {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
}

impl Default for Wakeups {
    fn default() -> Self {
        let shards = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self {
            shards,
            hasher: RandomState::new(),
        }
    }
}

impl Wakeups {
    /// Starts to listen for changes of `user`.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, user: &UserId) -> Subscription {
        let mut shard = self.shard(user);
        let receiver = match shard.get(user) {
            Some(sender) => sender.subscribe(),
            None => {
                let (sender, receiver) = watch::channel(Position::ZERO);
                shard.insert(user.clone(), sender);
                receiver
            }
        };
        drop(shard);
        Subscription {
            receiver,
            user: user.clone(),
            wakeups: Arc::clone(self),
        }
    }

    /// Tells everyone who listens that `user`'s stream has come to `position`.
    pub fn publish(&self, user: &UserId, position: Position) {
        if let Some(sender) = self.shard(user).get(user) {
            sender.send_replace(position);
        }
    }

    /// Returns how many users somebody waits for.
    #[must_use]
    pub fn users(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }

    fn shard(&self, user: &UserId) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(user);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any bits of a hash will do"
        )]
        let index = hash as usize % self.shards.len();
        lock(&self.shards[index])
    }
}

/// A map of senders is whole after any panic, so a poisoned lock is no reason to stop.
fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Hears of the changes of one user; see [`Wakeups`].
pub struct Subscription {
    receiver: watch::Receiver<Position>,
    user: UserId,
    wakeups: Arc<Wakeups>,
}

impl Subscription {
    /// Waits for a change that was published after the subscription or the last wait.
    ///
    /// May be cancelled: a change is then reported by the next call.
    pub async fn changed(&mut self) {
        let changed = self.receiver.changed().await;
        changed.expect("the sender stays in the map while a subscription lives");
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut shard = self.wakeups.shard(&self.user);
        // This receiver still counts. Subscribing takes the same lock, so nobody can come between.
        if shard
            .get(&self.user)
            .is_some_and(|sender| sender.receiver_count() == 1)
        {
            shard.remove(&self.user);
        }
    }
}

/// The one channel for changes of device account data, whoever's they are.
pub struct DeviceWakeups(watch::Sender<u64>);

impl Default for DeviceWakeups {
    fn default() -> Self {
        Self(watch::Sender::new(0))
    }
}

impl DeviceWakeups {
    /// Starts to listen.
    #[must_use]
    pub fn subscribe(&self) -> DeviceSubscription {
        DeviceSubscription(self.0.subscribe())
    }

    /// Tells everyone who listens that the stream has come to `number`.
    pub fn publish(&self, number: u64) {
        self.0.send_replace(number);
    }
}

/// Hears of changes of device account data; see [`DeviceWakeups`].
pub struct DeviceSubscription(watch::Receiver<u64>);

impl DeviceSubscription {
    /// Waits for a change that was published after the subscription or the last wait.
    ///
    /// May be cancelled: a change is then reported by the next call. Never returns once the store is
    /// gone.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn is_ready(subscription: &mut Subscription) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        pin!(subscription.changed()).poll(&mut context) == Poll::Ready(())
    }

    #[test]
    fn only_the_users_own_changes_wake() {
        let wakeups = Arc::new(Wakeups::default());
        let alice = UserId::parse("@alice:x").unwrap();
        let bob = UserId::parse("@bob:x").unwrap();
        wakeups.publish(&alice, Position(1));
        let mut subscription = wakeups.subscribe(&alice);
        assert!(!is_ready(&mut subscription), "the change came before");
        wakeups.publish(&bob, Position(1));
        assert!(!is_ready(&mut subscription));
        wakeups.publish(&alice, Position(2));
        assert!(is_ready(&mut subscription));
        assert!(!is_ready(&mut subscription));
    }

    #[test]
    fn nothing_stays_behind_when_nobody_waits() {
        let wakeups = Arc::new(Wakeups::default());
        let alice = UserId::parse("@alice:x").unwrap();
        let (first, mut second) = (wakeups.subscribe(&alice), wakeups.subscribe(&alice));
        drop(first);
        wakeups.publish(&alice, Position(1));
        assert!(is_ready(&mut second));
        assert_eq!(wakeups.users(), 1);
        drop(second);
        assert_eq!(wakeups.users(), 0);
    }
}
