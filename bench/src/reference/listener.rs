//! The listener of the references: the settings, bounds and bookkeeping of Kitbag's own (`serve` in
//! `kitbag-http`), which the walls keep out of reach here. `cargo xtask tidy` compares the settings.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

const HEAD_BYTES_MAX: usize = 8 * 1024;
const HEADER_TIMEOUT_MS: u64 = 60_000;
const CONNECTIONS_MAX: usize = 16_384;

/// Serves until the listener fails.
pub(super) async fn serve<S>(listener: TcpListener, service: S)
where
    S: Service<Request<Incoming>, Response = Response<Full<Bytes>>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
{
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .max_buf_size(HEAD_BYTES_MAX)
        .header_read_timeout(Duration::from_millis(HEADER_TIMEOUT_MS));
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let shutdown = GracefulShutdown::new();
    let mut connections = JoinSet::new();
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((stream, _)) = listener.accept().await else {
            break;
        };
        while connections.try_join_next().is_some() {}
        // A connection that cannot be set up fails by itself soon enough.
        stream.set_nodelay(true).ok();
        let connection = builder.serve_connection(TokioIo::new(stream), service.clone());
        let connection = shutdown.watch(connection);
        connections.spawn(async move {
            // Clients leave when they have measured.
            connection.await.ok();
            drop(place);
        });
    }
}
