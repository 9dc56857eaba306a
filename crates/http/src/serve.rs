//! Runs the API on a listener: connections, their bounds, and the clean stop.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt as _;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time;
use tracing::{debug, info, warn};

use crate::codings::is_unreadable;
use crate::error::Denial;
use crate::patience::PatientStream;
use crate::progress::Progress;
use crate::settings::ListenerSettings;
use crate::stop::Stop;

/// How long to wait when the system has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What answers the requests of a listener.
pub trait Service: Clone + Send + Sync + 'static {
    /// Bytes that the head of a request may have, and at most that many of a body are read at once;
    /// not below hyper's smallest buffer of 8 KiB. A head that is whole by the read that goes beyond
    /// is taken: up to twice as many.
    const HEAD_BYTES_MAX: usize;

    /// Counts a connection until it is dropped.
    type Connected: Send + 'static;

    /// Returns the bounds of the listener.
    fn listener(&self) -> ListenerSettings;

    /// Returns the same for one connection, so that not all requests count one holder more.
    #[must_use]
    fn apart(&self) -> Self;

    /// Begins to count a connection.
    fn connected(&self) -> Self::Connected;

    /// Answers one request that came from `peer`.
    fn answer(
        &self,
        peer: IpAddr,
        request: hyper::Request<Body>,
    ) -> impl Future<Output = Response> + Send;

    /// Refuses a request that cannot be read.
    fn refuse(&self, denial: Denial) -> Response;
}

/// Serves until `stopping` turns true, then answers what is under way and returns.
///
/// # Panics
/// Not by what a client sends: a handler that panics ends its own connection only.
pub async fn serve<S: Service>(
    listener: TcpListener,
    service: S,
    mut stopping: watch::Receiver<bool>,
) {
    let settings = service.listener();
    let mut builder = http1::Builder::new();
    // The stream sees to the time that a head may take, and to clients that leave: hyper would ask
    // for a new buffer to see it, at each request.
    builder
        .max_buf_size(S::HEAD_BYTES_MAX)
        .half_close(true)
        .header_read_timeout(None);
    let places = Arc::new(Semaphore::new(
        settings.connections_max.get().min(Semaphore::MAX_PERMITS),
    ));
    let stop = Stop::default();
    let mut connections = JoinSet::new();
    loop {
        // A place comes first: at the cap, new connections wait in the system's backlog.
        let place = Arc::clone(&places).acquire_owned();
        let accepted = async {
            let place = place.await.expect("the semaphore is never closed");
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            accepted = accepted => accepted,
            // Its task stays in memory until it is taken out: so not only when another one comes.
            Some(_) = connections.join_next() => continue,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        match accepted {
            Ok((stream, peer)) => {
                let connection = Connection {
                    stream,
                    peer,
                    place,
                };
                connections.spawn(connection.run(&builder, service.apart(), &stop));
            }
            Err(error) => {
                warn!(%error, "could not accept a connection");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    let allowed = Duration::from_millis(settings.shutdown_timeout_ms);
    stop.begin();
    let ended = async { while connections.join_next().await.is_some() {} };
    if time::timeout(allowed, ended).await.is_err() {
        info!("cutting connections that did not end in time");
    }
    connections.shutdown().await;
}

struct Connection {
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
}

impl Connection {
    fn run<S: Service>(
        self,
        builder: &http1::Builder,
        service: S,
        stop: &Stop,
    ) -> impl Future<Output = ()> + Send + use<S> {
        let Self {
            stream,
            peer,
            place,
        } = self;
        if let Err(error) = stream.set_nodelay(true) {
            debug!(%error, "could not switch Nagle's algorithm off");
        }
        let connected = service.connected();
        let progress = Progress::default();
        let stream = PatientStream::new(stream, &service.listener(), progress.clone());
        let answering = service_fn(move |request: hyper::Request<Incoming>| {
            let (request, exchange) = progress.begin(request);
            let service = service.clone();
            // Holds what answers, which the connection may not lend.
            async move {
                let response = match is_unreadable(&request) {
                    true => service.refuse(Denial::unknown_coding()),
                    false => service.answer(peer.ip(), request).await,
                };
                Ok::<_, Infallible>(exchange.answer(response))
            }
        });
        let connection = builder.serve_connection(TokioIo::new(stream), answering);
        let connection = stop.watch(connection);
        // Not awaited in a future around it, which would hold it twice: thousands wait here.
        connection.map(move |ended| {
            // Clients leave in all sorts of ways; none of them is the operator's trouble.
            if let Err(error) = ended {
                debug!(%error, "connection ended");
            }
            drop((connected, place));
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Edge;

    /// Each of thousands of connections has this for as long as it is open: one that grows is held
    /// twice.
    const CONNECTION_BYTES_MAX: usize = 1024;

    fn size_of_future<F>(_: impl FnOnce(Connection, &http1::Builder, Edge, &Stop) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_is_held_once() {
        let bytes = size_of_future(Connection::run::<Edge>);
        assert!(bytes <= CONNECTION_BYTES_MAX, "{bytes} bytes");
    }
}
