//! Copying the write-ahead log into the database.
//!
//! SQLite can start the log anew only when all of it was copied, which a thread beside a busy
//! writer never achieves: alone it let the log grow by 100 MiB a second. So the thread copies the
//! bulk, and then the writer, between two batches, the little that came meanwhile: the log stays at
//! a few mebibytes and no commit waits for more than that little.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use rusqlite::wal::CheckpointMode;
use rusqlite::{Connection, ffi};

use crate::connections::Connections;
use crate::error::Failure;
use crate::options::limit;
use crate::seldom::Seldom;
use crate::writer::Control;

/// How much is in the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Frames {
    /// Frames in the log.
    pub(crate) logged: u64,
    /// How many of them are in the database too.
    pub(crate) copied: u64,
}

/// What the writer remembers of the log between batches.
#[derive(Debug)]
pub(crate) struct Log {
    /// Frames that make a checkpoint worth it.
    checkpoint_frames: u64,
    /// Frames in the log when a checkpoint was last asked for, while it is under way.
    asked_at: Option<u64>,
    /// Frames in the log when the writer last tried to empty it.
    truncated_at: u64,
    /// Whether nothing can be in the file. Not so at the start: a crash leaves a log behind.
    pub(crate) is_empty: bool,
}

impl Log {
    pub(crate) fn new(checkpoint_frames: u64) -> Self {
        Self {
            checkpoint_frames,
            asked_at: None,
            truncated_at: 0,
            is_empty: false,
        }
    }

    /// Tells whether to ask the thread for a checkpoint.
    pub(crate) fn wants_checkpoint(&mut self, frames: Frames) -> bool {
        let wanted = match self.asked_at {
            None => frames.logged.saturating_sub(frames.copied) >= self.checkpoint_frames,
            // Asked for and not done for long: the thread may have missed it after a fault.
            Some(asked_at) => frames.logged >= asked_at.saturating_add(limit::WAL_FRAMES_SOFT),
        };
        if wanted {
            self.asked_at = Some(frames.logged);
        }
        wanted
    }

    /// Tells whether the log is so large that the writer must stop and empty it.
    ///
    /// Where that fails, since a long read holds the log, it is tried again only when the log has
    /// grown a good deal more.
    pub(crate) fn wants_truncation(&mut self, frames: Frames) -> bool {
        let least = limit::WAL_FRAMES_HARD;
        if frames.logged < least {
            self.truncated_at = 0;
            return false;
        }
        let wanted = frames.logged >= self.truncated_at + limit::WAL_FRAMES_SOFT;
        if wanted {
            self.truncated_at = frames.logged;
        }
        wanted
    }

    /// Notes that the thread has done its part.
    pub(crate) fn checkpoint_ended(&mut self) {
        self.asked_at = None;
    }
}

/// Copies the bulk of the log each time it is asked to, until the writer has gone.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a thread owns what it works with"
)]
pub(crate) fn serve(
    asked: Receiver<()>,
    control: Sender<Control>,
    connections: Arc<Connections>,
    place: usize,
) {
    let mut failed = Seldom::default();
    while asked.recv().is_ok() {
        let checkpoints = &connections.checkpoints;
        let copied = connections.with(place, |connection| checkpoints.passive(connection));
        if let Err(error) = copied
            && let Some(left_out) = failed.tell(Instant::now())
        {
            tracing::warn!(%error, left_out, "a checkpoint failed");
        }
        if control.send(Control::Checkpoint).is_err() {
            break;
        }
    }
}

/// Returns how much is in the log; touches no file.
pub(crate) fn frames(connection: &Connection) -> Result<Frames, Failure> {
    checkpoint(connection, CheckpointMode::NOOP)
}

/// The checkpoints of all connections, one at a time.
///
/// SQLite keeps in mind how much it has copied, also where that is not synced yet: a later
/// checkpoint, which reaches the end of the log, syncs it too. Where that sync fails, all that was
/// copied since the one before may be lost, and SQLite would copy only its last part again. So a
/// failed sync bars all further checkpoints, and with them the log's beginning anew, until all
/// connections were closed: then SQLite copies the whole log again.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    /// Whether a sync failed.
    is_barred: Mutex<bool>,
    ran: AtomicU64,
    failed: AtomicU64,
}

