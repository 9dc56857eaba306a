//! A homeserver as one asks it who does not stand before it: `kitbag doctor`.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, Method, Request, Uri};
use bytes::Bytes;
use kitbag_http::shared::{Denial, GatewayError};
use thiserror::Error;

use crate::settings::UpstreamSettings;
use crate::upstream::{Upstream, UpstreamSetupError};

/// Bytes of an answer that is read: push rules and a filtered sync have far less.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// The way to a homeserver, over the same connections as the gateway's.
pub struct Homeserver(Upstream);

/// One answer.
#[derive(Clone, PartialEq, Eq)]
pub struct HomeserverAnswer {
    /// Its status.
    pub status: u16,
    /// After what time it says to ask again, in the header `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Its body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum HomeserverError {
    /// What was to be asked is no request: a token or a path has characters that cannot be sent.
    #[error("this cannot be sent: a token or a path has characters that a header cannot have")]
    NotSendable,
    /// It did not answer.
    #[error("{text}")]
    Unreachable {
        /// What happened.
        text: String,
        /// The same as a reason that docs/monitoring.md lists.
        reason: &'static str,
    },
}

impl Homeserver {
    /// Makes the way ready; whether somebody is there is not looked at.
    ///
    /// # Errors
    /// As of the gateway.
    pub fn new(settings: UpstreamSettings) -> Result<Self, UpstreamSetupError> {
        Ok(Self(Upstream::new(settings, Arc::default())?))
    }

    /// Sends a request and returns the answer, whatever its status.
    ///
    /// `method` is one such as `GET`, `target` a path, encoded, with its query. The body is JSON.
    ///
    /// # Errors
    /// Where there is no answer in time.
    pub async fn ask(
        &self,
        method: &str,
        target: &str,
        token: Option<&str>,
        body: impl Into<Bytes>,
    ) -> Result<HomeserverAnswer, HomeserverError> {
        let not_sendable = || HomeserverError::NotSendable;
        let body: Bytes = body.into();
        let mut request = Request::new(Body::empty());
        if !body.is_empty() {
            let json = HeaderValue::from_static("application/json");
            request.headers_mut().insert(CONTENT_TYPE, json);
            *request.body_mut() = Body::from(body);
        }
        *request.method_mut() =
            Method::from_bytes(method.as_bytes()).map_err(|_| not_sendable())?;
        *request.uri_mut() = target.parse::<Uri>().map_err(|_| not_sendable())?;
        if let Some(token) = token {
            let bearer = HeaderValue::try_from(format!("Bearer {token}"));
            let mut bearer = bearer.map_err(|_| not_sendable())?;
            bearer.set_sensitive(true);
            request.headers_mut().insert(AUTHORIZATION, bearer);
        }
        let told = self.0.ask(request, ANSWER_BYTES_MAX).await?;
        Ok(HomeserverAnswer {
            status: told.status().as_u16(),
            retry_after: seconds(told.header(RETRY_AFTER)),
            body: told.body().clone(),
        })
    }
}

/// Reads a number of seconds; a date is none.
fn seconds(value: Option<&HeaderValue>) -> Option<Duration> {
    let seconds = value?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Returns what became of a request to the homeserver, in words for an operator.
pub(crate) fn said_of(error: &GatewayError) -> String {
    match error {
        GatewayError::UpstreamDown { cause, .. } => match cause {
            Some(cause) => cause.clone().into(),
            None => "it could not be reached just now".to_owned(),
        },
        GatewayError::UpstreamBroken => "it gave no usable answer".to_owned(),
        GatewayError::UpstreamTimeout => "it did not answer in time".to_owned(),
        GatewayError::UpstreamTooLarge => "its answer is larger than what is read".to_owned(),
        // Of the others none comes from the homeserver.
        error => error.to_string(),
    }
}

impl From<GatewayError> for HomeserverError {
    fn from(error: GatewayError) -> Self {
        let text = said_of(&error);
        let reason = Denial::from(error).reason();
        Self::Unreachable { text, reason }
    }
}
