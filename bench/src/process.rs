//! A server as a process of its own: its address, its CPU time and its memory.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tokio::net::TcpStream;
use tokio::time;

/// A server that takes longer does not start at all.
const START_DEADLINE: Duration = Duration::from_secs(60);
const START_LOOK: Duration = Duration::from_millis(50);

/// A running server; killed when dropped.
pub(crate) struct Process {
    child: Child,
    address: SocketAddr,
    /// Open as long as the process lives, which may print more.
    stdout: BufReader<ChildStdout>,
}

impl Process {
    /// Starts `command`, whose first line must end with `http://ADDR:PORT`; its log goes to `log`.
    ///
    /// It gets no environment, so that nobody's settings are measured unawares.
    pub(crate) fn start(command: Command, log: &Path) -> Result<Self> {
        let mut starting = Self::spawn(command, log)?;
        let mut line = String::new();
        starting.stdout.read_line(&mut line)?;
        let address = line
            .rsplit_once("http://")
            .map(|(_, address)| address.trim().parse());
        let Some(Ok(address)) = address else {
            let log = fs::read_to_string(log)?;
            bail!("a server did not tell its address but `{line}`\n{log}");
        };
        starting.address = address;
        Ok(starting)
    }

    /// As [`Process::start`], for a program that does not tell when it serves at `address`.
    pub(crate) async fn start_at(
        command: Command,
        log: &Path,
        address: SocketAddr,
    ) -> Result<Self> {
        let mut starting = Self::spawn(command, log)?;
        starting.address = address;
        let deadline = Instant::now() + START_DEADLINE;
        while TcpStream::connect(address).await.is_err() {
            let has_ended = starting.child.try_wait()?.is_some();
            if has_ended || Instant::now() > deadline {
                let log = fs::read_to_string(log)?;
                bail!("a server does not listen at {address}\n{log}");
            }
            time::sleep(START_LOOK).await;
        }
        Ok(starting)
    }

    fn spawn(mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot make `{}`", log.display()))?;
        let mut child = command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdout = child.stdout.take().context("standard output is piped")?;
        Ok(Self {
            child,
            address: (Ipv4Addr::UNSPECIFIED, 0).into(),
            stdout: BufReader::new(stdout),
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Stops the server as an operator would, and waits for its end.
    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status()?;
        ensure!(sent.success(), "cannot stop process {pid}");
        let status = self.child.wait()?;
        ensure!(status.success(), "process {pid} ended with {status}");
        Ok(())
    }

    /// Returns the CPU time of the process's threads so far; none where the system does not tell.
    pub(crate) fn cpu(&self) -> Option<CpuTimes> {
        CpuTimes::of(&self.child.id().to_string())
    }

    /// Returns the memory that the process holds, in MiB; none where the system does not tell.
    pub(crate) fn resident_mib(&self) -> Option<f64> {
        self.memory_mib("VmRSS:")
    }

    /// The same without what the system reads from files, the program itself above all.
    pub(crate) fn anonymous_mib(&self) -> Option<f64> {
        self.memory_mib("RssAnon:")
    }

    fn memory_mib(&self, name: &str) -> Option<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kibibytes: f64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kibibytes / 1_024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // An error means that it has ended by itself, which the requests to it have told.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// CPU time of each thread of a process.
pub(crate) struct CpuTimes(HashMap<String, u64>);

impl CpuTimes {
    fn of(process: &str) -> Option<Self> {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).ok()?;
        let times = tasks.map(|task| {
            let task = task.ok()?;
            // Nanoseconds, where `stat` only counts ticks.
            let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
            let time_ns = text.split_whitespace().next()?.parse().ok()?;
            Some((task.file_name().to_string_lossy().into_owned(), time_ns))
        });
        times.collect::<Option<_>>().map(Self)
    }

    /// Returns the time since `earlier`, of the threads that still run.
    pub(crate) fn since(&self, earlier: &Self) -> Duration {
        let times = self.0.iter().map(|(thread, now)| {
            let before = earlier.0.get(thread).copied().unwrap_or(0);
            now.saturating_sub(before)
        });
        Duration::from_nanos(times.sum())
    }
}

/// Watches how busy the load is: it is one thread, which runs on the first one of this program.
pub(crate) struct Load {
    started: Instant,
    busy_before: Option<Duration>,
}

impl Load {
    pub(crate) fn watch() -> Self {
        Self {
            started: Instant::now(),
            busy_before: Self::busy(),
        }
    }

    /// Returns the part of the time in which the load worked or waited for a processor; none where
    /// the system does not tell. Near 100 the load was the limit, and not the server.
    pub(crate) fn percent(&self) -> Option<f64> {
        let busy = Self::busy()?.saturating_sub(self.busy_before?);
        Some(100.0 * busy.as_secs_f64() / self.started.elapsed().as_secs_f64())
    }

    fn busy() -> Option<Duration> {
        let text = fs::read_to_string("/proc/self/schedstat").ok()?;
        let mut times_ns = text.split_whitespace().map(str::parse);
        let working: u64 = times_ns.next()?.ok()?;
        let queued: u64 = times_ns.next()?.ok()?;
        Some(Duration::from_nanos(working + queued))
    }
}
