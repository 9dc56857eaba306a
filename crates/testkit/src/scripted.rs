//! A scripted HTTP server: what the gateway's tests put where the homeserver would be.
//!
//! [`Scripted`] answers with what a closure says and keeps what was asked. What it says may also be that
//! the answer is cut short ([`cut`]) or that there is none ([`reset`]). [`Scripted::raw`] hands the
//! closure the bare connection, for what no HTTP library would send.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, Incoming};
use hyper::header::AUTHORIZATION;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::{JoinHandle, JoinSet};

use crate::log;

/// A body whose pieces come as the script makes them.
pub type ScriptedBody = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// A request as the scripted server got it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// Path and query, byte for byte.
    pub target: String,
    /// The version of the protocol, such as `HTTP/1.1`.
    pub version: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// A server that does what its script says, on a free port, until it is dropped.
pub struct Scripted {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

impl Scripted {
    /// Starts a server that reads each request to its end and answers what the script says.
    pub async fn start<F, A>(script: F) -> Self
    where
        F: Fn(Asked) -> A + Send + Sync + 'static,
        A: Future<Output = Response<ScriptedBody>> + Send + 'static,
    {
        let script = Arc::new(script);
        let asked = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&asked);
        let connection = move |stream| follow(stream, Arc::clone(&script), Arc::clone(&seen));
        Self::serve(asked, connection).await
    }

    /// Starts a server whose script has each connection for itself.
    pub async fn raw<F, A>(script: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        Self::serve(Arc::default(), script).await
    }

    /// Starts what [`Scripted::start`] does on a socket of this machine, whose file it makes.
    pub async fn start_unix<F, A>(path: &Path, script: F) -> UnixScripted
    where
        F: Fn(Asked) -> A + Send + Sync + 'static,
        A: Future<Output = Response<ScriptedBody>> + Send + 'static,
    {
        let script = Arc::new(script);
        let listener = UnixListener::bind(path).unwrap();
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                connections.spawn(follow(stream, Arc::clone(&script), Arc::default()));
            }
        });
        UnixScripted(task)
    }

    async fn serve<F, A>(asked: Arc<Mutex<Vec<Asked>>>, connection: F) -> Self
    where
        F: Fn(TcpStream) -> A + Send + Sync + 'static,
        A: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            // Dropped with the task: so no connection outlives the server.
            let mut connections = JoinSet::new();
            while let Ok((stream, _peer)) = listener.accept().await {
                connections.spawn(connection(stream));
            }
        });
        Self {
            address,
            asked,
            task,
        }
    }

    /// Returns where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its base URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns what was asked so far, in the order of arrival.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        asked.clone()
    }
}

/// A scripted server on a socket of this machine, until it is dropped.
pub struct UnixScripted(JoinHandle<()>);

