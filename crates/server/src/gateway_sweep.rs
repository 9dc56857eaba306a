//! `kitbag gateway sweep`: empties entries of devices that were removed past the gateway.

use std::env::{self, VarError};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use anyhow::{Context as _, Result, anyhow, bail};
use kitbag_gateway::{SweepEvent, Swept, sweep};
use serde_json::json;

use crate::cli::{GatewayArguments, SweepArguments};
use crate::config::Config;
use crate::gateway::upstream;
use crate::system::SystemClock;
use crate::{logging, output, table};

/// Where the token is, unless in a file: every user of a machine can read the arguments of a program.
const TOKEN_VARIABLE: &str = "SYNAPSE_ADMIN_TOKEN";

/// Bytes of a token.
const TOKEN_BYTES_MAX: u64 = 16 * 1024;

pub(crate) fn run(gateway: &GatewayArguments, arguments: &SweepArguments) -> Result<()> {
    let config = Config::load_for_gateway(gateway)?;
    logging::start(&config.log)?;
    upstream(&config)?;
    let token = token(arguments.token_file.as_deref())?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let settings = config.gateway().upstream;
    let is_dry_run = arguments.dry_run;
    let swept = runtime.block_on(async {
        let mut progress = |event: SweepEvent<'_>| tell(arguments, &event);
        sweep(settings, &token, &SystemClock, is_dry_run, &mut progress).await
    });
    let done = match &swept {
        Ok(Swept {
            failed_users: 0, ..
        }) => Ok(()),
        Ok(Swept { failed_users, .. }) => Err(anyhow!(
            "{failed_users} users could not be looked at, or their entries not be emptied"
        )),
        Err(error) => Err(anyhow!("{error}")),
    };
    let text = match arguments.json {
        true => json_summary(arguments, swept.ok().as_ref(), done.as_ref().err()),
        false => swept.map_or_else(|_| String::new(), |swept| summary(arguments, &swept)),
    };
    output::say(text.as_bytes())?;
    done
}

fn token(file: Option<&Path>) -> Result<String> {
    let mut text = String::new();
    match file {
        Some(path) if path.as_os_str() == "-" => {
            let read = io::stdin().lock().take(TOKEN_BYTES_MAX);
            { read }.read_to_string(&mut text)
        }
        Some(path) => {
            File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text))
        }
        None => {
            text = match variable() {
                Ok(text) => text,
                Err(VarError::NotPresent) => bail!(
                    "whose token? Give an administrator's by `--token-file FILE` (`-` for standard \
                     input), or in the environment as {TOKEN_VARIABLE}"
                ),
                Err(VarError::NotUnicode(_)) => bail!("{TOKEN_VARIABLE} is no token"),
            };
            Ok(text.len())
        }
    }
    .context("cannot read the token")?;
    let token = text.trim();
    if token.is_empty() {
        bail!("there is no token in what was given for one");
    }
    Ok(token.to_owned())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a secret of one command is no setting"
)]
fn variable() -> Result<String, VarError> {
    env::var(TOKEN_VARIABLE)
}

fn tell(arguments: &SweepArguments, event: &SweepEvent<'_>) {
    let text = match event {
        SweepEvent::Emptied { user, entries } if !arguments.json => {
            let user = table::plain(user);
            match arguments.dry_run {
                true => format!("{user}: {entries} to empty\n"),
                false => format!("{user}: emptied {entries}\n"),
            }
        }
        SweepEvent::Emptied { .. } => return,
        SweepEvent::Failed { user, error } => {
            eprintln!(
                "kitbag: {}: {}",
                table::plain(user),
                table::plain(&error.to_string())
            );
            return;
        }
    };
    // Who does not read on still wants it done.
    drop(output::say(text.as_bytes()));
}

fn summary(arguments: &SweepArguments, swept: &Swept) -> String {
    let Swept {
        users,
        living_entries,
        emptied_entries,
        locked_entries,
        failed_users: _,
    } = swept;
    let emptied = match arguments.dry_run {
        true => "would be emptied",
        false => "emptied",
    };
    let locked = match locked_entries {
        0 => String::new(),
        _ => format!(", {locked_entries} more are of users who are locked"),
    };
    format!(
        "{users} users: {living_entries} entries of devices that are there, {emptied_entries} of \
         devices that are gone {emptied}{locked}\n"
    )
}

/// Returns the summary as a line of JSON; without counts where it ended in the midst.
fn json_summary(
    arguments: &SweepArguments,
    swept: Option<&Swept>,
    failure: Option<&anyhow::Error>,
) -> String {
    let mut summary = json!({
        "dry_run": arguments.dry_run,
        "failure": failure.map(|error| format!("{error:#}")),
    });
    if let Some(swept) = swept {
        summary["users"] = swept.users.into();
        summary["living_entries"] = swept.living_entries.into();
        summary["emptied_entries"] = swept.emptied_entries.into();
        summary["locked_entries"] = swept.locked_entries.into();
        summary["failed_users"] = swept.failed_users.into();
    }
    format!("{summary}\n")
}
