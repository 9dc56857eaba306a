//! A backup of a store that works on: [`SqliteStore::backup`].

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded, select};
use rusqlite::Connection;
use thiserror::Error;

use crate::SqliteStore;
use crate::copy::{self, Draft};
use crate::error::is_damaged_file;
use crate::format;
use crate::open::{self, DATABASE_FILE, LOCK_FILE, OWN_FILES, OpenError};
use crate::options::limit;
use crate::writer::{Control, Order, Stop};

const LOOK: Duration = Duration::from_millis(limit::BACKUP_LOOK_MS);

/// How a copy is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copying {
    /// Whether a file of that name may be replaced.
    pub replace: bool,
    /// Whether the copy must be whole to get its name. A check wants it as it is.
    pub verify: bool,
}

/// How far a backup is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Pages of 4 KiB are being copied. Both figures may grow, and begin again.
    Copying {
        /// Pages that were copied.
        pages: u64,
        /// All pages.
        of: u64,
    },
    /// All was copied and is being looked through.
    Verifying,
}

/// A copy that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copied {
    /// Its size.
    pub bytes: u64,
}

/// Why no copy was made; nothing of it is left.
#[derive(Debug, Error)]
pub enum BackupError {
    /// Another one is under way.
    #[error("another backup, or a check, is under way")]
    Busy,
    /// It was given up.
    #[error("the backup was given up")]
    Cancelled,
    /// The store is closed, or was closed meanwhile.
    #[error("the store was closed before the backup was whole")]
    Closed,
    /// The store could not be read, or the copy could not be written.
    #[error("cannot copy the store to `{}`: {reason}", file.display())]
    Copy {
        /// The copy.
        file: PathBuf,
        /// What SQLite said.
        reason: String,
    },
    /// What was copied is not sound.
    #[error("the copy is damaged ({reason}), and so most likely is `{}`", store.display())]
    Damaged {
        /// What was copied.
        store: PathBuf,
        /// What was found first.
        reason: String,
    },
    /// There is a file of that name.
    #[error("`{}` exists already", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// The store's own files failed meanwhile.
    #[error("the store's own files failed before the backup was whole: {reason}")]
    Fault {
        /// What failed them.
        reason: String,
    },
    /// Another program has the database locked.
    #[error("another program has the database locked")]
    Locked,
    /// The name is one of the store's own files, or that of something which is not a file.
    #[error("`{}` cannot be a backup: {reason}", file.display())]
    Name {
        /// The file.
        file: PathBuf,
        /// What it is.
        reason: &'static str,
    },
    /// SQLite began again too often.
    #[error(
        "the backup had to begin again more than {} times",
        limit::BACKUP_RESTARTS_MAX
    )]
    Restarted,
    /// The copy could not be written.
    #[error(transparent)]
    Write(#[from] OpenError),
}

impl SqliteStore {
    /// Copies the store to the file `to`, which holds all that was committed when the copying ended.
    ///
    /// The store works on meanwhile. The copy is one file, for its owner alone; it gets its name when
    /// it is whole and on the disk. `progress` is called at least ten times a second, except while
    /// the disk takes its time, and may give the backup up. Blocks: a call in an async context
    /// belongs on a thread that may block.
    /// # Errors
    /// [`BackupError`]; then no file of that name was made or changed.
    pub fn backup(
        &self,
        to: &Path,
        copying: Copying,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<Copied, BackupError> {
        if self.is_copying.swap(true, Ordering::Acquire) {
            return Err(BackupError::Busy);
        }
        let _turn = Turn(&self.is_copying);
        check_name(to, &self.file, copying.replace)?;
        let draft = Draft::create(to)?;
        self.copy(&draft, to, progress)?;
        complete(draft, &self.file, to, copying, progress)
    }

    /// Has the writer copy everything into the draft.
    fn copy(
        &self,
        draft: &Draft,
        to: &Path,
        progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
    ) -> Result<(), BackupError> {
        let (told, tells) = bounded(1);
        let (ended, end) = bounded(1);
        let is_cancelled = Arc::<AtomicBool>::default();
        let order = Order {
            target: draft.connect()?,
            progress: told,
            is_cancelled: Arc::clone(&is_cancelled),
            ended,
        };
        let ordered = self.control.send(Control::Backup(Box::new(order)));
        ordered.map_err(|_| BackupError::Closed)?;
        let mut under_way = UnderWay {
            is_cancelled,
            end,
            has_ended: false,
        };
        let (mut pages, mut of, mut synced) = (0, 0, 0);
        loop {
            select! {
                recv(tells) -> told => (pages, of) = told.unwrap_or((pages, of)),
                recv(under_way.end) -> ended => {
                    under_way.has_ended = true;
                    let ended = ended.unwrap_or(Err(Stop::Closed));
                    return ended.map_err(|stop| stopped(&self.file, to, stop));
                }
                default(LOOK) => {}
            }
            if pages >= synced + limit::BACKUP_SYNC_PAGES {
                draft.sync()?;
                synced = pages;
            }
            if progress(Progress::Copying { pages, of }).is_break() {
                under_way.cancel();
            }
        }
    }
}

/// Checks that a copy may get this name.
fn check_name(to: &Path, store: &Path, replace: bool) -> Result<(), BackupError> {
    let refused = |reason| BackupError::Name {
        file: to.to_owned(),
        reason,
    };
    let name = to.file_name().ok_or_else(|| refused("it names no file"))?;
    if to.as_os_str().as_encoded_bytes().ends_with(b"/") {
        return Err(refused("it names a directory"));
    }
    let name = name.to_string_lossy().to_ascii_lowercase();
    let is_own = name.starts_with(DATABASE_FILE) || OWN_FILES.contains(&name.as_str());
    if is_own && open::is_same(to.parent(), store.parent()) {
        return Err(refused("the store itself keeps files of such names there"));
    }
    // A server may be at it, and would go on with the file that is gone.
    if is_own && open::is_there(&to.with_file_name(LOCK_FILE))? {
        return Err(refused(
            "another store keeps files of such names there; `kitbag restore` puts a backup in its \
             place",
        ));
    }
    // SQLite would take it for the copy's own, and lay old pages over new ones.
    if format::has_companion(to) {
        return Err(refused(
            "a log or a journal of another database lies beside it",
        ));
    }
    match fs::metadata(to) {
        Ok(metadata) if !metadata.is_file() => Err(refused("it is not a file")),
        Ok(_) if !replace => Err(BackupError::Exists {
            file: to.to_owned(),
        }),
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error("look at", to, error).into())
        }
        _ => Ok(()),
    }
}

