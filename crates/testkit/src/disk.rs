//! A disk that can be watched, that fails on request, and that loses its power.
//!
//! [`Disk`] registers a VFS with SQLite, around the ordinary one: files lie where they are asked to
//! lie, and every write, truncation, sync and removal is noted in a [`Log`] on the way. So a test
//! runs a store on it, and then looks, for any point of the log, at what a power cut there may have
//! left ([`Replay::cut`]). [`Disk::fail`] and [`Disk::fill`] make calls fail.
//!
//! Nothing is really synced: that a sync was asked for is what counts here, and it is in the log.
//! The memory that SQLite's connections share (`-shm`) goes past the log, since it means nothing
//! after a crash. What others do to the files beside SQLite is not seen: [`Disk::sync_dir`] tells of
//! a synced directory, and [`Disk::open_file`] opens a file in view of the log.

mod image;
mod state;
#[cfg(test)]
mod tests;
mod vfs;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

pub use image::{Image, Log, Losses, Replay, Summary};
pub use state::DiskFile;
use state::State;

/// A disk under SQLite; see the module.
///
/// Its VFS goes when it is dropped: connections that are open then may go on, but no new ones.
#[derive(Debug)]
pub struct Disk {
    shared: &'static Shared,
    registration: vfs::Registration,
}

/// What a disk and its open files share. Lives for ever, since SQLite's files may outlive the disk.
#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call of SQLite to the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// A file is removed.
    Delete,
    /// A file is opened, or made.
    Open,
    /// A part of a file is read.
    Read,
    /// The size of a file is asked for.
    Size,
    /// A file is synced.
    Sync,
    /// A file is made shorter.
    Truncate,
    /// A part of a file is written.
    Write,
}

/// What a file is to SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The database.
    Database,
    /// The rollback journal, there while the database is made.
    Journal,
    /// The write-ahead log.
    Log,
}

impl Part {
    fn of(name: &str) -> Self {
        if name.ends_with("-wal") {
            Self::Log
        } else if name.ends_with("-journal") {
            Self::Journal
        } else {
            Self::Database
        }
    }
}

/// How a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// The disk has gone: nothing is done, and every later call fails too, until [`Disk::clear`].
    Gone,
    /// The disk is broken: nothing is done. What a failed sync means stands at [`Disk::fail`].
    Io,
    /// The disk is full: nothing is done.
    NoSpace,
    /// A write does half of its work, then the disk is broken. Other calls fail as with [`Error::Io`].
    ShortWrite,
}

/// How often a call fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// Once.
    Once,
    /// From then on each time, until [`Disk::clear`].
    UntilCleared,
}

/// Which calls are to fail, and how.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// Calls of one kind; `None` for any.
    pub call: Option<Call>,
    /// Calls on one file; `None` for any.
    pub part: Option<Part>,
    /// Which of these calls, counted from 1 when the fault is ordered.
    pub nth: u64,
    /// What it is told.
    pub error: Error,
    /// How often.
    pub times: Times,
}

impl Fault {
    /// Returns a fault of the next call of a kind, once.
    #[must_use]
    pub fn next(call: Call, error: Error) -> Self {
        Self {
            call: Some(call),
            part: None,
            nth: 1,
            error,
            times: Times::Once,
        }
    }

    /// Returns the fault for one file only.
    #[must_use]
    pub fn of(self, part: Part) -> Self {
        Self {
            part: Some(part),
            ..self
        }
    }

    /// Returns the fault for the `nth` call.
    #[must_use]
    pub fn nth(self, nth: u64) -> Self {
        Self { nth, ..self }
    }

    /// Returns the fault for all calls from then on.
    #[must_use]
    pub fn lasting(self) -> Self {
        Self {
            times: Times::UntilCleared,
            ..self
        }
    }
}

impl Disk {
    /// Registers a VFS under a name of its own.
    #[must_use]
    pub fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let shared: &'static Shared = Box::leak(Box::new(Shared {
            state: Mutex::default(),
        }));
        Self {
            shared,
            registration: vfs::register(&format!("kitbag-disk-{number}"), shared),
        }
    }

    /// Returns the name of the VFS.
    #[must_use]
    pub fn name(&self) -> &str {
        self.registration.name()
    }

    /// Returns how many events the log holds: where in it one stands now.
    ///
    /// What was acknowledged before this call must survive a cut at the result or later.
    #[must_use]
    pub fn now(&self) -> usize {
        self.shared.lock().now()
    }

    /// Returns the log up to now.
    #[must_use]
    pub fn log(&self) -> Log {
        self.shared.lock().log()
    }

    /// Notes that somebody else synced the directory of the files.
    pub fn sync_dir(&self) {
        self.shared.lock().sync_dir();
    }

    /// Opens a file that exists, in view of the log and of faults.
    /// # Errors
    /// As the system says, or as a fault was ordered.
    pub fn open_file(&self, path: &Path) -> io::Result<DiskFile> {
        DiskFile::open(self.shared, path)
    }

    /// Returns what opens files as [`Disk::open_file`] does.
    pub fn opener(&self) -> impl Fn(&Path) -> io::Result<DiskFile> + Send + Sync + use<> {
        let shared = self.shared;
        move |path| DiskFile::open(shared, path)
    }

    /// Orders a fault. Several may wait at a time.
    ///
    /// A sync that fails is the worst that Linux does then: what was to be written may be lost, at
    /// any part of it, and yet counts as written. Readers still see it; a later sync that succeeds
    /// makes it durable only where it was written again meanwhile. Each other open handle of the
    /// file is told of the failure once, at its next sync.
    pub fn fail(&self, fault: Fault) {
        self.shared.lock().fail(fault);
    }

    /// Leaves room for so many bytes: writes that make files longer fail when it is used up, and
    /// others go on. Making files shorter makes room.
    pub fn fill(&self, room_bytes: u64) {
        self.shared.lock().room = Some(room_bytes);
    }

    /// Ends all faults, and makes room.
    pub fn clear(&self) {
        self.shared.lock().clear();
    }

    /// Returns how many calls there were that could have failed.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.shared.lock().calls
    }

    /// Returns how many calls failed because of faults or for want of room.
    #[must_use]
    pub fn faults(&self) -> u64 {
        self.shared.lock().faults
    }

    /// Lets each sync last so long; what is written meanwhile is not part of it.
    pub fn let_syncs_take(&self, time: Duration) {
        self.shared.lock().sync_time = time;
    }
}

impl Default for Disk {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.registration.end();
        self.shared.lock().forget();
    }
}
