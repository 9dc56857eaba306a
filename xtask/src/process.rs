//! Running other programs: what they print is shown as it comes and kept for counting.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail};

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
pub(crate) fn run_within(
    mut command: Command,
    limit: Duration,
    log: &Path,
) -> anyhow::Result<Ended> {
    let shown = show(&command);
    let stdout = File::create(log).with_context(|| format!("cannot make {}", log.display()))?;
    let stderr = stdout.try_clone().context("a file has two handles")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout)
        .stderr(stderr)
        // A group of its own, so that what it starts can be ended with it.
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start `{shown}`"))?;
    let group = child.id();
    let (sender, ended) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait()));
    match ended.recv_timeout(limit) {
        Ok(status) => Ok(Ended::By(
            status.with_context(|| format!("cannot wait for `{shown}`"))?,
        )),
        Err(RecvTimeoutError::Disconnected) => bail!("nobody waits for `{shown}`"),
        Err(RecvTimeoutError::Timeout) => {
            let mut kill = Command::new("sh");
            kill.args(["-c", &format!("kill -KILL -{group}")]);
            ask(&mut kill).with_context(|| format!("cannot end `{shown}`"))?;
            // So that nothing of it is there when the next one starts.
            ended.recv().ok();
            Ok(Ended::TimedOut)
        }
    }
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
        let ended = run_within(bash("echo out; exit 3"), Duration::from_secs(60), &log);
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
        let ended = run_within(sleepers, Duration::from_millis(500), &log).unwrap();
        assert_eq!(ended, Ended::TimedOut);
        let read = end.recv_timeout(Duration::from_secs(60));
        assert_eq!(read.expect("both are gone").unwrap(), b"");
        for file in [&log, &pipe] {
            std::fs::remove_file(file).unwrap();
        }
    }

    #[test]
    fn ask_for_a_missing_program_is_none() {
        assert_eq!(ask(&mut Command::new("kitbag-no-such-program")), None);
    }
}
