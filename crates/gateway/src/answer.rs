//! What an endpoint of the gateway comes to.

use axum::response::Response;
use kitbag_http::shared::{Denial, GatewayError};

/// An answer, or why there is none of the endpoint's own.
pub(crate) type Answer = Result<Response, Failure>;

/// Why a request was not answered with what it asked for.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The gateway refuses it.
    Denied(Denial),
    /// The homeserver refused what had to be asked first: its answer is the client's, as it came.
    Relayed(Box<Response>),
}

impl<E: Into<Denial>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Denied(error.into())
    }
}

/// Nothing that a client sent can lead here by itself: the homeserver answered strangely.
pub(crate) fn broken() -> Failure {
    GatewayError::UpstreamBroken.into()
}
