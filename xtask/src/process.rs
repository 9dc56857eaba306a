//! Running other programs: what they print is shown as it comes and kept for counting.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Makes a cargo call at the root.
///
/// No part sets `RUSTFLAGS` or a profile of its own: that would build everything twice.
pub(crate) fn cargo<I, S>(root: &Path, arguments: I) -> Command
where
    I: IntoIterator<Item = S>,
    S: AsRef<OsStr>,
{
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root);
    command
}

/// Builds all that there is.
///
/// Every task builds by this one call: the features of the dependencies follow from what is built
/// together, so that a smaller build would be another one, not a part of this.
pub(crate) fn build(root: &Path) -> anyhow::Result<()> {
    run(cargo(root, ["build", "--workspace", "--all-targets"])).map(drop)
}

/// Runs a program to its end and returns what it printed.
///
/// # Errors
/// When the program cannot start, or ends with anything but success.
pub(crate) fn run(mut command: Command) -> anyhow::Result<String> {
    let shown = show(&command);
    println!("$ {shown}");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let kept = Mutex::new(String::new());
    thread::scope(|scope| {
        if let Some(stdout) = child.stdout.take() {
            scope.spawn(|| pass_on(stdout, &kept, |line| println!("{line}")));
        }
        if let Some(stderr) = child.stderr.take() {
            scope.spawn(|| pass_on(stderr, &kept, |line| eprintln!("{line}")));
        }
    });
    let status = child
        .wait()
        .with_context(|| format!("cannot wait for `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` ended with {status}");
    }
    Ok(kept.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// How a program ended that had a limit of time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ended {
    /// By itself.
    By(ExitStatus),
    /// It was killed, with all that it had started.
    TimedOut,
}

/// Runs a program silently, at most for `limit`; what it prints goes to the file `log`.
///
/// # Errors
/// When the program cannot start.
pub(crate) fn run_within(command: &Command, limit: Duration, log: &Path) -> anyhow::Result<Ended> {
    let shown = show(command);
    let stdout = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    let stderr = stdout.try_clone().context("a file has two handles")?;
    let mut child = held(command)
        .stdin(Stdio::piped())
        .stdout(stdout)
        .stderr(stderr)
        // A group of its own, so that what it starts can be ended with it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let watch = Watch::over(child.id()).or_else(|error| {
        child.kill().ok();
        Err(error).with_context(|| format!("cannot watch over `{shown}`"))
    })?;
    if let Some(mut start) = child.stdin.take() {
        // An error means that it has ended, which is told below.
        writeln!(start, "start").ok();
    }
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    match ended.recv_timeout(limit) {
        Ok(status) => {
            watch.leave();
            let status = status.with_context(|| format!("cannot wait for `{shown}`"))?;
            Ok(Ended::By(status))
        }
        Err(RecvTimeoutError::Disconnected) => bail!("nobody waits for `{shown}`"),
        Err(RecvTimeoutError::Timeout) => {
            drop(watch);
            // So that nothing of it is there when the next one starts.
            ended.recv().ok();
            Ok(Ended::TimedOut)
        }
    }
}

/// Returns a command that becomes the other one when it is told to, and ends where its caller does
/// before: so it never runs without somebody who watches over it.
fn held(command: &Command) -> Command {
    let mut held = Command::new("sh");
    held.args(["-c", r#"read -r start && exec "$@" </dev/null"#, "sh"]);
    held.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => held.env(name, value),
            None => held.env_remove(name),
        };
    }
    if let Some(dir) = command.get_current_dir() {
        held.current_dir(dir);
    }
    held
}

/// Another process, which kills a group of processes when this one has ended, however it did.
///
/// A signal from the terminal does not reach such a group, and a kill leaves nobody who could pass it
/// on. So the watch waits for the end of a pipe, which the system closes in any case.
struct Watch {
    process: Child,
}

impl Watch {
    fn over(group: u32) -> io::Result<Self> {
        let mut command = Command::new("sh");
        let script = format!("read -r left || kill -KILL -{group}");
        command.args(["-c", &script]).stdin(Stdio::piped());
        // What this one prints is read to its end by whoever called it.
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.process_group(0).spawn()?;
        Ok(Self { process })
    }

