//! The stream of a connection, whose patience with the client has bounds.
//!
//! A client that does not read its answer would hold the connection for ever, since nothing else
//! ends a write. And one that is still sending when the connection is closed would lose the last
//! answer to the reset that follows.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use crate::linger::Sending;

/// How long a client that still sends may go on after the last answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are taken of it.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(crate) struct PatientStream {
    stream: TcpStream,
    write_timeout: Duration,
    sending: Sending,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once the last answer is out.
    lingering: Option<Lingering>,
}

struct Lingering {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl PatientStream {
    /// Wraps a stream that ends where the client takes nothing of an answer for `write_timeout`.
    ///
    /// Where the last answer was given in the midst of a request, the client may be `sending` even
    /// though nothing has come just now.
    pub(crate) fn new(stream: TcpStream, write_timeout: Duration, sending: Sending) -> Self {
        Self {
            stream,
            write_timeout,
            sending,
            stalled: None,
            lingering: None,
        }
    }

    fn poll_stalled<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Lingering {
    /// Takes what comes. Who is not sending now is waited for only where something `is_due`.
    fn poll_drain(
        &mut self,
        stream: &mut TcpStream,
        is_due: bool,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        let mut bytes = [0; 4096];
        while self.bytes < LINGER_BYTES_MAX {
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.bytes += buffer.filled().len();
                }
                Poll::Pending if is_due || self.bytes > 0 => {
                    return self.until.as_mut().poll(context);
                }
                Poll::Ready(_) | Poll::Pending => return Poll::Ready(()),
            }
        }
        Poll::Ready(())
    }
}

impl AsyncRead for PatientStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for PatientStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.poll_stalled(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.poll_stalled(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            stream,
            lingering,
            sending,
            ..
        } = &mut *self;
        if lingering.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        let lingering = lingering.get_or_insert_with(|| Lingering {
            until: Box::pin(sleep(LINGER_TIMEOUT)),
            bytes: 0,
        });
        lingering
            .poll_drain(stream, sending.is_open(), context)
            .map(Ok)
    }
}
