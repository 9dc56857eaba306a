//! The one thread that writes: group commit.
//!
//! It takes the first write that waits, and with it whatever queued while the last fsync ran; no
//! timer. The steps of a batch are functions of their own: [`begin`], [`run_jobs`], [`commit`],
//! wake-up, acknowledgement. A write is acknowledged only behind its COMMIT and behind the
//! wake-up of those who wait for it.

mod copying;
mod job;
mod outage;
mod recovery;
#[cfg(test)]
mod tests;

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded, select};
use kitbag_domain::{BoxFuture, DeviceWakeups, Limits, Position, StoreError, UserId, Wakeups};
use rusqlite::Connection;

use crate::cache::{Cache, Touched};
use crate::checkpoint::{self, Checkpoints, Log};
use crate::connections::Connections;
use crate::entries::Ledger;
use crate::error::{Failure, Halt};
use crate::feed::Feed;
use crate::format::Source;
use crate::options::{Observer, Options, Step, limit};
use crate::rows::run;
use crate::seldom::Seldom;
use crate::stats::Counters;
pub(crate) use copying::{Order, Stop};
use job::{Job, Verdict};
pub(crate) use job::{Tx, Weight};
use outage::Outage;

/// What the writer is asked to do between batches.
pub(crate) enum Control {
    /// Copy the database, step by step between the batches.
    Backup(Box<Order>),
    /// The bulk was copied: copy the rest, so that the log starts anew.
    Checkpoint,
    /// Commit what is queued and end.
    Close,
}

/// The way to the writer.
pub(crate) struct WriteQueue {
    jobs: Sender<Box<dyn Job>>,
    bytes: Arc<AtomicU64>,
    bytes_max: u64,
    closed: AtomicBool,
}

/// Returns the queue to a writer and the writer, which is to be run in a thread of its own.
pub(crate) fn writer(options: Options, setup: Setup) -> (WriteQueue, Writer) {
    let (sender, jobs) = bounded(options.write_queue_jobs_max);
    let bytes = Arc::new(AtomicU64::new(0));
    let queue = WriteQueue {
        jobs: sender,
        bytes: Arc::clone(&bytes),
        bytes_max: options.write_queue_bytes_max,
        closed: AtomicBool::new(false),
    };
    let writer = Writer {
        setup,
        limits: options.limits,
        ledger: Ledger::default(),
        observer: options.observer,
        idle: Duration::from_millis(options.wal_idle_ms),
        jobs,
        queued_bytes: bytes,
        log: Log::new(options.checkpoint_frames),
        outage: Outage::default(),
        checkpoints_failed: Seldom::default(),
        state: State::Serving,
    };
    (queue, writer)
}

impl WriteQueue {
    /// Queues a write and returns what waits for its answer.
    pub(crate) fn submit<T, E>(
        &self,
        weight: Weight,
        work: impl FnOnce(&mut Tx<'_>) -> Result<T, Halt<E>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, E>>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (job, answer) = job::job(weight, work);
        match self.push(job, weight.bytes) {
            Ok(()) => answer.or(StoreError::OutcomeUnknown),
            Err(error) => Box::pin(async { Err(error.into()) }),
        }
    }

    /// Lets nothing more in, so that what is queued has an end.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }

    /// Returns how many writes wait, and how many may.
    pub(crate) fn jobs(&self) -> (u64, u64) {
        let max = self.jobs.capacity().unwrap_or(usize::MAX);
        (self.jobs.len() as u64, max as u64)
    }

    /// Returns how many bytes of contents wait, and how many may.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        (self.bytes.load(Ordering::Relaxed), self.bytes_max)
    }

    fn push(&self, job: Box<dyn Job>, bytes: u64) -> Result<(), StoreError> {
        let closed = || StoreError::Unavailable("the store is closed".to_owned());
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        let queued = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        // A single write of any size is let in while nothing else waits.
        let sent = if queued > 0 && queued + bytes > self.bytes_max {
            Err(StoreError::Overloaded)
        } else {
            self.jobs.try_send(job).map_err(|error| match error {
                TrySendError::Full(_) => StoreError::Overloaded,
                TrySendError::Disconnected(_) => closed(),
            })
        };
        if sent.is_err() {
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        sent
    }
}

/// What a writer works with besides its queue.
pub(crate) struct Setup {
    /// `None` from a fault until the files work again, or for ever where they did not.
    pub(crate) connection: Option<Connection>,
    pub(crate) source: Source,
    pub(crate) connections: Arc<Connections>,
    pub(crate) control: Receiver<Control>,
    pub(crate) checkpoint: Sender<()>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) wakeups: Arc<Wakeups>,
    pub(crate) device_wakeups: Arc<DeviceWakeups>,
    pub(crate) cache: Arc<Cache>,
}

