//! What Kitbag and Synapse both do, by the same clients with the same requests.

use std::time::Duration;

use anyhow::Result;
use kitbag_client::{Scope, Session};
use tokio::time;

use super::put::{self, Owner};
use super::wake_up::Lab;
use crate::load::{Client, Connection, Prepared, Target};
use crate::pairs::{BESIDE_SYNAPSE, COLUMNS, compare};
use crate::plan::Plan;
use crate::process::Process;
use crate::report::{Row, Table};
use crate::server::{
    self, Accounts, CONTENT_BYTES, first_token, get, get_entry, kind, put_entry, sync_path,
};
use crate::stats::Spread;
use crate::synapse::Synapse;

/// Long enough for a sync to wait at either.
const PAUSE: Duration = Duration::from_millis(20);
const CONNECTIONS: usize = 16;
const CONNECTIONS_LARGE: usize = 4;
const INITIAL_SYNC_ENTRIES: usize = 200;

/// The memory of servers with one user, some seconds after their start.
pub(super) async fn idle(name: &str, plan: &Plan) -> Result<Table> {
    let users = Users::make(name, plan, 1).await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..plan.rounds {
        for (server, figures) in [
            (users.accounts.serve(plan)?, &mut ours),
            (users.synapse.serve().await?, &mut theirs),
        ] {
            time::sleep(plan.settle).await;
            figures.push(server.resident_mib());
            server.stop()?;
        }
    }
    let rows = vec![
        Row::new("kitbag", vec![Spread::of_all(ours)]),
        Row::new("synapse", vec![Spread::of_all(theirs)]),
    ];
    let what = "resident memory of a server with one user, some seconds after its start";
    Ok(Table::new(name, what, &["idle MiB"], rows))
}

/// `GET` of an entry.
pub(super) async fn entry(name: &str, plan: &Plan) -> Result<Table> {
    let pair = Pair::start(name, plan, 1).await?;
    pair.put_entries(1).await?;
    let requests = pair.map(|session| get_entry(session, Scope::Global, &kind(0)));
    let what = format!("GET of an entry of {CONTENT_BYTES} B");
    pair.read(name, plan, &what, requests, CONNECTIONS).await
}

/// `GET /pushrules/`.
pub(super) async fn push_rules(name: &str, plan: &Plan) -> Result<Table> {
    let pair = Pair::start(name, plan, 1).await?;
    let requests = pair.map(|session| get(session, "/_matrix/client/v3/pushrules/"));
    let what = "GET /pushrules/";
    pair.read(name, plan, what, requests, CONNECTIONS).await
}

/// An incremental sync that finds nothing and does not wait.
pub(super) async fn nothing_new(name: &str, plan: &Plan) -> Result<Table> {
    let pair = Pair::start(name, plan, 1).await?;
    pair.put_entries(1).await?;
    let mut requests = Vec::new();
    for side in pair.sides() {
        let mut connection = Connection::open(side.process.address()).await?;
        let since = first_token(&mut connection, &side.sessions[0]).await?;
        requests.push(get(&side.sessions[0], &sync_path(Some(&since), 0)));
    }
    let what = "incremental sync, nothing new";
    pair.read(name, plan, what, requests, CONNECTIONS).await
}

/// An initial sync of 200 entries.
pub(super) async fn initial_sync(name: &str, plan: &Plan) -> Result<Table> {
    let pair = Pair::start(name, plan, 1).await?;
    pair.put_entries(INITIAL_SYNC_ENTRIES).await?;
    let requests = pair.map(|session| get(session, &sync_path(None, 0)));
    let what = format!(
        "initial sync of {INITIAL_SYNC_ENTRIES} entries of {CONTENT_BYTES} B, the same again and \
         again, which Synapse keeps in memory for two minutes"
    );
    let connections = CONNECTIONS_LARGE;
    pair.read(name, plan, &what, requests, connections).await
}

/// `PUT` by `clients`, each of a user of its own.
pub(super) async fn puts(name: &str, plan: &Plan, clients: usize) -> Result<Table> {
    let users = clients.min(plan.users_max);
    let pair = Pair::start(name, plan, users).await?;
    let mut targets = Vec::new();
    for side in pair.sides() {
        let mut opened = Vec::with_capacity(clients);
        for client in 0..clients {
            let session = &side.sessions[client % users];
            let requests = put::requests(session, client, Owner::Account);
            opened.push(Client::open(side.process.address(), requests).await?);
        }
        targets.push(Target::new(side.process, opened));
    }
    let what = format!("PUT of an entry of {CONTENT_BYTES} B by {clients} clients, users: {users}");
    pair.compare(name, plan, what, targets).await
}

