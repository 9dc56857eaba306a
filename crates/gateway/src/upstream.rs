//! The homeserver behind the gateway: its address, the pool of connections, what goes wrong.

mod address;
mod connector;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::uri::{Authority, PathAndQuery, Scheme};
use axum::http::{Request, StatusCode, Uri, response};
use axum::response::Response;
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kitbag_http::shared::GatewayError;
use serde::de::DeserializeOwned;
use thiserror::Error as ThisError;
use tokio::time;
use tracing::debug;

pub use self::address::{UpstreamAddress, UpstreamAddressError};
use self::connector::Connector;
use crate::answer::{Failure, broken};
use crate::headers;
use crate::metrics::{Asked, GatewayMetrics};
use crate::settings::UpstreamSettings;

/// What a client is told to wait where the homeserver cannot be reached.
const RETRY_AFTER: Duration = Duration::from_secs(2);

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

/// The way to the homeserver.
pub(crate) struct Upstream {
    client: Client<Connector, Body>,
    scheme: Scheme,
    authority: Authority,
    settings: UpstreamSettings,
    metrics: Arc<GatewayMetrics>,
}

impl Upstream {
    pub(crate) fn new(
        settings: UpstreamSettings,
        metrics: Arc<GatewayMetrics>,
    ) -> Result<Self, UpstreamSetupError> {
        let address = settings.url.as_ref().ok_or(UpstreamSetupError::NoAddress)?;
        let connect_timeout = Duration::from_millis(settings.connect_timeout_ms);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_millis(settings.idle_timeout_ms))
            .pool_max_idle_per_host(settings.idle_connections_max)
            .build(Connector::new(address, connect_timeout)?);
        Ok(Self {
            client,
            scheme: address.scheme(),
            authority: address.authority(),
            settings,
            metrics,
        })
    }

    /// Sends a request and returns the answer as it comes: its head is there, its body not yet.
    ///
    /// The target goes byte for byte; hop-by-hop headers are for the caller to have taken off.
    pub(crate) async fn send(
        &self,
        mut request: Request<Body>,
    ) -> Result<Response<Incoming>, GatewayError> {
        let target = request.uri().path_and_query().cloned();
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(target.unwrap_or_else(|| PathAndQuery::from_static("/")));
        *request.uri_mut() = Uri::from_parts(parts).expect("all three parts are there");
        let allowed = Duration::from_millis(self.settings.response_timeout_ms);
        match time::timeout(allowed, self.client.request(request)).await {
            Ok(Ok(mut response)) => {
                headers::take_hop_by_hop_off(response.headers_mut());
                Ok(response)
            }
            Ok(Err(error)) => Err(failure(&error)),
            Err(_elapsed) => Err(GatewayError::UpstreamTimeout),
        }
    }

    /// Asks something of the gateway's own, and reads the whole answer, which may have `bytes_max`.
    pub(crate) async fn ask(
        &self,
        request: Request<Body>,
        bytes_max: usize,
    ) -> Result<Told, GatewayError> {
        let read = async {
            let (parts, body) = self.send(request).await?.into_parts();
            match Limited::new(body, bytes_max).collect().await {
                Ok(body) => Ok(Told {
                    parts,
                    body: body.to_bytes(),
                }),
                Err(error) if error.is::<LengthLimitError>() => Err(GatewayError::UpstreamTooLarge),
                Err(_) => Err(GatewayError::UpstreamBroken),
            }
        };
        let allowed = Duration::from_millis(self.settings.ask_timeout_ms);
        let read = self
            .metrics
            .upstream(Asked::ByGateway, time::timeout(allowed, read));
        let read = read.await;
        read.unwrap_or(Err(GatewayError::UpstreamTimeout))
    }
}

/// What the homeserver answered to the gateway itself.
#[derive(Clone)]
pub(crate) struct Told {
    parts: response::Parts,
    body: Bytes,
}

impl Told {
    pub(crate) fn status(&self) -> StatusCode {
        self.parts.status
    }

    pub(crate) fn body(&self) -> &Bytes {
        &self.body
    }

    /// Returns the answer as the client's own.
    pub(crate) fn into_response(self) -> Response {
        Response::from_parts(self.parts, self.body.into())
    }

    /// Returns it where it is of 200; else it is what the client is told.
    pub(crate) fn done(self) -> Result<Self, Failure> {
        if self.parts.status == StatusCode::OK {
            return Ok(self);
        }
        Err(Failure::Relayed(Box::new(self.into_response())))
    }

    /// Reads the body.
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Failure> {
        serde_json::from_slice(&self.body).map_err(|_| broken())
    }
}

fn failure(error: &Error) -> GatewayError {
    // Without the target, which can hold a token.
    debug!(cause = ?error, "the homeserver did not answer");
    if error.is_connect() {
        return GatewayError::UpstreamDown {
            retry_after: RETRY_AFTER,
        };
    }
    GatewayError::UpstreamBroken
}