impl Drop for UnixScripted {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Builds an answer with a JSON body.
#[must_use]
pub fn json(status: u16, body: &serde_json::Value) -> Response<ScriptedBody> {
    let mut response = whole(status, body.to_string());
    let json = hyper::header::HeaderValue::from_static("application/json");
    let headers = response.headers_mut();
    headers.insert(hyper::header::CONTENT_TYPE, json);
    response
}

/// Builds an answer whose body is there at once.
#[must_use]
pub fn whole(status: u16, body: impl Into<Bytes>) -> Response<ScriptedBody> {
    let body = Full::new(body.into()).map_err(|never| match never {});
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

/// Builds an answer with a JSON body that comes in pieces, whose number nobody tells.
#[must_use]
pub fn chunked(status: u16, body: impl Into<Bytes>) -> Response<ScriptedBody> {
    let mut rest: Bytes = body.into();
    let half = rest.len() / 2;
    let pieces = [rest.split_to(half), rest];
    pieces_of(status, pieces, false)
}

/// Builds an answer whose connection ends behind a part of the body.
#[must_use]
pub fn cut(status: u16, part: impl Into<Bytes>) -> Response<ScriptedBody> {
    pieces_of(status, [part.into()], true)
}

/// Stands for no answer: the connection ends.
#[must_use]
pub fn reset() -> Response<ScriptedBody> {
    let mut response = whole(500, "");
    response.extensions_mut().insert(Reset);
    response
}

#[derive(Clone)]
struct Reset;

/// A body of pieces, each of which is sent by itself.
struct Pieces {
    left: VecDeque<Bytes>,
    is_cut: bool,
    has_waited: bool,
}

fn pieces_of(
    status: u16,
    pieces: impl Into<VecDeque<Bytes>>,
    is_cut: bool,
) -> Response<ScriptedBody> {
    let body = Pieces {
        left: pieces.into(),
        is_cut,
        has_waited: true,
    };
    let mut response = Response::new(body.boxed_unsync());
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        // Whoever sends it sends what is there while it waits for more.
        if !std::mem::replace(&mut self.has_waited, true) {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.has_waited = false;
        let cut = self
            .is_cut
            .then(|| Err(io::ErrorKind::ConnectionReset.into()));
        Poll::Ready(match self.left.pop_front() {
            Some(piece) => Some(Ok(Frame::data(piece))),
            None => cut,
        })
    }
}

/// Answers the requests of one connection.
async fn follow<S, F, A>(stream: S, script: Arc<F>, seen: Arc<Mutex<Vec<Asked>>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Asked) -> A + Send + Sync + 'static,
    A: Future<Output = Response<ScriptedBody>> + Send + 'static,
{
    let answer = |request: Request<Incoming>| async {
        let asked = read(request).await.map_err(io::Error::other)?;
        for token in tokens(&asked) {
            log::assert_watched(token);
        }
        keep(&seen, asked.clone());
        let response = script(asked).await;
        match response.extensions().get() {
            Some(Reset) => Err(io::Error::from(io::ErrorKind::ConnectionReset)),
            None => Ok(response),
        }
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    // Clients and scripts end connections in all sorts of ways: none is an error here.
    drop(connection.await);
}

/// Returns the token of a request, whether it is in a header or in the query.
fn tokens(asked: &Asked) -> impl Iterator<Item = &str> {
    let authorization = asked.headers.get(AUTHORIZATION);
    let authorization = authorization.and_then(|value| value.to_str().ok());
    let in_header = authorization.and_then(|value| value.strip_prefix("Bearer "));
    let (_, query) = asked.target.split_once('?').unwrap_or_default();
    let in_query = query
        .split('&')
        .filter_map(|pair| pair.strip_prefix("access_token="));
    in_header.into_iter().chain(in_query)
}

fn keep(seen: &Mutex<Vec<Asked>>, asked: Asked) {
    let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    seen.push(asked);
}

async fn read(request: Request<Incoming>) -> Result<Asked, hyper::Error> {
    let (parts, body) = request.into_parts();
    let target = parts.uri.path_and_query();
    Ok(Asked {
        method: parts.method,
        target: target.map_or_else(|| parts.uri.to_string(), ToString::to_string),
        version: format!("{:?}", parts.version),
        headers: parts.headers,
        body: body.collect().await?.to_bytes(),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Returns all that comes of an answer until the connection ends.
    async fn told(answer: fn() -> Response<ScriptedBody>) -> String {
        let scripted = Scripted::start(move |_| async move { answer() }).await;
        let mut stream = TcpStream::connect(scripted.address()).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut told = String::new();
        stream.read_to_string(&mut told).await.unwrap();
        told
    }

    #[tokio::test]
    async fn an_answer_comes_in_pieces_or_is_cut_or_does_not_come() {
        let pieces = told(|| chunked(200, "abcd")).await;
        assert!(
            pieces.ends_with("\r\n\r\n2\r\nab\r\n2\r\ncd\r\n0\r\n\r\n"),
            "{pieces}"
        );
        let cut = told(|| cut(200, "abcd")).await;
        assert!(cut.starts_with("HTTP/1.1 200 OK\r\n"), "{cut}");
        assert!(cut.ends_with("\r\n\r\n4\r\nabcd\r\n"), "{cut}");
        assert_eq!(told(reset).await, "");
    }
}
