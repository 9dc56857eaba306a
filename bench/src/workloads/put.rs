//! Writing: durable puts beside the group commit of the bare engine.

use anyhow::Result;
use kitbag_client::{Scope, Session};

use crate::load::{Client, Connection, Prepared, Target};
use crate::pairs::{BESIDE_REFERENCE, COLUMNS, compare, ensure_same_headers};
use crate::plan::Plan;
use crate::report::Table;
use crate::server::{self, CONTENT_BYTES, kind, put_entry};

/// Entries that each client writes by turns: after the first round each put replaces one.
const ENTRIES: usize = 16;

/// Whose entries are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner {
    Account,
    Device,
}

/// `PUT` of 1 KiB by `clients`, who write the data of `users`.
pub(super) async fn entries(
    name: &str,
    plan: &Plan,
    clients: usize,
    users: usize,
    owner: Owner,
) -> Result<Table> {
    let users = users.min(plan.users_max);
    let clients = match owner {
        Owner::Account => clients,
        // A device may hold far fewer entries than an account, so each client is one of its own.
        Owner::Device => clients.min(users),
    };
    let accounts = server::make_users(plan, name, users).await?;
    let process = accounts.serve(plan)?;
    let reference = server::start_engine(plan, name)?;
    let mut connections = (
        Connection::open(process.address()).await?,
        Connection::open(reference.address()).await?,
    );
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for client in 0..clients {
        let requests = requests(accounts.session(client), client, owner);
        connections.0.exchange(&requests[0]).await?;
        connections.1.exchange(&requests[0]).await?;
        ensure_same_headers(&connections.0, &connections.1)?;
        ours.push(Client::open(process.address(), requests.clone()).await?);
        theirs.push(Client::open(reference.address(), requests).await?);
    }
    let mut kitbag = Target::new(&process, ours);
    let mut engine = Target::new(&reference, theirs);
    let rows = compare(plan, &mut kitbag, &mut engine, BESIDE_REFERENCE).await?;
    let entry = match owner {
        Owner::Account => "an entry",
        Owner::Device => "an entry of the own device",
    };
    let what = format!(
        "durable PUT of {entry} of {CONTENT_BYTES} B by {clients} clients, users: {users}; \
         reference: the bare engine's group commit"
    );
    Ok(Table::new(name, what, &COLUMNS, rows))
}

/// What a client sends, round and round.
pub(super) fn requests(session: &Session, client: usize, owner: Owner) -> Vec<Prepared> {
    let scope = match owner {
        Owner::Account => Scope::Global,
        Owner::Device => Scope::Device(&session.device_id),
    };
    let kinds = (0..ENTRIES).map(|number| kind(client * ENTRIES + number));
    let kinds: Vec<_> = kinds.collect();
    let round = |letter| {
        kinds
            .iter()
            .map(move |kind| put_entry(session, scope, kind, letter))
    };
    // Two contents by turns: SQLite writes nothing, and so syncs nothing, where a row stays equal.
    round('a').chain(round('b')).collect()
}
