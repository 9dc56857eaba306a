//! The gateway is taken away and comes back while clients sync and write: no request fails, since
//! tokens, positions and account data are the homeserver's.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::lab::{Lab, User};
use crate::http::{Answer, Connection, request};
use crate::server::{ANY, CANARY, Server};

/// Users with a device that writes and two that sync.
const BUSY_USERS: usize = 3;

/// Users with a device that waits all the time.
const IDLE_USERS: usize = 2;

/// How often the gateway is taken away.
const ROUNDS: usize = 3;

/// Writes of each busy user before the next change.
const WRITES_OF_A_PHASE: u64 = 8;

/// Writes of each busy user that show that it has gone the other way.
const WRITES_OF_A_CHANGE: u64 = 2;

/// How long a sync waits: through the gateway some wait while it stops, which lets them.
const WAIT_MS: u64 = 4_000;

/// More than any machine needs for one phase.
const PATIENCE: Duration = Duration::from_secs(60);

/// The clients write as fast as they can.
const WRITES_UNBOUNDED: &str = "writes.enabled=false";

const TYPE: &str = "org.example.counter";

/// Where clients send their next request, and how far they are.
struct Traffic {
    gateway: SocketAddr,
    homeserver: SocketAddr,
    /// How often the way has changed: even is through the gateway, odd is past it.
    way: AtomicU64,
    ending: AtomicBool,
    requests: AtomicU64,
    /// Syncs that were sent through the gateway and are not answered.
    waiting: AtomicU64,
    /// Writes of each busy user, all of which were answered.
    written: Mutex<[u64; BUSY_USERS]>,
    progress: Condvar,
}

/// Runs the clients while the gateway goes and comes; returns how often it went.
pub(super) fn run(lab: &Lab<'_>) -> anyhow::Result<u64> {
    let first = lab.another_gateway("removal", ANY, &[WRITES_UNBOUNDED])?;
    let address = first.address()?;
    let mut gateway = Some(first);
    let traffic = Traffic {
        gateway: address,
        homeserver: lab.synapse.address(),
        way: AtomicU64::new(0),
        ending: AtomicBool::new(false),
        requests: AtomicU64::new(0),
        waiting: AtomicU64::new(0),
        written: Mutex::default(),
        progress: Condvar::new(),
    };
    let register = |_| User::register(lab.synapse.address());
    let users: Vec<_> = (0..BUSY_USERS + IDLE_USERS)
        .map(register)
        .collect::<Result<_, _>>()?;
    let (busy, idle) = users.split_at(BUSY_USERS);
    thread::scope(|scope| {
        let traffic = &traffic;
        let mut clients = Vec::new();
        for (index, user) in busy.iter().enumerate() {
            clients.push(scope.spawn(move || Client::new(traffic, user).write(index)));
            for _ in 0..2 {
                clients.push(scope.spawn(move || Client::new(traffic, user).sync(Some(index))));
            }
        }
        for user in idle {
            clients.push(scope.spawn(move || Client::new(traffic, user).sync(None)));
        }
        let changed = traffic.change(lab, &mut gateway);
        traffic.ending.store(true, Ordering::SeqCst);
        for client in clients {
            match client.join() {
                Ok(ended) => ended?,
                Err(_) => bail!("a client panicked"),
            }
        }
        changed
    })?;
    if let Some(gateway) = gateway {
        gateway.stop()?;
    }
    let requests = traffic.requests.load(Ordering::Relaxed);
    println!("gateway: {requests} requests were answered while it went and came");
    u64::try_from(ROUNDS).context("rounds fit in 64 bits")
}

impl Traffic {
    /// Takes the gateway away and brings it back, again and again.
    fn change(&self, lab: &Lab<'_>, gateway: &mut Option<Server>) -> anyhow::Result<()> {
        let mut waited = 0;
        for round in 1..=ROUNDS {
            self.wait_for_writes(WRITES_OF_A_PHASE)?;
            self.way.fetch_add(1, Ordering::SeqCst);
            // So that who writes is answered by the homeserver; who waits may wait at the gateway.
            self.wait_for_writes(WRITES_OF_A_CHANGE)?;
            let waiting = self.waiting.load(Ordering::SeqCst);
            println!("gateway: {waiting} syncs wait at it as it is stopped");
            waited += waiting;
            gateway.take().context("it runs")?.stop()?;
            self.wait_for_writes(WRITES_OF_A_PHASE)?;
            let name = format!("removal-{round}");
            *gateway = Some(lab.another_gateway(&name, self.gateway, &[WRITES_UNBOUNDED])?);
            self.way.fetch_add(1, Ordering::SeqCst);
        }
        self.wait_for_writes(WRITES_OF_A_PHASE)?;
        // Else it was never taken away from anybody.
        ensure!(
            waited > 0,
            "no sync waited at the gateway as it was stopped"
        );
        Ok(())
    }

    /// Waits until each busy user has written so many times more.
    fn wait_for_writes(&self, more: u64) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut written = self.written();
        let wanted = written.map(|written| written + more);
        while written
            .iter()
            .zip(wanted)
            .any(|(written, wanted)| *written < wanted)
        {
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "the clients do not get on");
            let waited = self.progress.wait_timeout(written, left);
            written = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    fn written(&self) -> MutexGuard<'_, [u64; BUSY_USERS]> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn way(&self) -> u64 {
        self.way.load(Ordering::SeqCst)
    }

    fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }
}

