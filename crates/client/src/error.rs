//! What can go wrong between a call and its typed answer.

use serde_json::Value;

use crate::response::Response;

/// Why a call has no typed answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The answer came, but is not what the endpoint promises, or is too large.
    #[error("answer cannot be used: {0}")]
    BadBody(String),
    /// The server answered with an error of the Matrix standard form.
    #[error("{status} {errcode}: {error}")]
    Matrix {
        /// The HTTP status.
        status: u16,
        /// The machine-readable code, such as `M_FORBIDDEN`; `M_UNKNOWN` where the body has none.
        errcode: String,
        /// The text for people.
        error: String,
    },
    /// No complete answer came in time. Whether the server acted on the request is unknown.
    #[error("no answer within {waited_ms} ms")]
    Timeout {
        /// How long the call waited.
        waited_ms: u128,
    },
    /// The request could not be built or sent, or the connection broke.
    #[error("request failed")]
    Transport(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// The Matrix error code, if the server gave one.
    #[must_use]
    pub fn errcode(&self) -> Option<&str> {
        match self {
            Self::Matrix { errcode, .. } => Some(errcode),
            Self::BadBody(_) | Self::Timeout { .. } | Self::Transport(_) => None,
        }
    }

    pub(crate) fn transport(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Transport(source.into())
    }

    /// Reads the standard error form out of a refused request.
    pub(crate) fn of_response(response: &Response) -> Self {
        let body: Value = serde_json::from_slice(&response.body).unwrap_or(Value::Null);
        let text = |key: &str| body.get(key).and_then(Value::as_str).map(str::to_owned);
        Self::Matrix {
            status: response.status,
            errcode: text("errcode").unwrap_or_else(|| "M_UNKNOWN".to_owned()),
            error: text("error").unwrap_or_default(),
        }
    }
}
