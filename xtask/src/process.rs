//! Running other programs: what they print is shown as it comes and kept for counting.

use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;

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

    #[test]
    fn ask_for_a_missing_program_is_none() {
        assert_eq!(ask(&mut Command::new("kitbag-no-such-program")), None);
    }
}
