//! Reading: nothing, one entry, the push rules, and syncs that return at once.

use std::net::SocketAddr;

use anyhow::{Result, ensure};

use crate::load::{Client, Connection, Prepared, Target};
use crate::pairs::{COLUMNS, compare};
use crate::plan::Plan;
use crate::process::Process;
use crate::report::Table;
use crate::server::{
    self, Accounts, CONTENT_BYTES, first_token, get, get_entry, kind, put_entry, sync_path,
};

/// Enough to keep the server busy between two looks at its sockets.
const CONNECTIONS: usize = 16;
/// Of large answers fewer: with more the client is what is measured.
const CONNECTIONS_LARGE: usize = 4;
const INITIAL_SYNC_ENTRIES: usize = 200;

const BUDGET_CHEAP: &str = "CPU at most 1.6 x the reference's, goal 1.3 x";

/// A request that asks for nothing: the edge and the route table.
pub(super) async fn edge(name: &str, plan: &Plan) -> Result<Table> {
    let (accounts, process) = start(name, plan).await?;
    let request = get(accounts.session(0), "/_matrix/client/versions");
    let what = format!("GET /versions: no identity, no store, by {CONNECTIONS} connections");
    let table = Table::new(name, what, &COLUMNS);
    beside_fixed(plan, table, &process, request, CONNECTIONS).await
}

/// A request that asks only who it is.
pub(super) async fn identity(name: &str, plan: &Plan) -> Result<Table> {
    let (accounts, process) = start(name, plan).await?;
    let request = get(accounts.session(0), "/_matrix/client/v3/account/whoami");
    let what = format!("GET /account/whoami: one look-up, by {CONNECTIONS} connections");
    let table = Table::new(name, what, &COLUMNS);
    beside_fixed(plan, table, &process, request, CONNECTIONS).await
}

/// `GET` of an entry of 1 KiB.
pub(super) async fn entry(name: &str, plan: &Plan, connections: usize) -> Result<Table> {
    let (accounts, process) = start(name, plan).await?;
    let session = accounts.session(0);
    put_entries(&process, &accounts, 1).await?;
    let request = get_entry(session, &kind(0));
    let what = format!("GET of an entry of {CONTENT_BYTES} B, by {connections} connections");
    let table = Table::new(name, what, &COLUMNS)
        .budget("CPU at most 1.3 x the reference's, goal 1.15 x: the entry is in memory");
    beside_fixed(plan, table, &process, request, connections).await
}

/// `GET /pushrules/`.
pub(super) async fn push_rules(name: &str, plan: &Plan) -> Result<Table> {
    let (accounts, process) = start(name, plan).await?;
    let request = get(accounts.session(0), "/_matrix/client/v3/pushrules/");
    let what = format!("GET /pushrules/, by {CONNECTIONS} connections");
    let table = Table::new(name, what, &COLUMNS).budget(BUDGET_CHEAP);
    beside_fixed(plan, table, &process, request, CONNECTIONS).await
}

/// An incremental sync that finds nothing and does not wait.
pub(super) async fn nothing_new(name: &str, plan: &Plan) -> Result<Table> {
    let (accounts, process) = start(name, plan).await?;
    put_entries(&process, &accounts, 1).await?;
    let mut connection = Connection::open(process.address()).await?;
    let session = accounts.session(0);
    let since = first_token(&mut connection, session).await?;
    let request = get(session, &sync_path(Some(&since), 0));
    let what = format!("incremental sync, nothing new, by {CONNECTIONS} connections");
    let table = Table::new(name, what, &COLUMNS).budget(BUDGET_CHEAP);
    beside_fixed(plan, table, &process, request, CONNECTIONS).await
}

/// An initial sync of 200 entries of 1 KiB.
pub(super) async fn initial_sync(name: &str, plan: &Plan) -> Result<Table> {
    let (accounts, process) = start(name, plan).await?;
    put_entries(&process, &accounts, INITIAL_SYNC_ENTRIES).await?;
    let request = get(accounts.session(0), &sync_path(None, 0));
    let what = format!(
        "initial sync of {INITIAL_SYNC_ENTRIES} entries of {CONTENT_BYTES} B, \
         by {CONNECTIONS_LARGE} connections"
    );
    let table =
        Table::new(name, what, &COLUMNS).budget("CPU at most 1.6 x the reference's, goal 1.2 x");
    beside_fixed(plan, table, &process, request, CONNECTIONS_LARGE).await
}

async fn start(name: &str, plan: &Plan) -> Result<(Accounts, Process)> {
    let accounts = server::make_users(plan, name, 1).await?;
    let process = accounts.serve(plan)?;
    Ok((accounts, process))
}

async fn put_entries(process: &Process, accounts: &Accounts, count: usize) -> Result<()> {
    let mut connection = Connection::open(process.address()).await?;
    for number in 0..count {
        let request = put_entry(accounts.session(0), &kind(number), 'x');
        connection.exchange(&request).await?;
    }
    Ok(())
}

/// Measures `request` beside a reference that answers with what Kitbag answers.
async fn beside_fixed(
    plan: &Plan,
    table: Table,
    process: &Process,
    request: Prepared,
    connections: usize,
) -> Result<Table> {
    let mut connection = Connection::open(process.address()).await?;
    let body = connection.exchange(&request).await?;
    let reference = server::start_fixed(plan, body)?;
    let mut other = Connection::open(reference.address()).await?;
    ensure!(
        other.exchange(&request).await? == body,
        "the reference answers other bytes"
    );
    drop(other);
    let mut kitbag = Target::new(
        process,
        clients(process.address(), &request, connections).await?,
    );
    let mut fixed = Target::new(
        &reference,
        clients(reference.address(), &request, connections).await?,
    );
    Ok(table.rows(compare(plan, &mut kitbag, &mut fixed).await?))
}

async fn clients(address: SocketAddr, request: &Prepared, count: usize) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for _ in 0..count {
        clients.push(Client::open(address, vec![request.clone()]).await?);
    }
    Ok(clients)
}
