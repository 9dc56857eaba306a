//! A Kitbag of our own for the parts that need one: started fresh, stopped cleanly, log searched.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::process;
use crate::workspace::Workspace;

/// What test programs put into contents and passwords, so that a server which logs them is found
/// out.
pub(crate) const CANARY: &str = "canary-content-7f3a9d20c4e85b16";

/// The variable that hands [`CANARY`] to test programs.
pub(crate) const CANARY_VARIABLE: &str = "KITBAG_TEST_CANARY";

/// What every access token and every refresh token begins with, those of Synapse too: no line of a
/// log may have it.
const TOKEN_PREFIXES: [&str; 4] = ["kt_", "ktr_", "syt_", "syr_"];

/// An empty server answers within milliseconds; this is for a machine that is busy building.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// The server promises to end its waiting requests on SIGTERM; longer than this is a hang.
const STOP_DEADLINE: Duration = Duration::from_secs(15);

/// A free port.
pub(crate) const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

const FIRST_LINE: &str = "kitbag listening on ";

/// A running server. Killed when dropped; [`Server::stop`] is the checked end.
#[derive(Debug)]
pub(crate) struct Server {
    base_url: String,
    /// What else it prints.
    lines: Receiver<String>,
    log: PathBuf,
    process: u32,
    ended: Receiver<std::io::Result<ExitStatus>>,
    stopped: bool,
}

impl Server {
    /// Builds and starts a fresh server on a free port, which logs all that it can.
    ///
    /// `part` names its log; `settings` are of the form `sync.timeout_ms_max=1000`.
    pub(crate) fn start(
        workspace: &Workspace,
        part: &str,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        let log = prepare(workspace, part)?;
        Self::launch(&workspace.program("kitbag"), log, settings)
    }

    /// Does as [`Server::start`], with the data in a directory, so that commands of the operator reach
    /// it.
    pub(crate) fn start_in(workspace: &Workspace, part: &str, data: &Path) -> anyhow::Result<Self> {
        let log = prepare(workspace, part)?;
        let mut command = command(&workspace.program("kitbag"), &log)?;
        command.arg("--data").arg(data);
        Self::of(command, log)
    }

    /// Starts a gateway of `program`, which is built already, before the homeserver at `upstream`.
    pub(crate) fn launch_gateway(
        program: &Path,
        log: PathBuf,
        listen: SocketAddr,
        upstream: &str,
        settings: &[&str],
    ) -> anyhow::Result<Self> {
        let mut command = Command::new(program);
        command.arg("gateway").args(["--upstream", upstream]);
        let settings = settings.iter().flat_map(|setting| ["--set", setting]);
        command.args(settings);
        Self::of(finished(command, listen, &log)?, log)
    }

    /// Starts a fresh server of `program`, which is built already, on a free port.
    pub(crate) fn launch(program: &Path, log: PathBuf, settings: &[&str]) -> anyhow::Result<Self> {
        let mut command = command(program, &log)?;
        command
            .arg("--ephemeral")
            .args(settings.iter().flat_map(|setting| ["--set", setting]));
        Self::of(command, log)
    }

    /// Starts `command` and waits for the line that tells its address.
    fn of(mut command: Command, log: PathBuf) -> anyhow::Result<Self> {
        let mut child = command.spawn().context("cannot start the server")?;
        let lines = read_lines(&mut child)?;
        let process = child.id();
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait()));
        let mut server = Self {
            base_url: String::new(),
            lines,
            log,
            process,
            ended,
            stopped: false,
        };
        let line = match server.lines.recv_timeout(START_DEADLINE) {
            Ok(line) => line,
            Err(error) => bail!(
                "the server did not tell its address: {error}\n{}",
                server.log()?
            ),
        };
        server.base_url = line
            .strip_prefix(FIRST_LINE)
            .with_context(|| format!("the server's first line is `{line}`"))?
            .trim()
            .to_owned();
        Ok(server)
    }

    /// The address, without a final slash.
    pub(crate) fn base_url(&self) -> &str {
        &self.base_url
    }

    pub(crate) fn address(&self) -> anyhow::Result<SocketAddr> {
        let address = self.base_url.trim_start_matches("http://").parse();
        address.with_context(|| format!("{} has no address", self.base_url))
    }

    /// The private address, which the settings must ask for, without a final slash.
    pub(crate) fn private_url(&self) -> anyhow::Result<String> {
        loop {
            let line = self.lines.recv_timeout(START_DEADLINE);
            let line = line.context("the server did not tell its private address")?;
            if let Some(health) = line.trim().strip_prefix("private:") {
                return Ok(health.trim().trim_end_matches("/health").to_owned());
            }
        }
    }

    /// Stops the server by SIGTERM and checks that it ends with 0 and has logged no secret.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        self.signal("TERM")?;
        let status = self
            .ended
            .recv_timeout(STOP_DEADLINE)
            .context("the server did not end after SIGTERM")?
            .context("cannot wait for the server")?;
        self.stopped = true;
        ensure!(
            status.success(),
            "the server ended with {status}\n{}",
            self.log()?
        );
        check_log(&self.log()?).with_context(|| format!("in {}", self.log.display()))
    }

    fn log(&self) -> anyhow::Result<String> {
        let bytes =
            fs::read(&self.log).with_context(|| format!("cannot read {}", self.log.display()))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn signal(&self, name: &str) -> anyhow::Result<()> {
        let sent = process::signal(name, self.process);
        sent.with_context(|| format!("in {}", self.log.display()))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if !self.stopped && self.ended.try_recv().is_err() {
            // Best effort: whatever went wrong is already on its way to the user.
            drop(self.signal("KILL"));
        }
    }
}

