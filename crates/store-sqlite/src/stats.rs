//! What a store tells of itself: plain figures, for metrics, health and tests.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kitbag_domain::{BoxFuture, Histogram, Spread, StoreError, Usage};

use crate::SqliteStore;
use crate::rows::{all, int};

/// Bounds of [`Stats::commits_us`] in microseconds, from a disk that does not wait to one that fails.
const COMMIT_BOUNDS_US: [u64; 10] = [
    100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 10_000_000,
];
/// Bounds of [`Stats::batches_writes`]: the last one is the largest batch there is.
const BATCH_BOUNDS_WRITES: [u64; 7] = [1, 2, 8, 32, 64, 128, 512];

/// Figures of a store since it was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Transactions that were committed.
    pub commits: u64,
    /// How long each COMMIT took, which waits for the disk, in microseconds; failed ones too.
    pub commits_us: Spread,
    /// Writes that were acknowledged, refused ones too; those of one commit shared an fsync.
    pub writes: u64,
    /// How many of these writes each committed transaction had.
    pub batches_writes: Spread,
    /// Writes that wait for their transaction.
    pub write_queue_jobs: u64,
    /// How many writes may wait.
    pub write_queue_jobs_max: u64,
    /// Bytes of contents that wait to be written.
    pub write_queue_bytes: u64,
    /// How many bytes may wait.
    pub write_queue_bytes_max: u64,
    /// Reads that wait for a thread.
    pub read_queue_jobs: u64,
    /// How many reads may wait.
    pub read_queue_jobs_max: u64,
    /// For how long the oldest read that is under way has been so, in microseconds; 0 without one.
    pub oldest_read_us: u64,
    /// Frames in the write-ahead log after the latest commit.
    pub wal_frames: u64,
    /// Checkpoints that ran, whether or not a read kept them from copying everything.
    pub checkpoints: u64,
    /// Checkpoints that failed: on the disk, or on a read that still needed the log.
    pub checkpoints_failed: u64,
    /// Faults of the files, after each of which all connections were opened anew.
    pub outages: u64,
    /// Writes that were answered as unavailable, or as of unknown outcome.
    pub writes_failed: u64,
    /// Whether writes are taken: not from a fault until one was committed again.
    pub takes_writes: bool,
    /// About how many bytes of entries and sessions are kept in memory.
    pub cache_bytes: u64,
    /// Look-ups that were answered from memory.
    pub cache_hits: u64,
    /// Reads of the database for what could have been in memory.
    pub cache_misses: u64,
    /// Entries and sessions that made room in memory for others.
    pub cache_evictions: u64,
}

/// What one account has stored, without its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccountUsage {
    /// The row of the account: the next page begins behind it.
    pub row: u64,
    /// Its live entries.
    pub usage: Usage,
    /// Whether the account was ended.
    pub is_deactivated: bool,
}

/// What the threads of a store count.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) commits_us: Histogram,
    pub(crate) batches_writes: Histogram,
    pub(crate) wal_frames: AtomicU64,
    pub(crate) outages: AtomicU64,
    pub(crate) writes_failed: AtomicU64,
    /// Whether the files failed, and no batch was committed since.
    pub(crate) is_mending: AtomicBool,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            commits: AtomicU64::default(),
            commits_us: Histogram::new(&COMMIT_BOUNDS_US),
            batches_writes: Histogram::new(&BATCH_BOUNDS_WRITES),
            wal_frames: AtomicU64::default(),
            outages: AtomicU64::default(),
            writes_failed: AtomicU64::default(),
            is_mending: AtomicBool::default(),
        }
    }
}

impl Counters {
    /// Runs `commit` and counts how long it takes.
    pub(crate) fn time_commit<T>(&self, commit: impl FnOnce() -> T) -> T {
        let began = Instant::now();
        let committed = commit();
        self.commits_us.observe(microseconds(began.elapsed()));
        committed
    }
}

