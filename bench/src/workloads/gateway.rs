//! The gateway before a homeserver that does the least, beside that homeserver alone: three
//! processes, of which the gateway's own CPU time and memory are measured.

mod bodies;
mod waiting;
mod wake_up;

use anyhow::{Result, ensure};
use kitbag_client::{Scope, Session};

pub(super) use self::bodies::bodies;
pub(crate) use self::bodies::{BODY_KIB, DOWN, DOWN_STALLED, UP, UP_STALLED};
pub(crate) use self::waiting::ANSWERED;
pub(super) use self::waiting::waiting;
pub(super) use self::wake_up::wake_up;
use super::read::clients;
use crate::load::{Connection, Prepared, Target};
use crate::pairs::{BESIDE_REFERENCE, COLUMNS, added, ensure_same_headers, measured, rows};
use crate::plan::Plan;
use crate::process::Process;
use crate::reference::homeserver::{DEVICE_ID, USER_ID};
use crate::report::Table;
use crate::server::{self, CONTENT_BYTES, content, get, get_entry, kind, put_entry};

/// Enough to keep the gateway busy between two looks at its sockets.
const CONNECTIONS: usize = 16;

/// A path that is the homeserver's alone.
const PASSED: &str = "/_matrix/client/v3/rooms/!room:localhost/state";

/// `GET` of something that the gateway does nothing with but hand it on.
pub(super) async fn pass(name: &str, plan: &Plan, connections: usize) -> Result<Table> {
    let what = format!("GET of {CONTENT_BYTES} B, handed on");
    let request = get(&session(), PASSED);
    fixed(name, plan, &what, request, connections).await
}

/// `GET` of an entry of the account, which is looked for among the gateway's own paths.
pub(super) async fn get_account(name: &str, plan: &Plan) -> Result<Table> {
    let what = format!("GET of an entry of {CONTENT_BYTES} B");
    let request = get_entry(&session(), Scope::Global, &kind(0));
    fixed(name, plan, &what, request, CONNECTIONS).await
}

/// The same request through the gateway and at the reference of reading.
async fn fixed(
    name: &str,
    plan: &Plan,
    what: &str,
    request: Prepared,
    connections: usize,
) -> Result<Table> {
    let upstream = server::start_fixed(plan, content('x').as_bytes())?;
    let asked = [request.clone(), request];
    beside_alone(name, plan, what, &upstream, asked, connections).await
}

/// `GET` of an entry of the own device, beside that of an entry of the account.
pub(super) async fn device_get(name: &str, plan: &Plan) -> Result<Table> {
    let session = session();
    let through = get_entry(&session, Scope::Device(DEVICE_ID), &kind(0));
    let alone = get_entry(&session, Scope::Global, &kind(0));
    let what = format!("GET of an entry of {CONTENT_BYTES} B of the own device");
    let upstream = server::start_homeserver(plan, content('x').as_bytes())?;
    beside_alone(name, plan, &what, &upstream, [through, alone], CONNECTIONS).await
}

/// `PUT` of an entry of the account, which is checked before it is handed on.
pub(super) async fn put(name: &str, plan: &Plan) -> Result<Table> {
    let request = put_entry(&session(), Scope::Global, &kind(0), 'x');
    let what = format!("PUT of an entry of {CONTENT_BYTES} B, handed on");
    let upstream = server::start_homeserver(plan, content('x').as_bytes())?;
    let asked = [request.clone(), request];
    beside_alone(name, plan, &what, &upstream, asked, CONNECTIONS).await
}

/// `PUT` of an entry of the own device, beside that of an entry of the account.
pub(super) async fn device_put(name: &str, plan: &Plan) -> Result<Table> {
    let session = session();
    let through = put_entry(&session, Scope::Device(DEVICE_ID), &kind(0), 'x');
    let alone = put_entry(&session, Scope::Global, &kind(0), 'x');
    let what = format!("PUT of an entry of {CONTENT_BYTES} B of the own device");
    let upstream = server::start_homeserver(plan, content('x').as_bytes())?;
    beside_alone(name, plan, &what, &upstream, [through, alone], CONNECTIONS).await
}

/// Who asks: the reference has one user.
fn session() -> Session {
    Session {
        user_id: USER_ID.to_owned(),
        device_id: DEVICE_ID.to_owned(),
        access_token: "a-token-of-the-bench".to_owned(),
        refresh_token: None,
        expires_in_ms: None,
    }
}

/// Measures the first request through the gateway beside the second at `upstream` itself.
async fn beside_alone(
    name: &str,
    plan: &Plan,
    what: &str,
    upstream: &Process,
    [through, alone]: [Prepared; 2],
    connections: usize,
) -> Result<Table> {
    let gateway = server::start_gateway(plan, upstream)?;
    let mut ours = Connection::open(gateway.address()).await?;
    let mut theirs = Connection::open(upstream.address()).await?;
    let same = ours.exchange(&through).await? == theirs.exchange(&alone).await?;
    ensure!(same, "the gateway answers other bytes than the homeserver");
    if through == alone {
        // What is handed on stays as it is.
        ensure_same_headers(&ours, &theirs)?;
    }
    drop((ours, theirs));
    let [ours, theirs] = [(&gateway, through), (upstream, alone)];
    let clients_of_it = clients(ours.0.address(), &ours.1, connections).await?;
    let mut ours = Target::new(ours.0, clients_of_it);
    let clients_of_it = clients(theirs.0.address(), &theirs.1, connections).await?;
    let mut theirs = Target::new(theirs.0, clients_of_it);
    let pairs = measured(plan, &mut ours, &mut theirs).await?;
    let mut rows = rows(&pairs, BESIDE_REFERENCE);
    rows.push(added(&pairs));
    let what = format!(
        "{what}, connections: {connections}; CPU time of the gateway alone; reference: the \
         homeserver behind it, asked without it"
    );
    Ok(Table::new(name, what, &COLUMNS, rows))
}
