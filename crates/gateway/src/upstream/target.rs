//! Opens connections to the homeserver.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::Uri;
use axum::http::uri::Authority;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use tokio::time;
use tower_service::Service;

use super::{UpstreamAddress, UpstreamSetupError};

const HTTP_PORT: u16 = 80;

/// Where connections lead, whatever a request names.
#[derive(Clone)]
pub(super) struct Connector {
    target: Arc<Target>,
    timeout: Duration,
}

enum Target {
    Tcp(Authority),
    Unix(PathBuf),
}

/// A connection to the homeserver.
pub(super) enum Stream {
    Tcp(TokioIo<TcpStream>),
    Unix(TokioIo<UnixStream>),
}

impl Connector {
    pub(super) fn new(
        address: &UpstreamAddress,
        timeout: Duration,
    ) -> Result<Self, UpstreamSetupError> {
        let target = match address {
            UpstreamAddress::Tcp { is_tls: true, .. } => {
                let missing = "https upstreams are not there yet".to_owned();
                return Err(UpstreamSetupError::Certificates(missing));
            }
            UpstreamAddress::Tcp { authority, .. } => Target::Tcp(authority.clone()),
            UpstreamAddress::Unix(path) => Target::Unix(path.clone()),
        };
        Ok(Self {
            target: Arc::new(target),
            timeout,
        })
    }
}

impl Target {
    async fn connect(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(authority) => {
                let port = authority.port_u16().unwrap_or(HTTP_PORT);
                let host = authority.host().trim_matches(['[', ']']);
                let stream = TcpStream::connect((host, port)).await?;
                stream.set_nodelay(true)?;
                Ok(Stream::Tcp(TokioIo::new(stream)))
            }
            Self::Unix(path) => {
                let stream = UnixStream::connect(path).await?;
                Ok(Stream::Unix(TokioIo::new(stream)))
            }
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _uri: Uri) -> Self::Future {
        let Self { target, timeout } = self.clone();
        Box::pin(async move { time::timeout(timeout, target.connect()).await? })
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

/// Hands a poll on to whichever stream it is.
macro_rules! of_stream {
    ($stream:expr, $poll:ident $(, $argument:expr)*) => {
        match &mut *$stream {
            Stream::Tcp(stream) => Pin::new(stream).$poll($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$poll($($argument),*),
        }
    };
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        of_stream!(self, poll_read, context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        of_stream!(self, poll_write, context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_stream!(self, poll_flush, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        of_stream!(self, poll_shutdown, context)
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.is_write_vectored(),
            Self::Unix(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        of_stream!(self, poll_write_vectored, context, slices)
    }
}
