//! Opens connections to the homeserver.

use std::collections::HashMap;
use std::fmt::{self, Display, Formatter};
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::http::uri::Authority;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{self, TcpStream, UnixStream};
use tokio::time::{self, Instant};
use tokio_rustls::client::TlsStream;

use super::tls::Tls;
use super::{UpstreamAddress, UpstreamSetupError};
use crate::settings::UpstreamSettings;

const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;

/// When to try again where the queue of a unix socket is full: the system does not wait for a place,
/// as it does on TCP, but says so at once.
const QUEUE_PAUSE: Duration = Duration::from_millis(5);

/// How long an address has at least, of however many: by then most have answered [RFC 8305, 5].
const ADDRESS_TIMEOUT_MIN: Duration = Duration::from_millis(250);

/// How long an address that did not answer is tried behind the others: only then a connection waits
/// for it again.
const SILENT: Duration = Duration::from_mins(1);

/// Where connections lead, whatever a request names.
pub(super) enum Target {
    Tcp(Host),
    Tls(Host, Tls),
    Unix(PathBuf),
}

/// A host that is reached by TCP.
pub(super) struct Host {
    authority: Authority,
    usual_port: u16,
    silent: Silent,
}

/// Addresses that did not answer, and until when they are tried last.
#[derive(Default)]
struct Silent(Mutex<HashMap<SocketAddr, Instant>>);

/// A connection to the homeserver.
pub(super) enum Stream {
    Tcp(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    Unix(UnixStream),
}

/// Why there is no connection: at which step, where that did not just take too long, and what the
/// system or TLS says.
#[derive(Debug)]
pub(super) enum ConnectError {
    /// The name has no address, or nobody could be asked for it.
    Name(io::Error),
    /// No connection.
    Open(io::Error),
    /// No connection to a socket of this machine.
    Socket(io::Error),
    /// A connection, over which TLS did not come about.
    Tls(io::Error),
}

impl ConnectError {
    /// Returns the error itself.
    pub(super) fn io(&self) -> &io::Error {
        match self {
            Self::Name(error) | Self::Open(error) | Self::Socket(error) | Self::Tls(error) => error,
        }
    }
}

impl Display for ConnectError {
    fn fmt(&self, to: &mut Formatter<'_>) -> fmt::Result {
        use io::ErrorKind::{ConnectionRefused, NotFound, TimedOut};
        match (self, self.io().kind()) {
            (Self::Name(error), _) => write!(to, "its name is not found: {error}"),
            (Self::Tls(error), _) => write!(to, "TLS failed: {error}"),
            (Self::Open(_) | Self::Socket(_), TimedOut) => to.write_str("no connection in time"),
            (Self::Open(_), ConnectionRefused) => to.write_str("connection refused"),
            (Self::Socket(_), ConnectionRefused) => to.write_str("nobody listens on the socket"),
            (Self::Socket(_), NotFound) => to.write_str("no such socket"),
            (Self::Open(error) | Self::Socket(error), _) => write!(to, "no connection: {error}"),
        }
    }
}

impl Target {
    pub(super) fn new(
        address: &UpstreamAddress,
        settings: &UpstreamSettings,
    ) -> Result<Self, UpstreamSetupError> {
        Ok(match address {
            UpstreamAddress::Tcp { is_tls, authority } => match is_tls {
                true => Self::Tls(
                    Host::new(authority, HTTPS_PORT),
                    Tls::new(authority, settings)?,
                ),
                false => Self::Tcp(Host::new(authority, HTTP_PORT)),
            },
            UpstreamAddress::Unix(path) => Self::Unix(path.clone()),
        })
    }

    /// Connects. How long all of it may take is for the caller to bound; that is `allowed` here, of
    /// which each address of the homeserver has a share.
    pub(super) async fn connect(&self, allowed: Duration) -> Result<Stream, ConnectError> {
        let until = Instant::now() + allowed;
        Ok(match self {
            Self::Tcp(host) => Stream::Tcp(host.connect(until).await?),
            Self::Tls(host, tls) => {
                let stream = host.connect(until).await?;
                let greeted = tls.greet(stream).await.map_err(ConnectError::Tls)?;
                Stream::Tls(Box::new(greeted))
            }
            Self::Unix(path) => {
                let connected = connect_unix(path).await;
                Stream::Unix(connected.map_err(ConnectError::Socket)?)
            }
        })
    }
}

/// Returns the host of an authority without the brackets of an IPv6 address.
pub(super) fn host(authority: &Authority) -> &str {
    authority.host().trim_matches(['[', ']'])
}

impl Host {
    fn new(authority: &Authority, usual_port: u16) -> Self {
        Self {
            authority: authority.clone(),
            usual_port,
            silent: Silent::default(),
        }
    }

