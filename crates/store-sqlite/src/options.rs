//! What a store is told when it is opened.

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::Arc;

use kitbag_domain::{Limits, ServerName};

use crate::rewrite::{self, RawFile};

/// The defaults and fixed limits of the store: each has the unit last in its name.
pub mod limit {
    /// Threads that read. A read takes microseconds; four keep a slow one from holding up the rest.
    pub const READER_THREADS: usize = 4;
    /// Reads that may wait: at 10 µs each the last one waits some 10 ms.
    pub const READ_QUEUE_JOBS_MAX: usize = 4_096;
    /// Writes that may wait: about a third of a second of work on a usual disk.
    pub const WRITE_QUEUE_JOBS_MAX: usize = 4_096;
    /// Bytes of contents that may wait, since a single content may have a mebibyte.
    pub const WRITE_QUEUE_BYTES_MAX: u64 = 64 * 1024 * 1024;
    /// Writes in one transaction: beyond this more of them hardly make an fsync cheaper.
    pub const BATCH_JOBS_MAX: usize = 512;
    /// Bytes of contents in one transaction, so that its fsync stays short.
    pub const BATCH_BYTES_MAX: u64 = 8 * 1024 * 1024;
    /// Prepared statements that a connection keeps: more than there are.
    pub const STATEMENTS_MAX: usize = 96;
    /// Users whose rows the writer remembers, at some 200 bytes each and 100 for each of their devices
    /// that wrote.
    pub const LEDGER_USERS_MAX: usize = 4_096;
    /// Entries whose rows the writer remembers, at some 150 bytes each.
    pub const LEDGER_ENTRIES_MAX: usize = 4_096;
    /// Devices of one user that the writer remembers: more than write at the same time.
    pub const LEDGER_DEVICES_MAX: usize = 64;
    /// How long to wait for a lock that another process holds, such as a `sqlite3` shell.
    pub const BUSY_WAIT_MS: u64 = 2_000;
    /// Page cache of one connection. The page cache of the system stands behind it.
    pub const PAGE_CACHE_KIB: u32 = 2_048;
    /// First wait between two attempts to open the files again after a fault; doubled each time.
    pub const REOPEN_WAIT_MS_MIN: u64 = 10;
    /// Longest wait between two attempts: how late service resumes when the fault has gone.
    pub const REOPEN_WAIT_MS_MAX: u64 = 1_000;
    /// How often the log tells of what goes wrong all the time, such as writes to a full disk.
    pub const LOG_INTERVAL_MS: u64 = 60_000;
    /// Frames (pages of 4 KiB) in the write-ahead log that make a checkpoint worth its fsyncs.
    pub const CHECKPOINT_FRAMES: u64 = 1_000;
    /// Frames by which the log may grow while a checkpoint is under way before another is asked
    /// for: 16 MiB.
    pub const WAL_FRAMES_SOFT: u64 = 16 * 1024 * 1024 / PAGE_BYTES;
    /// Frames at which the writer stops for a checkpoint: 256 MiB.
    pub const WAL_FRAMES_HARD: u64 = 256 * 1024 * 1024 / PAGE_BYTES;
    /// Idle time after which the log is emptied, so that what was erased does not stay in it.
    pub const WAL_IDLE_MS: u64 = 5_000;
    /// Pages that a backup copies between two batches: 256 KiB, which take about half a
    /// millisecond where the system has them in memory.
    pub const BACKUP_STEP_PAGES: i32 = 64;
    /// How often a backup begins again: a batch larger than the page cache that is rolled back makes
    /// it, and so does a write by another program.
    pub const BACKUP_RESTARTS_MAX: u32 = 16;
    /// Pages of a backup that wait to be written to the disk, so that a commit does not find the
    /// disk busy with all of them: 16 MiB.
    pub const BACKUP_SYNC_PAGES: u64 = 16 * 1024 * 1024 / PAGE_BYTES;
    /// How often a backup looks whether it is still wanted.
    pub const BACKUP_LOOK_MS: u64 = 100;
    /// Bytes of the cache of entries and sessions.
    pub const CACHE_BYTES_MAX: u64 = 64 * 1024 * 1024;
    /// Locks among which the users are spread: many more than cores, so that they seldom meet, and
    /// so many that looking through one for a user's items takes microseconds.
    pub const CACHE_SHARDS: usize = 256;
    /// What an item of the cache usually weighs, for the first size of its tables.
    pub const CACHE_ITEM_BYTES_USUAL: u64 = 1_024;
    /// Page size of the database: SQLite's default, fixed here since the format holds it.
    pub const PAGE_BYTES: u64 = 4_096;
}

