//! The stream of a connection, whose patience with the client has bounds.
//!
//! A client that does not send its request, or does not read its answer, would hold the connection
//! for ever. And one that is still sending when the connection is closed would lose the last answer
//! to the reset that follows.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep};

use crate::progress::Progress;
use crate::settings::ListenerSettings;

/// How long a client that still sends may go on after the last answer.
const LINGER_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes that are taken of it.
const LINGER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often it is looked whether a head is there, in the time that it may take.
const LOOKS: u32 = 2;
const PAUSE_MIN: Duration = Duration::from_millis(1);
/// Bytes that are read of requests whose turn has not come: who sends more is not seen to leave before
/// the answer.
const AHEAD_BYTES_MAX: usize = 8 * 1024;

pub(crate) struct PatientStream {
    stream: TcpStream,
    progress: Progress,
    write_timeout: Duration,
    head: Head,
    /// What came behind the request that is being answered.
    ahead: Vec<u8>,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// Set once the last answer is out.
    lingering: Option<Lingering>,
}

/// The wait for the head of a request.
///
/// A timer a request, as hyper has it, costs a tenth of a small request outside the system, most of
/// it for a lock that all connections share. This one runs for as long as the connection lives, and
/// looks now and then. So a head may take half as long again as is set.
struct Head {
    timer: Pin<Box<Sleep>>,
    pause: Duration,
    /// Whom the timer wakes.
    waker: Option<Waker>,
    /// How many looks in a row have found that nothing goes on.
    quiet: u32,
    /// Whether something was written since the last look.
    has_written: bool,
}

struct Lingering {
    until: Pin<Box<Sleep>>,
    bytes: usize,
}

impl PatientStream {
    /// Wraps a stream whose requests make `progress`. It ends where the client takes nothing of an
    /// answer for too long, and where it does not send the head of a request.
    pub(crate) fn new(stream: TcpStream, settings: &ListenerSettings, progress: Progress) -> Self {
        let pause = Duration::from_millis(settings.header_timeout_ms) / LOOKS;
        Self {
            stream,
            progress,
            write_timeout: Duration::from_millis(settings.write_timeout_ms),
            head: Head::new(pause.max(PAUSE_MIN)),
            ahead: Vec::new(),
            stalled: None,
            lingering: None,
        }
    }

    /// Tells whether the client left whose request is being answered: hyper, which would ask for a new
    /// buffer to see it, does not look. It flushes in each of its turns.
    ///
    /// What comes of the next request meanwhile is read, since the end stands behind it.
    fn has_left(&mut self, context: &mut Context<'_>) -> bool {
        while self.progress.is_answering()
            && !self.progress.has_unread()
            && self.ahead.len() < AHEAD_BYTES_MAX
        {
            let mut bytes = [0; 512];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.stream).poll_read(context, &mut buffer) {
                Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {
                    self.ahead.extend_from_slice(buffer.filled());
                }
                Poll::Ready(_) => return true,
                Poll::Pending => return false,
            }
        }
        false
    }

    fn poll_stalled<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.head.has_written = true;
            self.stalled = None;
            return written;
        }
        let timeout = self.write_timeout;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(sleep(timeout)));
        ready!(stalled.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl Head {
    fn new(pause: Duration) -> Self {
        Self {
            timer: Box::pin(sleep(pause)),
            pause,
            waker: None,
            quiet: 0,
            has_written: false,
        }
    }

    /// Waits until no head has come for too long, in which nothing else `goes_on`.
    fn poll_too_late(&mut self, goes_on: impl Fn() -> bool, context: &mut Context<'_>) -> Poll<()> {
        let waker = self.waker.as_ref();
        let is_set = waker.is_some_and(|waker| waker.will_wake(context.waker()));
        if is_set && !self.timer.is_elapsed() {
            return Poll::Pending;
        }
        while self.timer.as_mut().poll(context).is_ready() {
            let goes_on = mem::take(&mut self.has_written) || goes_on();
            self.quiet = if goes_on { 0 } else { self.quiet + 1 };
            if self.quiet == LOOKS {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(Instant::now() + self.pause);
        }
        // In a turn that was too long the timer did not look at the waker: tokio wakes the task anew.
        self.waker = coop::has_budget_remaining().then(|| context.waker().clone());
        Poll::Pending
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
        let Self {
            stream,
            progress,
            head,
            ahead,
            stalled,
            ..
        } = &mut *self;
        if !ahead.is_empty() {
            let bytes = ahead.len().min(buffer.remaining());
            buffer.put_slice(&ahead[..bytes]);
            ahead.drain(..bytes);
            return Poll::Ready(Ok(()));
        }
        let read = Pin::new(stream).poll_read(context, buffer);
        if read.is_ready() {
            return read;
        }
        // A stalled write has a time of its own.
        let goes_on = || progress.is_answering() || stalled.is_some();
        ready!(head.poll_too_late(goes_on, context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
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
        if self.has_left(context) {
            return Poll::Ready(Err(io::ErrorKind::ConnectionAborted.into()));
        }
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self {
            stream,
            progress,
            lingering,
            ..
        } = &mut *self;
        if lingering.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(context))?;
        }
        let lingering = lingering.get_or_insert_with(|| Lingering {
            until: Box::pin(sleep(LINGER_TIMEOUT)),
            bytes: 0,
        });
        let is_due = progress.has_unread();
        lingering.poll_drain(stream, is_due, context).map(Ok)
    }
}
