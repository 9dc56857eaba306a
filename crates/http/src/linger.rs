//! Takes the rest of a body that no handler wanted, so that the client gets to read the answer.
//!
//! A connection that is closed while the client still sends is reset, and the answer is lost on the
//! way: a 413 or 401 would look like a network fault.

use std::mem;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::EXPECT;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::time;

/// Bytes taken: a few times the largest content. Whoever sends more is cut off.
const DRAIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long the rest may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing may come of it: the answer waits for whoever is sending, and for nobody else.
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

/// What a handler may have left of a body.
pub struct Unread(Option<SharedBody>);

/// Returns the request with its body shared, so that the rest can be taken later.
pub fn share_body(request: &mut Request<Body>) -> Unread {
    // Who asks first ("100-continue") has not begun to send; and most requests have no body.
    if request.body().is_end_stream() || request.headers().contains_key(EXPECT) {
        return Unread(None);
    }
    let body = mem::take(request.body_mut());
    let shared = SharedBody(Arc::new(Mutex::new(body)));
    *request.body_mut() = Body::new(shared.clone());
    Unread(Some(shared))
}

impl Unread {
    /// Reads and drops what is left, within the bounds.
    pub async fn drain(self) {
        if let Some(body) = self.0.filter(|body| !body.is_end_stream()) {
            let rest = Limited::new(body, DRAIN_BYTES_MAX);
            // However it ends: it was only a courtesy.
            drop(time::timeout(DRAIN_TIMEOUT, drop_frames(rest)).await);
        }
    }
}

async fn drop_frames(mut body: Limited<SharedBody>) {
    while let Ok(Some(Ok(frame))) = time::timeout(DRAIN_PAUSE, body.frame()).await {
        drop(frame);
    }
}

#[derive(Clone)]
struct SharedBody(Arc<Mutex<Body>>);

impl SharedBody {
    fn with<T>(&self, f: impl FnOnce(&mut Body) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl HttpBody for SharedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| Pin::new(body).poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}
