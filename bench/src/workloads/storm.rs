//! The storm: thousands of syncs wait while many clients put, others' data first, then the data of
//! those who wait. Shown is that nothing grows without bounds: not the waits, not the memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kitbag_client::path::{self, Naming};
use kitbag_client::{Scope, Session};
use tokio::task::JoinSet;
use tokio::time;

use super::wake_up::{Lab, PAUSE};
use crate::load::{Connection, micros, prepare};
use crate::plan::Plan;
use crate::process::{Load, Process};
use crate::report::{Row, Table};
use crate::server::{self, Accounts, first_token, get, next_batch, sync_path};
use crate::stats::{Spread, percentile};

/// What has a budget.
pub(crate) const PUT_P99: &str = "PUT p99 us";
pub(crate) const WAKE_UP_P99: &str = "wake-up p99 us";
pub(crate) const RSS_OF_IDLE: &str = "x idle";
pub(crate) const OWN: &str = "the waiters' data";
pub(crate) const LATE: &str = "10 s after";

const COLUMNS: [&str; 10] = [
    "PUT/s",
    "PUT p50 us",
    PUT_P99,
    "PUT p99.9 us",
    "woken/s",
    "wake-up p50 us",
    WAKE_UP_P99,
    "RSS MiB",
    RSS_OF_IDLE,
    "load %",
];
type Figures = [Option<f64>; COLUMNS.len()];

const ROWS: [&str; 7] = [
    "idle",
    "puts alone",
    "waiting",
    "others' data",
    OWN,
    "2 s after",
    LATE,
];

/// Clients that put.
const WRITERS: usize = 64;
/// Users of those who wait: each has some.
const WAITING_USERS_MAX: usize = 384;
/// Measurements that one phase takes: a p99.9 needs many puts.
const PHASE_MEASUREMENTS: u32 = 4;
/// Longer than a round takes.
const SYNC_TIMEOUT_MS: u64 = 300_000;
/// Room for the head of an answer and one entry.
const BUFFER_BYTES: usize = 2_048;

pub(super) async fn run(name: &str, plan: &Plan) -> Result<Table> {
    let waiting_users = WAITING_USERS_MAX.min(plan.users_max).min(plan.waiting);
    let writers = WRITERS.min(plan.users_max);
    let accounts = server::make_users(plan, name, writers + waiting_users + 1).await?;
    let mut rounds: Vec<[Figures; ROWS.len()]> = Vec::with_capacity(plan.rounds);
    for _ in 0..plan.rounds {
        rounds.push(round(plan, &accounts, writers).await?);
    }
    let rows = ROWS.iter().enumerate().map(|(row, name)| {
        let column = |n: usize| Spread::of_all(rounds.iter().map(|round| round[row][n]));
        Row::new(name, (0..COLUMNS.len()).map(column).collect())
    });
    let what = format!(
        "{writers} clients put without a pause while {} syncs of {waiting_users} users wait, which \
         sync again as soon as they are woken; a wake-up is from the sending of a PUT to the return \
         of a sync with it, among others' data that of one more user; what waits for the load's own \
         thread counts too",
        plan.waiting
    );
    Ok(Table::new(name, what, &COLUMNS, rows.collect()))
}