/// Copies the store in `dir`, which nobody has open, to the file `to`.
///
/// It is copied as it is: an older format is not led to the newest, so that the Kitbag that wrote it
/// can still read the copy. Otherwise as [`SqliteStore::backup`].
/// # Errors
/// [`BackupError`], with [`OpenError::Locked`] in it where a server works on the store.
pub fn backup_closed(
    dir: &Path,
    to: &Path,
    copying: Copying,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Copied, BackupError> {
    let (file, _lock) = open::lock_and_settle(dir)?;
    check_name(to, &dir.join(DATABASE_FILE), copying.replace)?;
    let (source, _) = open::quietly(&file)?;
    let draft = Draft::create(to)?;
    let mut target = draft.connect()?;
    let filled = copy::fill(&source, &mut target, &mut |pages, of| {
        progress(Progress::Copying { pages, of })
    });
    filled.map_err(|stop| stopped(&file, to, stop))?;
    drop(target);
    complete(draft, &file, to, copying, progress)
}

/// Gives a copy its name, once it is one file and was looked through.
fn complete(
    draft: Draft,
    store: &Path,
    to: &Path,
    copying: Copying,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Copied, BackupError> {
    draft.seal().map_err(|error| sealed(store, error))?;
    if copying.verify {
        verify(&draft, store, progress)?;
    }
    let bytes = fs::metadata(draft.path()).map(|metadata| metadata.len());
    let bytes = bytes.map_err(|source| io_error("look at", draft.path(), source))?;
    // A quick copy is whole before anybody was asked whether it is still wanted.
    if progress(Progress::Verifying).is_break() {
        return Err(BackupError::Cancelled);
    }
    match draft.finish(copying.replace) {
        // It came while the copy was being made.
        Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(BackupError::Exists {
                file: to.to_owned(),
            })
        }
        Err(error) => Err(error.into()),
        Ok(()) => {
            tracing::info!(file = %to.display(), bytes, "copied the store");
            Ok(Copied { bytes })
        }
    }
}

/// A copying that the writer is at: however its caller leaves, it ends before the draft goes.
struct UnderWay {
    is_cancelled: Arc<AtomicBool>,
    end: Receiver<Result<(), Stop>>,
    has_ended: bool,
}

impl UnderWay {
    fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Relaxed);
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if !self.has_ended {
            self.cancel();
            // How it ended is of no interest any more, nor that the store was closed.
            self.end.recv().ok();
        }
    }
}

/// Lets SQLite look through the copy; the indexes are left to a check.
fn verify(
    draft: &Draft,
    store: &Path,
    progress: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<(), BackupError> {
    let connection = format::connect_quietly(draft.path()).map_err(|error| draft.error(&error))?;
    let interrupt = connection.get_interrupt_handle();
    let (done, end) = bounded(1);
    let mut is_cancelled = false;
    let checked = thread::scope(|scope| {
        scope.spawn(move || drop(done.send(quick_check(&connection))));
        loop {
            match end.recv_timeout(LOOK) {
                Ok(checked) => return checked,
                Err(RecvTimeoutError::Disconnected) => return Ok("a panic".to_owned()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if progress(Progress::Verifying).is_break() {
                is_cancelled = true;
                interrupt.interrupt();
            }
        }
    });
    match checked {
        _ if is_cancelled => Err(BackupError::Cancelled),
        Ok(found) if found == "ok" => Ok(()),
        Ok(reason) => Err(damaged(store, reason.replace('\n', " "))),
        Err(error) => Err(damaged(store, error.to_string())),
    }
}

fn quick_check(connection: &Connection) -> rusqlite::Result<String> {
    connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
}

/// A copy that cannot be sealed is as damaged as its original.
fn sealed(store: &Path, error: OpenError) -> BackupError {
    match error {
        OpenError::Corrupt { reason, .. } => damaged(store, reason),
        error => error.into(),
    }
}

fn damaged(store: &Path, reason: String) -> BackupError {
    BackupError::Damaged {
        store: store.to_owned(),
        reason,
    }
}

fn stopped(store: &Path, to: &Path, stop: Stop) -> BackupError {
    match stop {
        Stop::Busy => BackupError::Busy,
        Stop::Cancelled => BackupError::Cancelled,
        Stop::Closed => BackupError::Closed,
        Stop::Fault(reason) => BackupError::Fault { reason },
        Stop::Locked => BackupError::Locked,
        Stop::Restarted => BackupError::Restarted,
        // Of the copy nothing is read.
        Stop::Sqlite(error) if is_damaged_file(&error) => damaged(store, error.to_string()),
        Stop::Sqlite(error) => BackupError::Copy {
            file: to.to_owned(),
            reason: error.to_string(),
        },
    }
}

fn io_error(action: &'static str, file: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        action,
        file: file.to_owned(),
        source,
    }
}

/// That a backup is under way.
struct Turn<'a>(&'a AtomicBool);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
