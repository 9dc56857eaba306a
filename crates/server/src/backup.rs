//! `kitbag backup`

use std::fs;
use std::future::pending;
use std::io::{self, IsTerminal as _, Write};
use std::path::{Path, PathBuf, absolute};
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, bail};
use kitbag_store_sqlite::{BackupError, OpenError, backup_closed};
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use crate::admin::copying::{self, Far, Order};
use crate::admin::{Command, Reply, socket};
use crate::cli::BackupArguments;
use crate::config::Config;
use crate::data;
use crate::output::say;

pub(crate) fn run(arguments: &BackupArguments) -> Result<()> {
    let config = Config::load(&arguments.config)?;
    let file = absolute(&arguments.file).context("the file has no path")?;
    let order = Order {
        file: text(&file)?,
        replace: arguments.force,
        verify: true,
    };
    let started = Instant::now();
    let mut display = Display::new();
    let bytes = copy(&config, order, &mut display)?;
    display.end();
    let done = Done {
        file: &file,
        bytes,
        took: started.elapsed(),
    };
    let mut text = Vec::new();
    if arguments.json {
        done.write_json(&mut text)?;
    } else {
        done.write_text(&mut text, &config.data)?;
    }
    Ok(say(&text)?)
}

/// Returns a path as it travels to a server.
pub(crate) fn text(file: &Path) -> Result<String> {
    let text = file.to_str().map(str::to_owned);
    text.with_context(|| format!("`{}` is not a path in UTF-8", file.display()))
}

/// Has the running server copy its store, or copies it here where none runs.
fn copy(config: &Config, order: Order, display: &mut Display) -> Result<u64> {
    let command = Command::Backup {
        order: order.clone(),
    };
    let replied = socket::exchange(&config.data, &command, &[], |far| display.show(far))?;
    let reply = match replied {
        Some(reply) => reply,
        None => copy_here(config, order, display)?,
    };
    match reply {
        Reply::BackedUp { bytes } => Ok(bytes),
        Reply::Failed { error } | Reply::Damaged { error, .. } => bail!(error),
        _ => bail!("the server gave an unexpected answer"),
    }
}

fn copy_here(config: &Config, order: Order, display: &mut Display) -> Result<Reply> {
    data::check_there(config)?;
    let dir = config.data.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut interrupted = pin!(interruption()?);
        let mut copying = copying::start_with(order, move |to, copying, progress| {
            backup_closed(&dir, to, copying, progress).map_err(advise_here)
        });
        loop {
            tokio::select! {
                reply = &mut copying.ended => return Ok(reply?),
                Ok(()) = copying.told.changed() => display.show(*copying.told.borrow()),
                () = &mut interrupted => {
                    drop(copying.told);
                    // Until nothing of it is left.
                    return Ok(copying.ended.await?);
                }
            }
        }
    })
}

/// Listens at once for the signals that end a program; the future ends when one came.
fn interruption() -> io::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    // Whoever called it by nohup wants it to go on.
    let mut hangup = if is_ignored(SignalKind::hangup()) {
        None
    } else {
        Some(signal(SignalKind::hangup())?)
    };
    Ok(async move {
        let hung_up = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => pending().await,
            }
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hung_up => {}
        }
    })
}

/// Tells whether whoever started this program had it ignore a signal, where the system says so.
fn is_ignored(signal: SignalKind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = 1_u64 << (signal.as_raw_value() - 1);
    ignored.is_some_and(|mask| mask & bit != 0)
}

/// Says what an operator can do about it.
pub(crate) fn advise(error: BackupError) -> anyhow::Error {
    match error {
        BackupError::Exists { .. } => anyhow!("{error}; --force replaces it"),
        BackupError::Fault { .. } => anyhow!(
            "{error}; mend that, as by making room on the disk, or stop the server and do it then"
        ),
        error => error.into(),
    }
}