/// Returns the figures of [`ROWS`].
async fn round(plan: &Plan, accounts: &Accounts, writers: usize) -> Result<[Figures; ROWS.len()]> {
    let process = accounts.serve(plan)?;
    let (prober, sessions) = accounts.sessions.split_last().context("there are users")?;
    let (writing, waiting) = sessions.split_at(writers);
    let clock = Instant::now();
    let resident = || {
        let mut figures = Figures::default();
        figures[7] = process.resident_mib();
        figures
    };
    let phase = plan.measure * PHASE_MEASUREMENTS;

    time::sleep(plan.settle).await;
    let idle = resident();
    let alone = storm(
        &process,
        Writers::open(&process, writing, clock).await?,
        phase,
    )
    .await?;
    let mut waiters = Waiters::open(plan, &process, waiting, clock).await?;
    time::sleep(plan.settle).await;
    let held = resident();

    let mut lab = Lab::new(&process, prober, PAUSE).await?;
    let others = Writers::open(&process, writing, clock).await?;
    let (others, probed) = tokio::join!(storm(&process, others, phase), lab.wake(phase));
    let (mut others, probed) = (others?, probed?);
    ensure!(
        waiters.take()?.is_empty(),
        "another user's data woke a sync"
    );
    others[5] = Some(probed.sync.p50);
    others[6] = Some(probed.sync.p99);

    let own = Writers::open(&process, waiting, clock).await?;
    let mut own = storm(&process, own, phase).await?;
    let mut woken_us = waiters.take()?;
    ensure!(!woken_us.is_empty(), "no sync was woken by its user's data");
    woken_us.sort_unstable();
    own[4] = Some(per_second(woken_us.len(), phase));
    own[5] = percentile(&woken_us, 500);
    own[6] = percentile(&woken_us, 990);

    drop(waiters);
    time::sleep(plan.settle).await;
    let soon = resident();
    time::sleep(plan.settle_long - plan.settle).await;
    let mut phases = [idle, alone, held, others, own, soon, resident()];
    for figures in &mut phases {
        figures[8] = figures[7].zip(idle[7]).map(|(now, idle)| now / idle);
    }
    Ok(phases)
}

/// Lets all writers put for `duration`; the figures of wake-ups are not among those returned.
async fn storm(process: &Process, writers: Writers, duration: Duration) -> Result<Figures> {
    let load = Load::watch();
    let started = Instant::now();
    let mut puts_us = writers.run(started + duration).await?;
    let (elapsed, load_percent) = (started.elapsed(), load.percent());
    puts_us.sort_unstable();
    let part = |part| percentile(&puts_us, part);
    Ok([
        Some(per_second(puts_us.len(), elapsed)),
        part(500),
        part(990),
        part(999),
        None,
        None,
        None,
        process.resident_mib(),
        None,
        load_percent,
    ])
}

fn per_second(count: usize, duration: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let count = count as f64;
    count / duration.as_secs_f64()
}

/// The content of a put tells when it was sent, in this many digits of microseconds.
const STAMP_DIGITS: usize = 12;
const STAMP_NAME: &str = r#""sent_us":""#;

/// A put whose content is stamped each time that it is sent.
struct Stamped {
    request: Vec<u8>,
    stamp_at: usize,
}

impl Stamped {
    fn new(session: &Session, kind: &str) -> Self {
        let filling = "x".repeat(server::CONTENT_BYTES - STAMP_NAME.len() - STAMP_DIGITS - 13);
        let stamp = "0".repeat(STAMP_DIGITS);
        let content = format!(r#"{{{STAMP_NAME}{stamp}","text":"{filling}"}}"#);
        let path = path::account_data(&session.user_id, Scope::Global, Naming::Stable, kind);
        let request = prepare("PUT", &path, &session.access_token, &content).to_vec();
        let stamp_at = find(&request, STAMP_NAME).expect("the content has a stamp");
        Self { request, stamp_at }
    }

    fn stamp(&mut self, since_start: Duration) {
        let stamp = format!("{:0STAMP_DIGITS$}", since_start.as_micros());
        self.request[self.stamp_at..][..STAMP_DIGITS].copy_from_slice(stamp.as_bytes());
    }
}

/// Reads the newest stamp of a body.
fn stamp_of(body: &[u8]) -> Result<Duration> {
    let at = find(body, STAMP_NAME).context("a sync returned without what it was woken for")?;
    let digits = body.get(at..at + STAMP_DIGITS);
    let digits = digits.context("a stamp is cut short")?;
    Ok(Duration::from_micros(std::str::from_utf8(digits)?.parse()?))
}

/// Where in `bytes` what follows `name` begins.
fn find(bytes: &[u8], name: &str) -> Option<usize> {
    let mut windows = bytes.windows(name.len());
    let at = windows.position(|window| window == name.as_bytes())?;
    Some(at + name.len())
}

/// Those who put: each one entry of each of its users, by turns.
struct Writers {
    writers: Vec<(Connection, Vec<Stamped>)>,
    clock: Instant,
}

impl Writers {
    async fn open(process: &Process, sessions: &[Session], clock: Instant) -> Result<Self> {
        let mut writers = Vec::new();
        for writer in 0..WRITERS.min(sessions.len()) {
            let connection = Connection::open_with(process.address(), BUFFER_BYTES).await?;
            let own = sessions.iter().skip(writer).step_by(WRITERS);
            let puts = own.map(|session| Stamped::new(session, &server::kind(0)));
            writers.push((connection, puts.collect()));
        }
        Ok(Self { writers, clock })
    }