impl SqliteStore {
    /// Returns what the store has done, and what waits.
    ///
    /// Takes some microseconds and touches no file; the figures are of about the same moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let Counters {
            commits,
            commits_us,
            batches_writes,
            wal_frames,
            outages,
            writes_failed,
            is_mending,
        } = &*self.counters;
        let batches_writes = batches_writes.read();
        let cache = self.cache.counts();
        let (checkpoints, checkpoints_failed) = self.connections.checkpoints.counts();
        let (write_queue_jobs, write_queue_jobs_max) = self.writes.jobs();
        let (write_queue_bytes, write_queue_bytes_max) = self.writes.bytes();
        let (read_queue_jobs, read_queue_jobs_max) = self.reads.jobs();
        Stats {
            commits: commits.load(Ordering::Relaxed),
            commits_us: commits_us.read(),
            writes: batches_writes.sum,
            batches_writes,
            write_queue_jobs,
            write_queue_jobs_max,
            write_queue_bytes,
            write_queue_bytes_max,
            read_queue_jobs,
            read_queue_jobs_max,
            oldest_read_us: microseconds(self.reads.oldest()),
            wal_frames: wal_frames.load(Ordering::Relaxed),
            checkpoints,
            checkpoints_failed,
            outages: outages.load(Ordering::Relaxed),
            writes_failed: writes_failed.load(Ordering::Relaxed),
            takes_writes: !is_mending.load(Ordering::Relaxed),
            cache_bytes: self.cache.bytes(),
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            cache_evictions: cache.evictions,
        }
    }

    /// Returns what accounts have stored: up to `limit` of them behind the row `after`, by row.
    ///
    /// A page of 10,000 takes a reader some 5 ms; all pages together are of no one moment.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub fn account_usages(
        &self,
        after: u64,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<AccountUsage>, StoreError>> {
        const SQL: &str = "
            SELECT id, entries, bytes, deactivated_at IS NOT NULL
            FROM users WHERE id > ?1 ORDER BY id LIMIT ?2";
        self.reads.submit(move |connection| {
            all(connection, SQL, (int(after), int(limit as u64)), |row| {
                Ok(AccountUsage {
                    row: row.get(0)?,
                    usage: Usage {
                        entries: row.get(1)?,
                        bytes: row.get(2)?,
                    },
                    is_deactivated: row.get(3)?,
                })
            })
        })
    }
}

