//! A Synapse and a gateway before it.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context as _;

use crate::server::{self, Server};
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
        let gateway = gateway(workspace, &folder, "gateway", server::ANY, &synapse)?;
        Ok(Self {
            workspace,
            synapse,
            gateway,
            folder,
        })
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
) -> anyhow::Result<Server> {
    let program = workspace.program("kitbag");
    let log = folder.join(format!("{name}.log"));
    Server::launch_gateway(&program, log, listen, &synapse.base_url(), &SETTINGS)
}
