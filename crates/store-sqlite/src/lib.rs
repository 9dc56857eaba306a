//! The embedded store of Kitbag: SQLite in one directory, durable before it acknowledges.
//!
//! One thread writes and commits whatever queued while the last fsync ran (`writer.rs`); a few
//! threads read, each on a connection of its own (`readers.rs`); one keeps the write-ahead log
//! small (`checkpoint.rs`). The file format stands in `format.rs`. [`SqliteStore`] implements
//! `EntryStore` and `AccountStore` of the domain.
//!
//! ```
//! use kitbag_domain::{AccountStore as _, ServerName, UserId};
//! use kitbag_store_sqlite::{Options, SqliteStore};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let options = Options::new(ServerName::parse("localhost")?, 1);
//! let store = SqliteStore::ephemeral(options)?;
//! let nobody = UserId::parse("@nobody:localhost")?;
//! assert_eq!(store.account(&nobody).await?, None);
//! # Ok(())
//! # }
//! ```
#![warn(missing_docs)]

mod accounts;
mod backup;
mod cache;
pub mod check;
mod checkpoint;
mod connections;
mod copy;
mod device_data;
mod entries;
mod error;
mod feed;
mod files;
mod format;
mod lock;
mod open;
mod options;
mod readers;
mod restore;
mod rewrite;
mod rows;
mod seldom;
mod stats;
mod store;
mod writer;

pub use backup::{BackupError, Copied, Copying, Progress, backup_closed};
pub use open::{OpenError, has_store};
pub use options::{Durability, FileOpener, Observer, Options, Step, limit};
pub use restore::{RestoreError, Restored, Restoring, restore};
#[doc(hidden)]
pub use rewrite::RawFile;
pub use stats::{AccountUsage, Stats};
pub use store::SqliteStore;
