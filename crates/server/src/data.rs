//! The data directory, as the commands open it that work beside no server.

use anyhow::{Result, anyhow, bail};
use kitbag_domain::ServerName;
use kitbag_store_sqlite::{OpenError, Options, SqliteStore, has_store};

use crate::config::Config;
use crate::system::SystemRandom;

/// Opens the data; where no server name was given, that of the data is good.
pub(crate) fn open(config: &Config) -> Result<(SqliteStore, ServerName)> {
    let server_name = config.server_name()?;
    let is_given = given_server_name(config)?.is_some();
    let (opened, server_name) = match try_open(config, &server_name) {
        Err(OpenError::OtherServerName { stored, .. }) if !is_given => {
            let stored = ServerName::parse(stored)?;
            (try_open(config, &stored), stored)
        }
        opened => (opened, server_name),
    };
    let store = opened.map_err(|error| match error {
        OpenError::Locked { .. } => {
            anyhow::Error::new(error).context("a server uses the data and does not answer")
        }
        error => advise(error),
    })?;
    Ok((store, server_name))
}

/// Returns the server name, where another than the usual one was given.
pub(crate) fn given_server_name(config: &Config) -> Result<Option<ServerName>> {
    let is_given = config.server_name != Config::default().server_name;
    is_given.then(|| config.server_name()).transpose()
}

/// Checks that there are data, since opening would make some.
pub(crate) fn check_there(config: &Config) -> Result<()> {
    let dir = &config.data;
    if !dir.try_exists().unwrap_or(true) {
        bail!(
            "there is no data directory `{}`; name it with --data",
            dir.display()
        );
    }
    if !has_store(dir)? {
        bail!(
            "there is no store in `{}`; name it with --data",
            dir.display()
        );
    }
    Ok(())
}

fn try_open(config: &Config, server_name: &ServerName) -> Result<SqliteStore, OpenError> {
    let mut options = Options::new(server_name.clone(), SystemRandom.number());
    options.limits = config.limits();
    // A command ends before it asks for anything twice.
    options.cache_bytes_max = 0;
    SqliteStore::open(&config.data, options)
}

/// Says what an operator can do about it.
pub(crate) fn advise(error: OpenError) -> anyhow::Error {
    match error {
        OpenError::NotADatabase { .. } => anyhow!(
            "{error}; nothing was changed: `kitbag restore FILE --replace` puts a backup in its \
             place"
        ),
        OpenError::Corrupt { .. } => anyhow!(
            "{error}; nothing was changed: `kitbag check` looks through it, and `kitbag restore \
             FILE --replace` puts a backup in its place"
        ),
        OpenError::Locked { .. } => {
            anyhow!("{error}; stop that first, or name another directory with --data")
        }
        OpenError::NewerFormat { .. } => {
            anyhow!("{error}; nothing was changed: take the Kitbag that wrote it, or a newer one")
        }
        error => error.into(),
    }
}
