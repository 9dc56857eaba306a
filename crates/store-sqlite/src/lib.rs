//! The embedded store of Kitbag: SQLite in one directory, durable before it acknowledges.
//!
//! One thread writes and commits whatever queued while the last fsync ran ([`writer`]); a few
//! threads read, each on a connection of its own ([`readers`]); one thread keeps the write-ahead
//! log small ([`checkpoint`]). The file format stands in [`format`].
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
mod checkpoint;
mod connections;
mod entries;
mod error;
mod format;
mod open;
mod options;
mod readers;
mod rows;
mod store;
mod writer;

pub use open::OpenError;
pub use options::{Durability, Options, limit};
pub use store::{SqliteStore, Stats};
