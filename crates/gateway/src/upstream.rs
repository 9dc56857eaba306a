//! The homeserver behind the gateway: its address, the connections, what goes wrong.

mod address;
mod breaker;
mod link;
mod pool;
mod strange;
mod target;
mod tls;

use std::io;
use std::ops::Deref;
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::header::{
    CONTENT_LENGTH, EXPECT, HOST, HeaderName, HeaderValue, TRANSFER_ENCODING,
};
use axum::http::uri::PathAndQuery;
use axum::http::{Method, Request, StatusCode, Uri, Version, response};
use axum::response::Response;
use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt as _, Collected, LengthLimitError, Limited};
use kitbag_http::shared::{GatewayError, has_unknown_coding};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use thiserror::Error as ThisError;
use tokio::time::{self, Instant};
use tracing::{debug, info, warn};

pub use self::address::{UpstreamAddress, UpstreamAddressError};
use self::breaker::{Breaker, Failed};
use self::link::{ExchangeError, Keep, Link, Received};
use self::pool::Pool;
use self::strange::Strange;
use self::target::{ConnectError, Target};
use crate::answer::Failure;
use crate::aside::aside;
use crate::headers;
use crate::metrics::{Asked, GatewayMetrics};
use crate::settings::UpstreamSettings;
use crate::upload::Upload;

/// What a client is told to wait where the homeserver cannot be reached.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(2);

/// How often it is tried whether the homeserver is back.
const PROBE_PAUSE: Duration = Duration::from_millis(200);

/// How long such a try may take at first: packets that are lost must not delay the next one for long.
/// After one that took longer the next has twice the time, up to that of every connect.
const PROBE_TIMEOUT_MIN: Duration = Duration::from_secs(1);

/// Why the way to the homeserver could not be made ready.
#[derive(Debug, ThisError)]
pub enum UpstreamSetupError {
    /// Certificates could not be read.
    #[error("{0}")]
    Certificates(String),
    /// No address is set.
    #[error("`upstream.url` is missing: where is the homeserver?")]
    NoAddress,
}

/// The way to the homeserver, by the count of holders of one connection of a client.
#[derive(Clone)]
pub(crate) struct Upstream(Arc<Holder>);

struct Holder {
    shared: Arc<Shared>,
}

impl Deref for Holder {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

struct Shared {
    target: Target,
    /// What stands in `Host` where a request has none.
    host: HeaderValue,
    pool: Pool,
    breaker: Breaker,
    strange: Strange,
    settings: UpstreamSettings,
    metrics: Arc<GatewayMetrics>,
}

impl Upstream {
    pub(crate) fn new(
        settings: UpstreamSettings,
        metrics: Arc<GatewayMetrics>,
    ) -> Result<Self, UpstreamSetupError> {
        let address = settings.url.as_ref().ok_or(UpstreamSetupError::NoAddress)?;
        let host = HeaderValue::from_str(address.authority().as_str());
        let idle_timeout = Duration::from_millis(settings.idle_timeout_ms);
        let shared = Arc::new(Shared {
            target: Target::new(address, &settings)?,
            host: host.expect("an authority is visible ASCII"),
            pool: Pool::new(settings.idle_connections_max, idle_timeout),
            breaker: Breaker::default(),
            strange: Strange::default(),
            settings,
            metrics,
        });
        Ok(Self(Arc::new(Holder { shared })))
    }

    /// Returns the same for another connection of a client.
    pub(crate) fn apart(&self) -> Self {
        let shared = Arc::clone(&self.0.shared);
        Self(Arc::new(Holder { shared }))
    }

    /// Tells whether the homeserver is not asked for now, since it cannot be reached.
    pub(crate) fn is_down(&self) -> bool {
        self.0.breaker.is_open()
    }