    /// Leaves the group as it is.
    fn leave(mut self) {
        if let Some(mut pipe) = self.process.stdin.take() {
            // An error means that the watch has ended, and then there is nothing to be left.
            pipe.write_all(b"\n").ok();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // Closes the pipe first.
        self.process.wait().ok();
    }
}

/// Sends a signal, such as `TERM`, to a process.
///
/// # Errors
/// When there is no such process any more.
pub(crate) fn signal(name: &str, process: u32) -> anyhow::Result<()> {
    // By the shell, which has it built in: a small system may have no program of this name.
    let status = Command::new("sh")
        .args(["-c", &format!("kill -{name} {process}")])
        .stderr(Stdio::null())
        .status()
        .context("cannot run `sh`")?;
    ensure!(status.success(), "the process is gone already");
    Ok(())
}

/// Takes the variables of this project out, so that a program has only what a task gives it.
pub(crate) fn remove_own_variables(command: &mut Command) {
    for (variable, _) in std::env::vars_os() {
        if variable.to_string_lossy().starts_with("KITBAG_") {
            command.env_remove(variable);
        }
    }
}

/// Runs a program silently and returns what it wrote to stdout, or `None` if it is not there or
/// failed: for asking whether a tool is installed.
pub(crate) fn ask(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    output.status.success().then_some(text)
}

fn pass_on(stream: impl Read, kept: &Mutex<String>, print: impl Fn(&str)) {
    for line in BufReader::new(stream).split(b'\n') {
        let Ok(line) = line else { break };
        let line = String::from_utf8_lossy(&line);
        print(&line);
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_str(&line);
        kept.push('\n');
    }
}

fn show(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|word| word.to_string_lossy().into_owned()),
    );
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_keeps_both_streams() {
        let mut command = Command::new("bash");
        command.args(["-c", "echo out; echo err >&2"]);
        let kept = run(command).unwrap();
        assert!(kept.contains("out\n") && kept.contains("err\n"), "{kept}");
    }

    #[test]
    fn run_of_a_failing_program_is_an_error() {
        let mut command = Command::new("bash");
        command.args(["-c", "exit 3"]);
        let error = run(command).unwrap_err().to_string();
        assert!(error.contains("exit 3"), "{error}");
    }

    fn bash(script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn program_that_takes_too_long_is_ended_with_all_that_it_started() {
        let [log, pipe] = ["log", "pipe"].map(|name| {
            let file = format!("xtask-{}-within.{name}", std::process::id());
            std::env::temp_dir().join(file)
        });
        let ended = run_within(&bash("echo out; exit 3"), Duration::from_secs(60), &log);
        assert!(matches!(ended.unwrap(), Ended::By(status) if status.code() == Some(3)));
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "out\n");

        let path = pipe.display();
        assert_eq!(
            ask(&mut bash(&format!("mkfifo {path}"))),
            Some(String::new())
        );
        let (sender, end) = mpsc::channel();
        let reader = pipe.clone();
        // Comes to its end when nobody holds the other one any more.
        thread::spawn(move || sender.send(std::fs::read(reader)));
        let sleepers = bash(&format!("exec > {path}; sleep 600 & sleep 600"));
        let ended = run_within(&sleepers, Duration::from_millis(500), &log).unwrap();
        assert_eq!(ended, Ended::TimedOut);
        let read = end.recv_timeout(Duration::from_secs(60));
        assert_eq!(read.expect("both are gone").unwrap(), b"");
        for file in [&log, &pipe] {
            std::fs::remove_file(file).unwrap();
        }
    }

    /// Names the pipe, in the environment of a run of the tests that is to be killed.
    const HELD: &str = "XTASK_TEST_HELD";

    #[test]
    fn nothing_stays_of_a_program_whose_caller_is_killed() {
        if let Some(pipe) = std::env::var_os(HELD) {
            let script = format!("exec > {}; echo up; sleep 600 & sleep 600", pipe.display());
            let log = Path::new("/dev/null");
            run_within(&bash(&script), Duration::from_secs(60), log).unwrap();
            return;
        }
        let pipe = std::env::temp_dir().join(format!("xtask-{}-killed.pipe", std::process::id()));
        let made = ask(&mut bash(&format!("mkfifo {}", pipe.display())));
        assert_eq!(made, Some(String::new()));
        let mut caller = Command::new(std::env::current_exe().unwrap());
        let name = "process::tests::nothing_stays_of_a_program_whose_caller_is_killed";
        caller.args(["--exact", name]).env(HELD, &pipe);
        let mut caller = caller.stdout(Stdio::null()).spawn().unwrap();
        let (sender, read) = mpsc::channel();
        let path = pipe.clone();
        thread::spawn(move || {
            let mut pipe = BufReader::new(File::open(path).unwrap());
            let mut line = String::new();
            pipe.read_line(&mut line).unwrap();
            sender.send(line).unwrap();
            // Comes to its end when nobody holds the other one any more.
            sender.send(io::read_to_string(pipe).unwrap()).unwrap();
        });
        let patience = Duration::from_secs(60);
        assert_eq!(read.recv_timeout(patience).expect("it runs"), "up\n");
        caller.kill().unwrap();
        caller.wait().unwrap();
        assert_eq!(read.recv_timeout(patience / 2).expect("it is gone"), "");
        std::fs::remove_file(&pipe).unwrap();
    }

    #[test]
    fn ask_for_a_missing_program_is_none() {
        assert_eq!(ask(&mut Command::new("kitbag-no-such-program")), None);
    }
}
