//! `GET /health`: whether the server can answer from its store, and write to it.

use axum::extract::State;
use kitbag_domain::{Store, StoreError};

use crate::error::ApiError;
use crate::json::EmptyObject;
use crate::state::App;

pub(crate) async fn get(State(app): State<App>) -> Result<EmptyObject, ApiError> {
    check(&*app.store).await?;
    Ok(EmptyObject)
}

/// Looks whether `store` answers and takes writes.
/// # Errors
/// What it said, or [`StoreError::Unavailable`] while it takes none.
pub async fn check(store: &dyn Store) -> Result<(), StoreError> {
    store.accounts(None, 1).await?;
    if store.takes_writes() {
        Ok(())
    } else {
        Err(StoreError::Unavailable("it takes no writes".to_owned()))
    }
}