    async fn connect(&self, until: Instant) -> Result<TcpStream, ConnectError> {
        let port = self.authority.port_u16().unwrap_or(self.usual_port);
        let addresses = net::lookup_host((host(&self.authority), port)).await;
        let addresses = addresses.map_err(ConnectError::Name)?.collect();
        let connected = connect_to_one(addresses, &self.silent, until).await;
        connected.map_err(ConnectError::Open)
    }
}

/// Tries addresses in turn: one that loses packets leaves time for the next.
async fn connect_to_one(
    addresses: Vec<SocketAddr>,
    silent: &Silent,
    until: Instant,
) -> io::Result<TcpStream> {
    let Order { addresses, first } = silent.order(addresses);
    let mut failed = None;
    for (tried, address) in addresses.iter().enumerate() {
        let start = Instant::now();
        // Behind the others one is only looked at: it says less of the homeserver than they did.
        let is_last_resort = tried >= first;
        let allowed = match is_last_resort {
            true => ADDRESS_TIMEOUT_MIN,
            false => share(until.saturating_duration_since(start), first - tried),
        };
        let error = match time::timeout(allowed, open(*address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => error,
            Err(elapsed) => elapsed.into(),
        };
        // One that refuses at once costs no time.
        if start.elapsed() >= ADDRESS_TIMEOUT_MIN {
            silent.add(*address);
        }
        failed = match failed {
            Some(before) if is_last_resort => Some(before),
            before => Some(failure(before, error)),
        };
    }
    Err(failed.unwrap_or_else(|| io::ErrorKind::NotFound.into()))
}

/// In which order addresses are tried.
struct Order {
    addresses: Vec<SocketAddr>,
    /// How many of them have their share of the time; all where none answers.
    first: usize,
}

impl Silent {
    fn add(&self, address: SocketAddr) {
        self.lock().insert(address, Instant::now() + SILENT);
    }

    /// Returns addresses as they are told, but those that did not answer behind the others.
    fn order(&self, mut addresses: Vec<SocketAddr>) -> Order {
        let mut silent = self.lock();
        let now = Instant::now();
        silent.retain(|_, until| *until > now);
        let is_silent = |address: &SocketAddr| silent.contains_key(address);
        addresses.sort_by_key(is_silent);
        let first = match addresses.partition_point(|address| !is_silent(address)) {
            0 => addresses.len(),
            first => first,
        };
        Order { addresses, first }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn open(address: SocketAddr) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Returns how much of the time that is left the first of so many addresses has.
fn share(left: Duration, addresses: usize) -> Duration {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    (left / addresses).max(ADDRESS_TIMEOUT_MIN)
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

    use tokio::net::{TcpListener, TcpSocket};

    use super::*;

    #[test]
    fn each_address_has_a_share_of_the_time_and_no_less_than_most_need() {
        let share_ms = |left_ms, addresses| share(Duration::from_millis(left_ms), addresses);
        for (left_ms, addresses, expected) in [
            (5_000, 1, 5_000),
            (5_000, 2, 2_500),
            (2_500, 1, 2_500),
            (1_000, 3, 333),
            (1_000, 8, 250),
            (0, 2, 250),
        ] {
            let expected = Duration::from_millis(expected);
            let share = share_ms(left_ms, addresses);
            assert_eq!(
                share.as_millis(),
                expected.as_millis(),
                "{left_ms} of {addresses}"
            );
        }
    }

    /// As where a firewall drops what goes to the IPv6 address.
    #[tokio::test]
    async fn an_address_that_does_not_answer_leaves_time_for_the_next() {
        let silent = TcpSocket::new_v4().unwrap();
        silent.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let silent = silent.listen(1).unwrap();
        let address = silent.local_addr().unwrap();
        let mut queued = Vec::new();
        // The system answers nobody any more once the queue of those who are not accepted is full.
        while let Ok(stream) = time::timeout(Duration::from_millis(100), open(address)).await {
            queued.push(stream.unwrap());
        }
        let well = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let well = well.local_addr().unwrap();
        let known = Silent::default();
        let (both, allowed) = (vec![address, well], Duration::from_secs(2));
        let connected = connect_to_one(both.clone(), &known, Instant::now() + allowed);
        let connected = time::timeout(allowed, connected).await.unwrap().unwrap();
        assert_eq!(connected.peer_addr().unwrap(), well);
        assert!(connected.nodelay().unwrap());
        assert_eq!(known.order(both).addresses, [well, address], "next time");
        let until = Instant::now() + Duration::from_millis(1);
        let failed = connect_to_one(vec![address], &known, until).await;
        assert_eq!(failed.unwrap_err().kind(), TimedOut);
        // The other one tells what is wrong, and this one does not take the time that is left.
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let both = vec![address, refusing.local_addr().unwrap()];
        drop(refusing);
        let (start, allowed) = (Instant::now(), Duration::from_mins(1));
        let failed = connect_to_one(both, &known, start + allowed).await;
        assert_eq!(failed.unwrap_err().kind(), ConnectionRefused);
        assert!(start.elapsed() < allowed / 4, "its share was a half");
    }

    #[tokio::test(start_paused = true)]
    async fn who_did_not_answer_is_tried_last_for_a_minute() {
        let addresses = [1, 2, 3].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let [first, second, third] = addresses;
        let silent = Silent::default();
        let behind = || silent.order(addresses.into()).addresses;
        let shares = || silent.order(addresses.into()).first;
        assert_eq!(behind(), addresses);
        silent.add(first);
        assert_eq!(behind(), [second, third, first]);
        silent.add(third);
        assert_eq!(behind(), [second, first, third], "in their order");
        assert_eq!(shares(), 1);
        time::advance(SILENT - Duration::from_millis(1)).await;
        assert_eq!(behind(), [second, first, third]);
        time::advance(Duration::from_millis(1)).await;
        assert_eq!(behind(), addresses);
        assert!(silent.lock().is_empty(), "nothing is kept");
        for address in addresses {
            silent.add(address);
        }
        assert_eq!(shares(), 3, "none is better than the others");
    }

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
