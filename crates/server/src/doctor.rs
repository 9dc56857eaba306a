//! `kitbag doctor`: what a homeserver does, and what the gateway before it would add.

mod account;
mod anonymous;

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use kitbag_gateway::{Homeserver, HomeserverAnswer, HomeserverError};
use serde::Serialize;
use serde_json::Value;

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
    let (mut report, looked) = runtime.block_on(async {
        let homeserver = Homeserver::new(config.upstream.clone())?;
        let mut report = Report::new(upstream);
        anonymous::look(&homeserver, &mut report)
            .await
            .with_context(|| format!("{} does not answer", report.upstream))?;
        let looked = match login {
            Some((user, password)) => {
                account::look(&homeserver, &mut report, user, &password).await
            }
            None => Ok(()),
        };
        anyhow::Ok((report, looked))
    })?;
    report.failure = looked.as_ref().err().map(|error| format!("{error:#}"));
    let mut text = Vec::new();
    match arguments.json {
        true => writeln!(text, "{}", serde_json::to_string(&report)?)?,
        false => text = report.text().into_bytes(),
    }
    say(&text)?;
    looked.map(|()| report.is_fit)
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
    /// Whether all that the gateway needs is there, as far as it was looked at.
    is_fit: bool,
    /// Why it was not looked at to the end, or more is left than is told.
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
            is_fit: true,
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
        self.is_fit &= is_there;
        self.checks.push(Check {
            what,
            homeserver: homeserver.into(),
            gateway,
            is_missing: !is_there,
        });
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
        if !self.left.is_empty() {
            text.push_str("\nLeft in the account, since it cannot be deleted there, as {}:\n");
            for event_type in &self.left {
                text.push_str(&format!("  {}\n", plain(event_type)));
            }
        }
        text.push_str(match (self.is_fit, &self.failure) {
            (false, _) => "\nThe gateway cannot stand before it.\n",
            (true, None) => "\nThe gateway can stand before it.\n",
            (true, Some(_)) => "\nIt failed before the end: nothing is told of the rest.\n",
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

/// What asks the homeserver comes to.
type Asked = Result<HomeserverAnswer, HomeserverError>;
