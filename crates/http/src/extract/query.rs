use axum::extract::FromRequestParts;
use axum::http::Uri;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::error::ApiError;
use crate::state::Call;

/// The query of the URL; unknown parameters are passed over.
pub(crate) struct MatrixQuery<T>(pub(crate) T);

impl<T: DeserializeOwned> MatrixQuery<T> {
    pub(crate) fn of(uri: &Uri) -> Result<Self, ApiError> {
        let query = serde_urlencoded::from_str(uri.query().unwrap_or_default());
        let invalid = |error| ApiError::InvalidParam(format!("the query is not valid: {error}"));
        query.map(Self).map_err(invalid)
    }
}

impl<T: DeserializeOwned> FromRequestParts<Call> for MatrixQuery<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _call: &Call) -> Result<Self, ApiError> {
        Self::of(&parts.uri)
    }
}
