//! `DIR/admin.sock`: how commands reach a running server, which alone may touch its data.
//!
//! One line of JSON in, one line of JSON out, or several where it takes its time. A content follows
//! the line of its command as it is, so that no line is long. Only the server's own user can connect.

use std::fs::Permissions;
use std::io::{BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as BlockingUnixStream;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use serde::Serialize;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _,
};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::{self, Instant};
use tracing::warn;

use super::audit::Audit;
use super::copying::{self, Far, Order, Started};
use super::data::DataCommand;
use super::{Admin, Command, Reply};

/// The name of the socket in the data directory.
pub(crate) const FILE: &str = "admin.sock";
/// The mode of the socket: only the server's own user may connect.
const OWNER_ONLY: u32 = 0o600;
/// Bytes of a command.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// How long a command may take to arrive, and a line of the answer to be taken.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a command line waits for the answer, or the next line of one.
const REPLY_TIMEOUT: Duration = Duration::from_secs(60);
/// After how long without an answer a command line says so, and waits on.
const LATE: Duration = Duration::from_secs(5);
/// How often is told how far a long command is: for people who watch, and for the time-out above.
const FAR_PERIOD: Duration = Duration::from_millis(250);
/// Commands that are carried out at once: a backup must not hold up an operator's other commands.
const COMMANDS_MAX: usize = 8;
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
            warn!(path = %path.display(), %error, "commands of the operator cannot reach this server");
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
    let places = Arc::new(Semaphore::new(COMMANDS_MAX));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = admin.clone();
                tokio::spawn(async move {
                    if let Err(error) = answer(stream, &admin).await {
                        warn!(%error, "a command of the operator failed");
                    }
                    drop(place);
                });
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
        Ok(Command::Backup { order }) => {
            return back_up(&mut reader.into_inner(), &mut writer, admin, order).await;
        }
        Ok(Command::Accounts(command)) => {
            let mut audit = Audit::of_accounts(&command);
            let reply = admin.run(command).await;
            audit.ended(&reply);
            reply
        }
        Ok(Command::Data(command)) => {
            return look_after(&mut reader.into_inner(), &mut writer, admin, command).await;
        }
        // The text of the error could quote the command, and that a password.
        Err(_) => Reply::Failed {
            error: "the server does not know this command".to_owned(),
        },
    };
    write(&mut writer, &reply).await
}

/// Copies the store and answers, where the caller is still there.
async fn back_up(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    admin: &Admin,
    order: Order,
) -> Result<()> {
    // What was made to be looked through is of no use to anyone else.
    let scratch = (!order.verify).then(|| order.file.clone());
    let mut audit = Audit::of_backup(&order);
    let (reply, mut heard) = copy(reader, writer, admin, order).await?;
    audit.ended(&reply);
    drop(audit);
    if heard.is_ok() {
        heard = write(writer, &reply).await;
    }
    if heard.is_err()
        && matches!(reply, Reply::BackedUp { .. })
        && let Some(file) = scratch
    {
        std::fs::remove_file(file)?;
    }
    heard
}

/// Copies the store and tells how far it is; a caller who does not hear it gives it up.
///
/// Returns when nothing is written any more.
async fn copy(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    admin: &Admin,
    order: Order,
) -> Result<(Reply, Result<()>)> {
    let Started { told, mut ended } = copying::start(Arc::clone(&admin.store), order);
    let mut period = time::interval(FAR_PERIOD);
    let mut nothing = [0];
    let left = loop {
        tokio::select! {
            ended = &mut ended => return Ok((ended?, Ok(()))),
            _ = period.tick() => {
                let far = *told.borrow();
                if let Err(error) = write(writer, &Reply::Far { far }).await {
                    break error;
                }
            }
            read = reader.read(&mut nothing) => match read {
                Ok(0) => break anyhow!("the caller of a backup left"),
                Ok(_) => {}
                Err(error) => break error.into(),
            },
        }
    };
    drop(told);
    Ok((ended.await?, Err(left)))
}

