//! `GET /sync`
//!
//! Spec: CS API, Syncing. MSC4331: device account data, under a name of ours.

use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use kitbag_domain::{Requester, Snapshot, Subscription, SyncToken};
use serde::Deserialize;
use tokio::time::{self, Instant};

use crate::error::ApiError;
use crate::extract::{Authenticated, MatrixQuery};
use crate::filter::Filter;
use crate::json::json_response;
use crate::metrics::Waited;
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
        has_waited: false,
    };
    if query.full_state {
        return waiting.everything().await;
    }
    let limit_ms = waiting.app.settings.sync.timeout_ms_max;
    let timeout = Duration::from_millis(query.timeout.unwrap_or(0).min(limit_ms));
    if since.is_none() {
        return waiting.initial().await;
    }
    // Without a timer: one that is due takes its millisecond all the same.
    if timeout.is_zero() {
        return Ok(response(&waiting.changes().await?));
    }
    // Boxed, so that what came before does not take memory for as long as it waits.
    Box::pin(waiting.wait(Instant::now() + timeout)).await
}

struct Waiting {
    app: App,
    auth: Authenticated,
    filter: Filter,
    since: Option<SyncToken>,
    has_waited: bool,
}

impl Waiting {
    async fn everything(self) -> Result<Response, ApiError> {
        let _turn = self.app.sync_turns.full().await;
        let Self {
            app, auth, since, ..
        } = &self;
        let snapshot = app.data.everything(&auth.requester, *since).await?;
        Ok(response(&self.answer(snapshot).await))
    }

    async fn initial(self) -> Result<Response, ApiError> {
        let _turn = self.app.sync_turns.full().await;
        let snapshot = self.app.data.since(&self.auth.requester, None).await?;
        Ok(response(&self.answer(snapshot).await))
    }

    /// Returns what changed, without waiting.
    async fn changes(&self) -> Result<Answer, ApiError> {
        let turn = self.app.sync_turns.read().await;
        let data = &self.app.data;
        let snapshot = data.since(&self.auth.requester, self.since).await?;
        drop(turn);
        Ok(self.answer(snapshot).await)
    }

    async fn wait(mut self, deadline: Instant) -> Result<Response, ApiError> {
        let mut response = self.news(deadline).await.into_response();
        if self.has_waited {
            response.extensions_mut().insert(Waited);
        }
        Ok(response)
    }

    async fn news(&mut self, deadline: Instant) -> Result<Response, ApiError> {
        // Subscribed before it is read: so no change falls between (law 3).
        let mut subscription = self.app.data.subscribe(&self.auth.requester);
        loop {
            let told = self.changes().await?;
            if told.has_news()
                || !self.changes_before(deadline, &mut subscription).await
                || !self.is_token_valid().await?
            {
                return Ok(response(&told));
            }
            // Whatever was filtered out is behind this client.
            self.since = Some(told.next());
        }
    }

    /// Waits for a change; false once the time is over or the server stops.
    async fn changes_before(&mut self, deadline: Instant, changes: &mut Subscription) -> bool {
        self.has_waited = true;
        let metrics = &self.app.metrics.syncs;
        let _waiting = metrics.wait();
        let mut stopping = self.app.stopping.clone();
        tokio::select! {
            () = changes.changed() => { metrics.woken(); true }
            () = time::sleep_until(deadline) => false,
            _ = stopping.wait_for(|stopping| *stopping) => false,
        }
    }

    /// Tells whether the token that began this sync may see what came since.
    ///
    /// One that was replaced by a refresh may not, but its device lives: the client asks again with
    /// the new token. Where the device is gone, the client is told that it is logged out.
    async fn is_token_valid(&self) -> Result<bool, ApiError> {
        let _turn = self.app.sync_turns.read().await;
        let Requester { user, device, .. } = &self.auth.requester;
        let store = &self.app.store;
        if store.session(user, self.auth.token).await?.is_some() {
            return Ok(true);
        }
        if let Some((id, incarnation)) = device
            && let Some(known) = store.device(user, id).await?
            && known.incarnation == *incarnation
        {
            return Ok(false);
        }
        Err(ApiError::UnknownToken { soft_logout: false })
    }

    async fn answer(&self, snapshot: Snapshot) -> Answer {
        let tells_device_data = self.app.settings.features.msc4331.in_sync;
        Answer::new(snapshot, &self.filter, tells_device_data).await
    }
}

fn response(told: &Answer) -> Response {
    json_response(StatusCode::OK, told.body())
}
