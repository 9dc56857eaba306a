//! What lies below the service: three traits of whole operations over plain data.
//!
//! A call is atomic and touches the rows of one user; [`DeviceDataStore`] alone reads across users. No
//! transaction object leaks out, absence is
//! `Option`, order is a [`Position`](crate::Position). What an implementation must promise, and the suite
//! `testkit::store_suite!` checks, are the laws of ARCHITECTURE.md; each method's documentation
//! says its part.

mod accounts;
mod device_data;
mod entries;
mod kept;
mod live;

use std::future::Future;
use std::pin::Pin;

use thiserror::Error;

pub use accounts::{
    Account, AccountStore, Device, DeviceSelection, DeviceWithEntries, FilterError, Login,
    LoginError, NewAccount, Profile, ProfileField, RefreshError, RegisterError, Seen, Session,
    SessionTokens,
};
pub use device_data::{
    DeviceChange, DeviceChanges, DeviceDataStore, DeviceEntry, DevicePlace, FeedPosition,
};
pub use entries::{
    Applied, ApplyError, Change, Changes, EntryStore, Guard, Op, Refusal, SessionAndEntry,
    UpdateFn, Write,
};
pub use kept::{KeptSession, SessionChanges};
pub use live::{Live, LiveEntry, ScopeRef};

/// A future that a trait object can return.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Everything that the standalone server keeps.
pub trait Store: EntryStore + AccountStore + DeviceDataStore {}

impl<S: EntryStore + AccountStore + DeviceDataStore> Store for S {}

/// Why a store could not answer. Never "not found": absence is not an error.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum StoreError {
    /// The stored bytes are not what the store wrote.
    #[error("the store holds damaged data: {0}")]
    Corrupt(String),
    /// A write was begun and its end is not known: it may or may not be there.
    #[error("the outcome of the write is unknown: {0}")]
    OutcomeUnknown(String),
    /// Too much is queued; nothing was done.
    #[error("the store is overloaded")]
    Overloaded,
    /// The store cannot work at present; nothing was done.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
}

/// What a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreInfo {
    /// Drawn when the store was made or restored; part of each sync token.
    pub epoch: u64,
}
