//! Memory: of a server that idles, and of each sync that waits.

use anyhow::{Result, ensure};
use tokio::time;

use crate::load::{Connection, Prepared};
use crate::plan::Plan;
use crate::process::Process;
use crate::report::{Row, Table};
use crate::server::{self, Accounts, first_token, get, sync_path};
use crate::stats::Spread;

const COLUMNS: [&str; 4] = ["idle MiB", "waiting MiB", "KiB a sync", "afterwards MiB"];
/// Longer than a round takes.
const SYNC_TIMEOUT_MS: u64 = 300_000;
/// A client that only waits needs no more.
const BUFFER_BYTES: usize = 256;

/// Syncs that wait, beside connections on which the reference never answers.
pub(super) async fn run(name: &str, plan: &Plan) -> Result<Table> {
    let users = plan.users_max.min(plan.waiting);
    let accounts = server::make_users(plan, name, users).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let process = accounts.serve(plan)?;
        let requests = syncs(&process, &accounts).await?;
        ours.push(hold(plan, &process, &requests).await?);
        drop(process);
        theirs.push(hold(plan, &server::start_silent(plan)?, &requests).await?);
    }
    let what = format!(
        "resident memory with {} waiting syncs of {users} users; \
         reference: a handler that never answers",
        plan.waiting
    );
    let row = |name, rounds: &[[Option<f64>; 4]]| {
        let column = |n: usize| Spread::of_all(rounds.iter().map(|round| round[n]));
        Row::new(name, (0..COLUMNS.len()).map(column).collect())
    };
    Ok(Table::new(name, what, &COLUMNS)
        .budget("at most 16 KiB a sync at 9,000 waiting, goal 12; idle at most 40 MiB, goal 20")
        .rows(vec![row("kitbag", &ours), row("reference", &theirs)]))
}

/// For each user the sync that will wait.
async fn syncs(process: &Process, accounts: &Accounts) -> Result<Vec<Prepared>> {
    let mut connection = Connection::open(process.address()).await?;
    let mut requests = Vec::with_capacity(accounts.sessions.len());
    for session in &accounts.sessions {
        let since = first_token(&mut connection, session).await?;
        requests.push(get(session, &sync_path(Some(&since), SYNC_TIMEOUT_MS)));
    }
    Ok(requests)
}

/// Returns the figures of [`COLUMNS`] of one round.
async fn hold(plan: &Plan, process: &Process, requests: &[Prepared]) -> Result<[Option<f64>; 4]> {
    time::sleep(plan.settle).await;
    let idle = resident(process);
    let mut connections = Vec::with_capacity(plan.waiting);
    for request in requests.iter().cycle().take(plan.waiting) {
        let mut connection = Connection::open_with(process.address(), BUFFER_BYTES).await?;
        connection.send(request).await?;
        connections.push(connection);
    }
    time::sleep(plan.settle).await;
    let waiting = resident(process);
    let answered = connections
        .iter()
        .filter(|connection| !connection.is_waiting())
        .count();
    ensure!(answered == 0, "{answered} syncs did not wait");
    drop(connections);
    time::sleep(plan.settle).await;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let count = plan.waiting as f64;
    let each = waiting
        .zip(idle)
        .map(|(waiting, idle)| (waiting - idle) / count);
    let mebibytes = |bytes: Option<f64>| bytes.map(|bytes| bytes / 1_048_576.0);
    Ok([
        mebibytes(idle),
        mebibytes(waiting),
        each.map(|bytes| bytes / 1_024.0),
        mebibytes(resident(process)),
    ])
}

fn resident(process: &Process) -> Option<f64> {
    #[expect(
        clippy::cast_precision_loss,
        reason = "a machine has less than 2^53 bytes"
    )]
    process.resident_bytes().map(|bytes| bytes as f64)
}
