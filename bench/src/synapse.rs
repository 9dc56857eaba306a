//! A Synapse to measure beside: one process on SQLite, as its documents set one up for trying it out,
//! without rate limits and without what has no counterpart here (federation, presence).

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use kitbag_client::Session;
use serde_json::json;

use crate::plan::Plan;
use crate::process::Process;
use crate::server;

/// A Synapse with its users, on which no server runs.
pub(crate) struct Synapse {
    python: PathBuf,
    dir: PathBuf,
    address: SocketAddr,
    pub(crate) sessions: Vec<Session>,
}

impl Synapse {
    /// Sets one up in a new directory, and registers `count` users.
    pub(crate) async fn make(plan: &Plan, name: &str, count: usize) -> Result<Self> {
        let python = plan.synapse.clone().context("no Synapse is named")?;
        let dir = plan.dir.path().join(name.replace('/', "-") + "-synapse");
        fs::create_dir_all(&dir).with_context(|| format!("cannot make `{}`", dir.display()))?;
        let mut synapse = Self {
            python,
            dir,
            // Synapse does not tell which one it was given by the system.
            address: server::free_address()?,
            sessions: Vec::new(),
        };
        synapse.configure()?;
        let process = synapse.serve().await?;
        synapse.sessions = server::register_users(&process.base_url(), count).await?;
        process.stop()?;
        Ok(synapse)
    }

    /// Starts a server for the users.
    pub(crate) async fn serve(&self) -> Result<Process> {
        let log = self.dir.join("log");
        Process::start_at(self.command(&[]), &log, self.address).await
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command
            .args(["-m", "synapse.app.homeserver", "-c"])
            .arg(self.dir.join("homeserver.yaml"))
            .args(arguments);
        command
    }

    fn configure(&self) -> Result<()> {
        // JSON is YAML too.
        self.write("homeserver.yaml", &configuration(&self.dir, self.address))?;
        let log = json!({
            "version": 1,
            "handlers": {"console": {"class": "logging.StreamHandler"}},
            "root": {"level": "WARNING", "handlers": ["console"]},
        });
        self.write("log.yaml", &log)?;
        let mut keys = self.command(&["--generate-keys"]);
        let status = keys.env_clear().stdout(Stdio::null()).status();
        let status = status.with_context(|| format!("cannot start {keys:?}"))?;
        ensure!(status.success(), "{keys:?} ended with {status}");
        Ok(())
    }

    fn write(&self, name: &str, content: &serde_json::Value) -> Result<()> {
        let path = self.dir.join(name);
        fs::write(&path, content.to_string())
            .with_context(|| format!("cannot write `{}`", path.display()))
    }
}

fn configuration(dir: &Path, address: SocketAddr) -> serde_json::Value {
    let boundless = json!({"per_second": 1_000_000, "burst_count": 1_000_000});
    json!({
        "server_name": "localhost",
        "report_stats": false,
        "listeners": [{
            "type": "http",
            "port": address.port(),
            "bind_addresses": [address.ip()],
            "resources": [{"names": ["client"]}],
        }],
        "database": {"name": "sqlite3", "args": {"database": dir.join("homeserver.db")}},
        "media_store_path": dir.join("media"),
        "signing_key_path": dir.join("signing.key"),
        "log_config": dir.join("log.yaml"),
        "macaroon_secret_key": "a secret of the bench",
        "form_secret": "another secret of the bench",
        "suppress_key_server_warning": true,
        "trusted_key_servers": [],
        "enable_registration": true,
        "enable_registration_without_verification": true,
        // The cheapest hash: registering is not what is measured.
        "bcrypt_rounds": 4,
        "presence": {"enabled": false},
        "rc_registration": boundless,
        "rc_login": {"address": boundless, "account": boundless, "failed_attempts": boundless},
    })
}
