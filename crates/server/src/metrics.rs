//! What `GET /metrics` on the private listener tells, in the text format of OpenMetrics.
//!
//! Whoever counts keeps plain figures: `kitbag_http` and the store know nothing of Prometheus. Here
//! they get names, units and texts. docs/monitoring.md has the same names; a test compares them.

pub(crate) mod gateway;
mod page;
mod process;
mod requests;
mod survey;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use kitbag_domain::{Clock, Limits, UnixMs};
use kitbag_http::{RenderMetrics, Stats as ApiStats};
use kitbag_store_sqlite::{SqliteStore, Stats as StoreStats};

use crate::config::Config;
use page::{Page, seconds};
use process::Process;
use survey::{SHARES, Survey};

/// Bytes of a frame in the write-ahead log: a page and its header.
const WAL_FRAME_BYTES: u64 = kitbag_store_sqlite::limit::PAGE_BYTES + 24;

/// What the metrics of one server are made of.
pub(crate) struct Metrics {
    store: Arc<SqliteStore>,
    limits: Limits,
    connections_max: u64,
    cache_bytes_max: u64,
    started_at: UnixMs,
    surveyed: Mutex<Option<Survey>>,
}

/// All figures of one moment.
#[derive(Debug)]
struct Figures {
    api: ApiStats,
    store: StoreStats,
    connections_max: u64,
    cache_bytes_max: u64,
    surveyed: Option<Survey>,
    process: Process,
}

impl Metrics {
    /// Puts the parts together; nothing is surveyed until [`Metrics::survey`] runs.
    pub(crate) fn new(
        store: Arc<SqliteStore>,
        limits: Limits,
        config: &Config,
        clock: &dyn Clock,
    ) -> Self {
        Self {
            store,
            limits,
            connections_max: config.listener.connections_max.get() as u64,
            cache_bytes_max: config.cache.bytes_max,
            started_at: clock.now_ms(),
            surveyed: Mutex::default(),
        }
    }

    /// Returns the function that writes the page; it reads files of `/proc`, so it may block.
    pub(crate) fn renderer(self: &Arc<Self>) -> RenderMetrics {
        let metrics = Arc::clone(self);
        Arc::new(move |api| metrics.render(api))
    }

    fn render(&self, api: ApiStats) -> String {
        let surveyed = self.surveyed.lock();
        let surveyed = surveyed.unwrap_or_else(PoisonError::into_inner).clone();
        let figures = Figures {
            api,
            store: self.store.stats(),
            connections_max: self.connections_max,
            cache_bytes_max: self.cache_bytes_max,
            surveyed,
            process: Process::read(self.started_at),
        };
        page::text(figures)
    }
}

impl page::Figures for Figures {
    fn write(&self, page: &mut Page<'_>) -> fmt::Result {
        requests::write(&self.api, self.connections_max, page)?;
        self.write_syncs(page)?;
        self.write_queues(page)?;
        self.write_commits(page)?;
        self.write_cache(page)?;
        self.write_usage(page)?;
        self.process.write(page)
    }
}

impl Figures {
    fn write_syncs(&self, page: &mut Page<'_>) -> fmt::Result {
        let ApiStats {
            syncs_waiting,
            syncs_waited_us,
            sync_wakeups,
            ..
        } = &self.api;
        page.gauge(
            "kitbag_password_checks_waiting",
            "Password checks that wait for their turn",
            self.api.password_checks_waiting,
        )?;
        page.gauge(
            "kitbag_sync_waiting",
            "Syncs and followers of changes that wait for something to tell",
            *syncs_waiting,
        )?;
        page.duration(
            "kitbag_sync_waited_seconds",
            "Time from the head of a sync that waited to its answer",
            syncs_waited_us,
        )?;
        page.counter(
            "kitbag_sync_wakeups",
            "Times that a waiting sync was woken by a change of its user's data",
            *sync_wakeups,
        )
    }

