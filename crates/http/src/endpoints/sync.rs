//! `GET /sync`
//!
//! Spec: CS API, Syncing. MSC4331: device account data, under a name of ours.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use kitbag_domain::{Subscription, SyncToken};
use serde::Deserialize;
use tokio::time::{self, Instant};

use crate::error::ApiError;
use crate::extract::{Authenticated, MatrixQuery};
use crate::filter::Filter;
use crate::json::json_response;
use crate::state::App;
use crate::sync::Answer;

#[derive(Deserialize)]
pub(crate) struct SyncQuery {
    filter: Option<String>,
    since: Option<String>,
    #[serde(default)]
    full_state: bool,
    timeout: Option<u64>,
}

/// Returns what changed behind `since`; waits up to `timeout` for something to tell.
pub(crate) async fn sync(
    State(app): State<App>,
    auth: Authenticated,
    MatrixQuery(query): MatrixQuery<SyncQuery>,
) -> Result<Response, ApiError> {
    let filter = app.filter_of(&auth, query.filter.as_deref()).await?;
    let since = match query.since.as_deref() {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            ApiError::InvalidParam("`since` is not a token of a sync on this server".to_owned())
        })?),
    };
    let waiting = Waiting {
        app,
        auth,
        filter,
        since,
    };
    if query.full_state {
        let snapshot = waiting
            .app
            .data
            .everything(&waiting.auth.requester, since)
            .await?;
        return Ok(answer(&waiting.answer(snapshot)));
    }
    let limit_ms = waiting.app.settings.sync.timeout_ms_max;
    let timeout = Duration::from_millis(query.timeout.unwrap_or(0).min(limit_ms));
    waiting.wait(Instant::now() + timeout).await
}

struct Waiting {
    app: App,
    auth: Authenticated,
    filter: Filter,
    since: Option<SyncToken>,
}

impl Waiting {
    async fn wait(mut self, deadline: Instant) -> Result<Response, ApiError> {
        // Subscribed before it is read: so no change falls between (law 3).
        let mut subscription = self.app.data.subscribe(&self.auth.requester);
        loop {
            let snapshot = self
                .app
                .data
                .since(&self.auth.requester, self.since)
                .await?;
            let next = snapshot.next;
            let told = self.answer(snapshot);
            if told.has_news() || !self.changes_before(deadline, &mut subscription).await {
                return Ok(answer(&told));
            }
            // Whatever was filtered out is behind this client.
            self.since = Some(next);
            self.check_session().await?;
        }
    }

    /// Waits for a change; false once the time is over or the server stops.
    async fn changes_before(&self, deadline: Instant, subscription: &mut Subscription) -> bool {
        let mut stopping = self.app.stopping.clone();
        tokio::select! {
            () = subscription.changed() => true,
            () = time::sleep_until(deadline) => false,
            _ = stopping.wait_for(|stopping| *stopping) => false,
        }
    }

    /// A session that ended while its sync waited is told so.
    async fn check_session(&self) -> Result<(), ApiError> {
        let user = &self.auth.requester.user;
        match self.app.store.session(user, self.auth.token).await? {
            Some(_) => Ok(()),
            None => Err(ApiError::UnknownToken { soft_logout: false }),
        }
    }

    fn answer(&self, snapshot: kitbag_domain::Snapshot) -> Answer {
        Answer::new(
            snapshot,
            &self.filter,
            self.app.settings.features.msc4331.in_sync,
        )
    }
}

fn answer(told: &Answer) -> Response {
    json_response(StatusCode::OK, told.body())
}