/// Builds the server and returns where its log goes.
pub(crate) fn prepare(workspace: &Workspace, part: &str) -> anyhow::Result<PathBuf> {
    process::build(&workspace.root)?;
    let folder = workspace.target.join("xtask");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder.join(format!("{part}.log")))
}

/// Returns the command of a server on a free port, which logs all that it can.
fn command(program: &Path, log: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(program);
    command.arg("serve");
    command.args(["--set", "rate_limits.enabled=false"]);
    finished(command, ANY, log)
}

/// Adds what servers and gateways have in common.
fn finished(mut command: Command, listen: SocketAddr, log: &Path) -> anyhow::Result<Command> {
    let file = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    // Its configuration is ours alone, not also that of whoever runs the task.
    process::remove_own_variables(&mut command);
    command
        .args(["--listen", &listen.to_string()])
        .args(["--set", "log.level=trace"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(file);
    Ok(command)
}

/// Reads on for ever, so that the server never blocks on a full pipe, and sends what it reads.
fn read_lines(child: &mut Child) -> anyhow::Result<Receiver<String>> {
    let stdout = child.stdout.take().context("stdout is piped")?;
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines().map_while(Result::ok) {
            // Nobody may listen any more.
            drop(sender.send(line));
        }
    });
    Ok(lines)
}

/// Refuses a log with a token, a content or a password in it, and an empty one, which would show
/// nothing.
fn check_log(log: &str) -> anyhow::Result<()> {
    ensure!(
        !log.trim().is_empty(),
        "the server logged nothing, so nothing was checked"
    );
    let as_numbers = numbers(CANARY);
    let secrets = TOKEN_PREFIXES
        .into_iter()
        .chain([CANARY, as_numbers.as_str()]);
    for secret in secrets {
        if let Some((index, line)) = log
            .lines()
            .enumerate()
            .find(|(_, line)| line.contains(secret))
        {
            bail!("line {} of the log holds `{secret}`: {line}", index + 1);
        }
    }
    Ok(())
}

/// How `Debug` writes bytes.
fn numbers(text: &str) -> String {
    let numbers: Vec<_> = text.bytes().map(|byte| byte.to_string()).collect();
    numbers.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fake(name: &str, script: &str) -> anyhow::Result<Server> {
        let log = std::env::temp_dir().join(format!("xtask-{}-{name}.log", std::process::id()));
        let mut command = Command::new("bash");
        command
            .args(["-c", script])
            .stdout(Stdio::piped())
            .stderr(File::create(&log)?);
        Server::of(command, log)
    }

    const LOOP: &str = "while :; do read -t 0.05 <> <(:); done";

    #[test]
    fn server_that_ends_cleanly_passes() {
        let script = format!(
            "trap 'exit 0' TERM; echo started >&2; echo kitbag listening on http://h:1; {LOOP}"
        );
        let server = fake("clean", &script).unwrap();
        assert_eq!(server.base_url(), "http://h:1");
        server.stop().unwrap();
    }

    #[test]
    fn server_that_ends_with_an_error_fails() {
        let script = format!(
            "trap 'exit 9' TERM; echo started >&2; echo kitbag listening on http://h:1; {LOOP}"
        );
        let error = fake("unclean", &script).unwrap().stop().unwrap_err();
        assert!(error.to_string().contains("exit status: 9"), "{error}");
    }

    #[test]
    fn server_with_another_first_line_fails() {
        let error = fake("line", "echo hello; sleep 5").unwrap_err();
        assert!(error.to_string().contains("`hello`"), "{error}");
    }

    #[test]
    fn server_that_dies_at_once_fails() {
        let error = fake("dead", "echo why >&2; exit 1").unwrap_err();
        assert!(error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn log_with_a_secret_fails_however_it_is_written() {
        let content = serde_json::json!({"canary": CANARY}).to_string();
        let password = format!("{CANARY}-Passw0rd-1");
        for secret in [
            "kt_QGE6Yg_x",
            "ktr_QGE6Yg_x",
            "syt_YQ_x",
            "syr_YQ_x",
            CANARY,
            &content,
            &password,
        ] {
            for line in [
                format!("TRACE kitbag: stored {secret} in 2 ms"),
                format!("TRACE kitbag: stored {secret:?}"),
                serde_json::json!({"fields": {"message": format!("stored {secret:?}")}})
                    .to_string(),
            ] {
                let error = check_log(&format!("fine\n{line}\nfine\n")).unwrap_err();
                assert!(error.to_string().contains("line 2"), "{error}");
            }
        }
    }

    #[test]
    fn log_with_a_content_as_bytes_fails() {
        let content = format!("{{\"canary\":\"{CANARY}\"}}");
        assert!(check_log(&format!("stored {:?}", content.as_bytes())).is_err());
    }

    #[test]
    fn log_without_a_secret_passes() {
        check_log("TRACE kitbag: put user.id=@kt:localhost type=org.example.a\n").unwrap();
    }

    #[test]
    fn server_that_logs_a_secret_fails() {
        let script = format!(
            "trap 'exit 0' TERM; echo {CANARY} >&2; echo kitbag listening on http://h:1; {LOOP}"
        );
        let error = fake("leak", &script).unwrap().stop().unwrap_err();
        assert!(format!("{error:#}").contains("line 1"), "{error:#}");
    }

    #[test]
    fn empty_log_fails() {
        assert!(check_log("\n").is_err());
    }
}
