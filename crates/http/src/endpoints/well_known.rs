//! `GET /.well-known/matrix/client`
//!
//! Spec: CS API, Server discovery.

use axum::extract::State;
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::json::MatrixJson;
use crate::state::App;

pub(crate) async fn client(State(app): State<App>) -> Result<MatrixJson<Value>, ApiError> {
    let base_url = app.settings.public_base_url.as_deref();
    let base_url = base_url.ok_or(ApiError::NotFound("no public address is configured"))?;
    Ok(MatrixJson(json!({"m.homeserver": {"base_url": base_url}})))
}
