//! Waking: how long after a put is sent another device's waiting sync returns.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use kitbag_client::{Scope, Session};
use tokio::time;

use crate::load::{Connection, Prepared, micros};
use crate::plan::Plan;
use crate::process::Process;
use crate::report::{Row, Table};
use crate::server::{self, first_token, get, kind, next_batch, put_entry, sync_path};
use crate::stats::{Spread, percentile};

const COLUMNS: [&str; 3] = ["p50 us", "p99 us", "samples"];
/// Long enough for a sync to be read and to wait, before the put is sent.
pub(super) const PAUSE: Duration = Duration::from_millis(2);
/// A sync that takes this long was not woken.
const SYNC_TIMEOUT_MS: u64 = 10_000;

/// Puts that wake a sync, and puts for which nobody waits, by turns.
pub(super) async fn run(name: &str, plan: &Plan) -> Result<Table> {
    let accounts = server::make_users(plan, name, 1).await?;
    let process = accounts.serve(plan)?;
    let mut lab = Lab::new(&process, accounts.session(0), PAUSE).await?;
    lab.wake(plan.warm_up).await?;
    lab.put(plan.warm_up).await?;
    let mut rounds = Vec::with_capacity(plan.pairs);
    for _ in 0..plan.pairs {
        let woken = lab.wake(plan.measure).await?;
        rounds.push((woken, lab.put(plan.measure).await?));
    }
    let what = "PUT sent until the sync of another connection has returned, and until the PUT has; \
         reference: the PUT alone";
    let side = |name, figures: &dyn Fn(&(Woken, Waits)) -> [f64; 3]| {
        let column = |n: usize| Spread::of(rounds.iter().map(|round| figures(round)[n]));
        Row::new(name, (0..COLUMNS.len()).map(column).collect())
    };
    let difference = |part: fn(&Waits) -> f64| {
        Spread::of(
            rounds
                .iter()
                .map(|(woken, alone)| part(&woken.sync) - part(alone)),
        )
    };
    let rows = vec![
        side("sync returned", &|(woken, _)| woken.sync.figures()),
        side("PUT returned", &|(woken, _)| woken.put.figures()),
        side("PUT alone", &|(_, alone)| alone.figures()),
        Row::new(
            "sync - alone",
            vec![
                difference(|waits| waits.p50),
                difference(|waits| waits.p99),
                None,
            ],
        ),
    ];
    Ok(Table::new(name, what, &COLUMNS, rows))
}

/// The figures of one measurement.
pub(super) struct Waits {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) samples: f64,
}

impl Waits {
    fn of(mut waits_us: Vec<u32>) -> Result<Self> {
        waits_us.sort_unstable();
        let nothing = "nothing was answered in time";
        #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
        let samples = waits_us.len() as f64;
        Ok(Self {
            p50: percentile(&waits_us, 500).context(nothing)?,
            p99: percentile(&waits_us, 990).context(nothing)?,
            samples,
        })
    }

    fn figures(&self) -> [f64; 3] {
        [self.p50, self.p99, self.samples]
    }
}

/// How long both took, counted from the sending of the put.
pub(super) struct Woken {
    pub(super) sync: Waits,
    put: Waits,
}

/// One user's two connections.
pub(super) struct Lab<'a> {
    session: &'a Session,
    writer: Connection,
    reader: Connection,
    since: String,
    request: Prepared,
    pause: Duration,
}

impl<'a> Lab<'a> {
    pub(super) async fn new(
        process: &Process,
        session: &'a Session,
        pause: Duration,
    ) -> Result<Self> {
        Self::between([process, process], session, pause).await
    }

    /// As [`Lab::new`], where the second is asked to sync and the first to write.
    pub(super) async fn between(
        [writer, reader]: [&Process; 2],
        session: &'a Session,
        pause: Duration,
    ) -> Result<Self> {
        let mut reader = Connection::open(reader.address()).await?;
        Ok(Self {
            session,
            writer: Connection::open(writer.address()).await?,
            since: first_token(&mut reader, session).await?,
            reader,
            request: put_entry(session, Scope::Global, &kind(0), 'x'),
            pause,
        })
    }

    pub(super) async fn wake(&mut self, duration: Duration) -> Result<Woken> {
        let (mut syncs_us, mut puts_us) = (Vec::new(), Vec::new());
        let end = Instant::now() + duration;
        // What was put meanwhile is not to be measured.
        let passed = get(self.session, &sync_path(Some(&self.since), 0));
        self.since = next_batch(self.reader.exchange(&passed).await?)?;
        while Instant::now() < end || syncs_us.is_empty() {
            let sync = get(self.session, &sync_path(Some(&self.since), SYNC_TIMEOUT_MS));
            self.reader.send(&sync).await?;
            time::sleep(self.pause).await;
            let started = Instant::now();
            let (put, sync) = tokio::try_join!(
                async {
                    self.writer.exchange(&self.request).await?;
                    anyhow::Ok(started.elapsed())
                },
                async {
                    let body = self.reader.receive().await?;
                    Ok((started.elapsed(), body))
                },
            )?;
            let (sync, body) = sync;
            ensure!(
                body.windows(kind(0).len())
                    .any(|part| part == kind(0).as_bytes()),
                "a sync returned without what it was woken for"
            );
            self.since = next_batch(body)?;
            syncs_us.push(micros(sync));
            puts_us.push(micros(put));
        }
        Ok(Woken {
            sync: Waits::of(syncs_us)?,
            put: Waits::of(puts_us)?,
        })
    }

    /// The same pace, with nobody waiting.
    async fn put(&mut self, duration: Duration) -> Result<Waits> {
        let mut puts_us = Vec::new();
        let end = Instant::now() + duration;
        while Instant::now() < end || puts_us.is_empty() {
            time::sleep(self.pause).await;
            let started = Instant::now();
            self.writer.exchange(&self.request).await?;
            puts_us.push(micros(started.elapsed()));
        }
        Waits::of(puts_us)
    }
}