/// What a store is told when it is opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// The server whose accounts the store holds; kept in the store, and another one is refused.
    pub server_name: ServerName,
    /// Random; becomes the epoch when the store is made, and is not looked at afterwards.
    pub epoch_seed: u64,
    /// The limits that writes obey.
    pub limits: Limits,
    /// What an acknowledged write survives.
    pub durability: Durability,
    /// Threads that read, at least one.
    pub reader_threads: usize,
    /// Reads that may wait; beyond it they are refused as overload.
    pub read_queue_jobs_max: usize,
    /// Writes that may wait; beyond it they are refused as overload.
    pub write_queue_jobs_max: usize,
    /// Bytes of contents that may wait to be written.
    pub write_queue_bytes_max: u64,
    /// Frames in the write-ahead log that make a checkpoint worth its fsyncs.
    pub checkpoint_frames: u64,
    /// Idle time after which the log is emptied.
    pub wal_idle_ms: u64,
    /// Bytes of entries and sessions that are kept in memory; 0 for none.
    pub cache_bytes_max: u64,
    /// For tests: the SQLite VFS through which all files are reached, by name; `None` takes SQLite's
    /// default.
    #[doc(hidden)]
    pub vfs: Option<String>,
    /// For tests: how the log is opened beside SQLite; `None` asks the system. Belongs to `vfs`.
    #[doc(hidden)]
    pub opener: Option<FileOpener>,
    /// What is told of each step of a commit.
    pub observer: Option<Observer>,
}

impl Options {
    /// Returns the defaults.
    #[must_use]
    pub fn new(server_name: ServerName, epoch_seed: u64) -> Self {
        Self {
            server_name,
            epoch_seed,
            limits: Limits::default(),
            durability: Durability::Full,
            reader_threads: limit::READER_THREADS,
            read_queue_jobs_max: limit::READ_QUEUE_JOBS_MAX,
            write_queue_jobs_max: limit::WRITE_QUEUE_JOBS_MAX,
            write_queue_bytes_max: limit::WRITE_QUEUE_BYTES_MAX,
            checkpoint_frames: limit::CHECKPOINT_FRAMES,
            wal_idle_ms: limit::WAL_IDLE_MS,
            cache_bytes_max: limit::CACHE_BYTES_MAX,
            vfs: None,
            opener: None,
            observer: None,
        }
    }
}

/// What an acknowledged write survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// The loss of power: each batch is synced before it is acknowledged.
    Full,
    /// The end of the process, but not of the system. For data that need not outlive its server.
    None,
}

/// A step of the writer: on the way of a batch, in this order, or of a backup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All writes of the batch were run; COMMIT comes next.
    BeforeCommit,
    /// The batch is durable; those who wait for a change are woken next.
    BeforeWakeUp,
    /// They were woken; the writers of the batch are answered next.
    BeforeAcknowledgement,
    /// Some pages of a backup were copied, and not all; a batch comes next where one waits.
    WithinBackup,
}

/// Called on the writer's thread at each [`Step`], which waits for it.
///
/// Whoever stops there holds up every write: so tests bring about a race on purpose.
#[derive(Clone)]
pub struct Observer(Arc<dyn Fn(Step) + Send + Sync>);

impl Observer {
    /// Makes an observer of a function, which must not panic.
    pub fn new(at: impl Fn(Step) + Send + Sync + 'static) -> Self {
        Self(Arc::new(at))
    }

    pub(crate) fn at(&self, step: Step) {
        (self.0)(step);
    }
}

/// Opens an existing file for reading and writing; for tests.
#[derive(Clone)]
#[doc(hidden)]
pub struct FileOpener(Arc<Open>);

type Open = dyn Fn(&Path) -> io::Result<Box<dyn RawFile>> + Send + Sync;

impl FileOpener {
    /// Makes an opener of a function.
    pub fn new<F: RawFile + 'static>(
        open: impl Fn(&Path) -> io::Result<F> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(move |path| Ok(Box::new(open(path)?))))
    }

    pub(crate) fn open(&self, file: &Path) -> io::Result<Box<dyn RawFile>> {
        (self.0)(file)
    }
}

impl Default for FileOpener {
    fn default() -> Self {
        Self::new(rewrite::open_file)
    }
}

impl fmt::Debug for FileOpener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FileOpener")
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observer")
    }
}
