//! Turns by user: writes of a device and the ends of devices exclude each other, so that no write
//! lands behind the emptying of its device.
//!
//! There is no lock across users. A user's lock is in the map while somebody holds it or waits, so
//! there are no more of them than requests.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt as _;
use kitbag_domain::UserId;
use kitbag_http::shared::{GatewayError, Gauge};
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};
use tokio::time;

use crate::metrics::GatewayMetrics;

type Locks = Mutex<HashMap<UserId, Arc<RwLock<()>>>>;

/// The turns of all users.
pub(crate) struct Turns {
    locks: Arc<Locks>,
    metrics: Arc<GatewayMetrics>,
    wait: Duration,
}

/// A turn, until it is dropped.
pub(crate) struct Turn {
    // Dropped in this order: what is held, then the place in the map.
    _held: Held,
    _place: Place,
}

enum Held {
    Shared { _guard: OwnedRwLockReadGuard<()> },
    Alone { _guard: OwnedRwLockWriteGuard<()> },
}

/// Keeps a user's lock in the map.
struct Place {
    locks: Arc<Locks>,
    user: UserId,
    /// There until the place is given up.
    lock: Option<Arc<RwLock<()>>>,
}

impl Turns {
    /// `wait` bounds how long a turn is waited for: those before wait for the homeserver.
    pub(crate) fn new(wait: Duration, metrics: Arc<GatewayMetrics>) -> Self {
        Self {
            locks: Arc::default(),
            metrics,
            wait,
        }
    }

    /// Waits for a turn that others can share, such as that of a device's write.
    ///
    /// # Errors
    /// [`GatewayError::UpstreamTimeout`] where those before take too long.
    pub(crate) async fn shared(&self, user: &UserId) -> Result<Turn, GatewayError> {
        let place = self.place(user);
        let guard = self.wait(place.lock().read_owned()).await?;
        let held = Held::Shared { _guard: guard };
        Ok(Turn {
            _held: held,
            _place: place,
        })
    }

    /// Waits for a turn that nobody of this user shares: the end of a device.
    ///
    /// # Errors
    /// [`GatewayError::UpstreamTimeout`] where those before take too long.
    pub(crate) async fn alone(&self, user: &UserId) -> Result<Turn, GatewayError> {
        let place = self.place(user);
        let guard = self.wait(place.lock().write_owned()).await?;
        let held = Held::Alone { _guard: guard };
        Ok(Turn {
            _held: held,
            _place: place,
        })
    }

    async fn wait<T>(&self, turn: impl Future<Output = T>) -> Result<T, GatewayError> {
        let mut turn = pin!(turn);
        if let Some(held) = turn.as_mut().now_or_never() {
            return Ok(held);
        }
        let _waiting = Waiting::of(&self.metrics.turns_waiting);
        let held = time::timeout(self.wait, turn).await;
        held.map_err(|_| GatewayError::UpstreamTimeout)
    }

    fn place(&self, user: &UserId) -> Place {
        let mut locks = lock(&self.locks);
        let of_user = locks.entry(user.clone()).or_default();
        Place {
            locks: Arc::clone(&self.locks),
            user: user.clone(),
            lock: Some(Arc::clone(of_user)),
        }
    }
}

/// Somebody who waits, counted until dropped.
pub(crate) struct Waiting<'a>(&'a Gauge);

impl<'a> Waiting<'a> {
    pub(crate) fn of(gauge: &'a Gauge) -> Self {
        gauge.enter();
        Self(gauge)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Place {
    fn lock(&self) -> Arc<RwLock<()>> {
        let lock = self.lock.as_ref();
        Arc::clone(lock.expect("it is there until the place is dropped"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut locks = lock(&self.locks);
        // Given up under the lock of the map: of two that leave at once, the last sees itself alone.
        drop(self.lock.take());
        let is_free = |lock: &Arc<_>| Arc::strong_count(lock) == 1;
        if locks.get(&self.user).is_some_and(is_free) {
            locks.remove(&self.user);
        }
    }
}

fn lock(locks: &Locks) -> MutexGuard<'_, HashMap<UserId, Arc<RwLock<()>>>> {
    locks.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[tokio::test]
    async fn writes_share_a_turn_and_an_end_waits_for_them_alone() {
        let turns = Turns::new(Duration::from_secs(60), Arc::default());
        let alice = user("@alice:x");
        let first = turns.shared(&alice).await.unwrap();
        let second = turns.shared(&alice).await.unwrap();
        let mut end = Box::pin(turns.alone(&alice));
        assert!((&mut end).now_or_never().is_none());
        assert_eq!(turns.metrics.turns_waiting.read(), 1);
        drop(turns.alone(&user("@bob:x")).await.unwrap());
        drop((first, second));
        let end = end.await.unwrap();
        assert_eq!(turns.metrics.turns_waiting.read(), 0);
        assert!(turns.shared(&alice).now_or_never().is_none());
        drop(end);
        drop(turns.shared(&alice).await.unwrap());
        assert!(lock(&turns.locks).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_within_bounds_and_leaves_nothing() {
        let turns = Turns::new(Duration::from_secs(30), Arc::default());
        let alice = user("@alice:x");
        let end = turns.alone(&alice).await.unwrap();
        assert!(turns.shared(&alice).await.is_err());
        drop(end);
        assert!(lock(&turns.locks).is_empty());
    }
}
