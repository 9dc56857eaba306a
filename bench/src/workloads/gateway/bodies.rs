//! Large bodies through the gateway: their price, and that its memory does not grow with them.

use std::pin::pin;
use std::time::Duration;

use anyhow::{Result, bail};
use tokio::task::JoinSet;
use tokio::time;

use super::session;
use crate::load::{Client, Connection, Prepared, Target, prepare};
use crate::plan::Plan;
use crate::process::Process;
use crate::report::{Row, Table};
use crate::server;
use crate::stats::Spread;

const COLUMNS: [&str; 6] = [
    "MiB/s",
    CPU_A_MIB,
    P50_MS,
    "idle MiB",
    "growth MiB",
    BODY_KIB,
];
/// How long one body takes that is alone under way.
const P50_MS: &str = "p50 ms of one";
type Figures = [Option<f64>; COLUMNS.len()];

const CPU_A_MIB: &str = "CPU us a MiB";
/// How much memory each body holds that is under way.
pub(crate) const BODY_KIB: &str = "KiB a body";

/// Bodies that flow.
pub(crate) const DOWN: &str = "down";
pub(crate) const UP: &str = "up";
/// The same at the homeserver itself.
const ALONE: [&str; 2] = ["down, alone", "up, alone"];
/// How much longer than that it takes through the gateway.
const ADDED: [&str; 2] = ["down, added", "up, added"];
/// Bodies that nobody reads on: a proxy that read ahead would have to keep them.
pub(crate) const DOWN_STALLED: &str = "down, stalled";
pub(crate) const UP_STALLED: &str = "up, stalled";

const UPLOAD: &str = "/_matrix/media/v3/upload";
const BODY_MIB: u32 = 10;
const BODY_BYTES: usize = 10 * 1_024 * 1_024;
/// Bodies under way at once.
const CONNECTIONS: u32 = 4;
const CONNECTIONS_STALLED: u32 = 16;
/// More than the sockets between client and homeserver can hold: some 20 MiB.
const ENDLESS_BYTES: usize = PIECE_BYTES * PIECES_MAX * 2;
const PIECE_BYTES: usize = 64 * 1_024;
const PIECES_MAX: usize = 1_024;
/// How often memory is looked at: a piece of 64 KiB takes some 30 µs, a body some 5 ms.
const LOOK: Duration = Duration::from_millis(1);
/// A client that reads no further needs no more.
const BUFFER_BYTES: usize = 2_048;

/// Bodies of 10 MiB down and up, flowing and stalled.
pub(in crate::workloads) async fn bodies(name: &str, plan: &Plan) -> Result<Table> {
    let body = "x".repeat(BODY_BYTES);
    let token = session().access_token;
    let path = "/_matrix/media/v3/download/localhost/a";
    let down = prepare("GET", path, &token, "");
    let up = prepare("POST", UPLOAD, &token, &body);
    let endless = endless(&token);
    let mut rounds: [Vec<Figures>; 8] = Default::default();
    for _ in 0..plan.rounds {
        for (kind, request) in [&down, &up].into_iter().enumerate() {
            let upstream = server::start_homeserver(plan, body.as_bytes())?;
            let gateway = server::start_gateway(plan, &upstream)?;
            let through = flow(plan, &gateway, request).await?;
            let alone = flow(plan, &upstream, request).await?;
            rounds[kind].push(through);
            rounds[2 + kind].push(alone);
            let mut added = Figures::default();
            added[2] = through[2]
                .zip(alone[2])
                .map(|(through, alone)| through - alone);
            rounds[4 + kind].push(added);
            drop((gateway, upstream));
        }
        rounds[6].push(stall(plan, &down, false).await?);
        rounds[7].push(stall(plan, &endless, true).await?);
    }
    let names = [
        DOWN,
        UP,
        ALONE[0],
        ALONE[1],
        ADDED[0],
        ADDED[1],
        DOWN_STALLED,
        UP_STALLED,
    ];
    let rows = names.iter().zip(&rounds).map(|(name, rounds)| {
        let column = |n: usize| Spread::of_all(rounds.iter().map(|round| round[n]));
        Row::new(name, (0..COLUMNS.len()).map(column).collect())
    });
    let what = format!(
        "bodies of {BODY_MIB} MiB, {CONNECTIONS} at once, and the most memory of the gateway \
         (anonymous) beyond that at its start; {P50_MS}: one body after the other; alone: at the \
         homeserver behind it; stalled: {CONNECTIONS_STALLED} that nobody reads on"
    );
    Ok(Table::new(name, what, &COLUMNS, rows.collect()))
}