fn is_through(way: u64) -> bool {
    way.is_multiple_of(2)
}

/// One client with one connection, which it keeps until the way changes.
struct Client<'a> {
    traffic: &'a Traffic,
    user: &'a User,
    connection: Option<(u64, Connection)>,
}

impl<'a> Client<'a> {
    fn new(traffic: &'a Traffic, user: &'a User) -> Self {
        Self {
            traffic,
            user,
            connection: None,
        }
    }

    /// Writes and reads until all ends; `index` is the user's among the busy ones.
    fn write(mut self, index: usize) -> anyhow::Result<()> {
        let User {
            user_id, device_id, ..
        } = self.user;
        let entry = format!("/_matrix/client/v3/user/{user_id}/account_data/{TYPE}");
        let room = self.ask("POST", "/_matrix/client/v3/createRoom", &json!({}))?;
        let room = room.json()["room_id"]
            .as_str()
            .map(str::to_owned)
            .context("no room")?;
        let own =
            format!("/_matrix/client/v3/user/{user_id}/devices/{device_id}/account_data/{TYPE}");
        let mapped = format!(
            "/_matrix/client/v3/user/{user_id}/account_data/org.matrix.msc4331.device_account_data.{device_id}.{TYPE}"
        );
        let mut of_device = Value::Null;
        for number in 1.. {
            if self.traffic.is_ending() {
                break;
            }
            let content = json!({"canary": CANARY, "n": number});
            self.ask("PUT", &entry, &content)?;
            let read = self.ask("GET", &entry, &Value::Null)?.json();
            ensure!(
                read == content,
                "{read} was read behind a write of {content}"
            );
            let send = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{number}");
            let message = json!({"msgtype": "m.text", "body": CANARY});
            self.ask("PUT", &send, &message)?;
            let way = self.traffic.way();
            if !of_device.is_null() {
                let path = if is_through(way) { &own } else { &mapped };
                let read = self.ask_at(way, "GET", path, &Value::Null)?.json();
                ensure!(
                    read == of_device,
                    "{read} was read behind a write of {of_device}"
                );
            }
            if is_through(way) {
                self.ask_at(way, "PUT", &own, &content)?;
                of_device = content;
            }
            self.traffic.written()[index] = number;
            self.traffic.progress.notify_all();
        }
        ensure!(!of_device.is_null(), "nothing was written for the device");
        Ok(())
    }

    /// Syncs until all ends and the last of what the user `of` wrote was there, no older content
    /// behind a newer one.
    fn sync(mut self, of: Option<usize>) -> anyhow::Result<()> {
        let path = "/_matrix/client/v3/sync?set_presence=offline";
        let mut since = String::new();
        let mut seen = 0;
        let mut deadline = None;
        loop {
            let target = match since.as_str() {
                "" => path.to_owned(),
                since => format!("{path}&timeout={WAIT_MS}&since={since}"),
            };
            let way = self.traffic.way();
            let is_waiting = u64::from(is_through(way) && !since.is_empty());
            self.traffic.waiting.fetch_add(is_waiting, Ordering::SeqCst);
            let told = self.ask_at(way, "GET", &target, &Value::Null);
            self.traffic.waiting.fetch_sub(is_waiting, Ordering::SeqCst);
            let told = told?.json();
            since = told["next_batch"]
                .as_str()
                .context("no next_batch")?
                .to_owned();
            let events = told["account_data"]["events"].as_array();
            for event in events
                .into_iter()
                .flatten()
                .filter(|event| event["type"] == TYPE)
            {
                let number = event["content"]["n"].as_u64().context("no number")?;
                ensure!(number >= seen, "{number} came behind {seen}");
                seen = number;
            }
            if self.traffic.is_ending() {
                let is_all = of.is_none_or(|index| seen == self.traffic.written()[index]);
                if is_all {
                    return Ok(());
                }
                let deadline = *deadline.get_or_insert_with(|| Instant::now() + PATIENCE);
                ensure!(Instant::now() < deadline, "the last write never came");
            }
        }
    }

    fn ask(&mut self, method: &str, target: &str, body: &Value) -> anyhow::Result<Answer> {
        self.ask_at(self.traffic.way(), method, target, body)
    }

    /// Sends a request, which must be answered with 200.
    fn ask_at(
        &mut self,
        way: u64,
        method: &str,
        target: &str,
        body: &Value,
    ) -> anyhow::Result<Answer> {
        let connection = match self.connection.take() {
            Some((at, connection)) if at == way => connection,
            _ if is_through(way) => Connection::open(self.traffic.gateway)?,
            _ => Connection::open(self.traffic.homeserver)?,
        };
        let (_, connection) = self.connection.insert((way, connection));
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let bytes = request(
            method,
            target,
            &[&self.user.authorization()],
            body.as_bytes(),
        );
        let answer = connection.exchange(&bytes);
        let way = if is_through(way) {
            "gateway"
        } else {
            "homeserver"
        };
        let answer = answer.with_context(|| format!("{method} {target} at the {way}"))?;
        let told = String::from_utf8_lossy(&answer.body);
        let status = answer.status;
        ensure!(
            status == 200,
            "{status} for {method} {target} at the {way}: {told}"
        );
        self.traffic.requests.fetch_add(1, Ordering::Relaxed);
        Ok(answer)
    }
}
