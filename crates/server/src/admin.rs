//! What an operator does: the same commands beside a running server and without one.

mod audit;
pub(crate) mod copying;
pub(crate) mod data;
pub(crate) mod socket;

use std::sync::Arc;

use anyhow::{Result, anyhow, bail};
use kitbag_domain::{
    AccountData, AccountStore as _, Allowance, Clock, DeviceSelection, Guard, NewAccount,
    ServerName, Store, UserId, UserNameError, Write, Writer, validate_localpart,
};
use kitbag_http::Passwords;
use kitbag_http::admin::UserRow;
use kitbag_store_sqlite::SqliteStore;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use copying::{Far, Order};
use data::{After, DataCommand};

/// Accounts that one command lists; the caller goes on behind the last one.
pub(crate) const PAGE: usize = 500;

/// A command of an operator.
#[derive(Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum Command {
    /// Copies the store to a file.
    Backup { order: Order },
    #[serde(untagged)]
    Accounts(AccountCommand),
    #[serde(untagged)]
    Data(DataCommand),
}

/// A command that concerns accounts.
#[derive(Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum AccountCommand {
    /// Makes an account.
    AddUser { name: String, password: String },
    /// Ends an account.
    DeactivateUser { name: String },
    /// Lists a page of accounts.
    ListUsers { after: Option<String> },
    /// Sets a new password.
    SetPassword {
        name: String,
        password: String,
        keep_devices: bool,
    },
}

/// The answer to a [`Command`].
#[derive(Deserialize, Serialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub(crate) enum Reply {
    /// The store was copied.
    BackedUp { bytes: u64 },
    /// The content of an entry.
    Content { content: String },
    /// The store was not copied, since it is damaged; `reason` alone says what was found.
    Damaged { error: String, reason: String },
    /// An entry of this user was deleted, where there was one.
    Deleted { user: String, was_there: bool },
    /// It is so far; another reply follows.
    Far { far: Far },
    /// It was done, to this user.
    Done { user: String },
    /// It was not done, for this reason.
    Failed { error: String },
    /// Rows of JSON, each without a line break, and behind what the next ones come.
    Rows {
        rows: Vec<String>,
        after: Option<After>,
    },
    /// Accounts.
    Users { users: Vec<UserRow> },
}

/// Carries commands that concern accounts and their data out on an open store.
#[derive(Clone)]
pub(crate) struct Admin {
    store: Arc<SqliteStore>,
    data: AccountData,
    clock: Arc<dyn Clock>,
    passwords: Passwords,
    server_name: ServerName,
}

impl Admin {
    pub(crate) fn new(
        store: Arc<SqliteStore>,
        clock: Arc<dyn Clock>,
        passwords: Passwords,
        server_name: ServerName,
        config: &Config,
    ) -> Self {
        let (kept, rules) = (Arc::clone(&store) as Arc<dyn Store>, config.push_rules());
        let (rules, limits) = (Arc::new(rules), Arc::new(config.limits()));
        let data = AccountData::new(kept, rules, Arc::clone(&clock), limits);
        Self {
            store,
            data,
            clock,
            passwords,
            server_name,
        }
    }

    pub(crate) async fn run(&self, command: AccountCommand) -> Reply {
        match self.try_run(command).await {
            Ok(reply) => reply,
            Err(error) => Reply::Failed {
                error: format!("{error:#}"),
            },
        }
    }

    async fn try_run(&self, command: AccountCommand) -> Result<Reply> {
        let user = match command {
            AccountCommand::AddUser { name, password } => self.add(&name, &password).await?,
            AccountCommand::DeactivateUser { name } => {
                let user = self.existing(&name).await?;
                self.store.deactivate(&user, self.write()).await?;
                user
            }
            AccountCommand::ListUsers { after } => return self.list(after).await,
            AccountCommand::SetPassword {
                name,
                password,
                keep_devices,
            } => {
                let user = self.existing(&name).await?;
                let hash = self.passwords.hash(&password).await?;
                let logout = (!keep_devices).then_some(DeviceSelection::All);
                self.store
                    .set_password(&user, self.write(), hash, logout)
                    .await?;
                user
            }
        };
        Ok(Reply::Done {
            user: user.to_string(),
        })
    }

    async fn add(&self, name: &str, password: &str) -> Result<UserId> {
        let user = self.user(name)?;
        validate_localpart(user.localpart())?;
        let password_hash = self.passwords.hash(password).await?;
        let account = NewAccount {
            user: user.clone(),
            password_hash,
            at: self.clock.now_ms(),
        };
        self.store.register(account, None).await?;
        Ok(user)
    }

    async fn list(&self, after: Option<String>) -> Result<Reply> {
        let after = after.map(UserId::parse).transpose()?;
        let accounts = self.store.accounts(after, PAGE).await?;
        Ok(Reply::Users {
            users: accounts.iter().map(UserRow::new).collect(),
        })
    }

    async fn existing(&self, name: &str) -> Result<UserId> {
        let user = self.user(name)?;
        match self.store.account(&user).await? {
            None => bail!("there is no account {user}"),
            Some(account) if account.deactivated_at.is_some() => {
                bail!("the account {user} is deactivated")
            }
            Some(_) => Ok(user),
        }
    }

    /// Takes a localpart or a whole ID of this server.
    fn user(&self, name: &str) -> Result<UserId> {
        UserId::named(name, &self.server_name).map_err(|error| match error {
            UserNameError::Malformed(error) => {
                anyhow!(error).context(format!("`{name}` is not a user name"))
            }
            error @ UserNameError::OtherServer { .. } => error.into(),
        })
    }

    fn write(&self) -> Write {
        Write {
            guard: Guard::Account,
            writer: Writer::Admin,
            at: self.clock.now_ms(),
            allowance: Allowance::Ordinary,
        }
    }
}
