//! The one place where a failure becomes a status and an errcode.
//!
//! The pair is decided by variant, never derived: the spec pairs 405 with `M_BAD_JSON` for types
//! that the server manages, and 400 with it elsewhere. There is no `_` arm, so a new variant does
//! not compile until somebody decides.

mod gateway;
mod reason;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use kitbag_domain::{
    ApplyError, ContentError, FilterError, GetError, IdError, LocalpartError, LoginError,
    PermitError, PushRulesWriteError, RefreshError, Refusal, RegisterError, RevisionNames,
    StoreError, WriteError,
};
use kitbag_push::{EditError, RuleError, RuleIdError};
use serde_json::{Value, json};
use thiserror::Error;

pub use self::gateway::{Denial, GatewayError};
use crate::passwords::PasswordError;
use crate::push_rules::SpecRulesError;
use crate::rate_limit::RateLimited;
use crate::request_id::RequestId;
use crate::uia::Challenge;

/// Why a request was not answered with what it asked for.
#[derive(Debug, Error)]
pub(crate) enum ApiError {
    #[error("the body must be a JSON object of the expected form: {0}")]
    BadJson(String),
    #[error("the body was not sent to its end")]
    BodyBroken,
    #[error("the body did not arrive in time")]
    BodyTimeout,
    #[error("the body is larger than {limit_bytes} bytes")]
    BodyTooLarge { limit_bytes: u64 },
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error("{0}")]
    Forbidden(&'static str),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Get(#[from] GetError),
    #[error(transparent)]
    InvalidId(#[from] IdError),
    #[error("{0}")]
    InvalidParam(String),
    #[error(transparent)]
    InvalidUsername(#[from] LocalpartError),
    #[error("the method is not allowed here")]
    MethodNotAllowed,
    #[error("`{0}` is missing")]
    MissingParam(&'static str),
    #[error("an access token is needed: send the header `Authorization: Bearer …`")]
    MissingToken,
    #[error("a display name of a device has at most {limit} characters")]
    NameTooLong { limit: usize },
    #[error("{0}")]
    NotFound(&'static str),
    #[error("the body is not valid JSON")]
    NotJson,
    #[error("push rules have no such scope, kind or attribute, or a slash is missing at the end")]
    NoPushRulePath,
    #[error("the account belongs to another user")]
    NotOwnAccount,
    #[error("a handler panicked")]
    Panicked,
    #[error(transparent)]
    Password(#[from] PasswordError),
    #[error(transparent)]
    Permit(#[from] PermitError),
    #[error(transparent)]
    PushRule(#[from] RuleError),
    #[error(transparent)]
    PushRuleEdit(#[from] EditError),
    #[error(transparent)]
    PushRuleId(#[from] RuleIdError),
    #[error("too many requests")]
    RateLimited(RateLimited),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{0}")]
    TooMany(String),
    #[error("user-interactive authentication is needed")]
    Uia(Box<Challenge>),
    #[error("the body came in a transfer coding that is not known: only `chunked` is")]
    UnknownCoding,
    #[error("the type of login is not known: use one that GET on this path lists")]
    UnknownLoginType,
    #[error("{}", if *.soft_logout { "the access token has expired" } else { "the access token is not valid" })]
    UnknownToken { soft_logout: bool },
    #[error("there is no such endpoint")]
    Unrecognized,
    #[error("the account is deactivated")]
    UserDeactivated,
    #[error("the user ID is taken")]
    UserInUse,
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl ApiError {
    /// Returns the status and the errcode.
    pub(crate) fn row(&self) -> (StatusCode, &'static str) {
        match self {
            Self::BadJson(_) => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
            Self::BodyBroken => (StatusCode::BAD_REQUEST, "M_NOT_JSON"),
            Self::BodyTimeout => (StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN"),
            Self::BodyTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
            Self::Content(error) => content_row(error),
            Self::Forbidden(_) => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            Self::Gateway(error) => error.row(),
            Self::Get(GetError::NotFound) => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
            Self::Get(GetError::Store(error)) => store_row(error),
            Self::InvalidId(_) => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            Self::InvalidParam(_) => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            Self::InvalidUsername(_) => (StatusCode::BAD_REQUEST, "M_INVALID_USERNAME"),
            Self::MethodNotAllowed => (StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED"),
            Self::MissingParam(_) => (StatusCode::BAD_REQUEST, "M_MISSING_PARAM"),
            Self::MissingToken => (StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN"),
            Self::NameTooLong { .. } => (StatusCode::BAD_REQUEST, "M_TOO_LARGE"), // as Synapse
            Self::NotFound(_) => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
            Self::NotJson => (StatusCode::BAD_REQUEST, "M_NOT_JSON"),
            // No 404: clients must not take the rule for one that is not there. As Synapse.
            Self::NoPushRulePath => (StatusCode::BAD_REQUEST, "M_UNRECOGNIZED"),
            Self::NotOwnAccount => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
            Self::Panicked => (StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN"),
            Self::Password(PasswordError::Empty) => (StatusCode::BAD_REQUEST, "M_WEAK_PASSWORD"),
            Self::Password(PasswordError::Hash(_)) => {
                (StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN")
            }
            Self::Password(PasswordError::Overloaded) => {
                (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN")
            }
            Self::Permit(error) => permit_row(error),
            Self::PushRule(error) => rule_row(error),
            Self::PushRuleEdit(error) => rule_edit_row(error),
            Self::PushRuleId(_) => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
            Self::RateLimited(_) => (StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED"),
            Self::Store(error) => store_row(error),
            Self::TooMany(_) => (StatusCode::FORBIDDEN, "M_USER_LIMIT_EXCEEDED"),
            Self::Uia(challenge) => (StatusCode::UNAUTHORIZED, challenge.errcode()),
            Self::UnknownCoding => (StatusCode::NOT_IMPLEMENTED, "M_UNKNOWN"),
            Self::UnknownLoginType => (StatusCode::BAD_REQUEST, "M_UNKNOWN"),
            Self::UnknownToken { .. } => (StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN"),
            Self::Unrecognized => (StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
            Self::UserDeactivated => (StatusCode::FORBIDDEN, "M_USER_DEACTIVATED"),
            Self::UserInUse => (StatusCode::BAD_REQUEST, "M_USER_IN_USE"),
            Self::Write(error) => write_row(error),
        }
    }

    /// Returns what the store said, where it is the store that failed.
    pub(crate) fn store_error(&self) -> Option<&StoreError> {
        match self {
            Self::Get(GetError::Store(error))
            | Self::Permit(PermitError::Store(error))
            | Self::Store(error)
            | Self::Write(WriteError::Store(error)) => Some(error),
            _ => None,
        }
    }

    /// Returns when to try again, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited(limited) => Some(limited.retry_after),
            Self::Gateway(error) => error.retry_after(),
            _ => None,
        }
    }

    /// Returns the members of the body beside `errcode` and `error`.
    fn extra(&self, info_uri: &str) -> Value {
        match self {
            Self::TooMany(_)
            | Self::Gateway(GatewayError::TooManyTypes { .. })
            | Self::PushRuleEdit(EditError::TooLarge { .. } | EditError::TooManyRules { .. })
            | Self::Write(WriteError::Quota(_)) => json!({"info_uri": info_uri}),
            Self::RateLimited(RateLimited { retry_after })
            | Self::Gateway(GatewayError::TooManyWrites { retry_after }) => {
                let retry_after_ms = u64::try_from(retry_after.as_millis());
                json!({"retry_after_ms": retry_after_ms.unwrap_or(u64::MAX)})
            }
            Self::UnknownToken { soft_logout } => json!({"soft_logout": soft_logout}),
            Self::Write(WriteError::SessionGone) => json!({"soft_logout": false}),
            Self::Uia(challenge) => challenge.body(),
            _ => json!({}),
        }
    }

    /// Builds the answer. What went wrong inside is not for clients: they get the request's ID.
    pub(crate) fn render(&self, request_id: RequestId<'_>, info_uri: &str) -> Response {
        let (status, errcode) = self.row();
        let text = match self {
            // Says that it is not here that something is wrong, and nothing else.
            Self::Gateway(error) => error.to_string(),
            Self::UnknownCoding => self.to_string(),
            _ if status.is_server_error() => format!("internal error, request {request_id}"),
            _ => self.to_string(),
        };
        let mut body = self.extra(info_uri);
        if !matches!(self, Self::Uia(_)) {
            body["errcode"] = errcode.into();
            body["error"] = text.into();
        }
        let mut body = body.to_string();
        if let Self::Write(WriteError::Conflict { current, names }) = self {
            // Spliced in as it is stored: a content stays verbatim here too.
            let field = match names {
                RevisionNames::Stable => "current_content",
                RevisionNames::Unstable => "com.beeper.current_content",
            };
            body.truncate(body.len() - 1);
            body.push_str(&format!(",\"{field}\":{}}}", current.as_str()));
        }
        let mut response = crate::json::json_response(status, body.into());
        if let Some(retry_after) = self.retry_after() {
            // Whole seconds, rounded up, and at least one.
            let seconds = retry_after.as_millis().div_ceil(1_000).max(1);
            let seconds = u64::try_from(seconds).unwrap_or(u64::MAX);
            response.headers_mut().insert("retry-after", seconds.into());
        }
        response
    }
}

fn content_row(error: &ContentError) -> (StatusCode, &'static str) {
    match error {
        ContentError::NotJson => (StatusCode::BAD_REQUEST, "M_NOT_JSON"),
        ContentError::NotObject => (StatusCode::BAD_REQUEST, "M_BAD_JSON"), // as Synapse
        ContentError::TooDeep { .. } => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        ContentError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
    }
}

fn permit_row(error: &PermitError) -> (StatusCode, &'static str) {
    match error {
        PermitError::NoSuchDevice => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
        PermitError::NotOwnDevice => (StatusCode::FORBIDDEN, "M_FORBIDDEN"),
        // CS API, Client Config: so in both scopes, and here at device scope.
        PermitError::ServerManaged(_) => (StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON"),
        PermitError::Store(error) => store_row(error),
    }
}

fn rule_row(error: &RuleError) -> (StatusCode, &'static str) {
    match error {
        RuleError::BadAction { .. } => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        RuleError::BadCondition { .. } => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        RuleError::Malformed { .. } => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        RuleError::Missing { .. } => (StatusCode::BAD_REQUEST, "M_MISSING_PARAM"),
        RuleError::NotJson => (StatusCode::BAD_REQUEST, "M_NOT_JSON"),
        RuleError::NotObject => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        RuleError::Repeated { .. } => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        RuleError::TooDeep { .. } => (StatusCode::BAD_REQUEST, "M_BAD_JSON"),
        RuleError::TooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
        RuleError::TooMany { .. } => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
    }
}

fn rule_edit_row(error: &EditError) -> (StatusCode, &'static str) {
    match error {
        EditError::DefaultRule => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"),
        EditError::NotFound => (StatusCode::NOT_FOUND, "M_NOT_FOUND"),
        // The example of the spec.
        EditError::NoSuchNeighbour => (StatusCode::BAD_REQUEST, "M_UNKNOWN"),
        EditError::RuleTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE"),
        EditError::TooLarge { .. } => (StatusCode::FORBIDDEN, "M_USER_LIMIT_EXCEEDED"),
        EditError::TooManyRules { .. } => (StatusCode::FORBIDDEN, "M_USER_LIMIT_EXCEEDED"),
    }
}

fn write_row(error: &WriteError) -> (StatusCode, &'static str) {
    match error {
        WriteError::Conflict {
            names: RevisionNames::Stable,
            ..
        } => (StatusCode::CONFLICT, "M_REVISION_ID_MISMATCH"),
        WriteError::Conflict {
            names: RevisionNames::Unstable,
            ..
        } => (StatusCode::CONFLICT, "COM.BEEPER.REVISION_ID_MISMATCH"),
        WriteError::Content(error) => content_row(error),
        WriteError::IgnoresSelf => (StatusCode::BAD_REQUEST, "M_INVALID_PARAM"), // as Synapse
        WriteError::Quota(_) => (StatusCode::FORBIDDEN, "M_USER_LIMIT_EXCEEDED"),
        WriteError::SessionGone => (StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN"),
        WriteError::Store(error) => store_row(error),
    }
}

/// A failing store is never a 404; 503 to a write means that its outcome is unknown.
fn store_row(error: &StoreError) -> (StatusCode, &'static str) {
    match error {
        StoreError::Corrupt(_) => (StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN"),
        StoreError::OutcomeUnknown(_) => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
        StoreError::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
        StoreError::Unavailable(_) => (StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN"),
    }
}

/// An error on its way to the edge, which alone knows the request's ID.
#[derive(Clone)]
pub(crate) struct Unrendered(pub(crate) Arc<ApiError>);

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.row().0.into_response();
        response.extensions_mut().insert(Unrendered(Arc::new(self)));
        response
    }
}

impl From<ApplyError> for ApiError {
    fn from(error: ApplyError) -> Self {
        match error {
            ApplyError::Refused(Refusal::NoSuchDevice) => Self::NotFound("there is no such device"),
            ApplyError::Refused(Refusal::SessionGone) => Self::UnknownToken { soft_logout: false },
            ApplyError::Refused(Refusal::Conflict { current }) => {
                Self::Write(WriteError::Conflict {
                    current,
                    names: RevisionNames::Stable,
                })
            }
            ApplyError::Refused(Refusal::Quota(exceeded)) => Self::Write(exceeded.into()),
            ApplyError::Store(error) => Self::Store(error),
        }
    }
}

impl From<PushRulesWriteError<SpecRulesError>> for ApiError {
    fn from(error: PushRulesWriteError<SpecRulesError>) -> Self {
        match error {
            PushRulesWriteError::Refused(SpecRulesError::Edit(error)) => Self::PushRuleEdit(error),
            PushRulesWriteError::Refused(SpecRulesError::Unreadable(error)) => {
                Self::Store(StoreError::Corrupt(error.to_string()))
            }
            PushRulesWriteError::Write(error) => Self::Write(error),
        }
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::SessionGone => Self::UnknownToken { soft_logout: false },
            FilterError::TooMany { .. } => Self::TooMany(error.to_string()),
            FilterError::Store(error) => Self::Store(error),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::PasswordChanged => Self::Forbidden("the password is wrong"),
            LoginError::TooManyDevices { .. } => Self::TooMany(error.to_string()),
            LoginError::Store(error) => Self::Store(error),
        }
    }
}

impl From<RateLimited> for ApiError {
    fn from(limited: RateLimited) -> Self {
        Self::RateLimited(limited)
    }
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::UnknownToken => Self::UnknownToken { soft_logout: false },
            RefreshError::Store(error) => Self::Store(error),
        }
    }
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::UserInUse => Self::UserInUse,
            RegisterError::Store(error) => Self::Store(error),
        }
    }
}
