//! A Synapse and a gateway before it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::http::{self, Connection};
use crate::server::{self, CANARY, Server};
use crate::synapse::Synapse;
use crate::workspace::Workspace;

/// What is not so by default: all that the gateway can, and no limit for the many writes of tests.
const SETTINGS: [&str; 3] = [
    "msc4331.in_devices=true",
    "msc4547.enabled=true",
    "writes.enabled=false",
];

/// Both, and where they keep what they write.
pub(crate) struct Lab<'a> {
    pub(crate) workspace: &'a Workspace,
    pub(crate) synapse: Synapse,
    pub(crate) gateway: Server,
    folder: PathBuf,
}

impl<'a> Lab<'a> {
    /// Starts both, of what is built and installed already.
    pub(crate) fn start(workspace: &'a Workspace, python: &Path) -> anyhow::Result<Self> {
        let folder = workspace.target.join("xtask/gateway");
        if folder.try_exists()? {
            let removed = fs::remove_dir_all(&folder);
            removed.with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        let synapse = Synapse::start(python, &folder.join("synapse"))?;
        let gateway = gateway(
            workspace,
            &folder,
            "gateway",
            server::ANY,
            &synapse,
            &SETTINGS,
        )?;
        Ok(Self {
            workspace,
            synapse,
            gateway,
            folder,
        })
    }

    /// Starts one more gateway before the same Synapse.
    pub(crate) fn another_gateway(
        &self,
        name: &str,
        listen: SocketAddr,
        settings: &[&str],
    ) -> anyhow::Result<Server> {
        let Self {
            workspace,
            folder,
            synapse,
            ..
        } = self;
        gateway(workspace, folder, name, listen, synapse, settings)
    }

    /// Returns where a file of this name goes.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Stops both, and checks what they ended with and what the gateway logged.
    pub(crate) fn stop(self) -> anyhow::Result<()> {
        self.gateway.stop().context("the gateway")?;
        self.synapse.stop()
    }
}

fn gateway(
    workspace: &Workspace,
    folder: &Path,
    name: &str,
    listen: SocketAddr,
    synapse: &Synapse,
    settings: &[&str],
) -> anyhow::Result<Server> {
    let program = workspace.program("kitbag");
    let log = folder.join(format!("{name}.log"));
    Server::launch_gateway(&program, log, listen, &synapse.base_url(), settings)
}

/// A user of Synapse, with a device.
pub(crate) struct User {
    pub(crate) user_id: String,
    pub(crate) device_id: String,
    pub(crate) token: String,
}

impl User {
    /// Registers one at the homeserver itself, whose password is [`CANARY`].
    pub(crate) fn register(homeserver: SocketAddr) -> anyhow::Result<Self> {
        let body = json!({"auth": {"type": "m.login.dummy"}, "password": CANARY});
        Self::begin(homeserver, "/_matrix/client/v3/register", &body)
    }

    /// Logs the same user in, as another device.
    pub(crate) fn another_device(&self, homeserver: SocketAddr) -> anyhow::Result<Self> {
        let identifier = json!({"type": "m.id.user", "user": self.user_id});
        let body =
            json!({"type": "m.login.password", "identifier": identifier, "password": CANARY});
        Self::begin(homeserver, "/_matrix/client/v3/login", &body)
    }

    /// Sends a request, which must be answered with 200, on a connection of its own.
    pub(crate) fn ask(
        &self,
        address: SocketAddr,
        method: &str,
        target: &str,
        body: &Value,
    ) -> anyhow::Result<Value> {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let authorization = self.authorization();
        let request = http::request(method, target, &[&authorization], body.as_bytes());
        let answer = Connection::open(address)?.exchange(&request)?;
        let status = answer.status;
        let told = answer.json();
        ensure!(status == 200, "{status} for {method} {target}: {told}");
        Ok(told)
    }

    fn begin(homeserver: SocketAddr, target: &str, body: &Value) -> anyhow::Result<Self> {
        let request = http::request("POST", target, &[], body.to_string().as_bytes());
        let told = Connection::open(homeserver)?.exchange(&request)?.json();
        let member = |name: &str| {
            let text = told[name].as_str().map(str::to_owned);
            text.with_context(|| format!("no `{name}` in {told}"))
        };
        Ok(Self {
            user_id: member("user_id")?,
            device_id: member("device_id")?,
            token: member("access_token")?,
        })
    }

    /// The header that shows who this is.
    pub(crate) fn authorization(&self) -> String {
        format!("Authorization: Bearer {}", self.token)
    }
}
