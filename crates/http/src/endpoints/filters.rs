//! `POST /user/{userId}/filter`, `GET /user/{userId}/filter/{filterId}`.
//!
//! Spec: CS API, Filtering.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use bytes::Bytes;
use kitbag_domain::{Content, limit};
use serde_json::{Value, json};

use crate::error::ApiError;
use crate::extract::{Authenticated, OwnPath, read_body};
use crate::filter::Filter;
use crate::json::{MatrixJson, Verbatim};
use crate::state::App;

pub(crate) async fn create(
    State(app): State<App>,
    OwnPath { auth, .. }: OwnPath,
    body: Body,
) -> Result<MatrixJson<Value>, ApiError> {
    let body = read_body(&app, body, limit::FILTER_BYTES_MAX as u64).await?;
    let content = Content::parse(body, app.data.limits())?;
    Filter::parse(content.as_str())?;
    let (user, guard) = (&auth.requester.user, auth.requester.guard());
    let id = app
        .store
        .add_filter(user, guard, content.as_str().to_owned())
        .await?;
    Ok(MatrixJson(json!({"filter_id": id.to_string()})))
}

pub(crate) async fn get(
    State(app): State<App>,
    OwnPath { auth, params }: OwnPath,
) -> Result<Verbatim, ApiError> {
    let id = params.get("filter").unwrap_or_default();
    let text = app.stored_filter(&auth, id).await?;
    let text = text.ok_or(ApiError::NotFound("there is no such filter"))?;
    Ok(Verbatim(Content::from_stored(Bytes::copy_from_slice(
        text.as_bytes(),
    ))))
}

impl App {
    async fn stored_filter(
        &self,
        auth: &Authenticated,
        id: &str,
    ) -> Result<Option<Arc<str>>, ApiError> {
        match id.parse() {
            Ok(id) => Ok(self.store.filter(&auth.requester.user, id).await?),
            Err(_) => Ok(None),
        }
    }

    /// Returns the filter that a sync names: inline JSON, or the ID of an uploaded one.
    pub(crate) async fn filter_of(
        &self,
        auth: &Authenticated,
        named: Option<&str>,
    ) -> Result<Filter, ApiError> {
        match named {
            None => Ok(Filter::default()),
            Some(inline) if inline.starts_with('{') => Filter::parse(inline),
            Some(id) => {
                let text = self.stored_filter(auth, id).await?;
                let unknown = || ApiError::InvalidParam("there is no such filter".to_owned());
                Filter::parse(&text.ok_or_else(unknown)?)
            }
        }
    }
}
