//! Memory of the gateway for each sync that waits, which has a connection on either side.

use anyhow::{Result, ensure};
use kitbag_client::Scope;

use super::session;
use crate::plan::Plan;
use crate::report::Table;
use crate::server::{self, content, get, get_entry, kind, sync_path};
use crate::workloads::waiting::{COLUMNS, Round, hold, row};

/// Connections that only ever waited.
const FRESH: &str = "kitbag";
/// Connections that were answered before, on both sides, as those of a client in use.
pub(crate) const ANSWERED: &str = "kitbag, answered before";
const ALONE: [&str; 2] = ["reference", "reference, answered before"];

/// Longer than a round takes.
const SYNC_TIMEOUT_MS: u64 = 300_000;

/// Syncs that wait through the gateway, beside such that wait at the homeserver itself.
pub(in crate::workloads) async fn waiting(name: &str, plan: &Plan) -> Result<Table> {
    let count = plan.waiting_through;
    ensure!(count > 0, "the limit of open files lets no sync wait");
    let sync = get(&session(), &sync_path(Some("s1"), SYNC_TIMEOUT_MS));
    let first = get_entry(&session(), Scope::Global, &kind(0));
    let mut rounds: [Vec<Round>; 4] = Default::default();
    for _ in 0..plan.rounds {
        for (kind, first) in [None, Some(&first)].into_iter().enumerate() {
            let syncs = (count, std::slice::from_ref(&sync), first);
            let upstream = server::start_homeserver(plan, content('x').as_bytes())?;
            let gateway = server::start_gateway(plan, &upstream)?;
            rounds[kind].push(hold(plan, &gateway, syncs).await?);
            drop((gateway, upstream));
            let alone = server::start_homeserver(plan, content('x').as_bytes())?;
            rounds[2 + kind].push(hold(plan, &alone, syncs).await?);
        }
    }
    let names = [FRESH, ANSWERED, ALONE[0], ALONE[1]];
    let rows = names.iter().zip(&rounds).map(|(name, of)| row(name, of));
    let what = format!(
        "resident memory of the gateway with {count} waiting syncs, each with a connection on \
         either side, and after they have left: as many as the limit of open files allows (here {} \
         of each process, two for each sync) and the listener takes by default; reference: the \
         homeserver behind it, where they wait without it",
        plan.connections_max
    );
    Ok(Table::new(name, what, &COLUMNS, rows.collect()))
}