    /// Sends a request and returns the answer as it comes: its head is there, its body not yet.
    ///
    /// The target goes byte for byte; hop-by-hop headers are for the caller to have taken off.
    /// An `upload` tells of a body that comes from a client.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
        upload: Option<&Upload>,
    ) -> Result<Response, GatewayError> {
        self.make_ready(&mut request);
        while let Some(mut link) = self.0.pool.take() {
            let now = Instant::now();
            let may_be_stale = link.may_be_stale(now);
            let again = may_be_stale.then(|| repeatable(&request)).flatten();
            match link.exchange(request, upload, now).await {
                Ok(response) => return self.receive(response, link),
                Err(ExchangeError::Unsent(unsent)) => request = *unsent,
                Err(ExchangeError::Ended(error)) => {
                    // The homeserver ends idle connections, and may have done so just now.
                    let Some(again) = again else {
                        return Err(failure(ExchangeError::Ended(error)));
                    };
                    request = again;
                    break;
                }
                Err(error) => return Err(failure(error)),
            }
        }
        // Seldom, and larger than all else here: each request would have room for it.
        let mut link = Box::pin(self.connect()).await?;
        match link.exchange(request, upload, Instant::now()).await {
            Ok(response) => self.receive(response, link),
            Err(error) => Err(failure(error)),
        }
    }

    /// Asks something of the gateway's own, and reads the whole answer, which may have `bytes_max`.
    pub(crate) async fn ask(
        &self,
        request: Request<Body>,
        bytes_max: usize,
    ) -> Result<Told, GatewayError> {
        let asked = request.uri().path_and_query().cloned();
        let read = async {
            let (parts, body) = self.send(request, None).await?.into_parts();
            match Limited::new(body, bytes_max).collect().await {
                Ok(body) => Ok(Told {
                    upstream: self.clone(),
                    asked,
                    parts,
                    body: joined(body),
                }),
                Err(error) if error.is::<LengthLimitError>() => Err(GatewayError::UpstreamTooLarge),
                Err(_) => Err(GatewayError::UpstreamBroken),
            }
        };
        let Shared {
            settings, metrics, ..
        } = &**self.0;
        let allowed = Duration::from_millis(settings.ask_timeout_ms);
        let read = time::timeout(allowed, read);
        let read = metrics.upstream(Asked::ByGateway, read).await;
        read.unwrap_or(Err(GatewayError::UpstreamTimeout))
    }

    /// Gives a request the form that goes to the homeserver itself.
    fn make_ready(&self, request: &mut Request<Body>) {
        *request.version_mut() = Version::HTTP_11;
        if let Some(authority) = request.uri().authority() {
            // What a request to a proxy names counts, whatever its `Host` says [RFC 9112, 3.2.2].
            let host = HeaderValue::from_str(authority.as_str());
            let target = request.uri().path_and_query().cloned();
            let target = target.unwrap_or_else(|| PathAndQuery::from_static("/"));
            *request.uri_mut() = Uri::from(target);
            let host = host.expect("an authority is visible ASCII");
            request.headers_mut().insert(HOST, host);
        }
        let has_unknown_length =
            !request.body().is_end_stream() && request.body().size_hint().exact().is_none();
        let headers = request.headers_mut();
        if !headers.contains_key(HOST) {
            headers.insert(HOST, self.0.host.clone());
        }
        // It was answered where the body is read.
        headers.remove(EXPECT);
        if has_unknown_length {
            // Else hyper takes it that a GET has no body.
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }

    async fn connect(&self) -> Result<Box<Link>, GatewayError> {
        let down = |cause| GatewayError::UpstreamDown {
            retry_after: RETRY_AFTER,
            cause,
        };
        if self.0.breaker.is_open() {
            return Err(down(None));
        }
        let allowed = Duration::from_millis(self.0.settings.connect_timeout_ms);
        match self.0.connect(allowed).await {
            Ok(link) => {
                self.0.reached();
                Ok(link)
            }
            Err(error) => {
                debug!(%error, "could not connect to the homeserver");
                match self.0.breaker.failed(error.io(), Instant::now()) {
                    Failed::Opened => {
                        self.0.metrics.breaker_opened();
                        warn!(%error, "the homeserver cannot be reached");
                        tokio::spawn(probe(Arc::downgrade(&self.0.shared)));
                    }
                    Failed::InWant => warn!(%error, "no more connections to the homeserver"),
                    Failed::Again => {}
                }
                Err(down(Some(error.to_string().into())))
            }
        }
    }

    fn receive(
        &self,
        response: Response<hyper::body::Incoming>,
        link: Box<Link>,
    ) -> Result<Response, GatewayError> {
        self.0.breaker.answered();
        let (mut parts, incoming) = response.into_parts();
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            debug!("the homeserver switched to another protocol, which nobody asked for");
            return Err(GatewayError::UpstreamBroken);
        }
        if parts.headers.contains_key(TRANSFER_ENCODING) {
            if has_unknown_coding(&parts.headers) {
                debug!("the homeserver put another coding below the pieces of its answer");
                return Err(GatewayError::UpstreamBroken);
            }
            // Of both, that one counts [RFC 9112, 6.3], and it is said anew.
            parts.headers.remove(CONTENT_LENGTH);
        }
        headers::take_hop_by_hop_off(&mut parts.headers);
        parts.version = Version::HTTP_11;
        let received = Received::new(incoming, link, self.clone());
        Ok(Response::from_parts(parts, Body::new(received)))
    }
}

