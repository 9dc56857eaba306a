//! A write that waits for its batch: what it does, and whom it tells.

use kitbag_domain::{BoxFuture, Limits, Position, StoreError, UserId};
use rusqlite::Connection;
use tokio::sync::oneshot;

use crate::cache::Touched;
use crate::entries::Ledger;
use crate::error::{Failure, Halt};
use crate::feed::Feed;

/// The transaction of a batch, as one job sees it.
pub(crate) struct Tx<'a> {
    pub(crate) connection: &'a Connection,
    pub(crate) limits: &'a Limits,
    /// Where the numbers of changes of device account data come from.
    pub(crate) feed: &'a Feed,
    /// The rows of users, which a write of entries goes through; `None` for other writes.
    pub(crate) ledger: Option<&'a mut Ledger>,
    /// Whose stream the job moved, and where to, where the ledger does not know it: who waits for it
    /// is woken after the COMMIT.
    pub(crate) changed: Option<(UserId, Position)>,
    /// What the job changed of what is cached: everything, unless it says less.
    pub(crate) touched: Touched,
}

/// How a job ended that did not fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Done,
    Refused,
}

/// A write in the queue: run inside a batch, answered behind its COMMIT.
pub(crate) trait Job: Send {
    /// Returns about how many bytes of content it holds.
    fn size_bytes(&self) -> u64;

    /// Tells whether a refusal may come after a change, so that it needs a savepoint.
    fn needs_savepoint(&self) -> bool;

    /// Tells whether it reads and changes users and devices through the ledger alone.
    fn keeps_ledger(&self) -> bool;

    /// Runs inside the transaction and keeps the answer.
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<Verdict, Failure>;

    /// Sends the answer.
    fn acknowledge(self: Box<Self>);

    /// Tells that the batch was not committed, or is not known to be.
    fn fail(self: Box<Self>, error: StoreError);
}

/// What a write costs its queue and its batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weight {
    pub(crate) bytes: u64,
    pub(crate) needs_savepoint: bool,
    pub(crate) keeps_ledger: bool,
}

struct Write<W, T, E> {
    weight: Weight,
    work: Option<W>,
    answer: Option<Result<T, E>>,
    reply: oneshot::Sender<Result<T, E>>,
}

/// Returns the job of `work` and what waits for its answer.
pub(crate) fn job<W, T, E>(weight: Weight, work: W) -> (Box<dyn Job>, Answer<T, E>)
where
    W: FnOnce(&mut Tx<'_>) -> Result<T, Halt<E>> + Send + 'static,
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    let (reply, answer) = oneshot::channel();
    let work = Some(work);
    let job = Write {
        weight,
        work,
        answer: None,
        reply,
    };
    (Box::new(job), Answer(answer))
}

impl<W, T, E> Job for Write<W, T, E>
where
    W: FnOnce(&mut Tx<'_>) -> Result<T, Halt<E>> + Send,
    T: Send,
    E: From<StoreError> + Send,
{
    fn size_bytes(&self) -> u64 {
        self.weight.bytes
    }

    fn needs_savepoint(&self) -> bool {
        self.weight.needs_savepoint
    }

    fn keeps_ledger(&self) -> bool {
        self.weight.keeps_ledger
    }

    fn run(&mut self, tx: &mut Tx<'_>) -> Result<Verdict, Failure> {
        let work = self.work.take().expect("a job is run once");
        let (answer, verdict) = match work(tx) {
            Ok(done) => (Ok(done), Verdict::Done),
            Err(Halt::Refused(refusal)) => (Err(refusal), Verdict::Refused),
            // One user's unreadable row is no reason to fail the others in the batch.
            Err(Halt::Failed(failure)) if failure.is_unreadable_row() => {
                (Err(StoreError::from(failure).into()), Verdict::Refused)
            }
            Err(Halt::Failed(failure)) => return Err(failure),
        };
        self.answer = Some(answer);
        Ok(verdict)
    }

    fn acknowledge(self: Box<Self>) {
        let answer = self.answer.expect("a job is run before it is answered");
        // Nobody listens where the request was given up meanwhile.
        drop(self.reply.send(answer));
    }

    fn fail(self: Box<Self>, error: StoreError) {
        drop(self.reply.send(Err(error.into())));
    }
}

/// What waits for the answer of a job.
pub(crate) struct Answer<T, E>(oneshot::Receiver<Result<T, E>>);

impl<T, E> Answer<T, E>
where
    T: Send + 'static,
    E: From<StoreError> + Send + 'static,
{
    /// Waits for the answer; `lost` is told where the thread that owes it has ended.
    pub(crate) fn or(self, lost: fn(String) -> StoreError) -> BoxFuture<'static, Result<T, E>> {
        Box::pin(async move {
            let gone = |_| Err(lost("the store was closed".to_owned()).into());
            self.0.await.unwrap_or_else(gone)
        })
    }
}
