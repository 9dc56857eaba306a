//! A handler that waits for ever: what a connection costs on which nothing happens.

use std::convert::Infallible;
use std::future::pending;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response};

pub(super) async fn answer(
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    drop(request);
    pending().await
}
