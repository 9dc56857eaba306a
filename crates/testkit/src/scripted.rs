//! A scripted HTTP server: what the gateway's tests put where the homeserver would be.
//!
//! [`Scripted`] answers with what a closure says and keeps what was asked; [`Scripted::raw`] hands the
//! closure the bare connection, for what no HTTP library would send.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::task::{JoinHandle, JoinSet};

/// A body whose pieces come as the script makes them.
pub type ScriptedBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

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

/// Answers the requests of one connection.
async fn follow<S, F, A>(stream: S, script: Arc<F>, seen: Arc<Mutex<Vec<Asked>>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Asked) -> A + Send + Sync + 'static,
    A: Future<Output = Response<ScriptedBody>> + Send + 'static,
{
    let answer = |request: Request<Incoming>| async {
        let asked = read(request).await?;
        keep(&seen, asked.clone());
        Ok::<_, hyper::Error>(script(asked).await)
    };
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    // Clients and scripts end connections in all sorts of ways: none is an error here.
    drop(connection.await);
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
