//! `GET /pushrules/` and `GET /pushrules/global/`, read-only: the value of `m.push_rules`.
//!
//! Spec: CS API, Push rules API.

use axum::extract::State;
use bytes::Bytes;
use kitbag_domain::Content;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::error::ApiError;
use crate::extract::Authenticated;
use crate::json::Verbatim;
use crate::state::App;

pub(crate) async fn get(State(app): State<App>, auth: Authenticated) -> Result<Verbatim, ApiError> {
    Ok(Verbatim(app.data.push_rules(&auth.requester).await?))
}

#[derive(Deserialize)]
struct Scopes<'a> {
    #[serde(borrow)]
    global: &'a RawValue,
}

pub(crate) async fn get_global(
    State(app): State<App>,
    auth: Authenticated,
) -> Result<Verbatim, ApiError> {
    let rules = app.data.push_rules(&auth.requester).await?;
    let scopes: Scopes<'_> =
        serde_json::from_str(rules.as_str()).expect("served rules have the scope `global`");
    let global = Bytes::copy_from_slice(scopes.global.get().as_bytes());
    Ok(Verbatim(Content::from_stored(global)))
}
