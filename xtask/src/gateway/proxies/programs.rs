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

/// Each with the argument for which it tells its version.
const NAMES: [(&str, &str); 3] = [("nginx", "-v"), ("haproxy", "-v"), ("caddy", "version")];

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
    /// Looks for them, and unpacks them where they are not there; says what is needed where that is
    /// not possible.
    pub(super) fn find(workspace: &Workspace) -> anyhow::Result<Result<Self, String>> {
        let folder = workspace.target.join("xtask/proxies");
        let own = Self {
            root: folder.join("root"),
            folder: folder.join("run"),
        };
        fs::create_dir_all(&own.folder)
            .with_context(|| format!("cannot make {}", own.folder.display()))?;
        let is_lacking = |(name, version): &(&str, &str)| !answers(Command::new(name).arg(version));
        let lacking = NAMES.into_iter().filter(is_lacking).map(|(name, _)| name);
        let lacking: Vec<_> = lacking.collect();
        if lacking.is_empty() {
            return Ok(Ok(own));
        }
        if !answers(Command::new("apt-get").arg("--version")) {
            return Ok(Err(needed(&lacking)));
        }
        python::install(&folder, "nginx haproxy caddy", || {
            let mut download = Command::new("sh");
            download.args(["-c", DOWNLOAD, "sh"]).arg(&folder);
            process::run(download).map(drop)
        })?;
        Ok(Ok(own))
    }

    /// Returns what each says of its version: they are as new as the system's packages are.
    pub(super) fn versions(&self) -> anyhow::Result<String> {
        let said = NAMES.map(|(name, version)| {
            let told = self.command(name)?.arg(version).output();
            let told = told.with_context(|| format!("cannot start {name}"))?;
            // nginx tells it on its error output.
            let text = [told.stdout, told.stderr].concat();
            let text = String::from_utf8_lossy(&text).into_owned();
            let line = text.lines().find(|line| line.contains('.'));
            let line = line.with_context(|| format!("{name} tells no version: {text}"))?;
            anyhow::Ok(format!("{name}: {line}"))
        });
        let said: Vec<_> = said.into_iter().collect::<Result<_, _>>()?;
        Ok(said.join("; "))
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

    /// Starts a proxy with the text of a snippet, whose addresses are replaced: `homeserver` stands for
    /// its 8008, and `gateways` for its 8009 and 8010. What is written for it is called `name`.
    pub(super) fn start(
        &self,
        proxy: Proxy,
        name: &str,
        snippet: &str,
        homeserver: SocketAddr,
        gateways: [SocketAddr; 2],
    ) -> anyhow::Result<Running> {
        let address = free_address()?;
        let text = snippet
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
        let file = self.folder.join(name);
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

/// Says what is needed, where these are lacking.
fn needed(lacking: &[&str]) -> String {
    let lacking = lacking.join(", ");
    format!(
        "needs nginx, HAProxy and Caddy on the path, and there is no {lacking}: install them (they are \
         free software, in the packages of most systems), or have apt-get there, which brings those of \
         Debian without being root"
    )
}

/// Takes the step that a snippet says: names the homeserver where the gateway is named.
pub(super) fn without_gateway(snippet: &str) -> anyhow::Result<String> {
    let mut lines = snippet.lines();
    let said = lines.find_map(|line| line.strip_prefix("# To take the gateway"));
    let place = said.and_then(|said| said.split('`').nth(1));
    let place = place.context("it does not say where the gateway is named")?;
    let mut is_there = false;
    let mut text = String::new();
    for line in snippet.lines() {
        let is_end = matches!(line.trim(), "" | "}");
        is_there = line.trim_start().starts_with(place) || (is_there && !is_end);
        let gateways = is_there.then_some([":8009", ":8010"]);
        let line = gateways
            .into_iter()
            .flatten()
            .fold(line.to_owned(), |line, gateway| {
                line.replace(gateway, ":8008")
            });
        text.push_str(&line);
        text.push('\n');
    }
    ensure!(text != snippet, "no gateway is named there: {place}");
    Ok(text)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gateway_is_taken_away_where_the_snippet_says_and_nowhere_else() {
        let snippet = |place: &str| {
            format!(
                "# To take the gateway away: name the homeserver in `{place}`, and reload.\n\
                 upstream a {{\n  server x:8009;\n  server x:8010;\n}}\nlisten :8009;\n"
            )
        };
        let text = without_gateway(&snippet("upstream a")).unwrap();
        let (_, text) = text.split_once('\n').unwrap();
        assert_eq!(
            text,
            "upstream a {\n  server x:8008;\n  server x:8008;\n}\nlisten :8009;\n"
        );
        assert!(without_gateway(&snippet("upstream b")).is_err());
        assert!(without_gateway("upstream a {\n  server x:8009;\n}\n").is_err());
    }

    #[test]
    fn who_lacks_some_is_told_which() {
        let needed = needed(&["haproxy", "caddy"]);
        assert!(
            needed.contains("no haproxy, caddy: install them"),
            "{needed}"
        );
    }
}
