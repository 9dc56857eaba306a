//! `GET /health`: whether the server can answer from its store.

use axum::extract::State;

use crate::error::ApiError;
use crate::json::EmptyObject;
use crate::state::App;

pub(crate) async fn get(State(app): State<App>) -> Result<EmptyObject, ApiError> {
    app.store.accounts(None, 1).await?;
    Ok(EmptyObject)
}
