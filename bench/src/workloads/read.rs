//! Reading: nothing, one entry, the push rules, and syncs that return at once.

use std::net::SocketAddr;
use std::slice;

use anyhow::{Result, ensure};
use kitbag_client::Scope;

use crate::load::{Client, Connection, Prepared, Target};
use crate::pairs::{BESIDE_REFERENCE, COLUMNS, compare, ensure_same_headers};
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

/// Keeps nothing of what was read, so that each request asks the database.
const UNCACHED: &str = "cache.bytes_max=0";
/// Each initial sync is answered anew, as the first one after a change is.
const UNREMEMBERED: &str = "cache.answers_bytes_max=0";

/// A request that asks for nothing: the edge and the route table.
pub(super) async fn edge(name: &str, plan: &Plan) -> Result<Table> {
    let bench = Bench::start(name, plan, &[]).await?;
    let request = get(bench.accounts.session(0), "/_matrix/client/versions");
    let what = "GET /versions: no identity, no store";
    bench.beside_fixed(plan, what, request, CONNECTIONS).await
}

/// A request that asks only who it is.
pub(super) async fn identity(name: &str, plan: &Plan) -> Result<Table> {
    let bench = Bench::start(name, plan, &[]).await?;
    let path = "/_matrix/client/v3/account/whoami";
    let request = get(bench.accounts.session(0), path);
    let what = "GET /account/whoami: one look-up";
    bench.beside_fixed(plan, what, request, CONNECTIONS).await
}

/// `GET` of an entry of 1 KiB.
pub(super) async fn entry(name: &str, plan: &Plan, connections: usize) -> Result<Table> {
    let bench = Bench::start(name, plan, &[]).await?;
    bench.put_entries(Scope::Global, 1).await?;
    let request = get_entry(bench.accounts.session(0), Scope::Global, &kind(0));
    let what = format!("GET of an entry of {CONTENT_BYTES} B");
    bench.beside_fixed(plan, &what, request, connections).await
}

/// The same where each connection is of another user, who reads an entry of their own.
pub(super) async fn entry_of_each(name: &str, plan: &Plan) -> Result<Table> {
    let users = CONNECTIONS.min(plan.users_max);
    let bench = Bench::start_with_users(name, plan, users, &[]).await?;
    let mut connection = Connection::open(bench.process.address()).await?;
    let mut requests = Vec::with_capacity(users);
    for user in 0..users {
        let session = bench.accounts.session(user);
        let put = put_entry(session, Scope::Global, &kind(0), 'x');
        connection.exchange(&put).await?;
        requests.push(get_entry(session, Scope::Global, &kind(0)));
    }
    let what = format!("GET of an entry of {CONTENT_BYTES} B, users: {users}");
    bench
        .each_beside_fixed(plan, &what, &requests, CONNECTIONS)
        .await
}

/// The same with nothing kept in memory.
pub(super) async fn uncached(name: &str, plan: &Plan) -> Result<Table> {
    let bench = Bench::start(name, plan, &[UNCACHED]).await?;
    bench.put_entries(Scope::Global, 1).await?;
    let request = get_entry(bench.accounts.session(0), Scope::Global, &kind(0));
    let what = format!("GET of an entry of {CONTENT_BYTES} B, with `{UNCACHED}`");
    bench.beside_fixed(plan, &what, request, CONNECTIONS).await
}

/// `GET` of an entry of the own device.
pub(super) async fn device_entry(name: &str, plan: &Plan) -> Result<Table> {
    let bench = Bench::start(name, plan, &[]).await?;
    let session = bench.accounts.session(0);
    let scope = Scope::Device(&session.device_id);
    bench.put_entries(scope, 1).await?;
    let request = get_entry(session, scope, &kind(0));
    let what = format!("GET of an entry of {CONTENT_BYTES} B of the own device");
    bench.beside_fixed(plan, &what, request, CONNECTIONS).await
}

/// `GET /pushrules/`.
pub(super) async fn push_rules(name: &str, plan: &Plan) -> Result<Table> {
    let bench = Bench::start(name, plan, &[]).await?;
    let request = get(bench.accounts.session(0), "/_matrix/client/v3/pushrules/");
    let what = "GET /pushrules/";
    bench.beside_fixed(plan, what, request, CONNECTIONS).await
}

/// An incremental sync that finds nothing and does not wait.
pub(super) async fn nothing_new(name: &str, plan: &Plan) -> Result<Table> {
    let bench = Bench::start(name, plan, &[]).await?;
    bench.put_entries(Scope::Global, 1).await?;
    let mut connection = Connection::open(bench.process.address()).await?;
    let session = bench.accounts.session(0);
    let since = first_token(&mut connection, session).await?;
    let request = get(session, &sync_path(Some(&since), 0));
    let what = "incremental sync, nothing new";
    bench.beside_fixed(plan, what, request, CONNECTIONS).await
}

