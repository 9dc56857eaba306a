//! The threads that read, so that no runtime worker waits for a disk.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use kitbag_domain::{BoxFuture, StoreError};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::connections::Connections;
use crate::error::Failure;

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
}

/// Returns the queue to the readers, and what they receive from it.
pub(crate) fn queue(jobs_max: usize) -> (ReadQueue, Receiver<Message>) {
    let (jobs, receiver) = bounded(jobs_max);
    (ReadQueue { jobs }, receiver)
}

/// Serves reads at `place` until the queue ends.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a thread owns what it works with"
)]
pub(crate) fn serve(jobs: Receiver<Message>, connections: Arc<Connections>, place: usize) {
    let loan = Loan {
        connections: &connections,
        place,
    };
    while let Ok(Message::Read(read)) = jobs.recv() {
        // The one who waits is told by the end of its channel.
        if catch_unwind(AssertUnwindSafe(|| read(&loan))).is_err() {
            tracing::error!("a read panicked");
        }
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

    /// Tells one reader to end, once it has served what is queued.
    pub(crate) fn close_one(&self) {
        // An error means that no reader is left.
        drop(self.jobs.send(Message::Close));
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