/// The writer; [`Writer::run`] is its thread.
pub(crate) struct Writer {
    setup: Setup,
    limits: Limits,
    ledger: Ledger,
    observer: Option<Observer>,
    /// How long nothing is written before the log is emptied.
    idle: Duration,
    jobs: Receiver<Box<dyn Job>>,
    queued_bytes: Arc<AtomicU64>,
    log: Log,
    outage: Outage,
    checkpoints_failed: Seldom,
    state: State,
}

/// Whether the writer goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Serving,
    /// Commit what is queued and end.
    Closing,
    /// End at once: it was told to close while the files did not work.
    Broken,
}

/// What streams a batch moved, and where to.
#[derive(Default)]
struct Changed {
    users: Vec<(UserId, Position)>,
    /// The stream of all users' device account data.
    feed: Option<u64>,
}

/// A batch that was not committed, or is not known to be.
struct Abort {
    error: StoreError,
    /// Whether the connections must be opened anew.
    is_fault: bool,
    /// What may have changed nevertheless.
    maybe_changed: Changed,
}

/// That the connections must be opened anew.
struct Fault {
    /// Why, as the log and operators are told.
    reason: String,
    /// Whom to wake afterwards.
    maybe_changed: Changed,
}

impl Abort {
    /// Nothing of the batch was done.
    fn undone(failure: &Failure) -> Self {
        Self {
            is_fault: failure.is_fault(),
            error: StoreError::Unavailable(failure.to_string()),
            maybe_changed: Changed::default(),
        }
    }
}

impl Writer {
    /// Serves the queue until it is told to close, then returns the connection.
    pub(crate) fn run(mut self) -> Option<Connection> {
        let (jobs, control) = (self.jobs.clone(), self.setup.control.clone());
        while self.state == State::Serving {
            select! {
                recv(jobs) -> job => match job {
                    Ok(job) => self.serve(job),
                    Err(_) => self.state = State::Closing,
                },
                recv(control) -> control => match control {
                    Ok(Control::Backup(order)) => self.back_up(*order),
                    Ok(Control::Checkpoint) => self.finish_checkpoint(),
                    Ok(Control::Close) | Err(_) => self.state = State::Closing,
                },
                default(self.idle) => self.rest(),
            }
        }
        while self.state == State::Closing {
            let Ok(job) = jobs.try_recv() else { break };
            self.serve(job);
        }
        self.setup.connection
    }

    fn serve(&mut self, first: Box<dyn Job>) {
        let connection = self.take_connection();
        let served = self.serve_on(&connection, first);
        self.give_back(connection, served);
    }

    #[cfg(test)]
    fn connection(&self) -> &Connection {
        self.setup
            .connection
            .as_ref()
            .expect("no fault is under way")
    }

    /// Takes the connection, so that something may live on it while the writer goes on.
    fn take_connection(&mut self) -> Connection {
        let connection = self.setup.connection.take();
        connection.expect("recovery returns with a connection or ends the writer")
    }

    /// Puts the connection back, and opens all anew where the work on it ended in a fault.
    fn give_back(&mut self, connection: Connection, worked: Result<(), Fault>) {
        self.setup.connection = Some(connection);
        if let Err(Fault { maybe_changed, .. }) = worked {
            self.recover();
            // What is in doubt may have come out as written: let those who wait look.
            self.publish(&maybe_changed);
        } else if self.checkpoints().are_barred() {
            let error =
                StoreError::Unavailable("a sync failed while the log was copied".to_owned());
            self.note_failure(&error, 0, true);
            self.recover();
        }
    }

    fn checkpoints(&self) -> &Checkpoints {
        &self.setup.connections.checkpoints
    }