    fn write_queues(&self, page: &mut Page<'_>) -> fmt::Result {
        let store = &self.store;
        let gauges = [
            (
                "kitbag_store_write_queue_jobs",
                "Writes that wait for their transaction",
                store.write_queue_jobs,
            ),
            (
                "kitbag_store_write_queue_jobs_max",
                "Waiting writes beyond which further ones are refused",
                store.write_queue_jobs_max,
            ),
            (
                "kitbag_store_write_queue_bytes",
                "Contents that wait to be written",
                store.write_queue_bytes,
            ),
            (
                "kitbag_store_write_queue_bytes_max",
                "Waiting contents beyond which further ones are refused",
                store.write_queue_bytes_max,
            ),
            (
                "kitbag_store_read_queue_jobs",
                "Reads that wait for a thread",
                store.read_queue_jobs,
            ),
            (
                "kitbag_store_read_queue_jobs_max",
                "Waiting reads beyond which further ones are refused",
                store.read_queue_jobs_max,
            ),
        ];
        for (name, help, value) in gauges {
            page.gauge(name, help, value)?;
        }
        page.gauge_f64(
            "kitbag_store_oldest_read_seconds",
            "For how long the oldest read that is under way has been so",
            seconds(store.oldest_read_us),
        )
    }

    fn write_commits(&self, page: &mut Page<'_>) -> fmt::Result {
        let store = &self.store;
        page.duration(
            "kitbag_store_commit_seconds",
            "Time that a COMMIT took, which waits for the disk",
            &store.commits_us,
        )?;
        page.spread(
            "kitbag_store_batch_writes",
            "Writes that shared a transaction",
            &store.batches_writes,
        )?;
        page.gauge(
            "kitbag_store_wal_bytes",
            "The write-ahead log after the latest commit",
            store.wal_frames * WAL_FRAME_BYTES,
        )?;
        let checkpoints = [
            ("done", store.checkpoints),
            ("failed", store.checkpoints_failed),
        ];
        page.counters(
            "kitbag_store_checkpoints",
            "Copyings of the write-ahead log into the database",
            checkpoints.map(|(result, count)| ([("result", result)], count)),
        )?;
        page.gauge(
            "kitbag_store_takes_writes",
            "Whether writes are taken: 0 from a fault of the files until one was committed again",
            u64::from(store.takes_writes),
        )?;
        page.counter(
            "kitbag_store_outages",
            "Faults of the files, after each of which they were opened anew",
            store.outages,
        )?;
        page.counter(
            "kitbag_store_writes_failed",
            "Writes that were answered as unavailable or as of unknown outcome",
            store.writes_failed,
        )
    }

    fn write_cache(&self, page: &mut Page<'_>) -> fmt::Result {
        let store = &self.store;
        page.counter(
            "kitbag_store_cache_hits",
            "Look-ups that were answered from memory",
            store.cache_hits,
        )?;
        page.counter(
            "kitbag_store_cache_misses",
            "Reads of the database for what could have been in memory",
            store.cache_misses,
        )?;
        page.counter(
            "kitbag_store_cache_evictions",
            "Entries and sessions that made room in memory for others",
            store.cache_evictions,
        )?;
        page.gauge(
            "kitbag_store_cache_bytes",
            "Entries and sessions that are kept in memory",
            store.cache_bytes,
        )?;
        page.gauge(
            "kitbag_store_cache_bytes_max",
            "The bound of the memory for entries and sessions",
            self.cache_bytes_max,
        )
    }

    /// Nothing until the first survey is done.
    fn write_usage(&self, page: &mut Page<'_>) -> fmt::Result {
        let Some(surveyed) = &self.surveyed else {
            return Ok(());
        };
        let accounts = [
            ("active", surveyed.active),
            ("deactivated", surveyed.deactivated),
        ];
        page.gauges(
            "kitbag_accounts",
            "Accounts, those that were ended too",
            accounts.map(|(state, count)| ([("state", state)], count)),
        )?;
        page.gauge("kitbag_entries", "Live entries", surveyed.usage.entries)?;
        page.gauge(
            "kitbag_entries_bytes",
            "Live entries, as the quota counts them",
            surveyed.usage.bytes,
        )?;
        let near = SHARES.into_iter().zip(surveyed.near);
        page.gauges(
            "kitbag_accounts_near_quota",
            "Accounts that use at least this share of a quota, of entries or of bytes",
            near.map(|((_, share), count)| ([("share", share)], count)),
        )?;
        page.gauge_f64(
            "kitbag_accounts_surveyed_timestamp_seconds",
            "When accounts and their entries were last counted",
            seconds(surveyed.at.saturating_mul(1_000)),
        )
    }
}
