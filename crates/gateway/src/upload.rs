//! The body of a request on its way through: whether it goes on, and what the client did wrong.
//!
//! Its sender may not be silent for long. The time that the homeserver has to answer is far longer,
//! and begins anew with each piece: a client could hold two connections for ever by a byte now and
//! then.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::Request;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use kitbag_http::shared::Denial;
use tokio::time::{Instant, Sleep, sleep};

/// What is known of a body while somebody else reads it.
#[derive(Clone, Default)]
pub(crate) struct Upload(Arc<State>);

#[derive(Default)]
struct State {
    /// Pieces that were read, and how it ended.
    pieces: AtomicU64,
    is_whole: AtomicBool,
    was_silent: AtomicBool,
    is_broken: AtomicBool,
}

impl Upload {
    /// Watches the body of a request, if it has one: each piece may take as long as is `allowed`.
    pub(crate) fn watch(
        request: Request<Body>,
        allowed: Duration,
    ) -> (Request<Body>, Option<Self>) {
        if request.body().is_end_stream() {
            return (request, None);
        }
        let upload = Self::default();
        let request = request.map(|body| {
            Body::new(Watched {
                body,
                allowed,
                timer: None,
                is_waiting: false,
                upload: upload.clone(),
            })
        });
        (request, Some(upload))
    }

    /// Returns how many pieces were read.
    pub(crate) fn pieces(&self) -> u64 {
        self.0.pieces.load(Ordering::Relaxed)
    }

    /// Tells whether all of it was read.
    pub(crate) fn is_whole(&self) -> bool {
        self.0.is_whole.load(Ordering::Relaxed)
    }

    /// Returns what the client is told where it did not send the body to its end. The exchange with
    /// the homeserver fails of it too, which is no fault of the homeserver.
    pub(crate) fn denial(&self) -> Option<Denial> {
        if self.0.was_silent.load(Ordering::Relaxed) {
            return Some(Denial::body_timeout());
        }
        let is_broken = self.0.is_broken.load(Ordering::Relaxed);
        is_broken.then(Denial::body_broken)
    }
}

struct Watched {
    body: Body,
    allowed: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs.
    is_waiting: bool,
    upload: Upload,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let state = &*this.upload.0;
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.is_waiting = false;
            match &frame {
                Some(Err(_)) => state.is_broken.store(true, Ordering::Relaxed),
                _ => drop(state.pieces.fetch_add(1, Ordering::Relaxed)),
            }
            let is_whole = frame.is_none() || this.body.is_end_stream();
            state.is_whole.store(is_whole, Ordering::Relaxed);
            return Poll::Ready(frame);
        }
        let allowed = this.allowed;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(allowed)));
        if !this.is_waiting {
            this.is_waiting = true;
            timer.as_mut().reset(Instant::now() + allowed);
        }
        ready!(timer.as_mut().poll(context));
        state.was_silent.store(true, Ordering::Relaxed);
        let elapsed = std::io::Error::from(std::io::ErrorKind::TimedOut);
        Poll::Ready(Some(Err(axum::Error::new(elapsed))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