impl Shared {
    async fn connect(&self, allowed: Duration) -> Result<Box<Link>, ConnectError> {
        let connected = time::timeout(allowed, self.target.connect(allowed)).await;
        let stream = connected.map_err(|elapsed| ConnectError::Open(elapsed.into()))??;
        let timeout = Duration::from_millis(self.settings.response_timeout_ms);
        let link = Link::new(stream, timeout).await;
        link.map_err(|error| ConnectError::Open(io::Error::other(error)))
    }

    fn reached(&self) {
        if self.breaker.succeeded() {
            info!("the homeserver can be reached again");
        }
    }
}

impl Keep for Upstream {
    fn keep(&self, link: Box<Link>) {
        keep(&self.0.shared, link);
    }
}

fn keep(shared: &Arc<Shared>, link: Box<Link>) {
    if shared.pool.put(link) {
        tokio::spawn(sweep(Arc::downgrade(shared)));
    }
}

/// Looks after idle connections for as long as there are any.
async fn sweep(shared: Weak<Shared>) {
    while let Some(pause) = shared.upgrade().and_then(|shared| shared.pool.sweep()) {
        time::sleep(pause).await;
    }
}

/// Tries to connect until it is done, so that clients do not have to find out.
async fn probe(shared: Weak<Shared>) {
    let mut allowed = PROBE_TIMEOUT_MIN;
    loop {
        time::sleep(PROBE_PAUSE).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let allowed_max = Duration::from_millis(shared.settings.connect_timeout_ms);
        match shared.connect(allowed.min(allowed_max)).await {
            Ok(link) => {
                shared.reached();
                keep(&shared, link);
                return;
            }
            // The way may be that long.
            Err(error) if error.io().kind() == io::ErrorKind::TimedOut => {
                allowed = (2 * allowed).min(allowed_max);
            }
            Err(_) => allowed = PROBE_TIMEOUT_MIN,
        }
    }
}

