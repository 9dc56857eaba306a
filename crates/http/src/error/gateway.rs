//! What only the gateway has to tell.

use std::time::Duration;

use axum::http::StatusCode;
use axum::response::Response;
use kitbag_domain::{ContentError, GetError, IdError, PermitError, WriteError};
use thiserror::Error;

use super::ApiError;
use crate::request_id::RequestId;

/// Why the gateway does not do what it was asked for, beside what the API refuses too.
///
/// The texts go to clients, whatever the status: none says where the homeserver is or what it said.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GatewayError {
    /// 404: the path could mean another one to the homeserver.
    #[error(
        "a homeserver could read the path in more than one way: write it as the API has it, each segment \
             encoded once and none of them empty or of dots, with nothing behind"
    )]
    AmbiguousPath,
    /// 504: the homeserver did not say who asks, before anything else was done.
    #[error("the homeserver behind the gateway did not say in time who asks: nothing was done")]
    AskerUnknown {
        /// How long to wait.
        retry_after: Duration,
    },
    /// 503: a device of this ID ended, or is about to, and what it had is not emptied yet.
    #[error("the end of a device with this ID is not settled yet")]
    EndUnsettled {
        /// How long to wait.
        retry_after: Duration,
    },
    /// 403: the type holds device account data, which is written by its own path.
    #[error("the type holds device account data: write it by the path of the device")]
    MappedType,
    /// 504: a write was sent to the homeserver, and no answer came.
    #[error("the homeserver did not say whether it was written: read it again")]
    OutcomeUnknown {
        /// When its outcome will be settled.
        retry_after: Duration,
    },
    /// 400: what the query says of who asks makes no request to the homeserver.
    #[error("the query is too long")]
    QueryTooLong,
    /// 503: what too many clients asked for goes on, whether they left or not.
    #[error("too many ends of devices are under way")]
    TooManyEnds {
        /// How long to wait.
        retry_after: Duration,
    },
    /// 403: a device has had so many types, those that are deleted too, that the homeserver would tell
    /// more of it than the gateway reads.
    #[error("the device has had entries of {limit} types, which is its limit")]
    TooManyTypes {
        /// The limit that the write would pass.
        limit: u64,
    },
    /// 429: the session writes account data too often, or too much of it.
    #[error("too many or too large writes of account data")]
    TooManyWrites {
        /// How long to wait.
        retry_after: Duration,
    },
    /// 502: what came from the homeserver is no answer to the request.
    #[error("the homeserver behind the gateway gave no usable answer")]
    UpstreamBroken,
    /// 502: the homeserver cannot be reached.
    #[error("the homeserver behind the gateway cannot be reached")]
    UpstreamDown {
        /// How long to wait.
        retry_after: Duration,
        /// What became of the connect, where it was tried: for operators, and in no text for clients.
        cause: Option<Box<str>>,
    },
    /// 504: the homeserver did not answer in time.
    #[error("the homeserver behind the gateway did not answer in time")]
    UpstreamTimeout,
    /// 502: an answer that the gateway has to read is larger than it reads.
    #[error("an answer of the homeserver is larger than the gateway reads")]
    UpstreamTooLarge,
    /// 503: the outcome of an earlier write of this entry is not settled.
    #[error("an earlier write of this entry is not settled yet")]
    WriteFenced {
        /// How long to wait.
        retry_after: Duration,
    },
}

