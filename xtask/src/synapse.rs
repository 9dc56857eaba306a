//! A Synapse of our own: installed once below the target directory, started fresh for each use.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use crate::http::{self, Connection};
use crate::process;
use crate::python::{self, Python};
use crate::workspace::Workspace;

/// A fresh one makes its tables first, which takes seconds on a busy machine.
const START_DEADLINE: Duration = Duration::from_secs(90);

/// It answers what waits, and writes down what it has in memory.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How often it is asked while it starts.
const LOOK: Duration = Duration::from_millis(50);

/// Whoever knows it may register administrators; the password of the one there is, too.
const SHARED_SECRET: &str = "the secret of whoever registers administrators";

/// Signs a request as a homeserver does (SS API, Request Authentication): the method, each byte of the
/// target, and the content.
const SIGN: &str = r#"
import json, sys
from signedjson.key import read_signing_keys
from signedjson.sign import sign_json
path, method, target, content = sys.argv[1:]
request = {"method": method, "uri": target, "origin": "localhost", "destination": "localhost"}
if content:
    request["content"] = json.loads(content)
with open(path) as file:
    key = read_signing_keys(file)[0]
[(name, signature)] = sign_json(request, "localhost", key)["signatures"]["localhost"].items()
print(f'X-Matrix origin="localhost",destination="localhost",key="{name}",sig="{signature}"')
"#;

/// Installs Synapse unless it is there, and returns the Python that has it.
///
/// # Errors
/// Where there is no Python, or the packages cannot be installed.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let python = Python::find().context(python::MISSING)?;
    let requirements = workspace.path("bench/synapse/requirements.txt");
    python.environment(&workspace.target.join("bench/synapse"), &requirements)
}

/// A running Synapse with nobody in it. Killed when dropped; [`Synapse::stop`] is the checked end.
#[derive(Debug)]
pub(crate) struct Synapse {
    python: PathBuf,
    address: SocketAddr,
    /// Where it keeps its data.
    dir: PathBuf,
    log: PathBuf,
    process: u32,
    ended: Receiver<io::Result<ExitStatus>>,
    stopped: bool,
}

impl Synapse {
    /// Starts a fresh one by the Python that has it, with its data in `dir`, which is made anew.
    ///
    /// # Errors
    /// Where it does not answer in time.
    pub(crate) fn start(python: &Path, dir: &Path) -> anyhow::Result<Self> {
        if dir.try_exists()? {
            fs::remove_dir_all(dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
        fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        // It does not tell which one it was given by the system.
        let address = free_address()?;
        configure(dir, address)?;
        process::run(command(python, dir, &["--generate-keys"]))?;
        let log = dir.join("log.txt");
        let file = File::create(&log).with_context(|| format!("cannot make {}", log.display()))?;
        let errors = file.try_clone().context("a file has two handles")?;
        let mut child = command(python, dir, &[])
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .context("cannot start Synapse")?;
        let process = child.id();
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait()));
        let synapse = Self {
            python: python.to_owned(),
            address,
            dir: dir.to_owned(),
            log,
            process,
            ended,
            stopped: false,
        };
        synapse.wait_for_an_answer()?;
        Ok(synapse)
    }

