//! `kitbag check`

use std::io::{self, Write};
use std::path::{Path, absolute};
use std::process::{self, ExitCode};

use anyhow::{Context as _, Result, bail};
use kitbag_domain::Clock as _;
use kitbag_store_sqlite::OpenError;
use kitbag_store_sqlite::check::{self, Finding, Mended, Mending, Report, counted};
use serde::Serialize;

use crate::admin::copying::Order;
use crate::admin::{Command, Reply, socket};
use crate::backup;
use crate::cli::CheckArguments;
use crate::config::Config;
use crate::data;
use crate::output::say;
use crate::system::{SystemClock, SystemRandom, stamp};

/// The code where something was found, and is still there.
const FOUND: u8 = 1;
/// The code where nothing could be looked at.
const NOT_CHECKED: u8 = 2;

pub(crate) fn run(arguments: &CheckArguments) -> ExitCode {
    match try_run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => FOUND.into(),
        Err(error) => {
            eprintln!("kitbag: {}", crate::table::plain(&format!("{error:#}")));
            NOT_CHECKED.into()
        }
    }
}

/// Tells whether nothing is found, at last.
fn try_run(arguments: &CheckArguments) -> Result<bool> {
    let dir = Config::load(&arguments.config)?.data;
    let (report, mended) = if arguments.repair {
        let mended = mend(&dir)?;
        (mended.after.clone(), Some(mended))
    } else {
        (check(&dir)?, None)
    };
    let mut text = Vec::new();
    if arguments.json {
        write_json(&mut text, &report, mended.as_ref())?;
    } else {
        write_text(&mut text, &dir, &report, mended.as_ref())?;
    }
    say(&text)?;
    Ok(report.is_sound())
}

fn check(dir: &Path) -> Result<Report> {
    match check::check(dir) {
        Err(locked @ OpenError::Locked { .. }) => match check_beside_server(dir)? {
            Some(report) => Ok(report),
            None => Err(locked).context("a server uses the data and does not answer"),
        },
        Err(unfinished @ OpenError::Unfinished { .. }) => {
            bail!("{unfinished}: the next start of the server completes it, or --repair does")
        }
        report => report.map_err(advise),
    }
}

/// Has the server copy its store, and looks through the copy, which no one else sees.
///
/// A check of the store itself would hold a read open for as long as it takes, and with it the log.
/// `None` where no server answers.
fn check_beside_server(dir: &Path) -> Result<Option<Report>> {
    let file = absolute(dir)?.join(check::copy_name(process::id()));
    let order = Order {
        file: backup::text(&file)?,
        // One of a process that is gone.
        replace: true,
        verify: false,
    };
    match socket::send(dir, &Command::Backup { order })? {
        None => Ok(None),
        Some(Reply::BackedUp { .. }) => Ok(Some(check::check_and_remove(&file)?)),
        Some(Reply::Damaged { reason, .. }) => Ok(Some(Report::damaged(reason))),
        Some(Reply::Failed { error }) => bail!(error),
        Some(_) => bail!("the server gave an unexpected answer"),
    }
}

fn mend(dir: &Path) -> Result<Mended> {
    let mending = Mending {
        stamp: stamp(SystemClock.now_ms()),
        epoch_seed: SystemRandom.number(),
    };
    match check::mend(dir, &mending) {
        Err(error @ OpenError::Locked { .. }) => {
            bail!("{error}: stop it first, since --repair needs the data for itself")
        }
        mended => mended.map_err(advise),
    }
}

/// Says what a check cannot do more about.
fn advise(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::NotADatabase { .. } => data::advise(error),
        error => error.into(),
    }
}

fn write_text(
    out: &mut impl Write,
    dir: &Path,
    report: &Report,
    mended: Option<&Mended>,
) -> io::Result<()> {
    if let Some(mended) = mended {
        write_findings(out, &mended.before)?;
        if let Some(copy) = &mended.copy {
            writeln!(out, "copied the database to `{}`", copy.display())?;
        }
        for mend in &mended.mends {
            let user = mend.user.as_deref().unwrap_or("-");
            writeln!(out, "mended     {user}: {}", mend.text)?;
        }
    }
    let is_new = mended.is_none_or(|mended| mended.copy.is_some());
    if is_new {
        write_findings(out, report)?;
    }
    let Report {
        users,
        entries,
        bytes,
        ..
    } = report;
    if report.is_sound() {
        let dir = dir.display();
        return writeln!(
            out,
            "`{dir}` is sound: {} with {} of {}",
            counted(*users, "account", "accounts"),
            counted(*entries, "entry", "entries"),
            counted(*bytes, "byte", "bytes")
        );
    }
    let count = report.findings.len() as u64 + report.findings_left_out;
    let advice = match (report.is_mendable(), report.is_damaged()) {
        (_, true) => {
            "the file is damaged, and nothing in it was touched: put a backup back with `kitbag \
             restore FILE --replace`"
        }
        (false, false) => {
            "none of it follows from other data: put a backup back with `kitbag restore FILE \
             --replace`, or ask whom it concerns to write anew"
        }
        (true, false) => "with the server stopped, `kitbag check --repair` mends what it can",
    };
    writeln!(out, "found {count}; {advice}")
}

fn write_findings(out: &mut impl Write, report: &Report) -> io::Result<()> {
    for Finding { kind, user, text } in &report.findings {
        let user = user.as_deref().unwrap_or("-");
        writeln!(out, "{kind:<10} {user}: {text}")?;
    }
    if report.findings_left_out > 0 {
        writeln!(out, "and {} more", report.findings_left_out)?;
    }
    Ok(())
}

fn is_mendable(report: &Report, finding: &Finding) -> bool {
    finding.kind.is_derivable() && !report.is_damaged()
}

/// The whole result, on one line.
#[derive(Serialize)]
struct Json<'a> {
    sound: bool,
    server_name: Option<&'a str>,
    format: u32,
    users: u64,
    entries: u64,
    bytes: u64,
    findings: Vec<Row<'a>>,
    findings_left_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    repair: Option<Repair<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    kind: &'a str,
    user: Option<&'a str>,
    text: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    mendable: Option<bool>,
}

#[derive(Serialize)]
struct Repair<'a> {
    copy: Option<String>,
    mended: Vec<Row<'a>>,
}

fn write_json(out: &mut impl Write, report: &Report, mended: Option<&Mended>) -> Result<()> {
    let findings = report.findings.iter().map(|finding| Row {
        kind: finding.kind.as_str(),
        user: finding.user.as_deref(),
        text: &finding.text,
        mendable: Some(is_mendable(report, finding)),
    });
    let repair = mended.map(|mended| Repair {
        copy: mended.copy.as_ref().map(|copy| copy.display().to_string()),
        mended: mended.mends.iter().map(mended_row).collect(),
    });
    let json = Json {
        sound: report.is_sound(),
        server_name: report.server_name.as_deref(),
        format: report.format,
        users: report.users,
        entries: report.entries,
        bytes: report.bytes,
        findings: findings.collect(),
        findings_left_out: report.findings_left_out,
        repair,
    };
    Ok(writeln!(out, "{}", serde_json::to_string(&json)?)?)
}

fn mended_row(mend: &check::Mend) -> Row<'_> {
    Row {
        kind: mend.kind.as_str(),
        user: mend.user.as_deref(),
        text: &mend.text,
        mendable: None,
    }
}
