//! What the gateway counts beside requests by route: plain figures, and no ID of anybody.
//!
//! Each has a closed set of labels: what a client wrote, as its user agent, is told as one of a few
//! names.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use kitbag_domain::{Histogram, Spread};
use kitbag_http::Stats;
use kitbag_http::shared::{Gauge, Stripes};

/// Bounds of the times of the homeserver in microseconds: from an answer out of its memory to the
/// longest poll.
const UPSTREAM_BOUNDS_US: [u64; 12] = [
    300,
    1_000,
    3_000,
    10_000,
    30_000,
    100_000,
    300_000,
    1_000_000,
    3_000_000,
    10_000_000,
    30_000_000,
    300_000_000,
];

/// Bounds of the gateway's own times in microseconds: some hundred is usual, and what is above waited
/// for a turn or a processor.
const ADDED_BOUNDS_US: [u64; 9] = [
    30, 100, 300, 1_000, 3_000, 10_000, 100_000, 1_000_000, 10_000_000,
];

/// The names of each [`Asked`].
const ASKED: [&str; 3] = ["ask", "pass", "sync"];

/// The names of each [`Memory`].
const MEMORIES: [&str; 2] = ["devices", "identities"];

/// The names of each [`Outcome`].
const OUTCOMES: [&str; 2] = ["observed", "refused"];

/// The names of each [`Cause`].
const CAUSES: [&str; 4] = ["deletion", "gone", "logout", "password"];

/// Protected types that are told apart; the last one stands for those of device account data.
const TYPES: [&str; 3] = ["m.fully_read", "m.push_rules", "device_account_data"];

/// What a user agent has in it, in lower case, and what it is told as: the first that fits.
const AGENTS: [(&str, &str); 20] = [
    ("cinny", "cinny"),
    ("element x", "element_x"),
    ("elementx", "element_x"),
    ("schildi", "schildichat"),
    ("element", "element"),
    ("fluffychat", "fluffychat"),
    ("nheko", "nheko"),
    ("mtxclient", "nheko"),
    ("neochat", "quotient"),
    ("quotient", "quotient"),
    ("gomuks", "gomuks"),
    ("mautrix", "mautrix"),
    ("matrix-rust-sdk", "matrix_rust_sdk"),
    ("matrix-js-sdk", "matrix_js_sdk"),
    ("matrix-bot-sdk", "matrix_bot_sdk"),
    ("dart", "dart"),
    ("python", "python"),
    ("curl", "curl"),
    // Most programs that show pages, so the last one.
    ("mozilla", "browser"),
    // Not looked for: the name of all others.
    ("", OTHER_AGENT),
];

const OTHER_AGENT: &str = "other";

/// Characters of a user agent that are looked at: names stand in front.
const AGENT_BYTES_MAX: usize = 256;

tokio::task_local! {
    /// For how long the request of the task has waited for others, in microseconds.
    static WAITED_US: Cell<u64>;
}

/// Why the homeserver is asked.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Asked {
    /// By the gateway itself, for what it has to know or keep.
    ByGateway = 0,
    /// By a client, through the gateway.
    Through = 1,
    /// By a client, for what is new: it may wait for long.
    Sync = 2,
}

impl Asked {
    /// Returns what a client asks for with this path.
    pub(crate) fn by_client(path: &str) -> Self {
        match path.ends_with("/sync") {
            true => Self::Sync,
            false => Self::Through,
        }
    }
}

/// What is remembered of the homeserver's answers.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Memory {
    /// Which devices there are.
    Devices = 0,
    /// Whose a token is.
    Identities = 1,
}

/// What became of a write of a protected type.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    /// It went to the homeserver.
    Observed = 0,
    /// It was refused.
    Refused = 1,
}

/// Why entries of a device were emptied.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cause {
    /// The device was deleted through the gateway.
    Deletion = 0,
    /// The device was gone when they were emptied: it ended past the gateway, or they were owed.
    Gone = 1,
    /// The device was logged out through the gateway.
    Logout = 2,
    /// The password was changed through the gateway, which ended the device.
    Password = 3,
}