fn advise_here(error: BackupError) -> anyhow::Error {
    match error {
        BackupError::Write(error @ OpenError::Locked { .. }) => {
            anyhow::Error::new(error).context("a server uses the data and does not answer")
        }
        BackupError::Write(error) => data::advise(error),
        error => advise(error),
    }
}

/// Shows how far it is, to a person.
struct Display {
    is_terminal: bool,
    is_shown: bool,
}

impl Display {
    fn new() -> Self {
        Self {
            is_terminal: io::stderr().is_terminal(),
            is_shown: false,
        }
    }

    fn show(&mut self, far: Far) {
        // Before the first step nobody knows of how much.
        let is_known = !matches!(far, Far::Copying { of: 0, .. });
        if !self.is_terminal || !is_known {
            return;
        }
        self.is_shown = true;
        match far {
            Far::Copying { bytes, of } => {
                let percent = bytes.saturating_mul(100).checked_div(of).unwrap_or(0);
                eprint!("\r{} of {}, {percent} %   ", size(bytes), size(of));
            }
            Far::Counting { .. } => {}
            Far::Verifying => eprint!("\rlooking through the copy   "),
        }
    }

    /// Clears the line, which was none of the result.
    fn end(&self) {
        if self.is_shown {
            eprint!("\r{:40}\r", "");
        }
    }
}

/// Returns a number of bytes as people read it.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 3] = ["KiB", "MiB", "GiB"];
    let (mut whole, mut tenth, mut unit) = (bytes, 0, "bytes");
    for next in UNITS {
        if whole < 1_024 {
            break;
        }
        tenth = whole % 1_024 * 10 / 1_024;
        whole /= 1_024;
        unit = next;
    }
    if unit == "bytes" {
        format!("{whole} {unit}")
    } else {
        format!("{whole}.{tenth} {unit}")
    }
}

/// Returns a path as one word of a shell.
fn quoted(path: &Path) -> String {
    let path = path.display().to_string();
    format!("'{}'", path.replace('\'', r"'\''"))
}

/// What was done.
struct Done<'a> {
    file: &'a Path,
    bytes: u64,
    took: Duration,
}

#[derive(Serialize)]
struct Json {
    file: PathBuf,
    bytes: u64,
    duration_ms: u128,
}

impl Done<'_> {
    fn write_text(&self, out: &mut impl Write, dir: &Path) -> Result<()> {
        let (bytes, seconds) = (size(self.bytes), self.took.as_secs_f64());
        let (file, dir) = (self.file, absolute(dir)?);
        writeln!(
            out,
            "backed up {bytes} in {seconds:.1} s to `{}`",
            file.display()
        )?;
        writeln!(
            out,
            "It holds all that the data hold, hashes of passwords too: keep it as closely."
        )?;
        writeln!(out, "To put it back, stop the server, then:")?;
        let (file, dir) = (quoted(file), quoted(&dir));
        writeln!(out, "  kitbag restore {file} --data {dir} --replace")?;
        Ok(())
    }

    fn write_json(&self, out: &mut impl Write) -> Result<()> {
        let json = Json {
            file: self.file.to_owned(),
            bytes: self.bytes,
            duration_ms: self.took.as_millis(),
        };
        Ok(writeln!(out, "{}", serde_json::to_string(&json)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_told_as_people_read_them() {
        for (bytes, expected) in [
            (0, "0 bytes"),
            (1_023, "1023 bytes"),
            (1_024, "1.0 KiB"),
            (1_024 * 1_024 - 1, "1023.9 KiB"),
            (5 * 1_024 * 1_024 / 2, "2.5 MiB"),
            (3_000 * 1_024 * 1_024 * 1_024, "3000.0 GiB"),
        ] {
            assert_eq!(size(bytes), expected);
        }
    }

    #[test]
    fn before_the_size_is_known_nothing_is_shown() {
        let mut display = Display {
            is_terminal: true,
            is_shown: false,
        };
        display.show(Far::Copying { bytes: 0, of: 0 });
        assert!(!display.is_shown);
        display.show(Far::Copying { bytes: 0, of: 1 });
        assert!(display.is_shown);
    }
}
