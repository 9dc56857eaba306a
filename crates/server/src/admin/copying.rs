//! A copy of the store that a thread makes, for whoever listens.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use kitbag_store_sqlite::{BackupError, Copied, Copying, Progress, SqliteStore, limit};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use super::Reply;
use crate::backup;

/// A copy that is to be made.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Order {
    /// Where to: an absolute path.
    pub(crate) file: String,
    /// Whether a file of that name may be replaced.
    pub(crate) replace: bool,
    /// Whether it is looked through before it gets its name.
    pub(crate) verify: bool,
}

/// How far it is.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Serialize)]
#[serde(tag = "far", rename_all = "snake_case")]
pub(crate) enum Far {
    /// So much was copied.
    Copying { bytes: u64, of: u64 },
    /// So many devices were counted.
    Counting { devices: u64 },
    /// All was copied, and is being looked through.
    Verifying,
}

impl From<Progress> for Far {
    fn from(progress: Progress) -> Self {
        match progress {
            Progress::Copying { pages, of } => Self::Copying {
                bytes: pages * limit::PAGE_BYTES,
                of: of * limit::PAGE_BYTES,
            },
            Progress::Verifying => Self::Verifying,
        }
    }
}

/// A copying under way.
pub(crate) struct Started {
    /// How far it is; where this is dropped, the copying is given up.
    pub(crate) told: watch::Receiver<Far>,
    /// How it ended.
    pub(crate) ended: JoinHandle<Reply>,
}

/// Hears how far it is, and may give it up.
type Tell<'a> = dyn FnMut(Progress) -> ControlFlow<()> + 'a;

/// Starts to copy, on a thread that may block.
pub(crate) fn start(store: Arc<SqliteStore>, order: Order) -> Started {
    start_with(order, move |to, copying, progress| {
        store.backup(to, copying, progress).map_err(backup::advise)
    })
}

/// Starts to copy by `copy`, on a thread that may block.
pub(crate) fn start_with(
    order: Order,
    copy: impl FnOnce(&Path, Copying, &mut Tell<'_>) -> Result<Copied> + Send + 'static,
) -> Started {
    let (tell, told) = watch::channel(Far::Copying { bytes: 0, of: 0 });
    let ended = spawn_blocking(move || {
        let copying = Copying {
            replace: order.replace,
            verify: order.verify,
        };
        let copied = copy(Path::new(&order.file), copying, &mut |progress| match tell
            .send(progress.into())
        {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        });
        match copied {
            Ok(copied) => Reply::BackedUp {
                bytes: copied.bytes,
            },
            Err(error) => failed(&error),
        }
    });
    Started { told, ended }
}

fn failed(error: &anyhow::Error) -> Reply {
    // With the whole chain of causes.
    let text = format!("{error:#}");
    match error.downcast_ref() {
        Some(BackupError::Damaged { reason, .. }) => Reply::Damaged {
            error: text,
            reason: reason.clone(),
        },
        _ => Reply::Failed { error: text },
    }
}
