//! The clean stop of connections: what is under way is answered, and idle ones end at once.
//!
//! As hyper-util's `GracefulShutdown`, but that a connection does not ask at each of its turns, under
//! a lock that all connections share, whether the time has come.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker, ready};

use hyper_util::server::graceful::GracefulConnection;
use tokio::sync::Notify;
use tokio::sync::futures::OwnedNotified;

/// Tells connections that the server stops.
#[derive(Clone, Default)]
pub(crate) struct Stop {
    has_begun: Arc<AtomicBool>,
    begins: Arc<Notify>,
}

impl Stop {
    /// Ends the connections that are watched, each behind the answer that is under way.
    pub(crate) fn begin(&self) {
        self.has_begun.store(true, Ordering::Release);
        self.begins.notify_waiters();
    }

    /// Runs a connection until it ends.
    pub(crate) fn watch<C: GracefulConnection>(&self, connection: C) -> Watched<C> {
        Watched {
            connection,
            has_begun: Arc::clone(&self.has_begun),
            begins: Box::pin(Arc::clone(&self.begins).notified_owned()),
            woken: None,
            is_ending: false,
            refused: None,
        }
    }
}

/// A connection that is told of the stop.
pub(crate) struct Watched<C> {
    connection: C,
    has_begun: Arc<AtomicBool>,
    begins: Pin<Box<OwnedNotified>>,
    /// Who is woken when the stop begins.
    woken: Option<Waker>,
    is_ending: bool,
    /// Why the connection ends, where it is still to be shut.
    refused: Option<hyper::Error>,
}

impl<C: GracefulConnection<Error = hyper::Error> + Unpin> Future for Watched<C> {
    type Output = C::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<C::Output> {
        let this = &mut *self;
        if !this.is_ending {
            let woken = this.woken.as_ref();
            let is_woken = woken.is_some_and(|woken| woken.will_wake(context.waker()));
            if !is_woken {
                this.woken = Some(context.waker().clone());
            }
            // To be woken comes before the look: else a stop between the two would be missed.
            let begins = !is_woken && this.begins.as_mut().poll(context).is_ready();
            if begins || this.has_begun.load(Ordering::Acquire) {
                this.is_ending = true;
                Pin::new(&mut this.connection).graceful_shutdown();
            }
        }
        if let Err(error) = ready!(Pin::new(&mut this.connection).poll(context)) {
            // One that refused what it cannot read has an answer under way. Any other is broken.
            if !error.is_parse() {
                return Poll::Ready(Err(error));
            }
            this.refused = Some(error);
        }
        // A connection that was ever asked for another protocol ends for whoever would take it over,
        // which nobody does: with the last of its answer unsent, and without being shut. Its next turn
        // sees to both; in that of any other nothing is left to do.
        let ended = ready!(Pin::new(&mut this.connection).poll(context));
        Poll::Ready(this.refused.take().map_or(ended, Err))
    }
}
