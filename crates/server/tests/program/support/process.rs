use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
#[cfg(target_os = "linux")]
use std::{
    fs::{self, DirEntry},
    io,
    time::Instant,
};

use super::{Client, PATIENCE, kitbag};

/// A server that runs, and is killed with its test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pid: u32,
    stdout: Receiver<String>,
    stderr: Receiver<String>,
    exit: Receiver<ExitStatus>,
}

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Server {
    /// Starts `kitbag serve` on a free port, its data in `./data`.
    pub(crate) fn start(dir: &Path, arguments: &[&str]) -> Self {
        Self::start_as(
            kitbag(dir)
                .args(["serve", "--data", "data"])
                .args(arguments),
        )
    }

    /// Starts a server that keeps nothing.
    pub(crate) fn ephemeral(dir: &Path, arguments: &[&str]) -> Self {
        Self::start_as(kitbag(dir).args(["serve", "--ephemeral"]).args(arguments))
    }

    pub(crate) fn start_as(command: &mut Command) -> Self {
        let command = command.args(["--listen", "127.0.0.1:0"]);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.stdin(Stdio::null()).spawn().unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        let pid = child.id();
        let (exited, exit) = channel();
        thread::spawn(move || {
            let status = child.wait().unwrap();
            exited.send(status).ok() // nobody may listen any more
        });
        let Ok(first) = stdout.recv_timeout(PATIENCE) else {
            let log: Vec<String> = stderr.iter().collect();
            panic!("no line on standard output, but: {log:?}");
        };
        let address = first.strip_prefix("kitbag listening on http://");
        let address = address.unwrap_or_else(|| panic!("the first line is {first:?}"));
        Self {
            address: address.parse().unwrap(),
            pid,
            stdout,
            stderr,
            exit,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(self.address)
    }

    /// Returns a client of the private listener, whose address is in the next lines.
    pub(crate) fn private(&self) -> Client {
        let private = self.line("private:");
        let address = private.trim_start_matches("http://");
        Client::new(address.trim_end_matches("/health").parse().unwrap())
    }

    /// Returns how much memory the program has for itself, in bytes, where the system tells.
    ///
    /// The pages of its file are not among them: they come with the first run of each function.
    #[cfg(target_os = "linux")]
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("RssAnon:"));
        let kibibytes: u64 = line
            .unwrap()
            .trim()
            .strip_suffix(" kB")
            .unwrap()
            .parse()
            .unwrap();
        kibibytes * 1024
    }

    /// Waits until the runtime has so many threads, where the system tells: each gives itself its name.
    #[cfg(target_os = "linux")]
    pub(crate) fn await_threads(&self, expected: usize) {
        let is_of_runtime = |task: &io::Result<DirEntry>| {
            let task = task.as_ref().unwrap().path();
            let name = fs::read_to_string(task.join("comm")).unwrap();
            name.trim() == "tokio-rt-worker"
        };
        let start = Instant::now();
        loop {
            let tasks = fs::read_dir(format!("/proc/{}/task", self.pid)).unwrap();
            let threads = tasks.filter(is_of_runtime).count();
            if threads == expected {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{threads} of {expected}");
            thread::yield_now();
        }
    }

    /// Waits for the line on standard output that starts so, and returns the rest of it.
    pub(crate) fn line(&self, start: &str) -> String {
        loop {
            let line = self.stdout.recv_timeout(PATIENCE).unwrap();
            if let Some(rest) = line.trim_start().strip_prefix(start) {
                return rest.trim().to_owned();
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.pid.to_string();
        let sent = Command::new("kill")
            .args(["-s", name, &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits until the program has ended.
    pub(crate) fn ended(self) -> Ended {
        let status = self.exit.recv_timeout(PATIENCE).expect("the program ends");
        let all =
            |lines: &Receiver<String>| -> String { lines.iter().map(|line| line + "\n").collect() };
        Ended {
            code: status.code(),
            stdout: all(&self.stdout),
            stderr: all(&self.stderr),
        }
    }

    /// Stops the server as an operator would.
    pub(crate) fn stop(self) -> Ended {
        self.signal("TERM");
        let ended = self.ended();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        ended
    }

    /// Ends the server as a crash would.
    pub(crate) fn kill(self) {
        self.signal("KILL");
        assert_eq!(self.ended().code, None, "it was killed");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.exit.try_recv().is_err() && thread::panicking() {
            self.signal("KILL");
        }
    }
}

/// Runs a command of the program to its end.
pub(crate) fn run(dir: &Path, arguments: &[&str]) -> Ended {
    run_with_input(kitbag(dir).args(arguments), "")
}

/// Runs a command to its end, with something on its standard input.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Ended {
    let command = command.stdin(Stdio::piped());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // Whoever does not read is gone already, and says why.
    drop(child.stdin.take().unwrap().write_all(input.as_bytes()));
    let (ended, end) = channel();
    let pid = child.id().to_string();
    thread::spawn(move || drop(ended.send(child.wait_with_output().unwrap())));
    let Ok(Output {
        status,
        stdout,
        stderr,
    }) = end.recv_timeout(PATIENCE)
    else {
        let killed = Command::new("kill").args(["-s", "KILL", &pid]).status();
        panic!("the command does not end: {killed:?}");
    };
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended {
        code: status.code(),
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (read, lines) = channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if read.send(line).is_err() {
                break;
            }
        }
    });
    lines
}
