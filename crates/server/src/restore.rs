//! `kitbag restore`

use std::path::Path;

use anyhow::{Result, anyhow};
use kitbag_domain::Clock as _;
use kitbag_store_sqlite::{OpenError, RestoreError, Restored, Restoring, restore};

use crate::backup::size;
use crate::cli::RestoreArguments;
use crate::config::Config;
use crate::data;
use crate::output::say;
use crate::system::{SystemClock, SystemRandom, stamp};

pub(crate) fn run(arguments: &RestoreArguments) -> Result<()> {
    let config = Config::load(&arguments.config)?;
    let dir = &config.data;
    let restoring = Restoring {
        replace: arguments.replace,
        stamp: stamp(SystemClock.now_ms()),
        epoch_seed: SystemRandom.number(),
        server_name: data::given_server_name(&config)?,
    };
    let restored = restore(&arguments.file, dir, &restoring).map_err(advise)?;
    // It is done, whoever hears of it.
    say(text(dir, &restored).as_bytes()).ok();
    Ok(())
}

fn text(dir: &Path, restored: &Restored) -> String {
    let (bytes, server_name) = (size(restored.bytes), &restored.server_name);
    let dir = dir.display();
    let mut text = format!("restored {bytes} of server {server_name} into `{dir}`\n");
    if let Some(aside) = &restored.aside {
        let aside = aside.display();
        text += &format!(
            "The store that was there is kept as `{aside}`: remove it when you need it no more.\n"
        );
        text += "What was written since the backup is not in the new one.\n";
    }
    text += "Each client syncs in full, once.\n";
    text
}

fn advise(error: RestoreError) -> anyhow::Error {
    match error {
        RestoreError::Exists { .. } => {
            anyhow!("{error}; with --replace it is set aside, and the backup comes in its place")
        }
        RestoreError::InUse { .. } => {
            anyhow!("{error}; `kitbag backup` makes a backup of it")
        }
        RestoreError::OtherServer { .. } => {
            anyhow!(
                "{error}; to restore it nevertheless, name an empty directory with --data, and its \
                 own server with --server-name"
            )
        }
        RestoreError::Open(error @ OpenError::Locked { .. }) => {
            anyhow!("{error}; stop that first")
        }
        error => error.into(),
    }
}