/// Figures of the gateway since it was put together.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GatewayStats {
    /// What every listener counts.
    pub http: Stats,
    /// How long the homeserver took, in microseconds, by why it was asked: until the head of its
    /// answer came, and for what the gateway asks itself until the whole did.
    pub upstream_us: Vec<(&'static str, Spread)>,
    /// What requests took beside waiting for the homeserver and the client, in microseconds.
    pub added_us: Spread,
    /// Whether the homeserver is not asked for a while, since it could not be reached.
    pub breaker_is_open: bool,
    /// Times that this began.
    pub breaker_openings: u64,
    /// Look-ups of what the homeserver told a short time ago.
    pub lookups: Vec<LookupStats>,
    /// Writes of protected types, by type, outcome and user agent.
    pub protected_writes: Vec<ProtectedStats>,
    /// Entries that were emptied since their device ended, by cause.
    pub emptied_entries: Vec<(&'static str, u64)>,
    /// Devices that ended and whose entries could not be emptied when that was tried.
    pub emptyings_pending: u64,
    /// Requests that wait since another one writes to the same account.
    pub turns_waiting: u64,
    /// Entries that are not written for now, as the outcome of an earlier write is not known.
    pub fences: u64,
    /// Times that an entry came to that.
    pub fences_set: u64,
}

/// Look-ups in one memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LookupStats {
    /// Of what.
    pub memory: &'static str,
    /// Those that were answered by it.
    pub hits: u64,
    /// Those for which the homeserver was asked.
    pub misses: u64,
}

/// Writes of one protected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtectedStats {
    /// The type.
    pub event_type: &'static str,
    /// What became of them.
    pub outcome: &'static str,
    /// What kind of program sent them.
    pub agent: &'static str,
    /// How many there were.
    pub count: u64,
}

/// What the gateway counts.
pub(crate) struct GatewayMetrics {
    /// Every request counts here.
    durations: Stripes<Durations>,
    breaker_openings: AtomicU64,
    /// Misses and hits of each memory.
    lookups: [[AtomicU64; 2]; MEMORIES.len()],
    protected_writes: [[[AtomicU64; AGENTS.len()]; OUTCOMES.len()]; TYPES.len()],
    emptied_entries: [AtomicU64; CAUSES.len()],
    fences_set: AtomicU64,
    /// Devices that ended and whose entries could not be emptied when that was tried.
    pub(crate) emptyings_pending: Gauge,
    /// Requests that wait since another one writes to the same account.
    pub(crate) turns_waiting: Gauge,
    /// Entries that are not written for now.
    pub(crate) fences: Gauge,
}

/// How long things took, as one stripe of threads counted.
struct Durations {
    upstream_us: [Histogram; ASKED.len()],
    added_us: Histogram,
}

impl Durations {
    fn new() -> Self {
        Self {
            upstream_us: [(); ASKED.len()].map(|()| Histogram::new(&UPSTREAM_BOUNDS_US)),
            added_us: Histogram::new(&ADDED_BOUNDS_US),
        }
    }
}

impl Default for GatewayMetrics {
    fn default() -> Self {
        Self {
            durations: Stripes::new(),
            breaker_openings: AtomicU64::new(0),
            lookups: Default::default(),
            protected_writes: Default::default(),
            emptied_entries: Default::default(),
            fences_set: AtomicU64::new(0),
            emptyings_pending: Gauge::default(),
            turns_waiting: Gauge::default(),
            fences: Gauge::default(),
        }
    }
}

impl GatewayMetrics {
    /// Does the work of one request, and counts what of its time was the gateway's own.
    pub(crate) async fn request<T>(
        &self,
        started: Instant,
        work: impl Future<Output = T>,
    ) -> (T, u64) {
        let work = async {
            let done = work.await;
            (done, WAITED_US.with(Cell::get))
        };
        let (done, waited_us) = WAITED_US.scope(Cell::new(0), work).await;
        let took_us = micros_since(started);
        // What waited at once for two counts twice.
        let added_us = took_us.saturating_sub(waited_us);
        self.durations
            .own(Durations::new)
            .added_us
            .observe(added_us);
        (done, took_us)
    }

    /// Waits for the homeserver, and counts for how long.
    pub(crate) async fn upstream<T>(&self, asked: Asked, answer: impl Future<Output = T>) -> T {
        let started = Instant::now();
        let answer = answer.await;
        let waited_us = micros_since(started);
        self.durations.own(Durations::new).upstream_us[asked as usize].observe(waited_us);
        add_waited(waited_us);
        answer
    }

