//! After an I/O error or a full disk: all connections are opened anew until a write succeeds.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::RecvTimeoutError;
use kitbag_domain::StoreError;

use super::{Control, Ledger, State, Stop, Writer, begin, roll_back};
use crate::checkpoint;
use crate::error::Failure;
use crate::format::Role;
use crate::options::limit;

impl Writer {
    /// Opens the database anew; meanwhile writes are answered as unavailable.
    ///
    /// What a connection remembers of a file that failed it cannot be trusted, nor can what all
    /// share: so all are closed before any is opened again. Reads go on where they can, but for that
    /// moment. Returns when a write has succeeded, or the store is to be closed.
    pub(super) fn recover(&mut self) {
        self.setup.counters.outages.fetch_add(1, Ordering::Relaxed);
        // What it knows of other programs' writes was told by the connection that goes.
        self.ledger = Ledger::default();
        let mut wait_ms = limit::REOPEN_WAIT_MS_MIN;
        loop {
            let Err(failure) = self.mend() else {
                self.setup.cache.clear();
                self.outage.mend(Instant::now());
                return;
            };
            self.outage.go_on(Instant::now(), &failure);
            self.refuse_writes(Duration::from_millis(wait_ms), &failure);
            if self.state != State::Serving {
                self.state = State::Broken;
                return;
            }
            wait_ms = (wait_ms * 2).min(limit::REOPEN_WAIT_MS_MAX);
        }
    }

    /// Notes writes that failed, before their callers are told.
    pub(super) fn note_failure(&mut self, error: &StoreError, writes: u64, is_fault: bool) {
        self.outage.fail(Instant::now(), error, writes, is_fault);
        let failed = &self.setup.counters.writes_failed;
        failed.fetch_add(writes, Ordering::Relaxed);
        if is_fault {
            self.note_mending(true);
        }
    }

    pub(super) fn note_mending(&self, is_mending: bool) {
        let noted = &self.setup.counters.is_mending;
        noted.store(is_mending, Ordering::Relaxed);
    }

    /// Tries once to make the log whole and to open the files anew.
    ///
    /// Until the log is whole, no connection is closed. The first one that is opened after all were
    /// closed reads the log from its file, and there it finds writes of which nobody may be told,
    /// since a sync of them failed: they are in the system's memory, but not on the disk. Those who
    /// share the index see the log up to the last commit that succeeded.
    pub(super) fn mend(&mut self) -> Result<(), Failure> {
        if let Err(failure) = self.probe() {
            self.make_log_whole(failure)?;
        }
        let closed = self.setup.connections.close_all();
        self.setup.connection = None;
        drop(closed);
        let connection = self.setup.source.connect(Role::Write)?;
        let copied = checkpoint::frames(&connection)?.copied;
        self.setup.connection = Some(connection);
        // Another program may keep the index alive.
        if self.checkpoints().are_barred() && copied > 0 {
            return Err(Failure::Held);
        }
        self.checkpoints().go_on();
        self.probe()
    }

    /// Writes all of the log again, where a write failed in such a way that this may help.
    ///
    /// Other programs are kept from writing until the connection is closed or tries its next write:
    /// what they commit meanwhile would be overwritten with what was there before.
    fn make_log_whole(&self, failure: Failure) -> Result<(), Failure> {
        if failure.is_full_disk() || failure.is_busy() {
            return Err(failure);
        }
        // It was whole already when the connection was closed.
        let Some(connection) = &self.setup.connection else {
            return Ok(());
        };
        // Another failure may lie in this connection alone, and must not keep it from being closed.
        if let Err(failure) = begin(connection)
            && failure.is_busy()
        {
            return Err(failure);
        }
        self.setup.source.rewrite_log()?;
        Ok(())
    }

    /// Proves by a write that the disk takes it.
    ///
    /// SQLite writes it over what the last failed write left in the log, so the log is whole then.
    fn probe(&self) -> Result<(), Failure> {
        let connection = self.setup.connection.as_ref().ok_or(Failure::Closing)?;
        roll_back(connection)?;
        connection.execute("UPDATE store SET probes = probes + 1", [])?;
        Ok(())
    }

    /// Refuses what comes for `wait`, and says why.
    pub(super) fn refuse_writes(&mut self, wait: Duration, failure: &Failure) {
        let until = Instant::now() + wait;
        loop {
            match self.jobs.recv_deadline(until) {
                Ok(job) => {
                    let batch = self.gather(job);
                    let writes = batch.len() as u64;
                    self.outage.refuse(writes);
                    let failed = &self.setup.counters.writes_failed;
                    failed.fetch_add(writes, Ordering::Relaxed);
                    for job in batch {
                        job.fail(StoreError::Unavailable(failure.to_string()));
                    }
                }
                Err(RecvTimeoutError::Timeout) => break,
                Err(RecvTimeoutError::Disconnected) => return self.state = State::Closing,
            }
        }
        while let Ok(control) = self.setup.control.try_recv() {
            match control {
                Control::Backup(order) => order.refuse(Stop::Fault(failure.to_string())),
                Control::Checkpoint => self.log.checkpoint_ended(),
                Control::Close => self.state = State::Closing,
            }
        }
    }
}
