//! Writing: durable puts beside the group commit of the bare engine.

use anyhow::Result;

use crate::load::{Client, Prepared, Target};
use crate::pairs::{COLUMNS, compare};
use crate::plan::Plan;
use crate::report::Table;
use crate::server::{self, Accounts, CONTENT_BYTES, kind, put_entry};

/// Entries that each client writes by turns: after the first round each put replaces one.
const ENTRIES: usize = 16;

/// `PUT` of 1 KiB by `clients`, who write the data of `users`.
pub(super) async fn entries(
    name: &str,
    plan: &Plan,
    clients: usize,
    users: usize,
) -> Result<Table> {
    let users = users.min(plan.users_max);
    let accounts = server::make_users(plan, name, users).await?;
    let process = accounts.serve(plan)?;
    let reference = server::start_engine(plan, name)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for client in 0..clients {
        let requests = requests(&accounts, client);
        ours.push(Client::open(process.address(), requests.clone()).await?);
        theirs.push(Client::open(reference.address(), requests).await?);
    }
    let mut kitbag = Target::new(&process, ours);
    let mut engine = Target::new(&reference, theirs);
    let rows = compare(plan, &mut kitbag, &mut engine).await?;
    let what = format!(
        "durable PUT of {CONTENT_BYTES} B by {clients} clients, users: {users}; \
         reference: the bare engine's group commit"
    );
    let table = Table::new(name, what, &COLUMNS).rows(rows);
    Ok(if clients == 64 {
        table.budget("at least 0.65 x the reference's requests/s, goal 0.85 x")
    } else {
        table
    })
}

fn requests(accounts: &Accounts, client: usize) -> Vec<Prepared> {
    let session = accounts.session(client);
    let kinds = (0..ENTRIES).map(|number| kind(client * ENTRIES + number));
    let kinds: Vec<_> = kinds.collect();
    let round = |letter| {
        kinds
            .iter()
            .map(move |kind| put_entry(session, kind, letter))
    };
    // Two contents by turns: SQLite writes nothing, and so syncs nothing, where a row stays equal.
    round('a').chain(round('b')).collect()
}