pub(crate) fn microseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::task::{Context, Waker};

    use kitbag_domain::{
        AccountStore as _, Allowance, Applied, ApplyError, Content, EntryStore as _, EventType,
        Expectation, Guard, Key, Limits, NewAccount, Op, Position, Scope, ServerName, UserId,
        Write, Writer,
    };
    use kitbag_testkit::gate::{Gate, in_time};

    use super::*;
    use crate::{Observer, Options, Step};

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(30);

    fn options() -> Options {
        Options::new(ServerName::parse("localhost").unwrap(), 1)
    }

    fn user(name: &str) -> UserId {
        UserId::parse(format!("@{name}:localhost")).unwrap()
    }

    fn key() -> Key {
        Key::new(Scope::Global, EventType::parse("a").unwrap())
    }

    /// Waits until the figures are as they are to come.
    fn until(store: &SqliteStore, is_so: impl Fn(&Stats) -> bool) {
        let started = Instant::now();
        while !is_so(&store.stats()) {
            assert!(started.elapsed() < PATIENCE, "{:?}", store.stats());
            std::thread::yield_now();
        }
    }

    async fn register(store: &SqliteStore, name: &str) {
        let account = NewAccount {
            user: user(name),
            password_hash: String::new(),
            at: 0,
        };
        store.register(account, None).await.unwrap();
    }

    fn put<'a>(
        store: &'a SqliteStore,
        name: &str,
        text: &str,
    ) -> BoxFuture<'a, Result<Applied, ApplyError>> {
        let write = Write {
            guard: Guard::Account,
            writer: Writer::Server,
            at: 0,
            allowance: Allowance::Ordinary,
        };
        let content = Content::parse(text.to_owned().into(), &Limits::default()).unwrap();
        let op = Op::Put(key(), content, Expectation::default());
        store.apply(&user(name), write, vec![op])
    }

    /// Starts a future that waits for another thread.
    fn begin<T>(future: &mut BoxFuture<'_, T>) {
        let pending = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(pending.is_pending());
    }

    #[tokio::test]
    async fn writes_that_wait_are_seen_and_those_of_one_commit_counted_together() {
        let gate = Gate::new("before a commit");
        let (at, mut options) = (gate.clone(), options());
        options.observer = Some(Observer::new(move |step| {
            if step == Step::BeforeCommit {
                at.pass_blocking();
            }
        }));
        let store = SqliteStore::ephemeral(options).unwrap();
        register(&store, "alice").await;
        let before = store.stats();
        assert_eq!((before.write_queue_jobs, before.write_queue_bytes), (0, 0));
        let mut stop = gate.stop_next();
        let mut first = put(&store, "alice", "{}");
        begin(&mut first);
        stop.reached().await;
        let mut others = [(); 3].map(|()| put(&store, "alice", r#"{"a":1}"#));
        others.iter_mut().for_each(begin);
        let during = store.stats();
        assert_eq!((during.write_queue_jobs, during.write_queue_bytes), (3, 21));
        assert!(during.write_queue_jobs < during.write_queue_jobs_max);
        assert!(during.write_queue_bytes < during.write_queue_bytes_max);
        stop.go_on();
        in_time("the first", first).await.unwrap();
        for other in others {
            in_time("another", other).await.unwrap();
        }
        let after = store.stats();
        assert_eq!((after.write_queue_jobs, after.write_queue_bytes), (0, 0));
        assert_eq!(after.writes - before.writes, 4);
        assert_eq!(after.commits_us.count() - before.commits_us.count(), 2);
        assert!(after.commits_us.sum > before.commits_us.sum);
        let bucket = |stats: &Stats, writes| {
            let bounds = stats.batches_writes.bounds;
            stats.batches_writes.counts[bounds.iter().position(|b| *b == writes).unwrap()]
        };
        assert_eq!(bucket(&after, 1) - bucket(&before, 1), 1, "the first alone");
        assert_eq!(bucket(&after, 8) - bucket(&before, 8), 1, "three together");
    }

    #[tokio::test]
    async fn a_read_that_is_under_way_has_an_age_and_those_behind_it_wait() {
        let mut options = options();
        options.reader_threads = 1;
        let store = SqliteStore::ephemeral(options).unwrap();
        assert_eq!(store.stats().oldest_read_us, 0);
        let (begun, has_begun) = mpsc::channel();
        let (end, may_end) = mpsc::channel::<()>();
        let read = store.reads.submit(move |_| {
            begun.send(()).unwrap();
            may_end.recv().unwrap();
            Ok(())
        });
        has_begun.recv().unwrap();
        let other = store.reads.submit(|_| Ok(()));
        let stats = store.stats();
        assert_eq!(stats.read_queue_jobs, 1);
        assert!(stats.read_queue_jobs < stats.read_queue_jobs_max);
        let age_us = stats.oldest_read_us;
        until(&store, |stats| stats.oldest_read_us > age_us);
        end.send(()).unwrap();
        in_time("both", async { (read.await, other.await) })
            .await
            .0
            .unwrap();
        // The reader notes the end behind its answer.
        until(&store, |stats| stats.oldest_read_us == 0);
    }

    #[tokio::test]
    async fn what_came_from_memory_and_what_from_the_file_is_told_apart() {
        let store = SqliteStore::ephemeral(options()).unwrap();
        register(&store, "alice").await;
        let counts = || (store.stats().cache_hits, store.stats().cache_misses);
        let (hits, misses) = counts();
        for _ in 0..3 {
            store.get(&user("alice"), &key()).await.unwrap();
        }
        assert_eq!(counts(), (hits + 2, misses + 1));
        put(&store, "alice", "{}").await.unwrap();
        let (hits, misses) = counts();
        for _ in 0..2 {
            let start = Some(Position::ZERO);
            store.changes(&user("alice"), start).await.unwrap();
        }
        assert_eq!(
            counts(),
            (hits, misses + 2),
            "a head alone tells no changes"
        );
    }

    #[tokio::test]
    async fn checkpoints_are_counted_and_those_that_failed_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = options();
        options.wal_idle_ms = 1;
        let store = SqliteStore::open(dir.path(), options).unwrap();
        register(&store, "alice").await;
        until(&store, |stats| stats.wal_frames == 0 && stats.commits > 0);
        assert!(store.stats().checkpoints > 0);
        let checkpoints = &store.connections.checkpoints;
        let failed = store.stats().checkpoints_failed;
        let readable = rusqlite::Connection::open(dir.path().join("none")).unwrap();
        readable
            .execute_batch("BEGIN IMMEDIATE; CREATE TABLE t (a)")
            .unwrap();
        checkpoints.truncate(&readable).unwrap_err();
        assert_eq!(store.stats().checkpoints_failed, failed + 1);
    }

    #[tokio::test]
    async fn usages_come_in_pages_and_without_names() {
        let store = SqliteStore::ephemeral(options()).unwrap();
        for name in ["alice", "bob", "carol"] {
            register(&store, name).await;
        }
        put(&store, "bob", "{}").await.unwrap();
        let write = Write {
            guard: Guard::Account,
            writer: Writer::Admin,
            at: 0,
            allowance: Allowance::Ordinary,
        };
        store.deactivate(&user("carol"), write).await.unwrap();
        let first = store.account_usages(0, 2).await.unwrap();
        let second = store.account_usages(first[1].row, 2).await.unwrap();
        let told = |accounts: &[AccountUsage]| -> Vec<_> {
            let told = accounts.iter();
            told.map(|account| (account.usage.entries, account.is_deactivated))
                .collect()
        };
        assert_eq!(told(&first), [(0, false), (1, false)]);
        assert!(first[1].usage.bytes > 0);
        assert_eq!(told(&second), [(0, true)]);
        assert_eq!(store.account_usages(second[0].row, 2).await, Ok(Vec::new()));
    }
}
