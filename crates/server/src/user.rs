//! `kitbag user …`

use std::fmt::Write as _;
use std::io::{self, BufRead as _, IsTerminal as _, Read as _};

use anyhow::{Context as _, Result, bail};
use kitbag_http::admin::UserRow;

use crate::admin::{AccountCommand, PAGE, Reply};
use crate::cli::{PasswordArguments, UserArguments, UserCommand};
use crate::config::Config;
use crate::operator::Operator;
use crate::output::is_heard;

/// Bytes of a password read from standard input.
const PASSWORD_BYTES_MAX: u64 = 4_096;

pub(crate) fn run(arguments: UserArguments) -> Result<()> {
    let accounts = Accounts(Operator::new(Config::load(&arguments.config)?));
    match arguments.command {
        UserCommand::Add { name, password } => {
            let password = read_password(password)?;
            let user = accounts.change(AccountCommand::AddUser { name, password })?;
            println!("added {user}");
        }
        UserCommand::Deactivate { name, yes } => {
            if !yes {
                bail!(
                    "this erases the account `{name}` and all its data for ever; add --yes to do it"
                );
            }
            let user = accounts.change(AccountCommand::DeactivateUser { name })?;
            println!("deactivated {user}");
        }
        UserCommand::List { json } => accounts.list(json)?,
        UserCommand::Password {
            name,
            keep_devices,
            password,
        } => {
            let password = read_password(password)?;
            let command = AccountCommand::SetPassword {
                name,
                password,
                keep_devices,
            };
            let user = accounts.change(command)?;
            let devices = if keep_devices { "stay" } else { "were" };
            println!(
                "changed the password of {user}; its devices {devices} logged {}",
                if keep_devices { "in" } else { "out" }
            );
        }
    }
    Ok(())
}

/// What a command does with accounts.
struct Accounts(Operator);

impl Accounts {
    fn change(&self, command: AccountCommand) -> Result<String> {
        match self.0.accounts(command)? {
            Reply::Done { user } => Ok(user),
            Reply::Failed { error } => bail!(error),
            _ => bail!("the server gave an unexpected answer"),
        }
    }

    fn list(&self, json: bool) -> Result<()> {
        let mut after = None;
        let mut total = 0;
        loop {
            let users = match self.0.accounts(AccountCommand::ListUsers {
                after: after.take(),
            })? {
                Reply::Users { users } => users,
                Reply::Failed { error } => bail!(error),
                _ => bail!("the server gave an unexpected answer"),
            };
            let mut text = String::new();
            if total == 0 && !json && !users.is_empty() {
                writeln!(text, "{:<40} {:>7}  STATE", "USER", "DEVICES")?;
            }
            for user in &users {
                write_row(&mut text, user, json)?;
            }
            total += users.len();
            if !is_heard(text.as_bytes())? || users.len() < PAGE {
                break;
            }
            after = users.last().map(|user| user.user_id.clone());
        }
        if total == 0 && !json {
            is_heard(b"no accounts\n")?;
        }
        Ok(())
    }
}

fn write_row(out: &mut String, user: &UserRow, json: bool) -> Result<()> {
    if json {
        writeln!(out, "{}", serde_json::to_string(user)?)?;
    } else {
        let state = if user.deactivated_ts.is_some() {
            "deactivated"
        } else {
            "active"
        };
        writeln!(out, "{:<40} {:>7}  {state}", user.user_id, user.devices)?;
    }
    Ok(())
}

fn read_password(arguments: PasswordArguments) -> Result<String> {
    if let Some(password) = password_of_stdin(arguments.password_stdin)? {
        return Ok(password);
    }
    let password = rpassword::prompt_password("Password: ")?;
    if rpassword::prompt_password("Again: ")? != password {
        bail!("the two passwords differ");
    }
    Ok(password)
}

/// Returns the password of an account that there is, asked for once.
pub(crate) fn known_password(is_on_stdin: bool) -> Result<String> {
    match password_of_stdin(is_on_stdin)? {
        Some(password) => Ok(password),
        None => Ok(rpassword::prompt_password("Password: ")?),
    }
}

/// Reads a password from standard input; `None` where somebody sits there who can be asked.
fn password_of_stdin(is_on_stdin: bool) -> Result<Option<String>> {
    let stdin = io::stdin();
    if is_on_stdin || !stdin.is_terminal() {
        let mut line = String::new();
        let mut reader = io::BufReader::new(stdin.lock().take(PASSWORD_BYTES_MAX));
        reader
            .read_line(&mut line)
            .context("cannot read the password")?;
        let password = line.trim_end_matches(['\r', '\n']).to_owned();
        if password.is_empty() {
            bail!("there is no password on standard input");
        }
        return Ok(Some(password));
    }
    Ok(None)
}
