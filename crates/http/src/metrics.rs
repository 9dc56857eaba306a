//! What the API counts, for whoever renders it: plain figures, and no ID of anybody.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::{Method, StatusCode};
use kitbag_domain::{Histogram, QuotaExceeded, Spread, StoreError, WriteError};
use kitbag_push::EditError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{ApiError, Denial, GatewayError};
use crate::passwords::PasswordError;
use crate::stripes::Stripes;

/// Bounds of [`RouteStats::durations_us`] in microseconds: two in each power of ten, from an answer
/// out of memory to one that somebody has given up waiting for.
const DURATION_BOUNDS_US: [u64; 13] = [
    100, 300, 1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000, 3_000_000, 10_000_000,
    30_000_000, 60_000_000,
];
/// Bounds of [`Stats::syncs_waited_us`] in microseconds, up to the longest `timeout` there is.
const WAIT_BOUNDS_US: [u64; 6] = [
    100_000,
    1_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];
/// Methods that are told apart; the last one stands for all others, so that nobody can make more.
const METHODS: [&str; 7] = ["DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT", "other"];
/// Statuses that are told apart, and how they are told.
const STATUSES: [(u16, &str); 22] = [
    (200, "200"),
    (204, "204"),
    (206, "206"),
    (301, "301"),
    (302, "302"),
    (304, "304"),
    (307, "307"),
    (400, "400"),
    (401, "401"),
    (403, "403"),
    (404, "404"),
    (405, "405"),
    (408, "408"),
    (409, "409"),
    (413, "413"),
    (415, "415"),
    (429, "429"),
    (500, "500"),
    (501, "501"),
    (502, "502"),
    (503, "503"),
    (504, "504"),
];
/// What all others are told as, which a homeserver behind the gateway can have: their class, of the
/// first digit 2 to 5, and the last one where there is none.
const CLASSES: [&str; 5] = ["2xx", "3xx", "4xx", "5xx", "other"];
/// Places for both.
const STATUS_PLACES: usize = STATUSES.len() + CLASSES.len();
/// The names of each [`Listener`].
const LISTENERS: [&str; 2] = ["public", "private"];
/// The route of a request that is on no route.
const UNKNOWN_ROUTE: &str = "unknown";
/// The route of the preflights of CORS, which are answered whatever they ask about.
const PREFLIGHT_ROUTE: &str = "preflight";

/// Figures of the API since it was put together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    /// What was asked, by route; routes that nobody asked for are left out.
    pub routes: Vec<RouteStats>,
    /// What was not done, by errcode and reason.
    pub refusals: Vec<RefusalStats>,
    /// Open connections, by the listener that they came to.
    pub connections: [(&'static str, u64); 2],
    /// Syncs that wait for something to tell.
    pub syncs_waiting: u64,
    /// For how long syncs that waited were under way, in microseconds.
    pub syncs_waited_us: Spread,
    /// Times that a waiting sync was woken by a change of its user's data.
    pub sync_wakeups: u64,
    /// Password checks that wait for a turn.
    pub password_checks_waiting: u64,
}

/// Figures of one route.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RouteStats {
    /// The path with names in braces, as the route table has it; r0 is told as v3.
    pub route: Arc<str>,
    /// Requests that were answered.
    pub requests: Vec<RequestStats>,
    /// How long the answers took, in microseconds, without those of syncs that waited.
    pub durations_us: Spread,
}

/// Requests of one route, method and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RequestStats {
    /// The method, or `other`.
    pub method: &'static str,
    /// The status; of one that is seldom its class such as `5xx`, or `other`.
    pub status: &'static str,
    /// How many there were.
    pub count: u64,
}

/// Requests that were refused or failed for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefusalStats {
    /// The errcode of the answer.
    pub errcode: &'static str,
    /// Why, in more detail than the errcode; docs/monitoring.md lists them.
    pub reason: &'static str,
    /// How many there were.
    pub count: u64,
}

/// Writes a page of metrics out of the figures; may block.
pub type RenderMetrics = Arc<dyn Fn(Stats) -> String + Send + Sync>;

/// What the API counts.
pub struct Metrics {
    routes: Mutex<Vec<Arc<RouteMetrics>>>,
    pub(crate) unknown: Arc<RouteMetrics>,
    pub(crate) preflight: Arc<RouteMetrics>,
    /// Not on the way of a request that is answered with what it asked for.
    refusals: Mutex<BTreeMap<(&'static str, &'static str), u64>>,
    connections: [Gauge; LISTENERS.len()],
    pub(crate) syncs: SyncMetrics,
    /// Pages of metrics are written one at a time.
    turn: Arc<Semaphore>,
}

/// What is counted of syncs.
pub(crate) struct SyncMetrics {
    waiting: Gauge,
    waited_us: Histogram,
    wakeups: AtomicU64,
}