/// Carries out a command that concerns data, and tells how far it is where it counts.
async fn look_after(
    reader: &mut (impl AsyncRead + Unpin),
    writer: &mut (impl AsyncWrite + Unpin),
    admin: &Admin,
    command: DataCommand,
) -> Result<()> {
    let mut audit = Audit::of_data(&command);
    let content = read_content(reader, &command, admin.content_bytes_max());
    let content = time::timeout(COMMAND_TIMEOUT, content).await??;
    let (tells, told) = watch::channel(Far::Counting { devices: 0 });
    let is_long = command.is_long();
    let mut running = pin!(admin.look_after(command, content, &tells));
    if !is_long {
        // Whoever left after a write has it written.
        let reply = running.await;
        audit.ended(&reply);
        drop(audit);
        return write(writer, &reply).await;
    }
    let mut period = time::interval_at(Instant::now() + FAR_PERIOD, FAR_PERIOD);
    let mut nothing = [0];
    loop {
        tokio::select! {
            reply = &mut running => {
                audit.ended(&reply);
                drop(audit);
                return write(writer, &reply).await;
            }
            _ = period.tick() => {
                let far = *told.borrow();
                write(writer, &Reply::Far { far }).await?;
            }
            read = reader.read(&mut nothing) => if read? == 0 {
                bail!("the caller of a report left");
            },
        }
    }
}

/// Reads the content behind a command; of one that is too large, one byte more than is allowed.
async fn read_content(
    reader: &mut (impl AsyncRead + Unpin),
    command: &DataCommand,
    limit_bytes: u64,
) -> Result<Bytes> {
    let sent_bytes = command.content_bytes();
    let mut content = Vec::new();
    let kept_bytes = sent_bytes.min(limit_bytes.saturating_add(1));
    let mut reader = reader.take(sent_bytes);
    (&mut reader)
        .take(kept_bytes)
        .read_to_end(&mut content)
        .await?;
    // The caller hears the answer once all of it was taken.
    tokio::io::copy(&mut reader, &mut tokio::io::sink()).await?;
    if reader.limit() > 0 {
        bail!("a content ended before its end");
    }
    Ok(content.into())
}

async fn write(writer: &mut (impl AsyncWrite + Unpin), reply: &Reply) -> Result<()> {
    let mut reply = serde_json::to_vec(reply)?;
    reply.push(b'\n');
    // A caller that does not read must not keep its place for ever.
    time::timeout(COMMAND_TIMEOUT, writer.write_all(&reply)).await??;
    Ok(())
}

/// Sends a command, also one of accounts, to the server that runs on `dir`; `None` where none runs.
pub(crate) fn send(dir: &Path, command: &impl Serialize) -> Result<Option<Reply>> {
    exchange(dir, command, &[], |_| {})
}

