//! The servers of a workload: Kitbag with its users, and the references.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use kitbag_client::path::{self, Naming};
use kitbag_client::{Client, Register, Scope, Session};
use tokio::task::JoinSet;

use crate::load::{Connection, Prepared, prepare};
use crate::plan::Plan;
use crate::process::Process;

/// Bytes of a content in every workload.
pub(crate) const CONTENT_BYTES: usize = 1_024;

/// Users who register at once: their passwords are hashed one after the other, and a server refuses
/// a long queue.
const REGISTERING: usize = 16;

/// Starts Kitbag on `data`, as it is set up by default but without rate limits, and with `settings`
/// of the form `cache.bytes_max=0`.
fn start_kitbag(plan: &Plan, data: &Path, settings: &[&str]) -> Result<Process> {
    let mut command = Command::new(&plan.kitbag);
    command
        .args(["serve", "--listen", "127.0.0.1:0"])
        .args(["--set", "rate_limits.enabled=false"])
        .args(settings.iter().flat_map(|setting| ["--set", setting]))
        .arg("--data")
        .arg(data);
    Process::start(command, &data.with_extension("log"))
}

/// Makes `count` users, each with one device, in a new data directory; returns it with them.
///
/// By a server of its own, since hashing passwords leaves its mark on the memory of a process.
pub(crate) async fn make_users(plan: &Plan, name: &str, count: usize) -> Result<Accounts> {
    let data = plan.dir.path().join(name.replace('/', "-"));
    if data.try_exists()? {
        fs::remove_dir_all(&data)?;
    }
    let process = start_kitbag(plan, &data, &[])?;
    let sessions = register_users(&process.base_url(), count).await?;
    Ok(Accounts { data, sessions })
}

/// Registers `count` users with one device each, at any homeserver.
pub(crate) async fn register_users(base_url: &str, count: usize) -> Result<Vec<Session>> {
    let client = Client::new(base_url)?;
    let mut registering: JoinSet<Result<Session>> = JoinSet::new();
    let mut sessions = Vec::with_capacity(count);
    for number in 0..count {
        if number >= REGISTERING
            && let Some(session) = registering.join_next().await
        {
            sessions.push(session??);
        }
        registering.spawn(register(client.clone(), format!("user{number}")));
    }
    while let Some(session) = registering.join_next().await {
        sessions.push(session??);
    }
    sessions.sort_by(|a, b| a.user_id.cmp(&b.user_id));
    Ok(sessions)
}

async fn register(client: Client, name: String) -> Result<Session> {
    let register = Register {
        username: Some(&name),
        password: Some("a password of the bench"),
        ..Register::default()
    };
    let account = client.register(&register).await;
    Ok(account.context("cannot register a user")?.session().clone())
}

/// Users in a data directory on which no server runs.
pub(crate) struct Accounts {
    pub(crate) data: PathBuf,
    pub(crate) sessions: Vec<Session>,
}

impl Accounts {
    /// Starts a server for them.
    pub(crate) fn serve(&self, plan: &Plan) -> Result<Process> {
        self.serve_with(plan, &[])
    }

    /// As [`Accounts::serve`], with settings that are not the default.
    pub(crate) fn serve_with(&self, plan: &Plan, settings: &[&str]) -> Result<Process> {
        start_kitbag(plan, &self.data, settings)
    }

    /// The session of a user, round and round.
    pub(crate) fn session(&self, number: usize) -> &Session {
        &self.sessions[number % self.sessions.len()]
    }
}

/// Starts the gateway before `upstream`, as it is set up by default but without rate limits.
pub(crate) fn start_gateway(plan: &Plan, upstream: &Process) -> Result<Process> {
    let mut command = Command::new(&plan.kitbag);
    command
        .args(["gateway", "--listen", "127.0.0.1:0", "--upstream"])
        .arg(upstream.base_url())
        .args(["--set", "writes.enabled=false"]);
    Process::start(command, &plan.dir.path().join("gateway.log"))
}

