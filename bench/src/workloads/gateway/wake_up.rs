//! A sync that waits through the gateway until the homeserver answers it.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::session;
use crate::load::Sample;
use crate::pairs::{BESIDE_REFERENCE, COLUMNS, added, rows};
use crate::plan::Plan;
use crate::process::{Load, Process};
use crate::report::Table;
use crate::server::{self, content};
use crate::workloads::wake_up::{Lab, PAUSE};

/// Puts at the homeserver itself, which end a sync that waits through the gateway, and one that
/// waits without it, by turns.
pub(in crate::workloads) async fn wake_up(name: &str, plan: &Plan) -> Result<Table> {
    let upstream = server::start_homeserver(plan, content('x').as_bytes())?;
    let gateway = server::start_gateway(plan, &upstream)?;
    let session = session();
    let mut through = Lab::between([&upstream, &gateway], &session, PAUSE).await?;
    let mut alone = Lab::between([&upstream, &upstream], &session, PAUSE).await?;
    measured(&mut through, &gateway, plan.warm_up).await?;
    measured(&mut alone, &upstream, plan.warm_up).await?;
    let mut pairs = Vec::with_capacity(plan.pairs);
    for number in 0..plan.pairs {
        let pair = if number % 2 == 0 {
            let ours = measured(&mut through, &gateway, plan.measure).await?;
            (ours, measured(&mut alone, &upstream, plan.measure).await?)
        } else {
            let theirs = measured(&mut alone, &upstream, plan.measure).await?;
            (
                measured(&mut through, &gateway, plan.measure).await?,
                theirs,
            )
        };
        pairs.push(pair);
    }
    let mut rows = rows(&pairs, BESIDE_REFERENCE);
    rows.push(added(&pairs));
    let what = format!(
        "a sync that waits until a PUT at the homeserver ends it, one each {} ms, from the sending \
         of the PUT to the return of the sync; CPU time of the gateway alone, a sync; reference: \
         the same sync without the gateway, where the homeserver's CPU time has the PUT in it",
        PAUSE.as_millis()
    );
    Ok(Table::new(name, what, &COLUMNS, rows))
}

/// Wakes syncs for `duration`, and counts the CPU time of `process`.
async fn measured(lab: &mut Lab<'_>, process: &Process, duration: Duration) -> Result<Sample> {
    let (cpu_before, load) = (process.cpu(), Load::watch());
    let started = Instant::now();
    let sync = lab.wake(duration).await?.sync;
    let elapsed = started.elapsed();
    let cpu = process.cpu().zip(cpu_before);
    let cpu_us = cpu.map(|(now, before)| now.since(&before).as_secs_f64() * 1e6 / sync.samples);
    Ok(Sample {
        requests_per_second: sync.samples / elapsed.as_secs_f64(),
        cpu_us,
        p50_us: sync.p50,
        p99_us: sync.p99,
        load_percent: load.percent(),
    })
}
