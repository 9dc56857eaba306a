//! `POST /_kitbag/client/v1/pushrules/explain`: why an event notifies the user who asks, or does not.
//!
//! Kitbag's own. The rules are the user's, and the event and the room are what they bring: nothing is
//! told that they could not work out themselves.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use kitbag_domain::Content;
use kitbag_push::{FlatEvent, MemberContext, RoomContext, Ruleset};
use serde::Deserialize;
use serde_json::error::Category;
use serde_json::value::RawValue;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task;

use crate::error::ApiError;
use crate::extract::{Authenticated, read_body};
use crate::json::json_response;
use crate::state::App;

/// Bytes of a request: an event has at most 64 KiB, and may be written with white space.
const BODY_BYTES_MAX: u64 = 128 * 1024;

/// What is asked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question<'a> {
    #[serde(borrow)]
    event: Option<&'a RawValue>,
    /// The room of an event that does not say it, as in an answer of sync.
    room_id: Option<String>,
    /// The name of the user in the room.
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    room: RoomContext,
}

/// Answers with the rules in their order, what each condition says, and the rule that decides.
///
/// One at a time is worked out: it asks every condition of every rule, and users can have many.
pub(crate) async fn post(
    State(app): State<App>,
    auth: Authenticated,
    body: Body,
) -> Result<Response, ApiError> {
    app.rate_limits.explanation(&auth.requester.user)?;
    let body = read_body(&app, body, BODY_BYTES_MAX).await?;
    let served = app.data.push_rules(&auth.requester).await?;
    let user = auth.requester.user.clone();
    let rules = Arc::clone(&app.rules);
    let turn = app.explain_turns.take().await;
    // The turn goes along: where the client leaves, the thread is busy all the same.
    let answer = task::spawn_blocking(move || {
        let answer = explained(&body, &served, || rules.ruleset(&user, &served));
        drop(turn);
        answer
    });
    let answer = answer.await.map_err(|_panic| ApiError::Panicked)??;
    Ok(json_response(StatusCode::OK, answer.into()))
}

/// Whose turn it is to be explained something.
pub(crate) struct ExplainTurns(Arc<Semaphore>);

impl Default for ExplainTurns {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(1)))
    }
}

impl ExplainTurns {
    async fn take(&self) -> OwnedSemaphorePermit {
        let turn = Arc::clone(&self.0).acquire_owned().await;
        turn.expect("the semaphore is never closed")
    }
}

fn explained(
    body: &[u8],
    served: &Content,
    rules: impl FnOnce() -> Arc<Ruleset>,
) -> Result<Vec<u8>, ApiError> {
    let body = std::str::from_utf8(body).map_err(|_| ApiError::NotJson)?;
    let question: Question<'_> =
        serde_json::from_str(body).map_err(|error| match error.classify() {
            Category::Data => ApiError::BadJson(error.to_string()),
            Category::Eof | Category::Io | Category::Syntax => ApiError::NotJson,
        })?;
    if !body.trim_start().starts_with('{') {
        // A list, whose elements were taken for the members.
        return Err(ApiError::BadJson("it is not an object".to_owned()));
    }
    let event = question.event.ok_or(ApiError::MissingParam("event"))?.get();
    let event = match &question.room_id {
        Some(room_id) => FlatEvent::in_room(event, room_id),
        None => FlatEvent::parse(event),
    };
    let event = event.map_err(|error| ApiError::BadJson(error.to_string()))?;
    let member = MemberContext::named(&question.room, &question.display_name);
    let explanation = rules().explain(served.as_str(), &event, &member);
    Ok(serde_json::to_vec(&explanation).expect("an explanation is serialisable"))
}
