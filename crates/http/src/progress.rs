//! How far the requests of a connection are, which the stream below has to know.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use axum::http::header::{CONNECTION, HeaderValue};
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};

/// The requests of one connection, which come one by one.
#[derive(Clone, Default)]
pub(crate) struct Progress(Arc<State>);

#[derive(Default)]
struct State {
    /// From the head of a request to the end of its answer.
    is_answering: AtomicBool,
    /// Whether there is more of the body of the last request than was read.
    has_unread: AtomicBool,
}

impl Progress {
    /// Begins to answer a request.
    pub(crate) fn begin(&self, request: Request<Incoming>) -> (Request<Body>, Exchange) {
        let exchange = Exchange(Self(Arc::clone(&self.0)));
        self.0.is_answering.store(true, Ordering::Relaxed);
        // An empty body needs no memory, and most requests have one.
        if request.body().is_end_stream() {
            return (request.map(|_| Body::empty()), exchange);
        }
        self.0.has_unread.store(true, Ordering::Relaxed);
        let request = request.map(|body| {
            let progress = self.clone();
            Body::new(Watched { body, progress })
        });
        (request, exchange)
    }

    /// Tells whether a request is there whose answer is not.
    pub(crate) fn is_answering(&self) -> bool {
        self.0.is_answering.load(Ordering::Relaxed)
    }

    /// Tells whether something of the last request was not read.
    pub(crate) fn has_unread(&self) -> bool {
        self.0.has_unread.load(Ordering::Relaxed)
    }
}

/// A request under way, until it is dropped with its answer.
pub(crate) struct Exchange(Progress);

impl Exchange {
    /// Returns the answer as it goes to the client.
    pub(crate) fn answer(self, mut response: Response<Body>) -> Response<Answer> {
        if self.0.has_unread() {
            // What is left of the body would be read as the next request, so hyper closes. A client
            // that is not told could have sent that request by then.
            let headers = response.headers_mut();
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Answer {
            body,
            _exchange: self,
        })
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.0.0.is_answering.store(false, Ordering::Relaxed);
    }
}

/// The body of an answer.
pub(crate) struct Answer {
    body: Body,
    _exchange: Exchange,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of a request, whose end is noted.
struct Watched {
    body: Incoming,
    progress: Progress,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let is_last =
            |frame: &hyper::Result<Frame<Bytes>>| frame.as_ref().is_ok_and(Frame::is_trailers);
        if frame.as_ref().is_none_or(is_last) || self.body.is_end_stream() {
            self.progress.0.has_unread.store(false, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