/// What is counted of one route.
///
/// A place for each method and status is there from the start, so that to count is one step, without
/// a look-up.
pub struct RouteMetrics {
    route: Arc<str>,
    counts: Stripes<RouteCounts>,
}

/// What one stripe of threads counted of a route.
struct RouteCounts {
    answers: [[AtomicU64; STATUS_PLACES]; METHODS.len()],
    durations_us: Histogram,
}

/// The mark on an answer that came when its sync had waited.
#[derive(Clone, Copy)]
pub(crate) struct Waited;

/// A request under way, and where it will be counted.
#[derive(Clone, Copy)]
pub struct Counting<'a> {
    route: &'a RouteMetrics,
    method: usize,
}

/// Which of the two listeners a connection came to.
#[derive(Clone, Copy, Debug)]
pub enum Listener {
    /// That of clients.
    Public,
    /// That of the operator.
    Private,
}

/// How many there are of something.
#[derive(Default)]
pub struct Gauge(AtomicU64);

/// That there is one more, until it is dropped.
pub(crate) struct Counted<'a>(&'a Gauge);

impl Default for Metrics {
    fn default() -> Self {
        Self::watching(failures().into_iter().chain(fullnesses()))
    }
}

impl Metrics {
    /// Returns those of the gateway, which has no store that could fail or be full.
    #[must_use]
    pub fn of_gateway() -> Self {
        Self::watching(failures_upstream())
    }

    /// What alerts watch is told before it happens: a first time that comes out of nothing is no
    /// increase to Prometheus.
    fn watching(errors: impl IntoIterator<Item = ApiError>) -> Self {
        let (unknown, preflight) = (UNKNOWN_ROUTE.into(), PREFLIGHT_ROUTE.into());
        let [unknown, preflight] = [unknown, preflight].map(RouteMetrics::new).map(Arc::new);
        let refusals = errors.into_iter();
        let refusals = refusals.map(|error| ((error.row().1, error.reason()), 0));
        Self {
            routes: Mutex::new(vec![Arc::clone(&unknown), Arc::clone(&preflight)]),
            unknown,
            preflight,
            refusals: Mutex::new(refusals.collect()),
            connections: Default::default(),
            syncs: SyncMetrics {
                waiting: Gauge::default(),
                waited_us: Histogram::new(&WAIT_BOUNDS_US),
                wakeups: AtomicU64::new(0),
            },
            turn: Arc::new(Semaphore::new(1)),
        }
    }

    /// Returns where requests of a route are counted: one place for all that are told as the same.
    pub fn route(&self, route: String) -> Arc<RouteMetrics> {
        let routes = &mut *self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = routes.iter().find(|known| *known.route == route) {
            return Arc::clone(known);
        }
        let new = Arc::new(RouteMetrics::new(route.into()));
        routes.push(Arc::clone(&new));
        new
    }

    /// Returns where the open connections of a listener are counted.
    pub fn connections(&self, listener: Listener) -> &Gauge {
        &self.connections[listener as usize]
    }

    /// Counts an error that was the answer.
    pub(crate) fn refuse(&self, error: &ApiError) {
        let refusals = &mut *self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        *refusals.entry((error.row().1, error.reason())).or_default() += 1;
    }

    /// Counts a denial that was the answer.
    pub fn deny(&self, denial: &Denial) {
        self.refuse(denial.error());
    }

    /// Waits for a turn to write a page of metrics.
    pub async fn turn(&self) -> OwnedSemaphorePermit {
        let turn = Arc::clone(&self.turn).acquire_owned().await;
        turn.expect("the semaphore is never closed")
    }

    /// Returns all figures; `password_checks_waiting` is for the caller to tell.
    #[must_use]
    pub fn read(&self) -> Stats {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let mut routes: Vec<_> = routes.iter().map(|route| route.read()).collect();
        routes.retain(|route| !route.requests.is_empty());
        routes.sort_by(|a, b| a.route.cmp(&b.route));
        let refusals = self.refusals.lock().unwrap_or_else(PoisonError::into_inner);
        let refusals = refusals
            .iter()
            .map(|((errcode, reason), count)| RefusalStats {
                errcode,
                reason,
                count: *count,
            });
        let SyncMetrics {
            waiting,
            waited_us,
            wakeups,
        } = &self.syncs;
        Stats {
            routes,
            refusals: refusals.collect(),
            connections: [0, 1].map(|place| (LISTENERS[place], self.connections[place].read())),
            syncs_waiting: waiting.read(),
            syncs_waited_us: waited_us.read(),
            sync_wakeups: wakeups.load(Ordering::Relaxed),
            password_checks_waiting: 0,
        }
    }
}