    /// Takes a batch from the queue and answers all in it.
    fn serve_on(&mut self, connection: &Connection, first: Box<dyn Job>) -> Result<(), Fault> {
        let mut batch = self.gather(first);
        // Also a batch that is rolled back may have got into the log.
        self.log.is_empty = false;
        match self.transact(connection, &mut batch) {
            Ok(changed) => {
                self.reach(Step::BeforeWakeUp);
                self.publish(&changed);
                self.reach(Step::BeforeAcknowledgement);
                acknowledge(batch, &self.setup.counters);
                self.after_commit(connection);
                Ok(())
            }
            Err(abort) => self.give_up(connection, batch, abort),
        }
    }

    /// Runs a batch as one transaction; returns whom to wake.
    fn transact(
        &mut self,
        connection: &Connection,
        batch: &mut [Box<dyn Job>],
    ) -> Result<Changed, Abort> {
        begin(connection).map_err(|failure| Abort::undone(&failure))?;
        // So that what a batch left there that is not committed is forgotten.
        let mut ledger = mem::take(&mut self.ledger);
        let (changed, touched) = run_jobs(connection, &self.limits, &mut ledger, batch)?;
        let cache = &self.setup.cache;
        cache.begin(&touched);
        self.reach(Step::BeforeCommit);
        match self.setup.counters.time_commit(|| commit(connection)) {
            Ok(()) => {
                cache.publish(&touched);
                self.ledger = ledger;
                Ok(changed)
            }
            // The shards stay silent until it is known what the file holds.
            Err(failure) => Err(Abort {
                error: StoreError::OutcomeUnknown(failure.to_string()),
                is_fault: true,
                maybe_changed: changed,
            }),
        }
    }

    fn reach(&self, step: Step) {
        if let Some(observer) = &self.observer {
            observer.at(step);
        }
    }

    /// Takes what queued meanwhile, up to the bounds of a batch.
    fn gather(&self, first: Box<dyn Job>) -> Vec<Box<dyn Job>> {
        let mut bytes = first.size_bytes();
        let mut batch = vec![first];
        while batch.len() < limit::BATCH_JOBS_MAX && bytes < limit::BATCH_BYTES_MAX {
            let Ok(job) = self.jobs.try_recv() else { break };
            bytes += job.size_bytes();
            batch.push(job);
        }
        self.queued_bytes.fetch_sub(bytes, Ordering::Relaxed);
        batch
    }

    /// Wakes who waits for a change of the batch.
    fn publish(&self, changed: &Changed) {
        for (user, position) in &changed.users {
            self.setup.wakeups.publish(user, *position);
        }
        if let Some(head) = changed.feed {
            self.setup.device_wakeups.publish(head);
        }
    }

    /// Tells all of a batch that it was not committed.
    fn give_up(
        &mut self,
        connection: &Connection,
        batch: Vec<Box<dyn Job>>,
        abort: Abort,
    ) -> Result<(), Fault> {
        let Abort {
            error,
            is_fault,
            maybe_changed,
        } = abort;
        let writes = batch.len() as u64;
        let is_fault = roll_back(connection).is_err() || is_fault;
        self.note_failure(&error, writes, is_fault);
        let reason = error.to_string();
        for job in batch {
            job.fail(error.clone());
        }
        if is_fault {
            return Err(Fault {
                reason,
                maybe_changed,
            });
        }
        Ok(())
    }

    /// Looks how the log has grown, and asks for a checkpoint or stops for one.
    fn after_commit(&mut self, connection: &Connection) {
        self.outage.pass(Instant::now);
        let counters = &self.setup.counters;
        let frames = checkpoint::frames(connection).unwrap_or_default();
        counters.commits.fetch_add(1, Ordering::Relaxed);
        counters.wal_frames.store(frames.logged, Ordering::Relaxed);
        if self.log.wants_checkpoint(frames) {
            // A full channel means that one is asked for already.
            self.setup.checkpoint.try_send(()).ok();
        }
        if self.log.wants_truncation(frames) {
            let truncated = self.checkpoints().truncate(connection);
            self.note_truncation(truncated);
        }
    }

    fn finish_checkpoint(&mut self) {
        let connection = self.take_connection();
        self.finish_checkpoint_on(&connection);
        self.give_back(connection, Ok(()));
    }

    fn finish_checkpoint_on(&mut self, connection: &Connection) {
        self.log.checkpoint_ended();
        if let Err(error) = self.checkpoints().passive(connection)
            && let Some(left_out) = self.checkpoints_failed.tell(Instant::now())
        {
            tracing::warn!(%error, left_out, "a checkpoint failed");
        }
    }

