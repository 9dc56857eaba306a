//! One connection to the homeserver, and the exchange of one request for one answer on it.
//!
//! No task of its own runs a connection: whoever waits for the answer does, in the task of the
//! client's connection. So an exchange needs no switch between tasks, and a client that leaves takes
//! its exchange along.

use std::future::poll_fn;
use std::io;
use std::mem;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, Response};
use bytes::Bytes;
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, Connection, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::coop;
use tokio::time::{Instant, Sleep, sleep};

use super::target::Stream;
use crate::upload::Upload;

/// Bytes that the head of an answer may have, and at most that many of a body are read at once.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// After what time without a request a homeserver may end a connection: those that do, do so after
/// seconds. What is sent within it need not be kept to be sent again, which costs 0.5 µs.
const STALE_AFTER: Duration = Duration::from_millis(200);

/// An open connection.
pub(super) struct Link {
    sender: SendRequest<Body>,
    /// `None` once it ended.
    connection: Option<Connection<TokioIo<Stream>, Body>>,
    /// Runs from the last piece that came. Kept from request to request, since a timer that is only
    /// moved later is cheap, and one that is made and dropped is not.
    patience: Pin<Box<Sleep>>,
    timeout: Duration,
    /// Since when nobody needs it.
    pub(super) idle_since: Instant,
}

/// Why there is no answer.
pub(super) enum ExchangeError {
    /// The connection had ended: nothing of the request was sent.
    Unsent(Box<Request<Body>>),
    /// The connection ended.
    Ended(hyper::Error),
    /// What came is no answer.
    Broken(hyper::Error),
    /// Nothing came for too long.
    Timeout,
}

impl Link {
    /// Makes a connection of a stream. For longer than `timeout` it waits for nothing.
    pub(super) async fn new(stream: Stream, timeout: Duration) -> hyper::Result<Box<Self>> {
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake(TokioIo::new(stream))
            .await?;
        Ok(Box::new(Self {
            sender,
            connection: Some(connection),
            patience: Box::pin(sleep(timeout)),
            timeout,
            idle_since: Instant::now(),
        }))
    }

    /// Looks whether it can take a request, as far as can be seen from here.
    pub(super) fn is_ready(&mut self) -> bool {
        // Nobody waits: this sees what has happened, and forgets the task that was here before.
        self.poll_connection(&mut Context::from_waker(Waker::noop()));
        self.was_ready()
    }

    /// Tells whether it could take a request when it was last looked at.
    fn was_ready(&self) -> bool {
        self.connection.is_some() && self.sender.is_ready()
    }

    /// Tells whether nobody used it for so long that the homeserver may have ended it just now.
    pub(super) fn may_be_stale(&self, now: Instant) -> bool {
        now.duration_since(self.idle_since) >= STALE_AFTER
    }

