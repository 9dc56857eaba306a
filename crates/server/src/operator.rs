//! How a command of the operator is carried out: by the running server, or here where none runs.

use std::cell::OnceCell;
use std::pin::pin;
use std::sync::Arc;

use anyhow::{Result, bail};
use bytes::Bytes;
use kitbag_http::Passwords;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::admin::copying::Far;
use crate::admin::data::{After, DataCommand};
use crate::admin::{AccountCommand, Admin, Reply, socket};
use crate::config::Config;
use crate::data;
use crate::output::is_heard;
use crate::system::{SystemClock, SystemRandom};
use crate::table::Table;

/// What is said of an answer that does not fit the command.
pub(crate) const UNEXPECTED: &str = "the server gave an unexpected answer";

pub(crate) struct Operator {
    config: Config,
    /// The store, opened by the first command that no server took: it stays locked then.
    here: OnceCell<Here>,
}

struct Here {
    runtime: Runtime,
    admin: Admin,
}

impl Operator {
    pub(crate) fn new(config: Config) -> Self {
        let here = OnceCell::new();
        Self { config, here }
    }

    /// Carries out a command that concerns accounts.
    pub(crate) fn accounts(&self, command: AccountCommand) -> Result<Reply> {
        let dir = &self.config.data;
        if self.here.get().is_none() {
            if let Some(reply) = socket::send(dir, &command)? {
                return Ok(reply);
            }
            let is_adding = matches!(command, AccountCommand::AddUser { .. });
            if !dir.try_exists().unwrap_or(false) && !is_adding {
                bail!(
                    "there is no data directory `{}`; name it with --data",
                    dir.display()
                );
            }
        }
        let Here { runtime, admin } = self.here()?;
        Ok(runtime.block_on(admin.run(command)))
    }

    /// Carries out a command that concerns data, `content` being what follows it; `tell`s how far a
    /// long one is.
    /// # Errors
    /// With what it was refused for, too.
    pub(crate) fn data(
        &self,
        command: DataCommand,
        content: Bytes,
        tell: impl FnMut(Far),
    ) -> Result<Reply> {
        match self.exchange(command, content, tell)? {
            Reply::Failed { error } => bail!(error),
            reply => Ok(reply),
        }
    }

    /// Prints all rows of a list: each as it came, or as cells of a table. Tells whether there are any.
    ///
    /// Ends where nobody reads on.
    pub(crate) fn print_rows<const COLUMNS: usize>(
        &self,
        command: impl Fn(Option<After>) -> DataCommand,
        is_json: bool,
        mut table: Table<COLUMNS>,
        cells: impl Fn(&str) -> Result<[String; COLUMNS]>,
    ) -> Result<bool> {
        let ask = |after| self.data(command(after), Bytes::new(), |_| {});
        go_through(ask, |rows| {
            let text = if is_json {
                rows.iter().map(|row| format!("{row}\n")).collect()
            } else {
                let rows: Result<Vec<_>> = rows.iter().map(|row| cells(row)).collect();
                table.lines(&rows?)
            };
            Ok(is_heard(text.as_bytes())?)
        })
    }

    fn exchange(
        &self,
        command: DataCommand,
        content: Bytes,
        mut tell: impl FnMut(Far),
    ) -> Result<Reply> {
        if self.here.get().is_none() {
            let dir = &self.config.data;
            if let Some(reply) = socket::exchange(dir, &command, &content, &mut tell)? {
                return Ok(reply);
            }
            data::check_there(&self.config)?;
        }
        let Here { runtime, admin } = self.here()?;
        Ok(runtime.block_on(async {
            let (tells, mut told) = watch::channel(Far::Counting { devices: 0 });
            let mut running = pin!(admin.look_after(command, content, &tells));
            loop {
                tokio::select! {
                    biased;
                    reply = &mut running => return reply,
                    Ok(()) = told.changed() => tell(*told.borrow()),
                }
            }
        }))
    }

    /// Returns the store opened here.
    fn here(&self) -> Result<&Here> {
        if let Some(here) = self.here.get() {
            return Ok(here);
        }
        let (store, server_name) = data::open(&self.config)?;
        let parallel = self.config.passwords.parallel.get();
        let passwords = Passwords::new(parallel, Arc::new(SystemRandom))?;
        let (store, clock) = (Arc::new(store), Arc::new(SystemClock));
        let admin = Admin::new(store, clock, passwords, server_name, &self.config);
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.enable_all().build()?;
        Ok(self.here.get_or_init(|| Here { runtime, admin }))
    }
}

/// Asks for page after page and prints each, until the last one or until nobody reads on. Tells
/// whether there were rows.
fn go_through(
    mut ask: impl FnMut(Option<After>) -> Result<Reply>,
    mut print: impl FnMut(&[String]) -> Result<bool>,
) -> Result<bool> {
    let (mut after, mut is_any) = (None, false);
    loop {
        let Reply::Rows { rows, after: next } = ask(after)? else {
            bail!(UNEXPECTED);
        };
        is_any |= !rows.is_empty();
        let is_heard = print(&rows)?;
        if !is_heard || next.is_none() {
            return Ok(is_any);
        }
        after = next;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_more_is_asked_for_where_nobody_reads_on() {
        for (heard_pages, expected) in [(1, 2), (9, 3)] {
            let (mut asked, mut printed) = (0, 0);
            let ask = |_| {
                asked += 1;
                let device = After::Device {
                    user: String::new(),
                    device: String::new(),
                };
                let after = (asked < 3).then_some(device);
                let rows = vec!["{}".to_owned()];
                Ok(Reply::Rows { rows, after })
            };
            let print = |_: &[String]| {
                printed += 1;
                Ok(printed <= heard_pages)
            };
            assert!(go_through(ask, print).unwrap());
            assert_eq!(asked, expected, "{heard_pages}");
        }
    }
}