    /// Puts until `end`, and returns how long each took, in microseconds.
    async fn run(self, end: Instant) -> Result<Vec<u32>> {
        let mut running = JoinSet::new();
        for (mut connection, mut puts) in self.writers {
            running.spawn(async move {
                let mut waits_us = Vec::new();
                let mut turn = 0;
                while Instant::now() < end {
                    let puts_len = puts.len();
                    let put = &mut puts[turn % puts_len];
                    turn += 1;
                    let sent = Instant::now();
                    put.stamp(sent - self.clock);
                    connection.exchange(&put.request).await?;
                    waits_us.push(micros(sent.elapsed()));
                }
                anyhow::Ok(waits_us)
            });
        }
        let mut waits_us = Vec::new();
        while let Some(ended) = running.join_next().await {
            waits_us.extend(ended??);
        }
        Ok(waits_us)
    }
}

/// Those who wait; they leave when this is dropped.
struct Waiters {
    running: JoinSet<Result<()>>,
    /// How long after its sending each put was seen.
    woken_us: Arc<Mutex<Vec<u32>>>,
}

impl Waiters {
    async fn open(
        plan: &Plan,
        process: &Process,
        sessions: &[Session],
        clock: Instant,
    ) -> Result<Self> {
        let mut first = Connection::open(process.address()).await?;
        let mut since = Vec::with_capacity(sessions.len());
        for session in sessions {
            since.push(first_token(&mut first, session).await?);
        }
        let mut waiters = Self {
            running: JoinSet::new(),
            woken_us: Arc::default(),
        };
        for number in 0..plan.waiting {
            let session = sessions[number % sessions.len()].clone();
            let mut since = since[number % sessions.len()].clone();
            let mut connection = Connection::open_with(process.address(), BUFFER_BYTES).await?;
            let woken_us = Arc::clone(&waiters.woken_us);
            waiters.running.spawn(async move {
                loop {
                    let sync = get(&session, &sync_path(Some(&since), SYNC_TIMEOUT_MS));
                    let body = connection.exchange(&sync).await?;
                    let now = clock.elapsed();
                    let wait = now.saturating_sub(stamp_of(body)?);
                    since = next_batch(body)?;
                    let mut woken_us = woken_us.lock().unwrap_or_else(PoisonError::into_inner);
                    woken_us.push(micros(wait));
                }
            });
        }
        Ok(waiters)
    }

    /// Takes what was noted so far; fails where one of them does not wait any more.
    fn take(&mut self) -> Result<Vec<u32>> {
        if let Some(ended) = self.running.try_join_next() {
            ended??;
        }
        let mut woken_us = self.woken_us.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *woken_us))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_of_a_put_is_read_from_what_a_sync_brings() {
        let session = Session {
            user_id: "@a:b".to_owned(),
            device_id: "D".to_owned(),
            access_token: "t".to_owned(),
            refresh_token: None,
            expires_in_ms: None,
        };
        let mut put = Stamped::new(&session, "kind");
        put.stamp(Duration::from_micros(1_234_567));
        let text = String::from_utf8(put.request.clone()).unwrap();
        let (_, content) = text.split_once("\r\n\r\n").unwrap();
        assert_eq!(content.len(), server::CONTENT_BYTES);
        let content: serde_json::Value = serde_json::from_str(content).unwrap();
        assert_eq!(content["sent_us"], "000001234567");
        assert_eq!(
            stamp_of(&put.request).unwrap(),
            Duration::from_micros(1_234_567)
        );
        assert!(stamp_of(b"{}").is_err());
    }
}
