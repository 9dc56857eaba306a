//! The body of a request on its way through, whose sender may not be silent for long.
//!
//! The time that the homeserver has to answer is far longer, and begins anew with each piece: a
//! client could hold two connections for ever by a byte now and then.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::Request;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

/// Tells whether a body was ended since nothing came of it.
#[derive(Clone, Default)]
pub(crate) struct Silence(Arc<AtomicBool>);

impl Silence {
    /// Watches the body of a request, if it has one: each piece may take as long as is `allowed`.
    pub(crate) fn watch(
        request: Request<Body>,
        allowed: Duration,
    ) -> (Request<Body>, Option<Self>) {
        if request.body().is_end_stream() {
            return (request, None);
        }
        let silence = Self::default();
        let request = request.map(|body| {
            Body::new(Upload {
                body,
                allowed,
                timer: None,
                is_waiting: false,
                silence: silence.clone(),
            })
        });
        (request, Some(silence))
    }

    pub(crate) fn was_too_long(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

struct Upload {
    body: Body,
    allowed: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs.
    is_waiting: bool,
    silence: Silence,
}

impl HttpBody for Upload {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let frame = Pin::new(&mut this.body).poll_frame(context);
        if frame.is_ready() {
            this.is_waiting = false;
            return frame;
        }
        let allowed = this.allowed;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep(allowed)));
        if !this.is_waiting {
            this.is_waiting = true;
            timer.as_mut().reset(Instant::now() + allowed);
        }
        ready!(timer.as_mut().poll(context));
        this.silence.0.store(true, Ordering::Relaxed);
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
