use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use bytes::Bytes;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_json::error::Category;
use tokio::time;

use crate::error::{ApiError, Denial};
use crate::state::{App, Call};

/// Bytes of a JSON body that is not account data, such as that of a login.
const JSON_BYTES_MAX: u64 = 64 * 1024;

/// Reads a body that may have `limit_bytes`, in the time that the settings allow.
pub(crate) async fn read_body(app: &App, body: Body, limit_bytes: u64) -> Result<Bytes, ApiError> {
    let allowed = Duration::from_millis(app.settings.listener.body_timeout_ms);
    Ok(read_body_within(body, limit_bytes, allowed).await?)
}

/// Reads a body that may have `limit_bytes`, in the time that is `allowed`.
///
/// # Errors
/// 413, 408, or 400 where it is not sent to its end.
pub async fn read_body_within(
    body: Body,
    limit_bytes: u64,
    allowed: Duration,
) -> Result<Bytes, Denial> {
    let too_large = ApiError::BodyTooLarge { limit_bytes };
    let limit = usize::try_from(limit_bytes).unwrap_or(usize::MAX);
    let read = match time::timeout(allowed, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large),
        Ok(Err(_)) => Err(ApiError::BodyBroken),
        Err(_) => Err(ApiError::BodyTimeout),
    };
    read.map_err(Denial::from)
}

/// A JSON object as the body, whatever the content type says.
pub(crate) struct JsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned> FromRequest<Call> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, call: &Call) -> Result<Self, ApiError> {
        let body = read_body(&call.app, request.into_body(), JSON_BYTES_MAX).await?;
        Self::parse(&body)
    }
}

impl<T: DeserializeOwned> JsonBody<T> {
    fn parse(body: &[u8]) -> Result<Self, ApiError> {
        // Two steps, so that an array is not read as the fields of a struct, and so that broken
        // JSON is called so whatever comes before the break.
        let value: serde_json::Value =
            serde_json::from_slice(body).map_err(|error| match error.classify() {
                Category::Data => ApiError::BadJson(error.to_string()),
                Category::Eof | Category::Io | Category::Syntax => ApiError::NotJson,
            })?;
        if !value.is_object() {
            return Err(ApiError::BadJson("it is not an object".to_owned()));
        }
        serde_json::from_value(value)
            .map(Self)
            .map_err(|e| ApiError::BadJson(e.to_string()))
    }
}

/// As [`JsonBody`], where no body at all is as good as `{}`.
pub(crate) struct OptionalJsonBody<T>(pub(crate) T);

impl<T: DeserializeOwned + Default> FromRequest<Call> for OptionalJsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, call: &Call) -> Result<Self, ApiError> {
        let body = read_body(&call.app, request.into_body(), JSON_BYTES_MAX).await?;
        if body.is_empty() {
            return Ok(Self(T::default()));
        }
        JsonBody::parse(&body).map(|JsonBody(body)| Self(body))
    }
}