/// Returns a request that may be sent a second time where nobody knows what became of the first
/// [RFC 9110, 9.2.2]: it changes nothing, and has no body that would be gone.
fn repeatable(request: &Request<Body>) -> Option<Request<Body>> {
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    if !is_safe || !request.body().is_end_stream() {
        return None;
    }
    let mut again = Request::new(Body::empty());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

/// Returns a body in one piece.
fn joined(body: Collected<Bytes>) -> Bytes {
    let mut pieces = body.aggregate();
    let bytes = pieces.remaining();
    aside(bytes, || pieces.copy_to_bytes(bytes))
}

/// What the homeserver answered to the gateway itself.
#[derive(Clone)]
pub(crate) struct Told {
    upstream: Upstream,
    asked: Option<PathAndQuery>,
    parts: response::Parts,
    body: Bytes,
}

/// What a homeserver answers to a write.
#[derive(Deserialize)]
struct Written {}

impl Told {
    pub(crate) fn status(&self) -> StatusCode {
        self.parts.status
    }

    pub(crate) fn header(&self, name: HeaderName) -> Option<&HeaderValue> {
        self.parts.headers.get(name)
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the answer as the client's own.
    pub(crate) fn into_response(self) -> Response {
        Response::from_parts(self.parts, self.body.into())
    }

    /// Tells whether the client may hear it in place of what it asked for: it says what is wrong with
    /// who asks, or that the homeserver cannot answer now. Another success would tell the client that
    /// all of its request was done, a redirect would lead it to the answer to another question, and a
    /// 404 it would take to be about its own.
    pub(crate) fn is_refusal(&self) -> bool {
        let status = self.parts.status;
        let is_error = status.is_client_error() || status.is_server_error();
        is_error && status != StatusCode::NOT_FOUND
    }

    /// Returns it where it is of 200; else it is what the client is told, if it may be.
    pub(crate) fn done(self) -> Result<Self, Failure> {
        match self.parts.status {
            StatusCode::OK => Ok(self),
            _ if self.is_refusal() => Err(Failure::Relayed(Box::new(self.into_response()))),
            _ => Err(self.strange().into()),
        }
    }

    /// As [`Told::done`], of a write, which is answered with an object: else somebody in between
    /// answered, and nothing says that it is written.
    pub(crate) fn written(self) -> Result<(), Failure> {
        let Written {} = self.done()?.json()?;
        Ok(())
    }

    /// Tells whether it is neither an error nor what a homeserver answers to a write: then somebody in
    /// between answered, who does not know what becomes of it.
    pub(crate) fn is_strange(&self) -> bool {
        let status = self.parts.status;
        let is_error = status >= StatusCode::BAD_REQUEST;
        let is_written = status == StatusCode::OK && self.read::<Written>().is_some();
        !is_error && !is_written
    }

    /// As [`Told::done`], and `None` where the homeserver says that there is nothing. Not each 404
    /// does: a proxy before it has some too, and so has a path that it does not know.
    pub(crate) fn found(self) -> Result<Option<Self>, Failure> {
        #[derive(Deserialize)]
        struct Refusal {
            errcode: String,
        }
        if self.parts.status != StatusCode::NOT_FOUND {
            return self.done().map(Some);
        }
        let Refusal { errcode } = self.json()?;
        match errcode.as_str() {
            "M_NOT_FOUND" => Ok(None),
            _ => Err(self.strange().into()),
        }
    }

    /// Reads the body, which is an object: members that may be missing are not taken out of an array.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        self.read().ok_or_else(|| self.strange().into())
    }

    /// It cannot be used: it is none of a homeserver, or of another one than there are. The log says
    /// so now and then.
    pub(crate) fn strange(&self) -> GatewayError {
        let strange = &self.upstream.0.strange;
        let path = self.asked.as_ref().map_or("/", PathAndQuery::path);
        strange.saw(path, self.parts.status);
        GatewayError::UpstreamBroken
    }

    /// Returns the body, which is an object as far as its beginning tells: a page begins otherwise.
    pub(crate) fn object(self) -> Result<Bytes, Failure> {
        match self.begins_as_object() {
            true => Ok(self.body),
            false => Err(self.strange().into()),
        }
    }

    fn begins_as_object(&self) -> bool {
        self.body.trim_ascii_start().starts_with(b"{")
    }

    /// As [`Told::json`], where nobody hears of it yet.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Option<T> {
        let is_object = self.begins_as_object();
        let read = || is_object.then(|| serde_json::from_slice(&self.body).ok());
        let read = aside(self.body.len(), read);
        read.flatten()
    }
}

fn failure(error: ExchangeError) -> GatewayError {
    // hyper's errors do not show the target, which can hold a token.
    match error {
        ExchangeError::Ended(error) | ExchangeError::Broken(error) => {
            debug!(cause = ?error, "the homeserver gave no usable answer");
            GatewayError::UpstreamBroken
        }
        ExchangeError::Unsent(_) => GatewayError::UpstreamBroken,
        ExchangeError::Timeout => GatewayError::UpstreamTimeout,
    }
}
