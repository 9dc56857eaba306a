//! What was read lately, absent things too, kept coherent with the file.
//!
//! The keys are spread over shards by user. A batch silences the shards of its users before its
//! COMMIT and clears what it changed behind it; meanwhile they answer nothing and take nothing of
//! the kind that it changes, so whoever reads that asks the file. A reader that missed takes a [`Ticket`] *before* it reads, and
//! what it read is kept only if no batch came to the shard since. So:
//!
//! - what is here was read in a snapshot that no later commit of its shard outdates;
//! - a write is acknowledged behind the clearing, so that nobody reads an older value then (law 1).
//!
//! The shard is one mutex, of a kind that is a parameter: a model checker runs this very source.

mod item;
#[cfg(test)]
mod tests;

use std::hash::BuildHasher as _;
use std::sync::{Arc, Mutex, PoisonError};

use kitbag_domain::{KeptSession, Key, SessionChanges, TokenHash, UserId};
use quick_cache::{DefaultHashBuilder, unsync};

use crate::options::limit;
use item::{CountEvicted, Owned, Wanted, Weigher};
pub(crate) use item::{Item, Value};

/// A mutex, of whatever kind.
pub(crate) trait Lock<T> {
    fn new(value: T) -> Self;
    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R;
}

impl<T> Lock<T> for Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, work: impl FnOnce(&mut T) -> R) -> R {
        // A panic between two changes of a shard leaves at worst a value that is not used.
        work(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The cache; see the documentation of the module.
pub(crate) struct Cache<L = Mutex<Shard>> {
    shards: Box<[L]>,
    /// Seeded at random, as the maps of the shards are: nobody can choose users that meet in one.
    hasher: DefaultHashBuilder,
}

/// The part of the cache that holds some of the users.
pub(crate) struct Shard {
    items: unsync::Cache<Owned, Value, Weigher, DefaultHashBuilder, CountEvicted>,
    /// Counts the batches that came to this shard.
    sequence: u64,
    /// What a batch may have changed that it has not cleared yet.
    silence: Silence,
    /// For those who keep sessions: noted as they fall silent, so before the COMMIT (law 6).
    session_changes: Arc<SessionChanges>,
    counts: Counts,
}

/// What a cache did since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// How often something was found.
    pub(crate) hits: u64,
    /// How often it had to be read.
    pub(crate) misses: u64,
    /// How many values made room for others.
    pub(crate) evictions: u64,
}

impl Counts {
    fn plus(self, other: Self) -> Self {
        Self {
            hits: self.hits + other.hits,
            misses: self.misses + other.misses,
            evictions: self.evictions + other.evictions,
        }
    }
}

/// Of what a shard answers nothing and takes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Silence {
    Nothing,
    /// A batch of entries leaves sessions as they are: so the puts that come while it is committed
    /// need not ask the file who sent them.
    ExceptSessions,
    Everything,
}

impl Silence {
    fn covers(self, item: &Item<'_>) -> bool {
        match item {
            Item::Entry(_) | Item::Head => self > Self::Nothing,
            Item::Session(_) => self == Self::Everything,
        }
    }
}

/// The right to keep what is read from now on, unless a batch comes to the shard.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    shard: usize,
    sequence: u64,
}

/// What a write changed of what the cache holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Touched {
    /// Whatever there is: of a write that does not say more.
    #[default]
    Everything,
    /// Some entries of a user, and the head of the stream.
    Entries(UserId, Vec<Key>),
    /// Whatever belongs to a user.
    User(UserId),
}

impl Touched {
    fn silence(&self) -> Silence {
        match self {
            Self::Entries(..) => Silence::ExceptSessions,
            Self::Everything | Self::User(_) => Silence::Everything,
        }
    }
}

impl<L: Lock<Shard>> Cache<L> {
    /// Makes a cache of at most about `bytes_max`; of none where that is 0.
    pub(crate) fn new(bytes_max: u64) -> Self {
        match bytes_max {
            0 => Self::with_shards(0, 0),
            _ => Self::with_shards(limit::CACHE_SHARDS, bytes_max / limit::CACHE_SHARDS as u64),
        }
    }

    fn with_shards(shards: usize, bytes: u64) -> Self {
        let shard = |_| {
            let items = usize::try_from(bytes / limit::CACHE_ITEM_BYTES_USUAL);
            let items = items.unwrap_or(usize::MAX).max(1);
            L::new(Shard {
                items: unsync::Cache::with(
                    items,
                    bytes,
                    Weigher,
                    DefaultHashBuilder::default(),
                    CountEvicted,
                ),
                sequence: 0,
                silence: Silence::Nothing,
                session_changes: Arc::default(),
                counts: Counts::default(),
            })
        };
        Self {
            shards: (0..shards).map(shard).collect(),
            hasher: DefaultHashBuilder::default(),
        }
    }

    /// Returns what is known of an item of `user`.
    pub(crate) fn get(&self, user: &UserId, item: &Item<'_>) -> Option<Value> {
        self.look(user, item, |value| Some(value.clone()))
    }

    /// Takes out of what is known of an item what the caller needs: all of an entry is much.
    ///
    /// `None` where it is not known, or does not say what the caller needs.
    pub(crate) fn look<T>(
        &self,
        user: &UserId,
        item: &Item<'_>,
        take: impl FnOnce(&Value) -> Option<T>,
    ) -> Option<T> {
        self.look_in(user, item, |value, _| take(value))
    }