/// Starts the reference that answers everything with `body`.
pub(crate) fn start_fixed(plan: &Plan, body: &[u8]) -> Result<Process> {
    start_answering(plan, "fixed", body)
}

/// Starts the reference behind the gateway, which answers all reading with `body`.
pub(crate) fn start_homeserver(plan: &Plan, body: &[u8]) -> Result<Process> {
    start_answering(plan, "homeserver", body)
}

fn start_answering(plan: &Plan, mode: &str, body: &[u8]) -> Result<Process> {
    let file = plan.dir.path().join("fixed-body");
    fs::write(&file, body).with_context(|| format!("cannot write `{}`", file.display()))?;
    let mut command = Command::new(&plan.reference);
    command.args(["reference", mode, "--body"]).arg(file);
    start_reference(plan, command)
}

/// Starts the reference that hands puts to the bare engine.
pub(crate) fn start_engine(plan: &Plan, name: &str) -> Result<Process> {
    let data = plan.dir.path().join(name.replace('/', "-") + "-engine");
    fs::create_dir_all(&data).with_context(|| format!("cannot make `{}`", data.display()))?;
    let mut command = Command::new(&plan.reference);
    command.args(["reference", "engine", "--dir"]).arg(data);
    start_reference(plan, command)
}

/// Starts the reference that never answers.
pub(crate) fn start_silent(plan: &Plan) -> Result<Process> {
    let mut command = Command::new(&plan.reference);
    command.args(["reference", "silent"]);
    start_reference(plan, command)
}

fn start_reference(plan: &Plan, command: Command) -> Result<Process> {
    Process::start(command, &plan.dir.path().join("reference.log"))
}

/// An address on which nobody listens, for who must be told one.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A content of exactly [`CONTENT_BYTES`], filled with `letter`.
pub(crate) fn content(letter: char) -> String {
    let (head, tail) = (r#"{"text":""#, r#""}"#);
    let filling = letter
        .to_string()
        .repeat(CONTENT_BYTES - head.len() - tail.len());
    format!("{head}{filling}{tail}")
}

/// The type of the entry of that number.
pub(crate) fn kind(number: usize) -> String {
    format!("org.example.bench.{number}")
}

pub(crate) fn get(session: &Session, path: &str) -> Prepared {
    prepare("GET", path, &session.access_token, "")
}

pub(crate) fn get_entry(session: &Session, scope: Scope<'_>, kind: &str) -> Prepared {
    let path = path::account_data(&session.user_id, scope, Naming::Stable, kind);
    get(session, &path)
}

pub(crate) fn put_entry(session: &Session, scope: Scope<'_>, kind: &str, letter: char) -> Prepared {
    let path = path::account_data(&session.user_id, scope, Naming::Stable, kind);
    prepare("PUT", &path, &session.access_token, &content(letter))
}

/// The path of a sync; without `since` an initial one.
pub(crate) fn sync_path(since: Option<&str>, timeout_ms: u64) -> String {
    let since = since.map_or(String::new(), |since| {
        format!("&since={}", path::segment(since))
    });
    format!("{}/sync?timeout={timeout_ms}{since}", path::V3)
}

/// Returns the token of the next sync from the answer of one.
pub(crate) fn next_batch(body: &[u8]) -> Result<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        next_batch: String,
    }
    let body: Body = serde_json::from_slice(body).context("cannot read the answer of a sync")?;
    Ok(body.next_batch)
}

/// Returns the token that an initial sync hands out.
pub(crate) async fn first_token(connection: &mut Connection, session: &Session) -> Result<String> {
    let request = get(session, &sync_path(None, 0));
    next_batch(connection.exchange(&request).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_json_of_the_size_it_should_have() {
        assert_eq!(content('x').len(), CONTENT_BYTES);
        assert!(
            serde_json::from_str::<serde_json::Value>(&content('x'))
                .unwrap()
                .is_object()
        );
    }
}
