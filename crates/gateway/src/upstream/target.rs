//! Opens connections to the homeserver.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{self, TcpStream, UnixStream};
use tokio::time;
use tokio_rustls::client::TlsStream;

use super::tls::Tls;
use super::{UpstreamAddress, UpstreamSetupError};
use crate::settings::UpstreamSettings;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// When to try again where the queue of a unix socket is full: the system does not wait for a place,
/// as it does on TCP, but says so at once.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// Where connections lead, whatever a request names.
pub(super) enum Target {
    Tcp(Authority),
    Tls(Authority, Tls),
    Unix(PathBuf),
}

/// A connection to the homeserver.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

impl Target {
    pub(super) fn new(
        address: &UpstreamAddress,
        settings: &UpstreamSettings,
    ) -> Result<Self, UpstreamSetupError> {
        Ok(match address {
            UpstreamAddress::Tcp { is_tls, authority } => match is_tls {
                true => Self::Tls(authority.clone(), Tls::new(authority, settings)?),
                false => Self::Tcp(authority.clone()),
            },
            UpstreamAddress::Unix(path) => Self::Unix(path.clone()),
        })
    }

    /// Connects; how long that may take is for the caller to bound.
    pub(super) async fn connect(&self) -> io::Result<Stream> {
        Ok(match self {
            Self::Tcp(authority) => Stream::Tcp(connect(authority, HTTP_PORT).await?),
            Self::Tls(authority, tls) => {
                let stream = connect(authority, HTTPS_PORT).await?;
                Stream::Tls(Box::new(tls.greet(stream).await?))
            }
            Self::Unix(path) => Stream::Unix(connect_unix(path).await?),
        })
    }
}

/// Returns the host of an authority without the brackets of an IPv6 address.
pub(super) fn host(authority: &Authority) -> &str {
    authority.host().trim_matches(['[', ']'])
}

async fn connect(authority: &Authority, usual_port: u16) -> io::Result<TcpStream> {
    let port = authority.port_u16().unwrap_or(usual_port);
    let mut failed = None;
    for address in net::lookup_host((host(authority), port)).await? {
        match TcpStream::connect(address).await {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => failed = Some(failure(failed, error)),
        }
    }
    Err(failed.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// Returns which failure tells of the homeserver, of that so far and that of a further address. An
/// address can be unavailable for having no protocol here, as `::1` where IPv6 is off, and then says
/// nothing.
fn failure(before: Option<io::Error>, error: io::Error) -> io::Error {
    match before {
        Some(before) if error.kind() == io::ErrorKind::AddrNotAvailable => before,
        _ => error,
    }
}

async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                time::sleep(QUEUE_PAUSE).await;
            }
            connected => return connected,
        }
    }
}

/// Hands a poll on to whichever stream it is.
macro_rules! of_stream {
    ($stream:expr, $poll:ident $(, $argument:expr)*) => {
        match &mut *$stream {
            Stream::Tcp(stream) => Pin::new(stream).$poll($($argument),*),
            Stream::Tls(stream) => Pin::new(stream).$poll($($argument),*),
            Stream::Unix(stream) => Pin::new(stream).$poll($($argument),*),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        of_stream!(self, poll_read, context, buffer)
    }
}

impl AsyncWrite for Stream {
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
            Self::Tls(stream) => stream.is_write_vectored(),
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

#[cfg(test)]
mod tests {
    use io::ErrorKind::{AddrNotAvailable, ConnectionRefused, TimedOut};

    use super::*;

    #[test]
    fn an_address_that_is_none_here_does_not_hide_why_the_others_failed() {
        let rows: [(&[io::ErrorKind], io::ErrorKind); 5] = [
            (&[ConnectionRefused, AddrNotAvailable], ConnectionRefused),
            (&[AddrNotAvailable, ConnectionRefused], ConnectionRefused),
            (&[AddrNotAvailable], AddrNotAvailable),
            (&[AddrNotAvailable, AddrNotAvailable], AddrNotAvailable),
            (&[ConnectionRefused, TimedOut], TimedOut),
        ];
        for (kinds, expected) in rows {
            let mut failed = None;
            for kind in kinds {
                failed = Some(failure(failed, io::Error::from(*kind)));
            }
            assert_eq!(failed.unwrap().kind(), expected, "{kinds:?}");
        }
    }
}