impl GatewayError {
    /// Returns the status and the errcode.
    pub(super) fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::AmbiguousPath => (StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
            Self::AskerUnknown { .. } => (StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN"),
            Self::EndUnsettled { .. } => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
            Self::MappedType => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            Self::OutcomeUnknown { .. } => (StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN"),
            Self::QueryTooLong => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            Self::TooManyEnds { .. } => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
            Self::TooManyTypes { .. } => (StatusCode::FORBIDDEN, "M_USER_LIMIT_EXCEEDED"),
            Self::TooManyWrites { .. } => (StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
            Self::UpstreamBroken => (StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
            Self::UpstreamDown { .. } => (StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
            Self::UpstreamTimeout => (StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN"),
            Self::UpstreamTooLarge => (StatusCode::BAD_GATEWAY, "M_UNKNOWN"),
            Self::WriteFenced { .. } => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
        }
    }

    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::AskerUnknown { retry_after }
            | Self::EndUnsettled { retry_after }
            | Self::OutcomeUnknown { retry_after }
            | Self::TooManyEnds { retry_after }
            | Self::TooManyWrites { retry_after }
            | Self::UpstreamDown { retry_after, .. }
            | Self::WriteFenced { retry_after } => Some(*retry_after),
            Self::AmbiguousPath
            | Self::MappedType
            | Self::QueryTooLong
            | Self::TooManyTypes { .. }
            | Self::UpstreamBroken
            | Self::UpstreamTimeout
            | Self::UpstreamTooLarge => None,
        }
    }

    /// Returns the reason as metrics name it.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::AmbiguousPath => "ambiguous_path",
            Self::EndUnsettled { .. } => "end_unsettled",
            Self::MappedType => "mapped_type",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::QueryTooLong => "query_too_long",
            Self::TooManyEnds { .. } => "too_many_ends",
            Self::TooManyTypes { .. } => "quota_device_types",
            Self::TooManyWrites { .. } => "too_many_writes",
            Self::UpstreamBroken => "upstream_broken",
            Self::UpstreamDown { .. } => "upstream_down",
            // It is for operators what the other is: an answer that did not come.
            Self::AskerUnknown { .. } | Self::UpstreamTimeout => "upstream_timeout",
            Self::UpstreamTooLarge => "upstream_too_large",
            Self::WriteFenced { .. } => "write_fenced",
        }
    }
}

/// An error of the API's table, for whoever only hands it on: the gateway.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct Denial(ApiError);

impl Denial {
    /// The path names another user than the one who asks (403).
    #[must_use]
    pub fn not_own_account() -> Self {
        Self(ApiError::NotOwnAccount)
    }

    /// The path is known, the method is not (405 `M_UNRECOGNIZED`).
    #[must_use]
    pub fn method_not_allowed() -> Self {
        Self(ApiError::MethodNotAllowed)
    }

    /// There is no such path (404 `M_UNRECOGNIZED`).
    #[must_use]
    pub fn unknown_endpoint() -> Self {
        Self(ApiError::Unrecognized)
    }

    /// The body ends before its end, or is none (400 `M_NOT_JSON`).
    #[must_use]
    pub fn body_broken() -> Self {
        Self(ApiError::BodyBroken)
    }

    /// The body does not come (408).
    #[must_use]
    pub fn body_timeout() -> Self {
        Self(ApiError::BodyTimeout)
    }

    /// The body came in another transfer coding than `chunked` (501).
    #[must_use]
    pub fn unknown_coding() -> Self {
        Self(ApiError::UnknownCoding)
    }

    /// A handler panicked (500).
    #[must_use]
    pub fn panicked() -> Self {
        Self(ApiError::Panicked)
    }

    /// Returns the status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.row().0
    }

    /// Returns the reason as metrics name it: one of the words that docs/monitoring.md lists.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.0.reason()
    }

    /// Builds the answer; `info_uri` is the page that a full account is pointed to.
    #[must_use]
    pub fn render(&self, request_id: RequestId<'_>, info_uri: &str) -> Response {
        self.0.render(request_id, info_uri)
    }

    /// Returns the error itself, to be counted.
    pub(crate) fn error(&self) -> &ApiError {
        &self.0
    }
}

impl From<Denial> for ApiError {
    fn from(denial: Denial) -> Self {
        denial.0
    }
}

impl From<ApiError> for Denial {
    fn from(error: ApiError) -> Self {
        Self(error)
    }
}

/// Each is an error of the API already.
macro_rules! from_errors {
    ($($error:ty),+) => {
        $(impl From<$error> for Denial {
            fn from(error: $error) -> Self {
                Self(error.into())
            }
        })+
    };
}

from_errors!(
    ContentError,
    GatewayError,
    GetError,
    IdError,
    PermitError,
    WriteError
);