    /// Sends a request `now` and waits for the head of the answer, for longer where an `upload` goes
    /// on.
    pub(super) async fn exchange(
        &mut self,
        request: Request<Body>,
        upload: Option<&Upload>,
        now: Instant,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let mut seen = 0;
        let mut has_begun = false;
        let mut answering = pin!(self.sender.try_send_request(request));
        self.patience.as_mut().reset(now + self.timeout);
        poll_fn(|context| {
            // At first nothing is sent, so no answer can be there, and while a body goes up the next
            // piece of it is what this is woken for.
            let is_sending = !mem::replace(&mut has_begun, true)
                || upload.is_some_and(|upload| !upload.is_whole());
            for mut turn in turns(context).into_iter().skip(usize::from(is_sending)) {
                self.poll_connection(&mut turn);
                let mut quiet = woken_by_connection(context);
                if let Poll::Ready(answer) = answering.as_mut().poll(&mut quiet) {
                    return Poll::Ready(answer.map_err(|mut error| match error.take_message() {
                        Some(request) => ExchangeError::Unsent(Box::new(request)),
                        None => ExchangeError::of(error.into_error()),
                    }));
                }
            }
            ready!(self.patience.as_mut().poll(context));
            let pieces = upload.map_or(0, Upload::pieces);
            if pieces == seen {
                return Poll::Ready(Err(ExchangeError::Timeout));
            }
            // A long body is on its way.
            seen = pieces;
            self.wait_anew();
            context.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    fn poll_connection(&mut self, context: &mut Context<'_>) {
        let Some(connection) = &mut self.connection else {
            return;
        };
        // How it ended is told to whoever waits for an answer or a body of it.
        if Pin::new(connection).poll(context).is_ready() {
            self.connection = None;
        }
    }

    fn wait_anew(&mut self) {
        let until = Instant::now() + self.timeout;
        self.patience.as_mut().reset(until);
    }
}

/// Returns in what contexts to poll a connection: for what is there already, and then, where nothing
/// is, to be woken.
///
/// hyper wakes whoever polled a connection once more when a piece is taken out of it. That is this
/// task itself, which would run anew for nothing, and which tokio would have another thread look for.
/// The task's own waker must come last: hyper keeps the one of the last poll, as each future does.
fn turns<'a>(context: &Context<'a>) -> [Context<'a>; 2] {
    [Waker::noop(), context.waker()].map(Context::from_waker)
}

/// Returns in what context to ask for what comes out of a connection that this task polls itself: it
/// is there now, or in a later turn of the connection, and nobody else has to wake the task for it.
/// tokio's own reason to wait, that the turn was long, has.
fn woken_by_connection<'a>(context: &Context<'a>) -> Context<'a> {
    match coop::has_budget_remaining() {
        true => Context::from_waker(Waker::noop()),
        false => Context::from_waker(context.waker()),
    }
}

impl ExchangeError {
    fn of(error: hyper::Error) -> Self {
        let is_of_stream =
            std::error::Error::source(&error).is_some_and(<dyn std::error::Error>::is::<io::Error>);
        match is_of_stream || error.is_incomplete_message() || error.is_closed() {
            true => Self::Ended(error),
            false => Self::Broken(error),
        }
    }
}

/// What becomes of a connection whose answer was read to its end.
pub(super) trait Keep: Send + Unpin + 'static {
    fn keep(&self, link: Box<Link>);
}

/// The body of an answer, which runs the connection that it comes on.
pub(super) struct Received<K: Keep> {
    incoming: Incoming,
    /// `None` once the end was seen.
    link: Option<Box<Link>>,
    keeper: K,
    /// Whether the body was waited for.
    has_waited: bool,
    /// What is told next.
    failure: Option<axum::Error>,
}

impl<K: Keep> Received<K> {
    pub(super) fn new(incoming: Incoming, link: Box<Link>, keeper: K) -> Self {
        let mut received = Self {
            incoming,
            link: Some(link),
            keeper,
            has_waited: false,
            failure: None,
        };
        received.give_back_at_end();
        received
    }