    /// Counts that the homeserver could not be reached, so that it is not asked for a while.
    pub(crate) fn breaker_opened(&self) {
        self.breaker_openings.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a look-up of what the homeserver told a short time ago.
    pub(crate) fn looked_up(&self, memory: Memory, is_hit: bool) {
        self.lookups[memory as usize][usize::from(is_hit)].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a write of a protected type; every other type is one of device account data.
    pub(crate) fn protected(&self, event_type: &str, outcome: Outcome, user_agent: Option<&[u8]>) {
        let event_type = place(&TYPES, |known| *known == event_type);
        let agent = agent_place(user_agent);
        let count = &self.protected_writes[event_type][outcome as usize][agent];
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts an entry that was emptied since its device ended.
    pub(crate) fn emptied(&self, cause: Cause) {
        self.emptied_entries[cause as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a write whose outcome is not known, and an entry that is not written for a while.
    ///
    /// What ends it calls `fences.leave()`.
    pub(crate) fn fenced(&self) {
        self.fences_set.fetch_add(1, Ordering::Relaxed);
        self.fences.enter();
    }

    /// Returns all figures, with those that every listener counts.
    /// `breaker_is_open` is for the caller to tell.
    pub(crate) fn read(&self, http: Stats) -> GatewayStats {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let lookups = MEMORIES.into_iter().zip(&self.lookups);
        let emptied = CAUSES.into_iter().zip(&self.emptied_entries);
        let Durations {
            upstream_us,
            added_us,
        } = Durations::new();
        let (mut upstream_us, mut added_us) =
            (upstream_us.map(|none| none.read()), added_us.read());
        for counted in self.durations.all() {
            for (all, one) in upstream_us.iter_mut().zip(&counted.upstream_us) {
                *all += one.read();
            }
            added_us += counted.added_us.read();
        }
        GatewayStats {
            http,
            upstream_us: ASKED.into_iter().zip(upstream_us).collect(),
            added_us,
            breaker_is_open: false,
            breaker_openings: load(&self.breaker_openings),
            lookups: lookups
                .map(|(memory, [misses, hits])| LookupStats {
                    memory,
                    hits: load(hits),
                    misses: load(misses),
                })
                .collect(),
            protected_writes: self.read_protected_writes(),
            emptied_entries: emptied.map(|(cause, count)| (cause, load(count))).collect(),
            emptyings_pending: self.emptyings_pending.read(),
            turns_waiting: self.turns_waiting.read(),
            fences: self.fences.read(),
            fences_set: load(&self.fences_set),
        }
    }

    /// Those that were never seen are left out, but for those of unknown programs: a first time that
    /// comes out of nothing is no increase to Prometheus.
    fn read_protected_writes(&self) -> Vec<ProtectedStats> {
        let mut told: Vec<ProtectedStats> = Vec::new();
        for (event_type, outcomes) in TYPES.into_iter().zip(&self.protected_writes) {
            for (outcome, agents) in OUTCOMES.into_iter().zip(outcomes) {
                for ((_, agent), count) in AGENTS.into_iter().zip(agents) {
                    let count = count.load(Ordering::Relaxed);
                    let row = ProtectedStats {
                        event_type,
                        outcome,
                        agent,
                        count,
                    };
                    let is_same =
                        |known: &ProtectedStats| ProtectedStats { count, ..*known } == row;
                    // Two words can be of one program, and stand behind each other.
                    match told.last_mut().filter(|known| is_same(known)) {
                        Some(known) => known.count += count,
                        None => told.push(row),
                    }
                }
            }
        }
        told.retain(|row| row.count > 0 || row.agent == OTHER_AGENT);
        told
    }
}

/// Returns what a user agent is told as: one of a few names.
pub(crate) fn agent(user_agent: Option<&[u8]>) -> &'static str {
    AGENTS[agent_place(user_agent)].1
}

fn agent_place(user_agent: Option<&[u8]>) -> usize {
    let user_agent = user_agent.unwrap_or_default();
    let user_agent = &user_agent[..user_agent.len().min(AGENT_BYTES_MAX)];
    let user_agent = String::from_utf8_lossy(user_agent).to_ascii_lowercase();
    place(&AGENTS, |(word, _)| user_agent.contains(word))
}

/// Waits for the client, whose time is not the gateway's.
pub(crate) async fn for_client<T>(work: impl Future<Output = T>) -> T {
    let started = Instant::now();
    let done = work.await;
    add_waited(micros_since(started));
    done
}

/// Adds to what the request of this task has waited; work that belongs to no request adds nothing.
fn add_waited(waited_us: u64) {
    let add = |waited: &Cell<u64>| waited.set(waited.get().saturating_add(waited_us));
    WAITED_US.try_with(add).unwrap_or_default();
}

fn micros_since(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX)
}

/// Returns where the first that fits stands, or the last one, which stands for all others.
fn place<T>(known: &[T], fits: impl Fn(&T) -> bool) -> usize {
    known.iter().position(fits).unwrap_or(known.len() - 1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn told(metrics: &GatewayMetrics) -> Vec<(&'static str, &'static str, &'static str, u64)> {
        let stats = metrics.read(Stats::default());
        let rows = stats.protected_writes.into_iter();
        rows.filter(|row| row.count > 0)
            .map(|row| (row.event_type, row.outcome, row.agent, row.count))
            .collect()
    }

    #[test]
    fn user_agents_are_told_as_one_of_a_few_names() {
        for (user_agent, expected) in [
            (
                "Mozilla/5.0 (X11) Element/1.11 Chrome/1 Electron/2",
                "element",
            ),
            ("Element X Android/25.01", "element_x"),
            (
                "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Firefox/128.0",
                "browser",
            ),
            ("Cinny/4", "cinny"),
            ("Python/3.12 aiohttp/3.9", "python"),
            ("SomethingSecret/1", OTHER_AGENT),
            ("", OTHER_AGENT),
        ] {
            let metrics = GatewayMetrics::default();
            let agent = Some(user_agent.as_bytes());
            metrics.protected("m.push_rules", Outcome::Refused, agent);
            let expected = ("m.push_rules", "refused", expected, 1);
            assert_eq!(told(&metrics), [expected], "{user_agent}");
        }
        let metrics = GatewayMetrics::default();
        metrics.protected("x", Outcome::Observed, None);
        let expected = ("device_account_data", "observed", OTHER_AGENT, 1);
        assert_eq!(told(&metrics), [expected]);
    }

    #[test]
    fn two_words_of_one_program_are_one_row() {
        let metrics = GatewayMetrics::default();
        for user_agent in ["nheko/1", "mtxclient v1", "NeoChat", "libQuotient"] {
            metrics.protected(
                "m.fully_read",
                Outcome::Refused,
                Some(user_agent.as_bytes()),
            );
        }
        let row = |agent| ("m.fully_read", "refused", agent, 2);
        assert_eq!(told(&metrics), [row("nheko"), row("quotient")]);
    }

    #[test]
    fn what_alerts_watch_is_told_before_it_happens() {
        let stats = GatewayMetrics::default().read(Stats::default());
        assert_eq!(stats.protected_writes.len(), TYPES.len() * OUTCOMES.len());
        assert!(stats.protected_writes.iter().all(|row| row.count == 0));
        assert_eq!(stats.emptied_entries.len(), CAUSES.len());
    }

    #[tokio::test]
    async fn time_for_others_is_not_the_gateways_own() {
        let metrics = GatewayMetrics::default();
        let long = || tokio::time::sleep(Duration::from_millis(60));
        let work = async {
            metrics.upstream(Asked::by_client("/sync"), long()).await;
            for_client(long()).await;
        };
        let started = Instant::now();
        metrics.request(started, work).await;
        let all_us = micros_since(started);
        let stats = metrics.read(Stats::default());
        let (why, took) = &stats.upstream_us[Asked::Sync as usize];
        assert_eq!((*why, took.count()), ("sync", 1));
        assert!(took.sum >= 60_000, "{took:?}");
        // However slow the machine is, neither of the two is in it.
        let added = &stats.added_us;
        assert_eq!(added.count(), 1);
        assert!(added.sum <= all_us - 120_000, "{added:?} of {all_us}");
        metrics.request(Instant::now(), long()).await;
        let own_us = metrics.read(Stats::default()).added_us.sum - added.sum;
        assert!(own_us >= 60_000, "{own_us}");
    }
}
