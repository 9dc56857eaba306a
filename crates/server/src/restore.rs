//! `kitbag restore`

use anyhow::{Result, anyhow};
use kitbag_domain::Clock as _;
use kitbag_store_sqlite::{OpenError, RestoreError, Restoring, restore};

use crate::backup::size;
use crate::cli::RestoreArguments;
use crate::config::Config;
use crate::system::{SystemClock, SystemRandom, stamp};

pub(crate) fn run(arguments: &RestoreArguments) -> Result<()> {
    let dir = Config::load(&arguments.config)?.data;
    let restoring = Restoring {
        replace: arguments.replace,
        stamp: stamp(SystemClock.now_ms()),
        epoch_seed: SystemRandom.number(),
    };
    let restored = restore(&arguments.file, &dir, &restoring).map_err(advise)?;
    println!(
        "restored {} of server {} into `{}`",
        size(restored.bytes),
        restored.server_name,
        dir.display()
    );
    if let Some(aside) = restored.aside {
        println!(
            "The store that was there is kept as `{}`: remove it when you need it no more.",
            aside.display()
        );
    }
    println!("What was written since the backup is not in it; each client syncs in full, once.");
    Ok(())
}

fn advise(error: RestoreError) -> anyhow::Error {
    match error {
        RestoreError::Exists { .. } => {
            anyhow!("{error}; with --replace it is set aside, and the backup comes in its place")
        }
        RestoreError::InUse { .. } => {
            anyhow!("{error}; `kitbag backup` makes a backup of it")
        }
        RestoreError::Open(error @ OpenError::Locked { .. }) => {
            anyhow!("{error}; stop that first")
        }
        error => error.into(),
    }
}
