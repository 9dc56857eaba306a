//! Memory: of a server that idles, of each sync that waits, and what comes back when they leave.

use anyhow::{Result, ensure};
use tokio::time;

use crate::load::{Connection, Prepared};
use crate::plan::Plan;
use crate::process::Process;
use crate::report::{Row, Table};
use crate::server::{self, Accounts, first_token, get, sync_path};
use crate::stats::Spread;

pub(super) const COLUMNS: [&str; 5] = [
    "idle MiB",
    "waiting MiB",
    "KiB a sync",
    "2 s after MiB",
    "10 s after MiB",
];
/// Each has many who wait; more users would only take longer to make.
const USERS_MAX: usize = 64;
/// Longer than a round takes.
const SYNC_TIMEOUT_MS: u64 = 300_000;
/// A client that only waits needs no more.
const BUFFER_BYTES: usize = 256;
/// One that is answered before has to read an entry too.
const BUFFER_ANSWERED_BYTES: usize = 2_048;

/// Syncs that wait, beside connections on which the reference never answers.
pub(super) async fn run(name: &str, plan: &Plan) -> Result<Table> {
    let users = USERS_MAX.min(plan.users_max).min(plan.waiting);
    let accounts = server::make_users(plan, name, users).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        let process = accounts.serve(plan)?;
        let requests = syncs(&process, &accounts).await?;
        let syncs = (plan.waiting, &requests[..], None);
        ours.push(hold(plan, &process, syncs).await?);
        drop(process);
        theirs.push(hold(plan, &server::start_silent(plan)?, syncs).await?);
    }
    let what = format!(
        "resident memory with {} waiting syncs of {users} users, and after they have left; \
         reference: a handler that never answers",
        plan.waiting
    );
    let rows = vec![row("kitbag", &ours), row("reference", &theirs)];
    Ok(Table::new(name, what, &COLUMNS, rows))
}

/// The figures of [`COLUMNS`] of one round.
pub(super) type Round = [Option<f64>; COLUMNS.len()];

/// Returns the row of some rounds.
pub(super) fn row(name: &str, rounds: &[Round]) -> Row {
    let column = |n: usize| Spread::of_all(rounds.iter().map(|round| round[n]));
    Row::new(name, (0..COLUMNS.len()).map(column).collect())
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

/// How many syncs wait, which ones by turns, and what their connections ask for before that.
pub(super) type Syncs<'a> = (usize, &'a [Prepared], Option<&'a Prepared>);

/// Lets syncs wait at a server, and returns its figures.
pub(super) async fn hold(
    plan: &Plan,
    process: &Process,
    (count, requests, first): Syncs<'_>,
) -> Result<Round> {
    time::sleep(plan.settle).await;
    let idle = process.resident_mib();
    let mut connections = Vec::with_capacity(count);
    let buffer_bytes = match first {
        Some(_) => BUFFER_ANSWERED_BYTES,
        None => BUFFER_BYTES,
    };
    for request in requests.iter().cycle().take(count) {
        let mut connection = Connection::open_with(process.address(), buffer_bytes).await?;
        if let Some(first) = first {
            connection.exchange(first).await?;
        }
        connection.send(request).await?;
        connections.push(connection);
    }
    time::sleep(plan.settle).await;
    let waiting = process.resident_mib();
    let answered = connections
        .iter()
        .filter(|connection| !connection.is_waiting())
        .count();
    ensure!(answered == 0, "{answered} syncs did not wait");
    drop(connections);
    time::sleep(plan.settle).await;
    let soon = process.resident_mib();
    time::sleep(plan.settle_long - plan.settle).await;
    #[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
    let count = count as f64;
    let each = waiting
        .zip(idle)
        .map(|(waiting, idle)| (waiting - idle) * 1_024.0 / count);
    Ok([idle, waiting, each, soon, process.resident_mib()])
}