/// Sends a request again and again, and returns the figures of [`COLUMNS`].
async fn flow(plan: &Plan, process: &Process, request: &Prepared) -> Result<Figures> {
    time::sleep(plan.settle).await;
    let idle = process.anonymous_mib();
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        clients.push(Client::open(process.address(), vec![request.clone()]).await?);
    }
    let mut target = Target::new(process, clients);
    let (mut peak, measuring) = (idle, target.measure(plan.measure));
    let mut measuring = pin!(measuring);
    let sample = loop {
        tokio::select! {
            sample = &mut measuring => break sample?,
            () = time::sleep(LOOK) => peak = larger(peak, process.anonymous_mib()),
        }
    };
    let per_mib = sample.cpu_us.map(|cpu_us| cpu_us / f64::from(BODY_MIB));
    let [idle, growth, each] = growth(idle, peak, CONNECTIONS);
    let flow = sample.requests_per_second * f64::from(BODY_MIB);
    let client = Client::open(process.address(), vec![request.clone()]).await?;
    let one = Target::new(process, vec![client])
        .measure(plan.measure)
        .await?;
    let p50_ms = Some(one.p50_us / 1e3);
    Ok([Some(flow), per_mib, p50_ms, idle, growth, each])
}

/// Lets bodies begin and go no further; only memory is looked at.
async fn stall(plan: &Plan, request: &Prepared, is_up: bool) -> Result<Figures> {
    let upstream = match is_up {
        // Which does not read what it is sent.
        true => server::start_silent(plan)?,
        false => server::start_homeserver(plan, &vec![b'x'; BODY_BYTES])?,
    };
    let gateway = server::start_gateway(plan, &upstream)?;
    time::sleep(plan.settle).await;
    let idle = gateway.anonymous_mib();
    let mut sending = JoinSet::new();
    for _ in 0..CONNECTIONS_STALLED {
        let (address, request, settle) = (gateway.address(), request.clone(), plan.settle);
        sending.spawn(async move {
            let mut connection = Connection::open_with(address, BUFFER_BYTES).await?;
            connection.send(&request).await?;
            if is_up {
                send_until_stalled(&mut connection, settle).await?;
            }
            anyhow::Ok(connection)
        });
    }
    let mut connections = Vec::new();
    while let Some(stalled) = sending.join_next().await {
        connections.push(stalled??);
    }
    time::sleep(plan.settle).await;
    let [idle, growth, each] = growth(idle, gateway.anonymous_mib(), CONNECTIONS_STALLED);
    Ok([None, None, None, idle, growth, each])
}

/// The head of an upload whose body never ends.
fn endless(token: &str) -> Prepared {
    let head = prepare("POST", UPLOAD, token, "");
    let head = String::from_utf8_lossy(&head);
    let length = format!("Content-Length: {ENDLESS_BYTES}");
    let head = head.replace("Content-Length: 0", &length);
    head.into_bytes().into()
}

/// Sends of a body that has no end as much as is taken.
async fn send_until_stalled(connection: &mut Connection, patience: Duration) -> Result<()> {
    let piece = vec![b'x'; PIECE_BYTES];
    for _ in 0..PIECES_MAX {
        match time::timeout(patience, connection.send(&piece)).await {
            Ok(sent) => sent?,
            Err(_elapsed) => return Ok(()),
        }
    }
    bail!("a body that nobody reads was taken whole")
}

/// Returns memory at first, and how much more there was, in MiB and for each body in KiB.
fn growth(idle: Option<f64>, peak: Option<f64>, bodies: u32) -> [Option<f64>; 3] {
    let growth = peak.zip(idle).map(|(peak, idle)| peak - idle);
    let each = growth.map(|growth| growth * 1_024.0 / f64::from(bodies));
    [idle, growth, each]
}

fn larger(one: Option<f64>, other: Option<f64>) -> Option<f64> {
    one.zip(other).map(|(one, other)| one.max(other))
}
