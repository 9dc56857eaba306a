//! What an endpoint of the gateway comes to.

use axum::http::StatusCode;
use axum::response::Response;
use kitbag_http::shared::{Denial, GatewayError};

use crate::upstream::Told;

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

impl Failure {
    /// Tells whether the homeserver refused the credentials.
    pub(crate) fn is_unauthorized(&self) -> bool {
        matches!(self, Self::Relayed(told) if told.status() == StatusCode::UNAUTHORIZED)
    }
}

/// Tells whether the homeserver refused the credentials of a request that went on.
pub(crate) fn is_unauthorized(answer: &Answer) -> bool {
    match answer {
        Ok(response) => response.status() == StatusCode::UNAUTHORIZED,
        Err(failure) => failure.is_unauthorized(),
    }
}

/// What became of something that the homeserver was asked to end, such as a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    Refused,
    /// It may have been done, or be done later.
    Unknown,
}

impl Outcome {
    /// Tells it by the status. A server error may have come amid the work, or from a proxy before the
    /// homeserver that does not know; a success other than 200 is an answer to something else.
    pub(crate) fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::OK => Self::Done,
            _ if status.is_server_error() || status.is_success() => Self::Unknown,
            _ => Self::Refused,
        }
    }
}

/// Tells whether a write that was answered so may still be done, behind a later one.
///
/// So say proxies that wait for the homeserver no longer, or lost it (502, 503, 504, and 520 to 524 of
/// Cloudflare), and homeservers of whose parts one does not hear of another; Kitbag's own 503 means
/// the same. Behind a 500 or 501 the homeserver has done with it: what is there can be read.
pub(crate) fn may_be_late(status: StatusCode) -> bool {
    let is_over = matches!(
        status,
        StatusCode::INTERNAL_SERVER_ERROR | StatusCode::NOT_IMPLEMENTED
    );
    status.is_server_error() && !is_over
}

/// Tells whether a write may still be done by the homeserver, by what became of it.
pub(crate) fn may_come_late(told: &Result<Told, GatewayError>) -> bool {
    match told {
        Ok(told) => may_be_late(told.status()) || told.is_strange(),
        Err(GatewayError::OutcomeUnknown { .. }) => true,
        Err(error) => is_lost(error),
    }
}

/// Tells whether the answer to a write was lost, so that nobody knows what became of it. What is too
/// large is a page of somebody between: the homeserver's own answers to writes are short.
pub(crate) fn is_lost(error: &GatewayError) -> bool {
    matches!(
        error,
        GatewayError::UpstreamBroken
            | GatewayError::UpstreamTimeout
            | GatewayError::UpstreamTooLarge
    )
}

/// Nothing that a client sent can lead here by itself: the homeserver answered strangely.
pub(crate) fn broken() -> Failure {
    GatewayError::UpstreamBroken.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16) -> StatusCode {
        StatusCode::from_u16(code).unwrap()
    }

    #[test]
    fn behind_a_server_error_nobody_knows_whether_a_device_ended() {
        assert_eq!(Outcome::of(StatusCode::OK), Outcome::Done);
        for code in [201, 202, 204, 500, 501, 502, 503, 504, 520, 524, 599] {
            assert_eq!(Outcome::of(status(code)), Outcome::Unknown, "{code}");
        }
        for code in [302, 400, 401, 403, 404, 429, 499] {
            assert_eq!(Outcome::of(status(code)), Outcome::Refused, "{code}");
        }
    }

    #[test]
    fn a_write_is_over_where_the_homeserver_itself_answered() {
        for code in [502, 503, 504, 507, 520, 522, 523, 524, 599] {
            assert!(may_be_late(status(code)), "{code}");
        }
        for code in [200, 204, 302, 401, 404, 409, 429, 499, 500, 501] {
            assert!(!may_be_late(status(code)), "{code}");
        }
    }
}