impl SyncMetrics {
    /// Counts a sync that waits, until the result is dropped.
    pub(crate) fn wait(&self) -> Counted<'_> {
        self.waiting.enter();
        Counted(&self.waiting)
    }

    /// Counts a waiting sync that was woken.
    pub(crate) fn woken(&self) {
        self.wakeups.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long a sync that waited was under way.
    pub(crate) fn waited(&self, duration_us: u64) {
        self.waited_us.observe(duration_us);
    }
}

impl RouteMetrics {
    fn new(route: Arc<str>) -> Self {
        Self {
            route,
            counts: Stripes::new(),
        }
    }

    /// Returns where a request of this route will be counted.
    pub fn begin(&self, method: &Method) -> Counting<'_> {
        Counting {
            route: self,
            method: place_of_method(method),
        }
    }

    fn read(&self) -> RouteStats {
        let mut requests = Vec::new();
        for (method_place, method) in METHODS.into_iter().enumerate() {
            let statuses = STATUSES.into_iter().map(|(_, name)| name).chain(CLASSES);
            for (status_place, status) in statuses.enumerate() {
                let counts = self.counts.all();
                let counts = counts.map(|counts| &counts.answers[method_place][status_place]);
                let count = counts.map(|count| count.load(Ordering::Relaxed)).sum();
                if count > 0 {
                    requests.push(RequestStats {
                        method,
                        status,
                        count,
                    });
                }
            }
        }
        let mut durations_us = Histogram::new(&DURATION_BOUNDS_US).read();
        for counts in self.counts.all() {
            durations_us += counts.durations_us.read();
        }
        RouteStats {
            route: Arc::clone(&self.route),
            requests,
            durations_us,
        }
    }
}

impl RouteCounts {
    fn new() -> Self {
        Self {
            answers: Default::default(),
            durations_us: Histogram::new(&DURATION_BOUNDS_US),
        }
    }
}

impl Counting<'_> {
    /// Counts the answer.
    pub fn answered(self, status: StatusCode) {
        let counts = self.route.counts.own(RouteCounts::new);
        let count = &counts.answers[self.method][place_of_status(status)];
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts how long the answer took.
    pub fn took(self, duration_us: u64) {
        let counts = self.route.counts.own(RouteCounts::new);
        counts.durations_us.observe(duration_us);
    }
}

impl Gauge {
    /// Counts one more.
    pub fn enter(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts one less.
    pub fn leave(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// Returns how many there are.
    #[must_use]
    pub fn read(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// Returns one of each way to fail inside.
fn failures() -> [ApiError; 7] {
    let nothing = String::new;
    [
        ApiError::Panicked,
        PasswordError::Hash(nothing()).into(),
        PasswordError::Overloaded.into(),
        StoreError::Corrupt(nothing()).into(),
        StoreError::OutcomeUnknown(nothing()).into(),
        StoreError::Overloaded.into(),
        StoreError::Unavailable(nothing()).into(),
    ]
}

/// Returns one of each way for the gateway to fail, or to slow an account down.
fn failures_upstream() -> [ApiError; 8] {
    let retry_after = Duration::ZERO;
    let cause = None;
    [
        ApiError::Panicked,
        GatewayError::OutcomeUnknown { retry_after }.into(),
        GatewayError::TooManyWrites { retry_after }.into(),
        GatewayError::UpstreamBroken.into(),
        GatewayError::UpstreamDown { retry_after, cause }.into(),
        GatewayError::UpstreamTimeout.into(),
        GatewayError::UpstreamTooLarge.into(),
        GatewayError::WriteFenced { retry_after }.into(),
    ]
}

/// Returns one of each way to be full.
fn fullnesses() -> [ApiError; 5] {
    let limit = 0;
    let of_quota = |error: QuotaExceeded| ApiError::Write(WriteError::Quota(error));
    [
        of_quota(QuotaExceeded::Bytes { limit }),
        of_quota(QuotaExceeded::DeviceEntries { limit }),
        of_quota(QuotaExceeded::Entries { limit }),
        ApiError::TooMany(String::new()),
        ApiError::PushRuleEdit(EditError::TooManyRules { limit: 0 }),
    ]
}

fn place_of_method(method: &Method) -> usize {
    match *method {
        Method::DELETE => 0,
        Method::GET => 1,
        Method::HEAD => 2,
        Method::OPTIONS => 3,
        Method::POST => 4,
        Method::PUT => 5,
        _ => METHODS.len() - 1,
    }
}

fn place_of_status(status: StatusCode) -> usize {
    let status = status.as_u16();
    let place = STATUSES.iter().position(|(known, _)| *known == status);
    place.unwrap_or_else(|| {
        let class = usize::from(status / 100).wrapping_sub(2);
        STATUSES.len() + class.min(CLASSES.len() - 1)
    })
}

#[cfg(test)]
mod tests;
