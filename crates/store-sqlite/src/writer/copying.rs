//! Copying the database step by step, between the batches.
//!
//! It is done on the writer's own connection: what that writes meanwhile, SQLite writes into the copy
//! too, so that the copying comes to an end under any load, and holds no read open that would keep
//! the log from starting anew. Another connection would have to begin again with each commit.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::Sender;
use rusqlite::Connection;
use rusqlite::backup::Backup;

use super::{Control, Fault, State, Writer};
use crate::copy::{pages, step};
use crate::options::{Step, limit};

/// A copy that the writer is to make.
pub(crate) struct Order {
    /// Where to; closed when the copying has ended.
    pub(crate) target: Connection,
    /// Pages that were copied, and all of them. What finds no room is left out.
    pub(crate) progress: Sender<(u64, u64)>,
    /// Set where nobody wants the copy any more.
    pub(crate) is_cancelled: Arc<AtomicBool>,
    /// Told once, when the copying has ended.
    pub(crate) ended: Sender<Result<(), Stop>>,
}

/// Why a copying ended before its end.
#[derive(Debug)]
pub(crate) enum Stop {
    Busy,
    Cancelled,
    Closed,
    /// The store's own files failed, for this reason.
    Fault(String),
    /// Another program has the database locked.
    Locked,
    /// Too many batches were rolled back on the way, each of which makes SQLite begin again.
    Restarted,
    Sqlite(rusqlite::Error),
}

impl Order {
    pub(crate) fn refuse(self, stop: Stop) {
        // Nobody listens where the wait was given up.
        drop(self.ended.send(Err(stop)));
    }
}

impl Writer {
    /// Copies the whole database, serving the queue between the steps.
    pub(super) fn back_up(&mut self, order: Order) {
        let Order {
            mut target,
            progress,
            is_cancelled,
            ended,
        } = order;
        let connection = self.take_connection();
        let mut worked = Ok(());
        let mut copying = Copying {
            progress,
            is_cancelled,
            worked: &mut worked,
        };
        let copied = self.copy(&connection, &mut target, &mut copying);
        drop(target);
        drop(ended.send(copied));
        self.give_back(connection, worked);
    }

    fn copy(
        &mut self,
        connection: &Connection,
        target: &mut Connection,
        copying: &mut Copying<'_>,
    ) -> Result<(), Stop> {
        // So that it is the file that is copied and looked through, damage on the disk included, and
        // not what is still in memory of it.
        let forgotten = connection.execute_batch("PRAGMA shrink_memory");
        forgotten.map_err(Stop::Sqlite)?;
        let backup = Backup::new(connection, target).map_err(Stop::Sqlite)?;
        let (mut copied, mut restarts) = (0, 0);
        loop {
            if copying.is_cancelled.load(Ordering::Relaxed) {
                return Err(Stop::Cancelled);
            }
            if step(&backup, limit::BACKUP_STEP_PAGES)? {
                return Ok(());
            }
            let (now, total) = pages(&backup);
            if now < copied {
                restarts += 1;
            }
            if restarts > limit::BACKUP_RESTARTS_MAX {
                return Err(Stop::Restarted);
            }
            copied = now;
            // The next one tells more than this one where that waits still.
            copying.progress.try_send((copied, total)).ok();
            self.reach(Step::WithinBackup);
            self.go_on(connection, copying)?;
        }
    }

    /// Does what waits: one batch, and what is to be done between batches.
    fn go_on(&mut self, connection: &Connection, copying: &mut Copying<'_>) -> Result<(), Stop> {
        if let Ok(job) = self.jobs.try_recv()
            && let Err(fault) = self.serve_on(connection, job)
        {
            let reason = fault.reason.clone();
            *copying.worked = Err(fault);
            return Err(Stop::Fault(reason));
        }
        while let Ok(control) = self.setup.control.try_recv() {
            match control {
                Control::Backup(other) => other.refuse(Stop::Busy),
                Control::Checkpoint => self.finish_checkpoint_on(connection),
                Control::Close => self.state = State::Closing,
            }
        }
        if self.state == State::Serving {
            Ok(())
        } else {
            Err(Stop::Closed)
        }
    }
}

/// What a copying under way works with.
struct Copying<'a> {
    progress: Sender<(u64, u64)>,
    is_cancelled: Arc<AtomicBool>,
    /// Whether the connections must be opened anew afterwards.
    worked: &'a mut Result<(), Fault>,
}