    /// Returns what is known of the session of `token`, for the caller to keep.
    pub(crate) fn session(&self, user: &UserId, token: &TokenHash) -> Option<Option<KeptSession>> {
        self.look_in(user, &Item::Session(token), |value, shard| {
            let known = value.session()?;
            Some(known.map(|session| KeptSession::new(session, &shard.session_changes)))
        })
    }

    fn look_in<T>(
        &self,
        user: &UserId,
        item: &Item<'_>,
        take: impl FnOnce(&Value, &Shard) -> Option<T>,
    ) -> Option<T> {
        let shard = self.shards.get(self.place(user)?)?;
        shard.with(|shard| {
            if shard.silence.covers(item) {
                return None;
            }
            let found = shard.items.get(&Wanted { user, item });
            let found = found.and_then(|value| take(value, shard));
            shard.counts.hits += u64::from(found.is_some());
            found
        })
    }

    /// Returns the right to keep what will be read of `user`; `None` where there is no cache.
    pub(crate) fn ticket(&self, user: &UserId) -> Option<Ticket> {
        let shard = self.place(user)?;
        let sequence = self.shards[shard].with(|shard| {
            shard.counts.misses += 1;
            shard.sequence
        });
        Some(Ticket { shard, sequence })
    }

    /// Keeps what was read of `user` after the ticket was taken, if it cannot be outdated.
    pub(crate) fn fill(&self, ticket: Ticket, user: &UserId, item: &Item<'_>, value: Value) {
        self.shards[ticket.shard].with(|shard| {
            if !shard.silence.covers(item) && shard.sequence == ticket.sequence {
                shard.keep(&Wanted { user, item }, value);
            }
        });
    }

    /// Reads of `user` what is not known, and keeps it if it cannot be outdated.
    pub(crate) fn read_through<T: Clone, E>(
        &self,
        user: &UserId,
        item: &Item<'_>,
        value: fn(T) -> Value,
        read: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        self.read_with(user, read, |found, keep| keep(item, value(found.clone())))
    }

    /// Reads of `user` what is not known, and keeps of it what `note` hands on, if that cannot be
    /// outdated.
    pub(crate) fn read_with<T, E>(
        &self,
        user: &UserId,
        read: impl FnOnce() -> Result<T, E>,
        note: impl FnOnce(&T, &dyn Fn(&Item<'_>, Value)),
    ) -> Result<T, E> {
        let ticket = self.ticket(user);
        let found = read()?;
        if let Some(ticket) = ticket {
            note(&found, &|item, value| self.fill(ticket, user, item, value));
        }
        Ok(found)
    }

    /// Notes that a batch is about to be committed: until [`Cache::publish`] its shards are silent,
    /// and who keeps a session that it may change finds that out.
    pub(crate) fn begin(&self, touched: &[Touched]) {
        for one in touched {
            self.each(one, |shard| shard.fall_silent(one.silence()));
        }
    }

    /// Clears what a committed batch changed: to be called before anyone is woken or answered.
    pub(crate) fn publish(&self, touched: &[Touched]) {
        // All is cleared before any shard speaks again: one may hold several users of the batch.
        for one in touched {
            self.each(one, |shard| shard.forget(one));
        }
        for one in touched {
            self.each(one, |shard| shard.silence = Silence::Nothing);
        }
    }

    /// Forgets everything: after a commit whose outcome is not known.
    pub(crate) fn clear(&self) {
        self.publish(&[Touched::Everything]);
    }

    /// Returns about how many bytes are kept.
    pub(crate) fn bytes(&self) -> u64 {
        let weights = self.shards.iter();
        weights
            .map(|shard| shard.with(|shard| shard.items.weight()))
            .sum()
    }

    /// Returns what happened so far.
    pub(crate) fn counts(&self) -> Counts {
        let counts = self.shards.iter();
        counts
            .map(|shard| shard.with(|shard| shard.counts))
            .fold(Counts::default(), Counts::plus)
    }

    /// Goes to each shard that may hold what was touched.
    fn each(&self, touched: &Touched, work: impl Fn(&mut Shard)) {
        match touched {
            Touched::Everything => {
                for shard in &self.shards {
                    shard.with(&work);
                }
            }
            Touched::Entries(user, _) | Touched::User(user) => {
                if let Some(place) = self.place(user) {
                    self.shards[place].with(work);
                }
            }
        }
    }

    /// Returns the number of the user's shard; `None` where there is no cache.
    fn place(&self, user: &UserId) -> Option<usize> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any bits of a hash will do"
        )]
        let hash = self.hasher.hash_one(user) as usize;
        hash.checked_rem(self.shards.len())
    }
}

impl Shard {
    fn fall_silent(&mut self, silence: Silence) {
        self.silence = self.silence.max(silence);
        if silence == Silence::Everything {
            self.session_changes.note();
        }
    }

    fn keep(&mut self, wanted: &Wanted<'_>, value: Value) {
        let mut evicted = 0;
        let owned = wanted.to_owned();
        self.items.insert_with_lifecycle(owned, value, &mut evicted);
        // Nothing makes room for what is too large for the shard.
        if evicted > 0 && self.items.contains_key(wanted) {
            self.counts.evictions += evicted;
        }
    }

    fn forget(&mut self, touched: &Touched) {
        self.sequence += 1;
        match touched {
            Touched::Everything => self.items.clear(),
            Touched::Entries(user, keys) => {
                let items = keys.iter().map(Item::Entry).chain([Item::Head]);
                for item in items {
                    self.items.remove(&Wanted { user, item: &item });
                }
            }
            // Rare: a login, a logout, an hour's first use. A shard holds few thousand items.
            Touched::User(user) => self.items.retain(|owned, _| owned.user != *user),
        }
    }
}