    /// The address, without a final slash.
    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Registers an administrator, and returns a token of theirs.
    ///
    /// # Errors
    /// Where there is one already.
    pub(crate) fn register_admin(&self) -> anyhow::Result<String> {
        let mut register = Command::new(&self.python);
        register.args(["-m", "synapse._scripts.register_new_matrix_user"]);
        register.args(["--user", "admin", "--password", SHARED_SECRET, "--admin"]);
        register.args(["--shared-secret", SHARED_SECRET, &self.base_url()]);
        process::run(register)?;
        let login = json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": "admin"},
            "password": SHARED_SECRET,
        });
        let login = login.to_string();
        let request = http::request("POST", "/_matrix/client/v3/login", &[], login.as_bytes());
        let told = Connection::open(self.address)?.exchange(&request)?.json();
        let token = told["access_token"].as_str().map(str::to_owned);
        token.with_context(|| format!("no login: {told}"))
    }

    /// Returns the `Authorization` by which it shows itself, as it would another homeserver, that a
    /// request to itself is its own.
    ///
    /// # Errors
    /// Where it cannot be signed.
    pub(crate) fn signed(
        &self,
        method: &str,
        target: &str,
        content: &str,
    ) -> anyhow::Result<String> {
        let mut sign = Command::new(&self.python);
        sign.args(["-c", SIGN])
            .arg(self.dir.join("signing.key"))
            .args([method, target, content]);
        let signed = process::ask(&mut sign).context("a request cannot be signed")?;
        Ok(signed.trim().to_owned())
    }

    /// Stops it, and checks that it ends by itself.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        process::signal("TERM", self.process)?;
        let status = self.ended.recv_timeout(STOP_DEADLINE);
        let status = status.context("Synapse did not end")?;
        let status = status.context("cannot wait for Synapse")?;
        self.stopped = true;
        ensure!(
            status.success(),
            "Synapse ended with {status}\n{}",
            self.log()
        );
        Ok(())
    }

    fn wait_for_an_answer(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            if http::get(self.address, "/health").is_ok_and(|answer| answer.status == 200) {
                return Ok(());
            }
            match self.ended.recv_timeout(LOOK) {
                Ok(status) => bail!("Synapse ended with {status:?}\n{}", self.log()),
                Err(_) if Instant::now() > deadline => {
                    bail!("Synapse does not answer\n{}", self.log())
                }
                Err(_) => {}
            }
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Synapse {
    fn drop(&mut self) {
        if !self.stopped && self.ended.try_recv().is_err() {
            // Best effort: whatever went wrong is already on its way to the user.
            process::signal("KILL", self.process).ok();
        }
    }
}

/// Returns an address that is free now.
pub(crate) fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no address is free")?;
    listener.local_addr().context("a listener has an address")
}

fn command(python: &Path, dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(python);
    command
        .args(["-m", "synapse.app.homeserver", "-c"])
        .arg(dir.join("homeserver.yaml"))
        .args(arguments)
        .env_clear();
    command
}

fn configure(dir: &Path, address: SocketAddr) -> anyhow::Result<()> {
    // JSON is YAML too.
    write(dir, "homeserver.yaml", &configuration(dir, address))?;
    let log = json!({
        "version": 1,
        "handlers": {"console": {"class": "logging.StreamHandler"}},
        "root": {"level": "WARNING", "handlers": ["console"]},
    });
    write(dir, "log.yaml", &log)
}

/// What `--generate-config` says, but for what tests need: one plain port, open registration, no limits
/// of rates, the cheapest hash of passwords, no server of keys that would be asked over the network, and
/// answers compressed for who takes that, as operators mostly have it, so that these are compared too.
fn configuration(dir: &Path, address: SocketAddr) -> Value {
    let boundless = json!({"per_second": 1_000_000, "burst_count": 1_000_000});
    json!({
        "server_name": "localhost",
        "report_stats": false,
        "listeners": [{
            "type": "http",
            "port": address.port(),
            "bind_addresses": [address.ip()],
            "resources": [{"names": ["client", "federation"], "compress": true}],
        }],
        "database": {"name": "sqlite3", "args": {"database": dir.join("homeserver.db")}},
        "media_store_path": dir.join("media"),
        "signing_key_path": dir.join("signing.key"),
        "log_config": dir.join("log.yaml"),
        "macaroon_secret_key": "a secret of the tests",
        "form_secret": "another secret of the tests",
        "registration_shared_secret": SHARED_SECRET,
        "suppress_key_server_warning": true,
        "trusted_key_servers": [],
        "enable_registration": true,
        "enable_registration_without_verification": true,
        "bcrypt_rounds": 4,
        "rc_registration": boundless,
        "rc_login": {"address": boundless, "account": boundless, "failed_attempts": boundless},
        "rc_message": boundless,
    })
}

fn write(dir: &Path, name: &str, content: &Value) -> anyhow::Result<()> {
    let path = dir.join(name);
    fs::write(&path, content.to_string())
        .with_context(|| format!("cannot write {}", path.display()))
}
