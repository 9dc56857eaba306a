//! `kitbag doctor`: what a homeserver does, and what the gateway before it would add.

mod account;
mod anonymous;
mod patient;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Result, anyhow};
use kitbag_gateway::{Homeserver, HomeserverAnswer, HomeserverError, UpstreamSettings};
use serde::Serialize;
use serde_json::Value;

use self::patient::Patient;
use crate::cli::DoctorArguments;
use crate::config::Config;
use crate::gateway::upstream;
use crate::output::say;
use crate::table::{Align, Table, plain};
use crate::user::known_password;

/// The code where the gateway could not stand before it.
const NOT_FIT: u8 = 1;
/// The code where it could not be looked at, or not to the end.
const NOT_LOOKED_AT: u8 = 2;

pub(crate) fn run(arguments: &DoctorArguments) -> ExitCode {
    match try_run(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => NOT_FIT.into(),
        Err(error) => {
            eprintln!("kitbag: {}", plain(&format!("{error:#}")));
            NOT_LOOKED_AT.into()
        }
    }
}

/// Prints what was found, and tells whether the gateway can stand before the homeserver.
fn try_run(arguments: &DoctorArguments) -> Result<bool> {
    let config = Config::load_for_doctor(arguments)?;
    let upstream = upstream(&config)?.to_string();
    let login = match &arguments.user {
        Some(user) => Some((user.as_str(), known_password(arguments.password_stdin)?)),
        None => None,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut report = Report::new(upstream);
    let looking = look(config.upstream.clone(), &mut report, login);
    let looked = runtime.block_on(looking);
    report.failure = looked.as_ref().err().map(|error| format!("{error:#}"));
    let is_fit = report.is_fit();
    let mut text = Vec::new();
    match arguments.json {
        true => {
            let report = &report;
            let printed = Printed { report, is_fit };
            writeln!(text, "{}", serde_json::to_string(&printed)?)?;
        }
        // Where nothing was seen, standard error tells all.
        false if report.checks.is_empty() => {}
        false => text = report.text().into_bytes(),
    }
    say(&text)?;
    looked.map(|()| is_fit == Some(true))
}

/// Looks at it, and fails where that does not come to an end.
async fn look(
    settings: UpstreamSettings,
    report: &mut Report,
    login: Option<(&str, String)>,
) -> Result<()> {
    let homeserver = Patient::new(Homeserver::new(settings)?);
    let seen = anonymous::look(&homeserver, report).await;
    seen.map_err(|error| {
        let upstream = &report.upstream;
        match error.is::<HomeserverError>() {
            true => anyhow!("{upstream} does not answer: {error:#}"),
            false => anyhow!("{upstream} cannot be looked at now: {error:#}"),
        }
    })?;
    match login {
        Some((user, password)) => account::look(&homeserver, report, user, &password).await,
        None => Ok(()),
    }
}

/// The result as it is printed in JSON.
#[derive(Serialize)]
struct Printed<'a> {
    #[serde(flatten)]
    report: &'a Report,
    /// Whether all that the gateway needs is there; `null` where that was not looked at to the end.
    is_fit: Option<bool>,
}

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    upstream: String,
    /// The account that was used.
    user: Option<String>,
    checks: Vec<Check>,
    /// What was left in the account and could not be taken away: `{}` under these types.
    left: Vec<String>,
    /// What was written and could not be emptied: it may still be there under these types.
    kept: Vec<String>,
    /// What whoever puts the gateway before it has to know.
    warnings: Vec<&'static str>,
    /// Why it was not looked at to the end, or not all was taken away.
    failure: Option<String>,
}

/// One thing that was looked at.
#[derive(Debug, Serialize)]
struct Check {
    what: &'static str,
    /// What the homeserver does.
    homeserver: String,
    /// What it is with the gateway before it.
    gateway: &'static str,
    /// Whether the gateway needs it and it is not there.
    is_missing: bool,
}

impl Report {
    fn new(upstream: String) -> Self {
        Self {
            upstream,
            user: None,
            checks: Vec::new(),
            left: Vec::new(),
            kept: Vec::new(),
            warnings: Vec::new(),
            failure: None,
        }
    }

    /// Adds something that the gateway can do without.
    fn add(&mut self, what: &'static str, homeserver: impl Into<String>, gateway: &'static str) {
        self.checks.push(Check {
            what,
            homeserver: homeserver.into(),
            gateway,
            is_missing: false,
        });
    }

    /// Adds something that the gateway needs.
    fn need(&mut self, what: &'static str, is_there: bool, homeserver: impl Into<String>) {
        let gateway = match is_there {
            true => "as it is",
            false => "does not work: the gateway needs this",
        };
        self.checks.push(Check {
            what,
            homeserver: homeserver.into(),
            gateway,
            is_missing: !is_there,
        });
    }

    /// Tells whether the gateway can stand before it, where that is known.
    fn is_fit(&self) -> Option<bool> {
        match self.checks.iter().any(|check| check.is_missing) {
            true => Some(false),
            false => self.failure.is_none().then_some(true),
        }
    }

    fn text(&self) -> String {
        let mut table = Table::new([
            ("WHAT", Align::Left),
            ("HOMESERVER", Align::Left),
            ("WITH THE GATEWAY", Align::Left),
        ]);
        let rows = self.checks.iter();
        let rows: Vec<[String; 3]> = rows
            .map(|check| {
                [
                    check.what.into(),
                    check.homeserver.clone(),
                    check.gateway.into(),
                ]
            })
            .collect();
        let mut text = table.lines(&rows);
        if self.user.is_none() && self.failure.is_none() {
            text.push_str(
                "\nNot looked at, as there is no --user: whether account data is kept as it is \
                 sent,\nwhat becomes of m.push_rules, filters of syncs, devices, deletion and \
                 compare-and-swap.\n",
            );
        }
        for (types, why) in [
            (
                &self.left,
                "Left in the account, since it cannot be deleted there, as {}:",
            ),
            (
                &self.kept,
                "Perhaps still in the account, since it could not be emptied:",
            ),
        ] {
            if !types.is_empty() {
                text.push_str(&format!("\n{why}\n"));
            }
            for event_type in types {
                text.push_str(&format!("  {}\n", plain(event_type)));
            }
        }
        for warning in &self.warnings {
            text.push_str(&format!("\n{warning}\n"));
        }
        text.push_str(match self.is_fit() {
            Some(false) => "\nThe gateway cannot stand before it.\n",
            Some(true) => "\nThe gateway can stand before it.\n",
            None => "\nIt failed before the end: nothing is told of the rest.\n",
        });
        text
    }
}

/// Returns an answer in a few words: its status and errcode.
fn told(answer: &HomeserverAnswer) -> String {
    let body: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    match body["errcode"].as_str() {
        Some(errcode) => format!("{} {errcode}", answer.status),
        None => answer.status.to_string(),
    }
}

fn errcode(answer: &HomeserverAnswer) -> Option<String> {
    let body: Value = serde_json::from_slice(&answer.body).ok()?;
    Some(body["errcode"].as_str()?.to_owned())
}

/// What asking the homeserver comes to.
type Asked = Result<HomeserverAnswer>;