    /// Empties the log where nothing was written for a while.
    ///
    /// Where a long read holds the log this is left to the next time: a write may come, which must
    /// not wait for a read.
    fn rest(&mut self) {
        if self.outage.pass(Instant::now) {
            self.note_mending(false);
        }
        if !self.log.is_empty {
            let connection = self.take_connection();
            let truncated = self.checkpoints().truncate_at_once(&connection);
            self.note_truncation(truncated);
            self.give_back(connection, Ok(()));
        }
    }

    fn note_truncation(&mut self, truncated: Result<(), Failure>) {
        match truncated {
            Ok(()) => {
                self.log.is_empty = true;
                self.setup.counters.wal_frames.store(0, Ordering::Relaxed);
            }
            Err(error) => tracing::debug!(%error, "the write-ahead log was not emptied"),
        }
    }
}

fn begin(connection: &Connection) -> Result<(), Failure> {
    run(connection, "BEGIN IMMEDIATE", []).map(drop)
}

fn commit(connection: &Connection) -> Result<(), Failure> {
    run(connection, "COMMIT", []).map(drop)
}

fn roll_back(connection: &Connection) -> Result<(), Failure> {
    if !connection.is_autocommit() {
        run(connection, "ROLLBACK", [])?;
    }
    Ok(())
}

/// Runs each job; the first that fails or panics ends the batch.
fn run_jobs(
    connection: &Connection,
    limits: &Limits,
    ledger: &mut Ledger,
    batch: &mut [Box<dyn Job>],
) -> Result<(Changed, Vec<Touched>), Abort> {
    let undone = |failure| Abort::undone(&failure);
    ledger.begin(connection).map_err(undone)?;
    let mut changed = Changed::default();
    let feed = Feed::default();
    let mut touched = Vec::with_capacity(batch.len());
    for job in batch {
        let moved = feed.moved();
        let keeps_ledger = job.keeps_ledger();
        if !keeps_ledger {
            let moved = ledger.close(connection).map_err(undone)?;
            changed.users.extend(moved);
        }
        let mut tx = Tx {
            connection,
            limits,
            feed: &feed,
            ledger: keeps_ledger.then_some(&mut *ledger),
            changed: None,
            touched: Touched::default(),
        };
        // The batch is rolled back after a panic, so nothing half-done is looked at again.
        let ran = catch_unwind(AssertUnwindSafe(|| run_job(job.as_mut(), &mut tx)));
        match ran {
            Ok(Ok(Verdict::Done)) => {
                changed.users.extend(tx.changed);
                touched.push(tx.touched);
            }
            Ok(Ok(Verdict::Refused)) => feed.go_back(moved),
            Ok(Err(failure)) => return Err(undone(failure)),
            Err(_panic) => {
                let what = "an operation of the batch panicked";
                return Err(undone(Failure::Row(what.to_owned())));
            }
        }
    }
    changed
        .users
        .extend(ledger.settle(connection).map_err(undone)?);
    changed.feed = feed.save(connection).map_err(undone)?;
    Ok((changed, touched))
}

/// Runs one job, of which nothing stays where it is refused.
fn run_job(job: &mut dyn Job, tx: &mut Tx<'_>) -> Result<Verdict, Failure> {
    if job.needs_savepoint() {
        run(tx.connection, "SAVEPOINT job", [])?;
        let verdict = job.run(tx)?;
        if verdict == Verdict::Refused {
            run(tx.connection, "ROLLBACK TO job", [])?;
        }
        run(tx.connection, "RELEASE job", [])?;
        return Ok(verdict);
    }
    let changes = tx.connection.total_changes();
    let verdict = job.run(tx)?;
    if verdict == Verdict::Refused && tx.connection.total_changes() != changes {
        let what = "a refused operation had changed something";
        return Err(Failure::Row(what.to_owned()));
    }
    Ok(verdict)
}

/// Answers each job of a committed batch.
fn acknowledge(batch: Vec<Box<dyn Job>>, counters: &Counters) {
    counters.batches_writes.observe(batch.len() as u64);
    counters.is_mending.store(false, Ordering::Relaxed);
    for job in batch {
        job.acknowledge();
    }
}
