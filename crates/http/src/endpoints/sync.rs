//! `GET /sync`
//!
//! Spec: CS API, Syncing. MSC4331: device account data, under a name of ours.

use std::time::Duration;

use axum::body::Body;
use axum::extract::FromRequestParts as _;
use axum::handler::Handler;
use axum::http::{Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use kitbag_domain::{Requester, Snapshot, Subscription, SyncToken};
use serde::Deserialize;
use tokio::time::{self, Instant};

use crate::answers::Asked;
use crate::dispatch::Answering;
use crate::error::ApiError;
use crate::extract::{Authenticated, MatrixQuery};
use crate::filter::Filter;
use crate::json::json_response;
use crate::metrics::Waited;
use crate::state::{App, Call};
use crate::sync::{Answer, initial_body};

#[derive(Deserialize)]
pub(crate) struct SyncQuery {
    filter: Option<String>,
    since: Option<String>,
    #[serde(default)]
    full_state: bool,
    timeout: Option<u64>,
}

/// Returns what changed behind `since`; waits up to `timeout` for something to tell.
///
/// A handler that is written by hand: what it needs to begin, the request among it, is dropped
/// before it waits, since thousands wait at once.
#[derive(Clone, Copy)]
pub(crate) struct Sync;

impl Handler<(), Call> for Sync {
    type Future = Answering;

    fn call(self, request: Request<Body>, call: Call) -> Answering {
        let beginning = Box::pin(begin(request, call));
        Box::pin(async move {
            match beginning.await {
                Ok(Begun::Answered(response)) => response,
                Ok(Begun::Waits(waiting)) => waiting.await,
                Err(error) => error.into_response(),
            }
        })
    }
}

/// What a sync is once its request was read.
enum Begun {
    Answered(Response),
    Waits(Answering),
}

async fn begin(request: Request<Body>, call: Call) -> Result<Begun, ApiError> {
    let (mut parts, _) = request.into_parts();
    let auth = Authenticated::from_request_parts(&mut parts, &call).await?;
    let MatrixQuery(query) = MatrixQuery::<SyncQuery>::of(&parts.uri)?;
    drop(parts);
    let app = call.app;
    let filter = app.filter_of(&auth, query.filter.as_deref()).await?;
    let since = match query.since.as_deref() {
        None => None,
        Some(text) => Some(text.parse().map_err(|_| {
            ApiError::InvalidParam("`since` is not a token of a sync on this server".to_owned())
        })?),
    };
    // One of another store, as after a restoring, is answered in full: that waits for its turn.
    let since = since.filter(|token| app.data.is_own(&auth.requester, token));
    let waiting = Waiting {
        app,
        auth,
        filter,
        since,
        has_waited: false,
    };
    if query.full_state {
        return Ok(Begun::Answered(waiting.everything().await?));
    }
    let limit_ms = waiting.app.settings.sync.timeout_ms_max;
    let timeout = Duration::from_millis(query.timeout.unwrap_or(0).min(limit_ms));
    if since.is_none() {
        return Ok(Begun::Answered(waiting.initial().await?));
    }
    // Without a timer: one that is due takes its millisecond all the same.
    if timeout.is_zero() {
        return Ok(Begun::Answered(response(&waiting.changes().await?)));
    }
    let waiting = waiting.wait(Instant::now() + timeout);
    Ok(Begun::Waits(Box::pin(waiting)))
}

struct Waiting {
    app: App,
    auth: Authenticated,
    filter: Filter,
    since: Option<SyncToken>,
    has_waited: bool,
}

impl Waiting {
    async fn everything(&self) -> Result<Response, ApiError> {
        let _turn = self.app.sync_turns.full().await;
        let data = &self.app.data;
        let snapshot = data.everything(&self.auth.requester, self.since).await?;
        Ok(response(&self.answer(snapshot).await))
    }

    async fn initial(&self) -> Result<Response, ApiError> {
        let Self { app, auth, .. } = self;
        let asked = Asked {
            user: auth.requester.user.clone(),
            filter: self.filter.clone(),
            tells_device_data: self.tells_device_data(),
        };
        // Where the stream stands is asked first: what is told then lacks no change that was
        // acknowledged before (law 1).
        if let Some(now) = app.data.peek_next(&auth.requester)
            && let Some(body) = app.answers.get(&asked, now)
        {
            return Ok(json_response(StatusCode::OK, body));
        }
        let _turn = app.sync_turns.full().await;
        let snapshot = app.data.initial(&auth.requester).await?;
        let next = snapshot.next;
        let body = initial_body(snapshot, &self.filter, self.tells_device_data()).await;
        // Under the head of its own snapshot: that of now may be behind a change that it lacks.
        app.answers.remember(asked, next, body.clone());
        Ok(json_response(StatusCode::OK, body))
    }

    /// Returns what changed, without waiting.
    async fn changes(&self) -> Result<Answer, ApiError> {
        let turn = self.app.sync_turns.read().await;
        let data = &self.app.data;
        let snapshot = data.since(&self.auth.requester, self.since).await?;
        drop(turn);
        Ok(self.answer(snapshot).await)
    }

    /// Waits, and answers.
    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` has its arguments twice"
    )]
    fn wait(mut self, deadline: Instant) -> impl Future<Output = Response> + Send {
        async move {
            let mut response = self.news(deadline).await.into_response();
            if self.has_waited {
                response.extensions_mut().insert(Waited);
            }
            response
        }
    }

    /// Returns what came before the deadline.
    ///
    /// Reads in boxes, so that what that needs is not kept for as long as it waits.
    async fn news(&mut self, deadline: Instant) -> Result<Response, ApiError> {
        // Subscribed before it is read: so no change falls between (law 3).
        let mut subscription = self.app.data.subscribe(&self.auth.requester);
        loop {
            let told = Box::pin(self.changes()).await?;
            if told.has_news()
                || !self.changes_before(deadline, &mut subscription).await
                || !Box::pin(self.is_token_valid()).await?
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
        Answer::new(snapshot, &self.filter, self.tells_device_data()).await
    }

    fn tells_device_data(&self) -> bool {
        self.app.settings.features.msc4331.in_sync
    }
}

fn response(told: &Answer) -> Response {
    json_response(StatusCode::OK, told.body())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each of thousands has this for as long as it waits: one that grows is one box too few.
    const WAITING_BYTES_MAX: usize = 896;

    fn size_of_future<A, B, F>(_: impl FnOnce(A, B) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_waiting_sync_keeps_no_more_than_it_waits_with() {
        let bytes = size_of_future(Waiting::wait);
        assert!(bytes <= WAITING_BYTES_MAX, "{bytes} bytes");
    }
}
