//! `GET /health`: whether the server can answer from its store, and write to it.

use axum::extract::State;
use kitbag_domain::StoreError;

use crate::error::ApiError;
use crate::json::EmptyObject;
use crate::state::App;

pub(crate) async fn get(State(app): State<App>) -> Result<EmptyObject, ApiError> {
    app.store.accounts(None, 1).await?;
    if app.store.takes_writes() {
        Ok(EmptyObject)
    } else {
        Err(StoreError::Unavailable("it takes no writes".to_owned()).into())
    }
}