impl Checkpoints {
    /// Tells whether all connections must be closed before the log is copied again.
    pub(crate) fn are_barred(&self) -> bool {
        // One that is under way is looked at when it has ended.
        self.is_barred.try_lock().is_ok_and(|is_barred| *is_barred)
    }

    /// Lets checkpoints go on, since all connections were closed, and SQLite has forgotten what it
    /// copied.
    pub(crate) fn go_on(&self) {
        *self
            .is_barred
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = false;
    }

    /// Returns how many ran, and how many failed.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (count(&self.ran), count(&self.failed))
    }

    /// Copies what can be copied without anyone waiting.
    pub(crate) fn passive(&self, connection: &Connection) -> Result<(), Failure> {
        self.run(connection, CheckpointMode::PASSIVE)
    }

    /// Copies everything and empties the log, waiting for readers.
    pub(crate) fn truncate(&self, connection: &Connection) -> Result<(), Failure> {
        self.run(connection, CheckpointMode::TRUNCATE)
    }

    /// Copies everything and empties the log, or fails at once where a reader still needs it.
    pub(crate) fn truncate_at_once(&self, connection: &Connection) -> Result<(), Failure> {
        connection.busy_timeout(Duration::ZERO)?;
        let truncated = self.truncate(connection);
        connection.busy_timeout(Duration::from_millis(limit::BUSY_WAIT_MS))?;
        truncated
    }

    fn run(&self, connection: &Connection, mode: CheckpointMode) -> Result<(), Failure> {
        let result = self.run_alone(connection, mode);
        let counted = if result.is_ok() {
            &self.ran
        } else {
            &self.failed
        };
        counted.fetch_add(1, Ordering::Relaxed);
        result
    }

    fn run_alone(&self, connection: &Connection, mode: CheckpointMode) -> Result<(), Failure> {
        // Held meanwhile, so that none begins between a failed sync and the note of it.
        let mut is_barred = match self.is_barred.try_lock() {
            Ok(is_barred) => is_barred,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(busy()),
        };
        if *is_barred {
            return Err(Failure::Closing);
        }
        let result = checkpoint(connection, mode);
        *is_barred = result.as_ref().is_err_and(Failure::is_lost_sync);
        result.map(drop)
    }
}

/// Returns what SQLite says where another connection copies the log.
fn busy() -> Failure {
    let busy = ffi::Error::new(ffi::SQLITE_BUSY);
    rusqlite::Error::SqliteFailure(busy, None).into()
}

fn checkpoint(connection: &Connection, mode: CheckpointMode) -> Result<Frames, Failure> {
    let (logged, copied) = connection.wal_checkpoint_v2(Some("main"), mode)?;
    // Negative where there is no log yet.
    let count = |frames: i32| u64::try_from(frames).unwrap_or(0);
    Ok(Frames {
        logged: count(logged),
        copied: count(copied),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logged(frames: u64) -> Frames {
        Frames {
            logged: frames,
            copied: 0,
        }
    }

    #[test]
    fn a_checkpoint_that_is_missed_is_asked_for_again() {
        let mut log = Log::new(100);
        assert!(!log.wants_checkpoint(logged(99)));
        assert!(log.wants_checkpoint(logged(100)));
        let again = 100 + limit::WAL_FRAMES_SOFT;
        assert!(!log.wants_checkpoint(logged(again - 1)), "it is under way");
        assert!(log.wants_checkpoint(logged(again)));
        log.checkpoint_ended();
        assert!(log.wants_checkpoint(logged(again)));
    }

    #[test]
    fn a_log_at_its_limit_is_emptied_and_tried_again_as_it_grows() {
        let mut log = Log::new(100);
        let least = limit::WAL_FRAMES_HARD;
        assert!(!log.wants_truncation(logged(least - 1)));
        assert!(log.wants_truncation(logged(least)));
        let again = least + limit::WAL_FRAMES_SOFT;
        assert!(!log.wants_truncation(logged(again - 1)), "a read holds it");
        assert!(log.wants_truncation(logged(again)));
        assert!(!log.wants_truncation(logged(0)), "it was emptied");
        assert!(log.wants_truncation(logged(least)));
    }
}