    fn poll_incoming(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut quiet = woken_by_connection(context);
        match ready!(Pin::new(&mut self.incoming).poll_frame(&mut quiet)) {
            Some(Ok(frame)) => {
                self.give_back_at_end();
                if let Some(link) = &mut self.link {
                    link.wait_anew();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => self.fail(axum::Error::new(error), context),
            None => {
                self.give_back();
                Poll::Ready(None)
            }
        }
    }

    fn give_back_at_end(&mut self) {
        if self.incoming.is_end_stream() {
            self.give_back();
        }
    }

    /// Keeps the connection, unless it still sends or ended.
    fn give_back(&mut self) {
        if let Some(mut link) = self.link.take()
            && (link.was_ready() || link.is_ready())
        {
            self.keeper.keep(link);
        }
    }

    /// Ends the client's connection in the midst of the body, so that it is not taken for whole;
    /// not before what came is sent: a connection that ends without a byte looks as if nothing had
    /// been done, and some clients would ask again.
    fn fail(
        &mut self,
        error: axum::Error,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.link = None;
        self.failure = Some(error);
        context.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<K: Keep> HttpBody for Received<K> {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(failure) = self.failure.take() {
            return Poll::Ready(Some(Err(failure)));
        }
        if let Poll::Ready(frame) = self.poll_incoming(context) {
            return Poll::Ready(frame);
        }
        for mut turn in turns(context) {
            let Some(link) = &mut self.link else {
                return Poll::Pending;
            };
            link.poll_connection(&mut turn);
            if let Poll::Ready(frame) = self.poll_incoming(context) {
                return Poll::Ready(frame);
            }
        }
        let is_first = !mem::replace(&mut self.has_waited, true);
        let Some(link) = &mut self.link else {
            return Poll::Pending;
        };
        if is_first {
            // Until now the time ran that the head had.
            link.wait_anew();
        }
        ready!(link.patience.as_mut().poll(context));
        let elapsed = io::Error::from(io::ErrorKind::TimedOut);
        self.fail(axum::Error::new(elapsed), context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use http_body_util::BodyExt as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::UnixStream;
    use tokio::time::timeout;

    use super::*;

    /// Far less than a connection is waited for: that would wake too.
    const SOON: Duration = Duration::from_secs(5);

    /// Counts how often it was woken.
    #[derive(Default)]
    struct Alarm(AtomicUsize);

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Drops connections.
    struct Nowhere;

    impl Keep for Nowhere {
        fn keep(&self, _link: Box<Link>) {}
    }

    #[tokio::test]
    async fn who_takes_a_piece_of_an_answer_is_not_woken_by_that() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let mut link = Link::new(Stream::Unix(near), Duration::from_secs(60))
            .await
            .unwrap();
        let alarm = Arc::<Alarm>::default();
        let waker = Waker::from(Arc::clone(&alarm));
        let mut context = Context::from_waker(&waker);
        let count = || alarm.0.swap(0, Ordering::SeqCst);
        let woken = async || {
            while count() == 0 {
                tokio::task::yield_now().await;
            }
        };

        let request = Request::new(Body::empty());
        let mut exchange = Box::pin(link.exchange(request, None, Instant::now()));
        assert!(exchange.as_mut().poll(&mut context).is_pending());
        far.read_u8().await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n";
        far.write_all(head).await.unwrap();
        far.write_all(b"one").await.unwrap();
        timeout(SOON, woken()).await.unwrap();
        let Poll::Ready(Ok(answer)) = exchange.as_mut().poll(&mut context) else {
            panic!("the answer is not there");
        };
        drop(exchange);
        let mut body = Received::new(answer.into_body(), link, Nowhere);
        for (piece, next) in [("one", &b"two"[..]), ("two", b"six"), ("six", b"")] {
            let frame = pin!(body.frame()).poll(&mut context);
            let Poll::Ready(Some(Ok(frame))) = frame else {
                panic!("{piece} is not there: {frame:?}");
            };
            assert_eq!(frame.into_data().unwrap(), piece);
            assert_eq!(count(), 0, "{piece}");
            if next.is_empty() {
                break;
            }
            assert!(pin!(body.frame()).poll(&mut context).is_pending());
            assert_eq!(count(), 0, "behind {piece}");
            far.write_all(next).await.unwrap();
            timeout(SOON, woken()).await.unwrap();
        }
        assert!(body.is_end_stream());
    }

    /// A body of which nothing comes, and how often it was asked for.
    struct Silent(Arc<AtomicUsize>);

    impl HttpBody for Silent {
        type Data = Bytes;
        type Error = axum::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            _context: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn while_a_body_goes_up_the_connection_is_polled_once_a_turn() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut link = Link::new(Stream::Unix(near), SOON).await.unwrap();
        let asked = Arc::<AtomicUsize>::default();
        let request = Request::post("/").body(Body::new(Silent(Arc::clone(&asked))));
        let (request, upload) = Upload::watch(request.unwrap(), SOON);
        let mut exchange = Box::pin(link.exchange(request, upload.as_ref(), Instant::now()));
        let mut context = Context::from_waker(Waker::noop());
        let mut turn = || {
            assert!(exchange.as_mut().poll(&mut context).is_pending());
            asked.swap(0, Ordering::SeqCst)
        };
        let first = turn();
        assert!(first > 0);
        assert!(turn() <= first, "asked for more often than when it began");
    }
}
