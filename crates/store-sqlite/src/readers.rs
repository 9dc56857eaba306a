//! The threads that read, so that no runtime worker waits for a disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use kitbag_domain::{BoxFuture, StoreError};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::connections::Connections;
use crate::error::Failure;
use crate::stats::microseconds;

/// A read in the queue: it uses a connection through the loan and answers.
type Read = Box<dyn FnOnce(&Loan<'_>) + Send>;

/// What reader threads are sent.
pub(crate) enum Message {
    /// End.
    Close,
    /// Run a read.
    Read(Read),
}

/// A reader's way to its connection.
pub(crate) struct Loan<'a> {
    connections: &'a Connections,
    place: usize,
}

/// The way to the readers.
pub(crate) struct ReadQueue {
    jobs: Sender<Message>,
    begun: Arc<Begun>,
}

/// When each reader began with what it reads: one that stays at it keeps the log from starting anew.
pub(crate) struct Begun {
    origin: Instant,
    /// Microseconds behind `origin`, or [`IDLE`].
    at_us: Box<[AtomicU64]>,
}

/// That a reader reads nothing.
const IDLE: u64 = u64::MAX;

/// Returns the queue to the readers, and what they receive from it.
pub(crate) fn queue(jobs_max: usize, readers: usize) -> (ReadQueue, Receiver<Message>) {
    let (jobs, receiver) = bounded(jobs_max);
    let begun = Arc::new(Begun {
        origin: Instant::now(),
        at_us: (0..readers).map(|_| AtomicU64::new(IDLE)).collect(),
    });
    (ReadQueue { jobs, begun }, receiver)
}

/// Serves reads at `place` until the queue ends.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a thread owns what it works with"
)]
pub(crate) fn serve(
    jobs: Receiver<Message>,
    connections: Arc<Connections>,
    place: usize,
    begun: Arc<Begun>,
) {
    let loan = Loan {
        connections: &connections,
        place,
    };
    while let Ok(Message::Read(read)) = jobs.recv() {
        begun.begin(place);
        // The one who waits is told by the end of its channel.
        if catch_unwind(AssertUnwindSafe(|| read(&loan))).is_err() {
            tracing::error!("a read panicked");
        }
        begun.end(place);
    }
}

impl ReadQueue {
    /// Queues a read and returns what waits for its answer.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Failure> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let (reply, answer) = oneshot::channel();
        let read: Read = Box::new(move |loan| {
            // Nobody listens where the request was given up meanwhile.
            if !reply.is_closed() {
                let result = loan.connections.with(loan.place, work);
                drop(reply.send(result.map_err(StoreError::from)));
            }
        });
        let sent = self.jobs.try_send(Message::Read(read));
        Box::pin(async move {
            match sent {
                Ok(()) => answer.await.unwrap_or_else(|_| Err(lost())),
                Err(TrySendError::Full(_)) => Err(StoreError::Overloaded),
                Err(TrySendError::Disconnected(_)) => Err(lost()),
            }
        })
    }

    /// Returns where the readers note when they began.
    pub(crate) fn begun(&self) -> Arc<Begun> {
        Arc::clone(&self.begun)
    }

    /// Returns for how long the oldest read that is under way has been so.
    pub(crate) fn oldest(&self) -> Duration {
        let Begun { origin, at_us } = &*self.begun;
        let begun = at_us.iter().map(|at_us| at_us.load(Ordering::Relaxed));
        let oldest = begun.min().filter(|at_us| *at_us != IDLE);
        oldest.map_or(Duration::ZERO, |at_us| {
            let at = *origin + Duration::from_micros(at_us);
            at.elapsed()
        })
    }

    /// Returns how many reads wait, and how many may.
    pub(crate) fn jobs(&self) -> (u64, u64) {
        let max = self.jobs.capacity().unwrap_or(usize::MAX);
        (self.jobs.len() as u64, max as u64)
    }

    /// Tells one reader to end, once it has served what is queued.
    pub(crate) fn close_one(&self) {
        // An error means that no reader is left.
        drop(self.jobs.send(Message::Close));
    }
}

impl Begun {
    fn begin(&self, place: usize) {
        let at_us = microseconds(self.origin.elapsed());
        self.at_us[place].store(at_us, Ordering::Relaxed);
    }

    fn end(&self, place: usize) {
        self.at_us[place].store(IDLE, Ordering::Relaxed);
    }
}

fn lost() -> StoreError {
    StoreError::Unavailable("the store is closed, or the read panicked".to_owned())
}

#[cfg(test)]
mod tests {
    use kitbag_domain::ServerName;

    use super::*;
    use crate::{Options, SqliteStore};

    #[tokio::test]
    async fn a_panic_ends_its_read_only() {
        let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        options.reader_threads = 1;
        let store = SqliteStore::ephemeral(options).unwrap();
        let panics: BoxFuture<'_, Result<(), StoreError>> = store
            .reads
            .submit(|_| panic!("as a rule of the domain might"));
        assert!(matches!(panics.await, Err(StoreError::Unavailable(_))));
        assert_eq!(store.reads.submit(|_| Ok(7)).await, Ok(7));
    }
}