/// How long after a put is sent another connection's waiting sync returns.
pub(super) async fn wake_up(name: &str, plan: &Plan) -> Result<Table> {
    let pair = Pair::start(name, plan, 1).await?;
    let [ours, theirs] = pair.sides();
    let mut labs = [
        Lab::new(ours.process, &ours.sessions[0], PAUSE).await?,
        Lab::new(theirs.process, &theirs.sessions[0], PAUSE).await?,
    ];
    let mut rounds: [Vec<[f64; 2]>; 2] = Default::default();
    for lab in &mut labs {
        lab.wake(plan.warm_up).await?;
    }
    for _ in 0..plan.pairs {
        for (lab, figures) in labs.iter_mut().zip(&mut rounds) {
            let woken = lab.wake(plan.measure).await?.sync;
            figures.push([woken.p50, woken.p99]);
        }
    }
    let row = |name, figures: &[[f64; 2]]| {
        let column = |n: usize| Spread::of(figures.iter().map(|round| round[n]));
        Row::new(name, vec![column(0), column(1)])
    };
    let rows = vec![row("kitbag", &rounds[0]), row("synapse", &rounds[1])];
    let what = "PUT sent until the waiting sync of another connection has returned";
    Ok(Table::new(name, what, &["p50 us", "p99 us"], rows))
}

/// Both data directories.
struct Users {
    accounts: Accounts,
    synapse: Synapse,
}

impl Users {
    async fn make(name: &str, plan: &Plan, count: usize) -> Result<Self> {
        Ok(Self {
            accounts: server::make_users(plan, name, count).await?,
            synapse: Synapse::make(plan, name, count).await?,
        })
    }
}

/// Both servers.
struct Pair {
    users: Users,
    kitbag: Process,
    synapse: Process,
}

/// One of them.
struct Side<'a> {
    process: &'a Process,
    sessions: &'a [Session],
}

impl Pair {
    async fn start(name: &str, plan: &Plan, count: usize) -> Result<Self> {
        let users = Users::make(name, plan, count).await?;
        Ok(Self {
            kitbag: users.accounts.serve(plan)?,
            synapse: users.synapse.serve().await?,
            users,
        })
    }

    fn sides(&self) -> [Side<'_>; 2] {
        let ours = Side {
            process: &self.kitbag,
            sessions: &self.users.accounts.sessions,
        };
        let theirs = Side {
            process: &self.synapse,
            sessions: &self.users.synapse.sessions,
        };
        [ours, theirs]
    }

    /// The request of the first user of each.
    fn map(&self, request: impl Fn(&Session) -> Prepared) -> Vec<Prepared> {
        let sides = self.sides();
        sides
            .iter()
            .map(|side| request(&side.sessions[0]))
            .collect()
    }

    async fn put_entries(&self, count: usize) -> Result<()> {
        for side in self.sides() {
            let mut connection = Connection::open(side.process.address()).await?;
            for number in 0..count {
                let put = put_entry(&side.sessions[0], Scope::Global, &kind(number), 'x');
                connection.exchange(&put).await?;
            }
        }
        Ok(())
    }

    async fn read(
        &self,
        name: &str,
        plan: &Plan,
        what: &str,
        requests: Vec<Prepared>,
        connections: usize,
    ) -> Result<Table> {
        let mut targets = Vec::new();
        for (side, request) in self.sides().iter().zip(requests) {
            let mut opened = Vec::with_capacity(connections);
            for _ in 0..connections {
                let client = Client::open(side.process.address(), vec![request.clone()]);
                opened.push(client.await?);
            }
            targets.push(Target::new(side.process, opened));
        }
        let what = format!("{what}, connections: {connections}");
        self.compare(name, plan, what, targets).await
    }

    async fn compare(
        &self,
        name: &str,
        plan: &Plan,
        what: String,
        mut targets: Vec<Target<'_>>,
    ) -> Result<Table> {
        let [kitbag, synapse] = targets.as_mut_slice() else {
            unreachable!("there are two sides");
        };
        let rows = compare(plan, kitbag, synapse, BESIDE_SYNAPSE).await?;
        Ok(Table::new(name, what, &COLUMNS, rows))
    }
}
