//! `GET /_kitbag/admin/v1/changes`: the device account data of all users as it changes, for programs
//! that follow it. A long poll, as /sync.

use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use kitbag_domain::{
    DeviceChange, DeviceSubscription, EventType, FeedPosition, FeedToken, Reader, StoreError,
};
use serde::Deserialize;
use tokio::time::{self, Instant};

use super::{ChangeRow, ChangesPage, page};
use crate::error::ApiError;
use crate::extract::MatrixQuery;
use crate::metrics::Waited;
use crate::state::App;

/// Changes on a page, unless another number is asked for.
pub(super) const PAGE_CHANGES: usize = 100;
/// Changes on a page at most.
pub(super) const PAGE_CHANGES_MAX: usize = 1_000;
/// Changes that are looked at for one page, most of which a filter may drop; then the caller gets
/// what there is, and goes on from there.
const CHANGES_READ_MAX: usize = 10_000;

#[derive(Deserialize)]
pub(crate) struct ChangesQuery {
    since: Option<String>,
    timeout: Option<u64>,
    limit: Option<usize>,
    #[serde(rename = "type")]
    event_type: Option<String>,
}

pub(crate) async fn changes(
    State(app): State<App>,
    MatrixQuery(query): MatrixQuery<ChangesQuery>,
) -> Result<Response, ApiError> {
    let invalid = |_| ApiError::InvalidParam("`since` is no token of this stream".to_owned());
    let since: Option<FeedToken> = query
        .since
        .map(|text| text.parse().map_err(invalid))
        .transpose()?;
    let event_type = query.event_type.map(EventType::parse).transpose()?;
    let limit = page::limit(query.limit, PAGE_CHANGES, PAGE_CHANGES_MAX)?;
    let timeout_ms = query
        .timeout
        .unwrap_or(0)
        .min(app.settings.sync.timeout_ms_max);
    let following = Following {
        epoch: app.store.info().epoch,
        reader: app.data.reader(),
        chunk: app.data.limits().device_entries_at_once(),
        event_type,
        limit,
        app,
    };
    let since = since.and_then(|since| since.in_epoch(following.epoch));
    Ok(following
        .wait(since, Duration::from_millis(timeout_ms))
        .await)
}

/// Who follows, and what they want to hear of.
struct Following {
    app: App,
    reader: Reader,
    epoch: u64,
    event_type: Option<EventType>,
    limit: usize,
    chunk: usize,
}

/// What was read of the stream.
struct Told {
    next: FeedPosition,
    starts_anew: bool,
    changes: Vec<DeviceChange>,
    has_more: bool,
}

impl Told {
    /// Tells whether a wait ends with this.
    fn has_news(&self) -> bool {
        self.starts_anew || self.has_more || !self.changes.is_empty()
    }
}

impl Following {
    /// Answers with what followed `since`; where that is nothing, waits for something to tell.
    async fn wait(self, since: Option<FeedPosition>, timeout: Duration) -> Response {
        let mut has_waited = false;
        let answer = self.news(since, timeout, &mut has_waited).await;
        let mut response = answer.into_response();
        if has_waited {
            // Or long polls would count as slow answers, those that end with an error too.
            response.extensions_mut().insert(Waited);
        }
        response
    }

    async fn news(
        &self,
        mut since: Option<FeedPosition>,
        timeout: Duration,
        has_waited: &mut bool,
    ) -> Result<Response, ApiError> {
        let deadline = Instant::now() + timeout;
        // Subscribed before it is read: so no change falls between (law 3).
        let mut subscription = self.reader.subscribe();
        loop {
            let told = self.read(since).await?;
            if told.has_news() || timeout.is_zero() {
                return self.answer(&told);
            }
            *has_waited = true;
            if !self.changes_before(deadline, &mut subscription).await {
                return self.answer(&told);
            }
            // What the filter dropped is behind this follower.
            since = Some(told.next);
        }
    }

    /// Reads until a page is full, of changes or of bytes, or the end of the stream is reached.
    async fn read(&self, since: Option<FeedPosition>) -> Result<Told, StoreError> {
        let mut after = since;
        let mut starts_anew = false;
        let mut changes = Vec::new();
        let (mut bytes, mut read) = (0, 0);
        let mut wanted = self.wanted(0);
        loop {
            let found = self.reader.device_changes(after, wanted).await?;
            if found.starts_anew {
                // Also in the middle, where a deletion was collected meanwhile.
                starts_anew = true;
                changes.clear();
                bytes = 0;
            }
            read += found.changes.len();
            if let Some(fewer) = self.fewer(&found.changes, self.limit - changes.len()) {
                wanted = fewer;
                continue;
            }
            let passed = found
                .changes
                .into_iter()
                .filter(|change| self.passes(change));
            for change in passed {
                bytes += size_bytes(&change);
                changes.push(change);
            }
            let is_full = changes.len() == self.limit
                || bytes >= page::PAGE_BYTES_MAX
                || read >= CHANGES_READ_MAX;
            if is_full || !found.has_more {
                return Ok(Told {
                    next: found.next,
                    starts_anew,
                    changes,
                    has_more: found.has_more,
                });
            }
            after = Some(found.next);
            wanted = self.wanted(changes.len());
        }
    }

    /// Returns how many changes to read at once: more than still fit, where a filter drops most.
    fn wanted(&self, has: usize) -> usize {
        match self.event_type {
            None => self.chunk.min(self.limit - has),
            Some(_) => self.chunk,
        }
    }

    /// Returns how many of these changes to read, where more of them pass than fit: the place behind
    /// the last that fits is known only to a read that ends there.
    fn fewer(&self, found: &[DeviceChange], fit: usize) -> Option<usize> {
        let passing = found.iter().enumerate();
        let mut passing = passing
            .filter(|(_, change)| self.passes(change))
            .skip(fit - 1);
        let (last, _) = passing.next()?;
        passing.next().map(|_| last + 1)
    }

    fn passes(&self, change: &DeviceChange) -> bool {
        match (change, &self.event_type) {
            (DeviceChange::Entry(_, entry), Some(wanted)) => entry.key.event_type == *wanted,
            // The end of an account is that of its entries of every type.
            (DeviceChange::AccountEnded(_), _) | (_, None) => true,
        }
    }

    /// Waits for a change; false once the time is over or the server stops.
    async fn changes_before(
        &self,
        deadline: Instant,
        subscription: &mut DeviceSubscription,
    ) -> bool {
        let mut stopping = self.app.stopping.clone();
        let _counted = self.app.metrics.syncs.wait();
        tokio::select! {
            () = subscription.changed() => true,
            () = time::sleep_until(deadline) => false,
            _ = stopping.wait_for(|stopping| *stopping) => false,
        }
    }

    fn answer(&self, told: &Told) -> Result<Response, ApiError> {
        let next = FeedToken {
            epoch: self.epoch,
            position: told.next,
        };
        page::json(&ChangesPage {
            next_batch: next.to_string(),
            starts_anew: told.starts_anew,
            changes: told.changes.iter().map(ChangeRow::new).collect(),
            has_more: told.has_more,
        })
    }
}

/// Returns what a change takes of a page.
fn size_bytes(change: &DeviceChange) -> u64 {
    match change {
        DeviceChange::AccountEnded(_) => 0,
        DeviceChange::Entry(_, entry) => entry.size_bytes(),
    }
}
