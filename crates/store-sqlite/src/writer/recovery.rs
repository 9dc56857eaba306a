//! After an I/O error or a full disk: all connections are opened anew until a write succeeds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use kitbag_domain::StoreError;
use rusqlite::Connection;

use super::{Control, State, Stop, Writer};
use crate::error::Failure;
use crate::format::Role;
use crate::options::limit;

impl Writer {
    /// Opens the database anew; meanwhile writes are answered as unavailable.
    ///
    /// What a connection remembers of a file that failed it cannot be trusted, nor can what all
    /// share: so all are closed before any is opened again. Then reads go on where they can.
    /// Returns when a write has succeeded, or the store is to be closed.
    pub(super) fn recover(&mut self) {
        tracing::error!("the store takes no writes until its files work again");
        self.note_mending(true);
        let closed = self.setup.connections.close_all();
        self.setup.connection = None;
        drop(closed);
        let mut wait_ms = limit::REOPEN_WAIT_MS_MIN;
        let started = Instant::now();
        loop {
            match self.reopen() {
                Ok(connection) => {
                    self.setup.connection = Some(connection);
                    self.note_mending(false);
                    let outage_ms = started.elapsed().as_millis();
                    tracing::info!(outage_ms, "the store takes writes again");
                    return;
                }
                Err(failure) => tracing::debug!(%failure, wait_ms, "the store is still unusable"),
            }
            self.refuse_writes(Duration::from_millis(wait_ms));
            if self.state != State::Serving {
                self.state = State::Broken;
                return;
            }
            wait_ms = (wait_ms * 2).min(limit::REOPEN_WAIT_MS_MAX);
        }
    }

    fn note_mending(&self, is_mending: bool) {
        let noted = &self.setup.counters.is_mending;
        noted.store(is_mending, Ordering::Relaxed);
    }

    /// Opens a connection and proves by a write that the disk takes it.
    fn reopen(&self) -> Result<Connection, Failure> {
        let connection = self.setup.source.connect(Role::Write)?;
        connection.execute("UPDATE store SET probes = probes + 1", [])?;
        Ok(connection)
    }

    /// Refuses what comes for `wait`.
    fn refuse_writes(&mut self, wait: Duration) {
        let until = Instant::now() + wait;
        loop {
            match self.jobs.recv_deadline(until) {
                Ok(job) => {
                    for job in self.gather(job) {
                        job.fail(StoreError::Unavailable("the disk failed".to_owned()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return self.state = State::Closing,
            }
        }
        while let Ok(control) = self.setup.control.try_recv() {
            match control {
                Control::Backup(order) => order.refuse(Stop::Fault),
                Control::Checkpoint => self.log.checkpoint_ended(),
                Control::Close => self.state = State::Closing,
            }
        }
    }
}
