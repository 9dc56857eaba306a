//! Starting on much data: the time to the first answer, and the memory of a server that idles.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use kitbag_client::Scope;
use tokio::task::JoinSet;
use tokio::time;

use crate::load::{Client, Connection, Prepared, Target};
use crate::plan::Plan;
use crate::process::Process;
use crate::report::{Row, Table};
use crate::server::{self, Accounts, CONTENT_BYTES, get_entry, kind, put_entry};
use crate::stats::Spread;

const COLUMNS: [&str; 2] = ["first answer ms", "idle MiB"];
/// Entries of one user: fewer than the quota, as somebody with much data has.
const USER_ENTRIES_MAX: usize = 40_000;
/// Connections that fill the data, and that write when the server is killed.
const CLIENTS: usize = 64;
/// An answer later than this is none.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Starts on no entries, and on many after a stop and after a kill amid writes.
pub(super) async fn run(name: &str, plan: &Plan) -> Result<Table> {
    let users = plan.start_entries.div_ceil(USER_ENTRIES_MAX);
    let empty = server::make_users(plan, &format!("{name}-empty"), 1).await?;
    let accounts = server::make_users(plan, name, users).await?;
    let each = plan.start_entries / users;
    fill(&accounts, accounts.serve(plan)?, each).await?;
    let process = accounts.serve(plan)?;
    write(plan, &process, &accounts, each).await?;
    drop(process);
    let (mut of_empty, mut stopped, mut killed) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..plan.pairs {
        let (process, figures) = start(plan, &empty, None).await?;
        of_empty.push(figures);
        process.stop()?;
        let (process, figures) = start(plan, &accounts, Some(each)).await?;
        killed.push(figures);
        process.stop()?;
        let (process, figures) = start(plan, &accounts, Some(each)).await?;
        stopped.push(figures);
        write(plan, &process, &accounts, each).await?;
        drop(process);
    }
    let what = format!(
        "from the start of the process to the first answer, which reads an entry, and the memory \
         some seconds later; {} entries of {CONTENT_BYTES} B of {users} users, in the page cache",
        each * users
    );
    let row = |name, rounds: &[[Option<f64>; 2]]| {
        let column = |n: usize| Spread::of_all(rounds.iter().map(|round| round[n]));
        Row::new(name, (0..COLUMNS.len()).map(column).collect())
    };
    let rows = vec![
        row("no entries", &of_empty),
        row("after a stop", &stopped),
        row("after kill -9", &killed),
    ];
    Ok(Table::new(name, what, &COLUMNS, rows))
}

/// Starts a server, asks it for an entry (or for what is not there), and returns its figures.
async fn start(
    plan: &Plan,
    accounts: &Accounts,
    entries: Option<usize>,
) -> Result<(Process, [Option<f64>; 2])> {
    let session = accounts.session(0);
    let request = match entries {
        Some(entries) => get_entry(session, Scope::Global, &kind(entries / 2)),
        None => server::get(session, WHOAMI),
    };
    let began = Instant::now();
    let process = accounts.serve(plan)?;
    let mut connection = Connection::open(process.address()).await?;
    time::timeout(TIMEOUT, connection.exchange(&request)).await??;
    let took = began.elapsed();
    time::sleep(plan.settle).await;
    let figures = [Some(took.as_secs_f64() * 1e3), process.resident_mib()];
    Ok((process, figures))
}

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

/// Puts `each` entries of every user.
async fn fill(accounts: &Accounts, process: Process, each: usize) -> Result<()> {
    let mut running = JoinSet::new();
    for client in 0..CLIENTS {
        let sessions = accounts.sessions.clone();
        let mut connection = Connection::open(process.address()).await?;
        running.spawn(async move {
            for number in (client..each * sessions.len()).step_by(CLIENTS) {
                let session = &sessions[number % sessions.len()];
                let put = put_entry(session, Scope::Global, &kind(number / sessions.len()), 'a');
                connection.exchange(&put).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    process.stop()
}

/// Replaces entries for a while; what is under way in the end is cut off by whoever kills.
async fn write(plan: &Plan, process: &Process, accounts: &Accounts, each: usize) -> Result<()> {
    let mut clients = Vec::with_capacity(CLIENTS);
    for client in 0..CLIENTS {
        let session = accounts.session(client);
        let kinds = (0..each.min(CLIENTS)).map(|number| kind(number * each / each.min(CLIENTS)));
        let kinds: Vec<_> = kinds.collect();
        let round = |letter| {
            kinds
                .iter()
                .map(move |kind| put_entry(session, Scope::Global, kind, letter))
        };
        let requests: Vec<Prepared> = round('b').chain(round('c')).collect();
        clients.push(Client::open(process.address(), requests).await?);
    }
    let sample = Target::new(process, clients).measure(plan.measure).await?;
    ensure!(sample.requests_per_second > 0.0, "nothing was written");
    Ok(())
}