/// As [`send`], with a content behind the command, and tells meanwhile how far it is.
pub(crate) fn exchange(
    dir: &Path,
    command: &impl Serialize,
    content: &[u8],
    tell: impl FnMut(Far),
) -> Result<Option<Reply>> {
    let path = dir.join(FILE);
    let stream = match BlockingUnixStream::connect(&path) {
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
    let mut line = serde_json::to_vec(command)?;
    line.push(b'\n');
    converse(stream, &[&line, content], LATE, tell, || {
        let (late, most) = (LATE.as_secs(), REPLY_TIMEOUT.as_secs());
        eprintln!("kitbag: the server has not answered for {late} s; waiting up to {most} s more");
    })
    .map(Some)
}

/// Sends a command and waits for its answer; says once where that is late.
fn converse(
    mut stream: BlockingUnixStream,
    sent: &[&[u8]],
    late: Duration,
    mut tell: impl FnMut(Far),
    say_late: impl FnOnce(),
) -> Result<Reply> {
    stream.set_read_timeout(Some(late))?;
    for part in sent {
        stream.write_all(part)?;
    }
    let mut stream = BufReader::new(stream);
    let mut say_late = Some(say_late);
    loop {
        let mut reply = Vec::new();
        let mut read = stream.read_until(b'\n', &mut reply);
        if read.as_ref().is_err_and(is_late)
            && let Some(say_late) = say_late.take()
        {
            say_late();
            // From now on for every line of the answer.
            stream.get_ref().set_read_timeout(Some(REPLY_TIMEOUT))?;
            read = stream.read_until(b'\n', &mut reply);
        }
        if read.context("the server did not answer")? == 0 {
            bail!("the server ended before it answered");
        }
        match serde_json::from_slice(&reply).context("the server's answer is not readable")? {
            Reply::Far { far } => tell(far),
            reply => return Ok(reply),
        }
    }
}

fn is_late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, channel};
    use std::task::{Context, Poll};
    use std::time::Instant;

    use kitbag_domain::{AccountStore as _, Guard, NewAccount, ServerName, UserId};
    use kitbag_http::Passwords;
    use kitbag_store_sqlite::{Observer, Options, SqliteStore, Step};
    use tempfile::TempDir;

    use super::*;
    use crate::admin::AccountCommand;
    use crate::config::Config;
    use crate::system::{SystemClock, SystemRandom};

    /// Far longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(30);
    /// How long each step of a backup is held: there are some sixty.
    const STEP: Duration = Duration::from_millis(40);

    /// A served socket in a directory, whose store copies slowly and says when it begins.
    async fn slow_admin() -> (TempDir, Receiver<()>) {
        let dir = tempfile::tempdir().unwrap();
        let mut options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let (begins, begun) = channel();
        let (_never, pause) = channel::<()>();
        let pause = Mutex::new((pause, _never));
        options.observer = Some(Observer::new(move |step| {
            if step == Step::WithinBackup {
                begins.send(()).ok();
                pause.lock().unwrap().0.recv_timeout(STEP).ok();
            }
        }));
        let admin = admin(&dir, options);
        let store = Arc::clone(&admin.store);
        let user = UserId::parse("@alice:localhost").unwrap();
        let account = NewAccount {
            user: user.clone(),
            password_hash: String::new(),
            at: 0,
        };
        store.register(account, None).await.unwrap();
        let filter = "x".repeat(16 * 1024 * 1024);
        store
            .add_filter(&user, Guard::Account, filter)
            .await
            .unwrap();
        tokio::spawn(serve(bind(dir.path()).unwrap().unwrap(), admin));
        (dir, begun)
    }

    fn admin(dir: &TempDir, options: Options) -> Admin {
        let server_name = options.server_name.clone();
        let store = SqliteStore::open(&dir.path().join("data"), options).unwrap();
        let passwords = Passwords::new(1, Arc::new(SystemRandom)).unwrap();
        let (store, clock) = (Arc::new(store), Arc::new(SystemClock));
        Admin::new(store, clock, passwords, server_name, &Config::default())
    }

    fn backup(dir: &TempDir) -> Command {
        let file = dir.path().join("copies/copy.db");
        std::fs::create_dir(file.parent().unwrap()).unwrap();
        Command::Backup {
            order: Order {
                file: file.to_str().unwrap().to_owned(),
                replace: false,
                verify: true,
            },
        }
    }

    fn copies(dir: &TempDir) -> Vec<std::ffi::OsString> {
        let copies = std::fs::read_dir(dir.path().join("copies")).unwrap();
        copies.map(|copy| copy.unwrap().file_name()).collect()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_backup_is_given_up_where_its_caller_leaves() {
        let (dir, begun) = slow_admin().await;
        let mut stream = BlockingUnixStream::connect(dir.path().join(FILE)).unwrap();
        let mut line = serde_json::to_vec(&backup(&dir)).unwrap();
        line.push(b'\n');
        stream.write_all(&line).unwrap();
        begun.recv_timeout(PATIENCE).unwrap();
        assert_eq!(copies(&dir).len(), 1, "a part of it is there");
        drop(stream);
        let started = Instant::now();
        while !copies(&dir).is_empty() {
            assert!(copies(&dir) != ["copy.db"], "it was not given up");
            assert!(started.elapsed() < PATIENCE);
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_copy_whose_caller_was_gone_before_it_began_nothing_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let admin = admin(&dir, options);
        let Command::Backup { mut order } = backup(&dir) else {
            panic!("a backup is ordered");
        };
        for verify in [true, false] {
            order.verify = verify;
            let command = Command::Backup {
                order: order.clone(),
            };
            let (mut caller, server) = UnixStream::pair().unwrap();
            let mut line = serde_json::to_vec(&command).unwrap();
            line.push(b'\n');
            caller.write_all(&line).await.unwrap();
            drop(caller);
            answer(server, &admin).await.unwrap_err();
            assert!(copies(&dir).is_empty(), "{verify}: {:?}", copies(&dir));
        }
    }

    /// Takes all lines but the last one.
    struct LeavesAtTheEnd;

    impl AsyncWrite for LeavesAtTheEnd {
        fn poll_write(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<std::io::Result<usize>> {
            let is_end = bytes.windows(9).any(|part| part == b"backed_up");
            let left = is_end.then(|| Err(ErrorKind::BrokenPipe.into()));
            Poll::Ready(left.unwrap_or(Ok(bytes.len())))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn of_a_copy_whose_end_is_not_heard_that_of_a_check_alone_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let admin = admin(&dir, options);
        let Command::Backup { mut order } = backup(&dir) else {
            panic!("a backup is ordered");
        };
        let (_caller, mut reader) = tokio::io::duplex(1);
        for (verify, left) in [(false, &[][..]), (true, &["copy.db"])] {
            order.verify = verify;
            let mut writer = LeavesAtTheEnd;
            let answered = back_up(&mut reader, &mut writer, &admin, order.clone());
            answered.await.unwrap_err();
            assert_eq!(copies(&dir), left, "{verify}");
        }
    }

    #[test]
    fn a_server_that_is_late_is_told_of_once_and_waited_for() {
        let (caller, mut server) = BlockingUnixStream::pair().unwrap();
        let far = br#"{"reply":"far","far":{"far":"verifying"}}"#;
        // It stops within a line.
        server.write_all(&far[..9]).unwrap();
        let mut told = 0;
        let say_late = || {
            server.write_all(&far[9..]).unwrap();
            server
                .write_all(b"\n{\"reply\":\"backed_up\",\"bytes\":7}\n")
                .unwrap();
        };
        let late = Duration::from_millis(1);
        let reply = converse(caller, &[b"{}\n"], late, |_| told += 1, say_late);
        assert!(matches!(reply.unwrap(), Reply::BackedUp { bytes: 7 }));
        assert_eq!(told, 1);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn during_a_backup_its_caller_hears_how_far_it_is_and_others_are_served() {
        let (dir, begun) = slow_admin().await;
        let (command, path) = (backup(&dir), dir.path().to_owned());
        let (tells, told) = channel();
        let caller = tokio::task::spawn_blocking(move || {
            exchange(&path, &command, &[], |far| tells.send(far).unwrap())
        });
        begun.recv_timeout(PATIENCE).unwrap();
        let path = dir.path().to_owned();
        let list = AccountCommand::ListUsers { after: None };
        let listed = tokio::task::spawn_blocking(move || send(&path, &list));
        let Reply::Users { users } = listed.await.unwrap().unwrap().unwrap() else {
            panic!("users are listed");
        };
        assert_eq!(users.len(), 1);
        assert_ne!(copies(&dir), ["copy.db"], "it goes on still");
        let reply = caller.await.unwrap().unwrap();
        assert!(matches!(reply, Some(Reply::BackedUp { .. })));
        let told: Vec<Far> = told.iter().collect();
        let grows = |pair: &[Far]| match (pair[0], pair[1]) {
            (Far::Copying { bytes, .. }, Far::Copying { bytes: more, .. }) => bytes <= more,
            (_, Far::Verifying) => true,
            (_, _) => false,
        };
        assert!(told.len() > 3 && told.windows(2).all(grows), "{told:?}");
    }
}
