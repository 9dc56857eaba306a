//! What the homeserver told a short time ago, until that is forgotten.
//!
//! Forgetting is a number that grows: what was asked for before it no longer counts, also where its
//! answer is still under way. So nothing has to be searched for, and nothing comes too late.

use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher, Hash};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kitbag_domain::{Clock, UnixMs};
use quick_cache::sync::Cache;

use crate::metrics::{GatewayMetrics, Memory};

/// How long anything counts at most, whatever is set: nobody should wonder for longer why a device
/// that is gone can still be read.
pub(crate) const REMEMBER_MS_MAX: u64 = 5_000;

/// Things that are remembered; the least used go first.
pub(crate) const ITEMS_MAX: usize = 10_000;

/// Numbers of the last forgetting. Two that share one forget together, which only costs a question.
const STRIPES: usize = 1_024;

/// The order of asking and forgetting, shared by all that is remembered.
pub(crate) struct Forgotten {
    count: AtomicU64,
    stripes: Box<[AtomicU64]>,
}

/// A moment before the homeserver is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asking {
    number: u64,
    at_ms: UnixMs,
}

impl Default for Forgotten {
    fn default() -> Self {
        Self {
            count: AtomicU64::new(0),
            stripes: (0..STRIPES).map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Forgotten {
    /// Lets nothing count any more of what was asked about this before now.
    pub(crate) fn forget(&self, what: &impl Hash) {
        let number = self.count.fetch_add(1, Ordering::SeqCst) + 1;
        self.stripe(what).fetch_max(number, Ordering::SeqCst);
    }

    fn counts(&self, asking: Asking, what: &impl Hash) -> bool {
        asking.number >= self.stripe(what).load(Ordering::SeqCst)
    }

    fn stripe(&self, what: &impl Hash) -> &AtomicU64 {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(what);
        let at = usize::try_from(hash % STRIPES as u64).expect("it is below STRIPES");
        &self.stripes[at]
    }
}

/// What was told of each of some things.
pub(crate) struct Recent<K, V> {
    told: Cache<K, (V, Asking)>,
    remembered: Remembered,
}

/// What is remembered, and for how long.
pub(crate) struct Remembered {
    /// As it is counted.
    pub(crate) what: Memory,
    pub(crate) forgotten: Arc<Forgotten>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) remember_ms: u64,
    pub(crate) metrics: Arc<GatewayMetrics>,
}

impl<K: Clone + Eq + Hash, V: Clone> Recent<K, V> {
    pub(crate) fn new(mut remembered: Remembered) -> Self {
        remembered.remember_ms = remembered.remember_ms.min(REMEMBER_MS_MAX);
        Self {
            told: Cache::new(ITEMS_MAX),
            remembered,
        }
    }

    /// Tells whether anything is remembered at all.
    pub(crate) fn is_on(&self) -> bool {
        self.remembered.remember_ms > 0
    }

    /// Marks the moment; to be called before the homeserver is asked.
    pub(crate) fn asking(&self) -> Asking {
        Asking {
            number: self.remembered.forgotten.count.load(Ordering::SeqCst),
            at_ms: self.remembered.clock.now_ms(),
        }
    }

    /// Forgets what was told about this.
    pub(crate) fn forget(&self, what: &impl Hash) {
        self.remembered.forgotten.forget(what);
    }

    /// Tells whether what was asked for then counts still, for this of what it is about.
    pub(crate) fn counts(&self, asking: Asking, what: &impl Hash) -> bool {
        self.remembered.forgotten.counts(asking, what)
    }

    /// Returns what was told a short time ago, where it `counts`.
    pub(crate) fn get(&self, key: &K, counts: impl FnOnce(&V, Asking) -> bool) -> Option<V> {
        let known = self.told.get(key).filter(|(value, asking)| {
            // A clock that goes back makes it old too.
            let age_ms = self.remembered.clock.now_ms().checked_sub(asking.at_ms);
            age_ms.is_some_and(|age_ms| age_ms < self.remembered.remember_ms)
                && counts(value, *asking)
        });
        let Remembered { metrics, what, .. } = &self.remembered;
        metrics.looked_up(*what, known.is_some());
        known.map(|(value, _)| value)
    }

    /// Returns what was told last, however long ago, and whatever was forgotten since.
    pub(crate) fn last(&self, key: &K) -> Option<V> {
        self.told.get(key).map(|(value, _)| value)
    }

    /// Keeps what was told.
    pub(crate) fn keep(&self, key: K, value: V, asking: Asking) {
        self.told.insert(key, (value, asking));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Still;

    impl Clock for Still {
        fn now_ms(&self) -> UnixMs {
            1
        }
    }

    #[test]
    fn what_was_asked_for_before_a_forgetting_does_not_count_even_if_it_comes_later() {
        let recent = Recent::new(Remembered {
            what: Memory::Devices,
            forgotten: Arc::default(),
            clock: Arc::new(Still),
            remember_ms: 5_000,
            metrics: Arc::default(),
        });
        let before = recent.asking();
        recent.forget(&"alice");
        let get = |who| recent.get(&"key", |_, asking| recent.counts(asking, &who));
        recent.keep("key", "value", before);
        assert_eq!(get("alice"), None);
        assert_eq!(get("bob"), Some("value"));
        recent.keep("key", "value", recent.asking());
        assert_eq!(get("alice"), Some("value"));
    }
}
