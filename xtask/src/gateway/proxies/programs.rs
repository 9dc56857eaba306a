//! nginx, HAProxy and Caddy: taken from the system, or from packages of Debian that are unpacked below
//! the target directory and not installed; started with a snippet on ports of this machine.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use crate::process;
use crate::python;
use crate::synapse::free_address;
use crate::workspace::Workspace;

/// What to tell who has neither.
pub(super) const MISSING: &str = "needs nginx, HAProxy and Caddy, or apt-get, which can bring them";

/// They answer within milliseconds; this is for a machine that is busy building.
const START_DEADLINE: Duration = Duration::from_secs(30);

/// How often they are asked while they start.
const LOOK: Duration = Duration::from_millis(20);

/// Downloads the packages that the system lacks, and unpacks them; nobody need be root for it.
const DOWNLOAD: &str = r#"set -eu
cd "$1"
mkdir -p lists/partial archives/partial root
set -- --quiet --option "Dir::State::lists=$PWD/lists" --option "Dir::Cache=$PWD" \
    --option Acquire::Retries=3 --option Debug::NoLocking=1 --option "APT::Sandbox::User=$(id -un)"
apt-get "$@" update
apt-get "$@" install --download-only --yes --no-install-recommends nginx haproxy caddy
for package in archives/*.deb; do dpkg-deb --extract "$package" root; done"#;

/// Which program a snippet is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proxy {
    Caddy,
    Haproxy,
    Nginx,
}

impl Proxy {
    pub(super) const ALL: [Self; 3] = [Self::Nginx, Self::Haproxy, Self::Caddy];

    /// Returns the name of its snippet of a style: `all`, `routed` or `several`.
    pub(super) fn snippet(self, style: &str) -> String {
        match (self, style) {
            (Self::Caddy, _) => format!("{style}.Caddyfile"),
            (Self::Haproxy, "all") => "haproxy.cfg".to_owned(),
            (Self::Haproxy, _) => format!("haproxy-{style}.cfg"),
            (Self::Nginx, "all") => "nginx.conf".to_owned(),
            (Self::Nginx, _) => format!("nginx-{style}.conf"),
        }
    }
}

/// The three programs.
pub(super) struct Programs {
    /// Packages, as unpacked.
    root: PathBuf,
    /// What they write.
    folder: PathBuf,
}

impl Programs {
    /// Looks for them, and unpacks them where they are not there; `None` where that is not possible.
    pub(super) fn find(workspace: &Workspace) -> anyhow::Result<Option<Self>> {
        let folder = workspace.target.join("xtask/proxies");
        let own = Self {
            root: folder.join("root"),
            folder: folder.join("run"),
        };
        fs::create_dir_all(&own.folder)
            .with_context(|| format!("cannot make {}", own.folder.display()))?;
        let system = [("nginx", "-v"), ("haproxy", "-v"), ("caddy", "version")];
        let mut system = system.iter();
        if system.all(|(name, version)| answers(Command::new(name).arg(version))) {
            return Ok(Some(own));
        }
        if !answers(Command::new("apt-get").arg("--version")) {
            return Ok(None);
        }
        python::install(&folder, "nginx haproxy caddy", || {
            let mut download = Command::new("sh");
            download.args(["-c", DOWNLOAD, "sh"]).arg(&folder);
            process::run(download).map(drop)
        })?;
        Ok(Some(own))
    }

    /// Returns a program that is unpacked, or else that of the system.
    fn command(&self, name: &str) -> anyhow::Result<Command> {
        let places = ["usr/sbin", "usr/bin"].map(|place| self.root.join(place).join(name));
        let unpacked = places.iter().find(|place| place.is_file());
        let Some(program) = unpacked else {
            return Ok(Command::new(name));
        };
        let mut command = Command::new(program);
        let libraries = fs::read_dir(self.root.join("usr/lib")).context("no libraries")?;
        let libraries = libraries.filter_map(|folder| Some(folder.ok()?.path()));
        let libraries: Vec<PathBuf> = libraries.filter(|folder| folder.is_dir()).collect();
        command.env("LD_LIBRARY_PATH", std::env::join_paths(libraries)?);
        Ok(command)
    }

    /// Has the program itself look at a file of its configuration.
    pub(super) fn check(&self, proxy: Proxy, file: &Path) -> anyhow::Result<()> {
        let ended = self.with(proxy, file, true)?.output();
        let ended = ended.with_context(|| format!("cannot start {proxy:?}"))?;
        let said = String::from_utf8_lossy(&ended.stderr);
        ensure!(ended.status.success(), "{}: {said}", file.display());
        Ok(())
    }

    /// Returns the command of a program with a file, to be checked or to be run.
    fn with(&self, proxy: Proxy, file: &Path, is_check: bool) -> anyhow::Result<Command> {
        let mut command = match proxy {
            Proxy::Caddy => {
                let mut caddy = self.command("caddy")?;
                caddy.arg(if is_check { "validate" } else { "run" });
                caddy.args(["--adapter", "caddyfile", "--config"]);
                caddy
            }
            Proxy::Haproxy => {
                let mut haproxy = self.command("haproxy")?;
                haproxy.args(is_check.then_some("-c")).arg("-f");
                haproxy
            }
            Proxy::Nginx => {
                let mut nginx = self.command("nginx")?;
                nginx.args(is_check.then_some("-t"));
                nginx.arg("-p").arg(&self.folder).arg("-c");
                nginx
            }
        };
        command.arg(file).env("HOME", &self.folder);
        Ok(command)
    }

    /// Starts a proxy with a snippet, whose addresses are replaced: `homeserver` stands for its 8008,
    /// and `gateways` for its 8009 and 8010.
    pub(super) fn start(
        &self,
        proxy: Proxy,
        snippet: &Path,
        homeserver: SocketAddr,
        gateways: [SocketAddr; 2],
    ) -> anyhow::Result<Running> {
        let address = free_address()?;
        let text = fs::read_to_string(snippet)
            .with_context(|| format!("cannot read {}", snippet.display()))?;
        let text = text
            .replace("127.0.0.1:8448", &address.to_string())
            .replace(
                "matrix.example.org {",
                &format!("http://:{} {{", address.port()),
            )
            .replace("127.0.0.1:8008", &homeserver.to_string())
            .replace("127.0.0.1:8009", &gateways[0].to_string())
            .replace("127.0.0.1:8010", &gateways[1].to_string());
        let text = match proxy {
            Proxy::Caddy => format!("{{\n\tadmin off\n}}\n{text}"),
            Proxy::Haproxy => text,
            Proxy::Nginx => self.whole_of_nginx(&text),
        };
        let file = self
            .folder
            .join(snippet.file_name().context("it is a file")?);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        self.check(proxy, &file)?;
        let mut command = self.with(proxy, &file, false)?;
        let log = fs::File::create(file.with_extension("log"))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = command.spawn();
        let mut child = child.with_context(|| format!("cannot start {proxy:?}"))?;
        let process = child.id();
        let (sender, ended) = mpsc::channel();
        thread::spawn(move || sender.send(child.wait()));
        let running = Running {
            address,
            process,
            ended,
        };
        running.wait_for_an_answer()?;
        Ok(running)
    }

    /// A snippet is what stands in `http` there.
    fn whole_of_nginx(&self, snippet: &str) -> String {
        let folder = self.folder.display();
        let mut text = "daemon off;\nmaster_process off;\nerror_log stderr;\n".to_owned();
        text.push_str(&format!(
            "pid {folder}/nginx.pid;\nevents {{}}\nhttp {{\naccess_log off;\n"
        ));
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            text.push_str(&format!("{kind}_temp_path {folder}/{kind};\n"));
        }
        text + snippet + "}\n"
    }
}

fn answers(command: &mut Command) -> bool {
    process::ask(command).is_some()
}

/// A proxy at work. Ended when dropped.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    process: u32,
    ended: Receiver<io::Result<ExitStatus>>,
}

impl Running {
    fn wait_for_an_answer(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(self.address).is_err() {
            match self.ended.recv_timeout(LOOK) {
                Ok(status) => bail!("it ended with {status:?}"),
                Err(_) => ensure!(Instant::now() < deadline, "it does not answer"),
            }
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Best effort: whatever went wrong is already on its way to the user.
        if process::signal("KILL", self.process).is_ok() {
            self.ended.recv().ok();
        }
    }
}
