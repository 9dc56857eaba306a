//! `DIR/admin.sock`: how commands reach a running server, which alone may touch its data.
//!
//! One line of JSON in, one line of JSON out. Only the server's own user can connect.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::time;
use tracing::warn;

use super::{Admin, Command, Reply};

/// The name of the socket in the data directory.
pub(crate) const FILE: &str = "admin.sock";
/// The mode of the socket: only the server's own user may connect.
const OWNER_ONLY: u32 = 0o600;
/// Bytes of a command.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// How long a command may take to arrive.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command line waits for the answer.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long to wait when the system has no descriptor for a new connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Opens the socket; a stale one of a killed server is replaced, since the caller holds the lock.
///
/// `None` where the system cannot make a socket at so long a path; accounts can then be managed
/// while the server stands still.
pub(crate) fn bind(dir: &Path) -> Result<Option<UnixListener>> {
    let path = dir.join(FILE);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot remove `{}`", path.display()));
        }
        _ => {}
    }
    let listener = match UnixListener::bind(&path) {
        Err(error) if is_too_long(&error) => {
            warn!(path = %path.display(), %error, "`kitbag user` cannot reach this server");
            return Ok(None);
        }
        bound => bound.with_context(|| format!("cannot listen on `{}`", path.display()))?,
    };
    std::fs::set_permissions(&path, Permissions::from_mode(OWNER_ONLY))
        .with_context(|| format!("cannot protect `{}`", path.display()))?;
    Ok(Some(listener))
}

fn is_too_long(error: &std::io::Error) -> bool {
    error.kind() == ErrorKind::InvalidInput
}

/// Removes the socket of a server that stops.
pub(crate) fn remove(dir: &Path) {
    let path = dir.join(FILE);
    if let Err(error) = std::fs::remove_file(&path) {
        // The next start replaces it.
        warn!(%error, file = %path.display(), "the admin socket was not removed");
    }
}

/// Answers commands for ever.
pub(crate) async fn serve(listener: UnixListener, admin: Admin) {
    loop {
        match listener.accept().await {
            // One at a time: there is one operator.
            Ok((stream, _)) => {
                if let Err(error) = answer(stream, &admin).await {
                    warn!(%error, "a command of the operator failed");
                }
            }
            Err(error) => {
                warn!(%error, "could not accept a connection on the admin socket");
                time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, admin: &Admin) -> Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    let mut reader = tokio::io::BufReader::new(reader).take(COMMAND_BYTES_MAX);
    time::timeout(COMMAND_TIMEOUT, reader.read_line(&mut line)).await??;
    let reply = match serde_json::from_str::<Command>(&line) {
        Ok(command) => admin.run(command).await,
        // The text of the error could quote the command, and that a password.
        Err(_) => Reply::Failed {
            error: "the server does not know this command".to_owned(),
        },
    };
    let mut reply = serde_json::to_vec(&reply)?;
    reply.push(b'\n');
    writer.write_all(&reply).await?;
    Ok(())
}

/// Sends a command to the server that runs on `dir`; `None` where none runs.
pub(crate) fn send(dir: &Path, command: &Command) -> Result<Option<Reply>> {
    let path = dir.join(FILE);
    let mut stream = match BlockingUnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) if is_too_long(&error) => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot connect to `{}`", path.display()));
        }
    };
    stream.set_read_timeout(Some(REPLY_TIMEOUT))?;
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = String::new();
    BufReader::new(stream)
        .read_line(&mut reply)
        .context("the server did not answer")?;
    serde_json::from_str(&reply)
        .context("the server's answer is not readable")
        .map(Some)
}
