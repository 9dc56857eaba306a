//! `GET`, `PUT` and `DELETE` of one entry, in every scope:
//! `/user/{userId}/account_data/{type}`, `/user/{userId}/rooms/{roomId}/account_data/{type}` and
//! `/user/{userId}/devices/{deviceId}/account_data/{type}`.
//!
//! Spec: CS API, Client Config. MSC4331: device scope. MSC3391: deletion. MSC4547:
//! compare-and-swap.

use axum::body::Body;
use axum::extract::State;
use axum::http::{Request, Uri};
use axum::response::{IntoResponse as _, Response};
use kitbag_domain::{Content, Expectation, Key, PermitError, WritePolicy};
use serde::Deserialize;

use crate::dispatch::{Methods, Named, get as get_method};
use crate::error::{ApiError, Denial};
use crate::extract::{MatrixQuery, Stored, Target, read_body};
use crate::json::{EmptyObject, Verbatim};
use crate::state::App;

/// Returns the methods of a stable path.
pub(crate) fn entry() -> Methods {
    get_method(get)
        .at_once(get_at_once)
        .put(put)
        .delete(delete_on_stable_path)
}

#[derive(Deserialize)]
pub(crate) struct PutQuery {
    expect_revision_id: Option<String>,
    #[serde(rename = "com.beeper.expect_revision_id")]
    unstable_expect_revision_id: Option<String>,
}

impl From<PutQuery> for Expectation {
    fn from(query: PutQuery) -> Self {
        Self {
            stable: query.expect_revision_id,
            unstable: query.unstable_expect_revision_id,
        }
    }
}

/// Reads what a write expects to replace out of its query (MSC4547).
///
/// # Errors
/// 400 where the query is not valid.
pub fn expectation(uri: &Uri) -> Result<Expectation, Denial> {
    let MatrixQuery(query) = MatrixQuery::<PutQuery>::of(uri)?;
    Ok(query.into())
}

async fn get(Stored(content): Stored) -> Verbatim {
    Verbatim(content)
}

/// Answers a `GET` whose session and entry are in memory.
fn get_at_once(app: &App, request: &Request<Body>, named: Named<'_, '_>) -> Option<Response> {
    let content = Stored::peek(app, request, named)?;
    Some(Verbatim(content).into_response())
}

async fn put(
    State(app): State<App>,
    Target { auth, key }: Target,
    uri: Uri,
    body: Body,
) -> Result<EmptyObject, ApiError> {
    let limits = app.data.limits();
    let limit_bytes = limits.content_bytes_max_in(&key.scope);
    let permit = app.data.permit(&auth.requester, key).await?;
    // Behind the policy: a protected type is refused as such, whatever is expected of it.
    let MatrixQuery(query) = MatrixQuery::<PutQuery>::of(&uri)?;
    let content = Content::parse(read_body(&app, body, limit_bytes).await?, limits)?;
    let expectation = Expectation::from(query);
    if app.settings.features.msc3391.empty_deletes() {
        permit.put_or_delete(content, expectation).await?;
    } else {
        permit.put(content, expectation).await?;
    }
    Ok(EmptyObject)
}

/// `DELETE` below `/_matrix/client/unstable/org.matrix.msc3391`: also of what is not there.
pub(crate) async fn delete(
    State(app): State<App>,
    Target { auth, key }: Target,
) -> Result<EmptyObject, ApiError> {
    if !app.settings.features.msc3391.enabled {
        return Err(refusal(key, ApiError::Unrecognized));
    }
    let permit = app.data.permit(&auth.requester, key).await?;
    permit.delete().await?;
    Ok(EmptyObject)
}

/// No specification has a `DELETE` here; protected types are refused as such on every path.
async fn delete_on_stable_path(Target { key, .. }: Target) -> ApiError {
    refusal(key, ApiError::MethodNotAllowed)
}

/// Refuses what is refused whoever asks, so without asking the store.
fn refusal(key: Key, otherwise: ApiError) -> ApiError {
    match WritePolicy::of(&key) {
        WritePolicy::ServerManaged => PermitError::ServerManaged(key.event_type).into(),
        WritePolicy::AnyDevice | WritePolicy::OwnDevice => otherwise,
    }
}