/// An initial sync of 200 entries of 1 KiB, since whose last answer nothing was changed.
pub(super) async fn initial_sync(name: &str, plan: &Plan) -> Result<Table> {
    let what = format!("initial sync of {INITIAL_SYNC_ENTRIES} entries of {CONTENT_BYTES} B");
    initial_sync_with(name, plan, &[], &what).await
}

/// The same as if something had been changed each time: no answer is remembered.
pub(super) async fn changed_initial_sync(name: &str, plan: &Plan) -> Result<Table> {
    let what = format!(
        "initial sync of {INITIAL_SYNC_ENTRIES} entries of {CONTENT_BYTES} B, with `{UNREMEMBERED}`"
    );
    initial_sync_with(name, plan, &[UNREMEMBERED], &what).await
}

async fn initial_sync_with(
    name: &str,
    plan: &Plan,
    settings: &[&str],
    what: &str,
) -> Result<Table> {
    let bench = Bench::start(name, plan, settings).await?;
    bench
        .put_entries(Scope::Global, INITIAL_SYNC_ENTRIES)
        .await?;
    let request = get(bench.accounts.session(0), &sync_path(None, 0));
    let connections = CONNECTIONS_LARGE;
    bench.beside_fixed(plan, what, request, connections).await
}

/// A server with its users.
struct Bench<'a> {
    name: &'a str,
    accounts: Accounts,
    process: Process,
}

impl<'a> Bench<'a> {
    async fn start(name: &'a str, plan: &Plan, settings: &[&str]) -> Result<Self> {
        Self::start_with_users(name, plan, 1, settings).await
    }

    async fn start_with_users(
        name: &'a str,
        plan: &Plan,
        users: usize,
        settings: &[&str],
    ) -> Result<Self> {
        let accounts = server::make_users(plan, name, users).await?;
        let process = accounts.serve_with(plan, settings)?;
        Ok(Self {
            name,
            accounts,
            process,
        })
    }

    async fn put_entries(&self, scope: Scope<'_>, count: usize) -> Result<()> {
        let mut connection = Connection::open(self.process.address()).await?;
        for number in 0..count {
            let request = put_entry(self.accounts.session(0), scope, &kind(number), 'x');
            connection.exchange(&request).await?;
        }
        Ok(())
    }

    /// Measures `request` beside a reference that answers with what Kitbag answers.
    async fn beside_fixed(
        &self,
        plan: &Plan,
        what: &str,
        request: Prepared,
        connections: usize,
    ) -> Result<Table> {
        let requests = [request];
        self.each_beside_fixed(plan, what, &requests, connections)
            .await
    }

    /// The same where connections send `requests` that are answered alike, each its own.
    async fn each_beside_fixed(
        &self,
        plan: &Plan,
        what: &str,
        requests: &[Prepared],
        connections: usize,
    ) -> Result<Table> {
        let mut connection = Connection::open(self.process.address()).await?;
        let body = connection.exchange(&requests[0]).await?.to_vec();
        let reference = server::start_fixed(plan, &body)?;
        let mut other = Connection::open(reference.address()).await?;
        for request in requests {
            let same = connection.exchange(request).await? == body;
            let same = same && other.exchange(request).await? == body;
            ensure!(same, "not all answers have the same bytes");
        }
        ensure_same_headers(&connection, &other)?;
        drop((connection, other));
        let address = self.process.address();
        let ours = clients_of_each(address, requests, connections).await?;
        let mut kitbag = Target::new(&self.process, ours);
        let address = reference.address();
        let theirs = clients_of_each(address, requests, connections).await?;
        let mut fixed = Target::new(&reference, theirs);
        let rows = compare(plan, &mut kitbag, &mut fixed, BESIDE_REFERENCE).await?;
        let what = format!("{what}, connections: {connections}");
        Ok(Table::new(self.name, what, &COLUMNS, rows))
    }
}

/// Opens connections that all send `request`.
pub(super) async fn clients(
    address: SocketAddr,
    request: &Prepared,
    count: usize,
) -> Result<Vec<Client>> {
    clients_of_each(address, slice::from_ref(request), count).await
}

/// Opens connections that send `requests` by turns, each one of them.
async fn clients_of_each(
    address: SocketAddr,
    requests: &[Prepared],
    count: usize,
) -> Result<Vec<Client>> {
    let mut clients = Vec::with_capacity(count);
    for request in requests.iter().cycle().take(count) {
        clients.push(Client::open(address, vec![request.clone()]).await?);
    }
    Ok(clients)
}
