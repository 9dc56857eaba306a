use thiserror::Error;

use super::{BoxFuture, StoreError, StoreInfo};
use crate::{
    Allowance, Content, DeviceId, Entry, EntryDescription, Expectation, Incarnation, Key, Live,
    Position, QuotaExceeded, Selector, Session, Subscription, TokenHash, UnixMs, UserId, Writer,
};

/// A session, and an entry that was read with it, where there is one.
pub type SessionAndEntry = (Session, Option<Entry>);

/// The entries of all users.
pub trait EntryStore: Send + Sync + 'static {
    /// Tells what the store is; costs nothing.
    fn info(&self) -> StoreInfo;

    /// Tells whether the store takes writes; costs nothing.
    ///
    /// False while the store mends a fault of its files: writes are answered as
    /// [`StoreError::Unavailable`] then, reads go on where they can. For the health of the server;
    /// no promise to the next write.
    fn takes_writes(&self) -> bool {
        true
    }

    /// Tells at once what [`EntryStore::get`] would find, its content, where that is in memory.
    ///
    /// `None` says nothing; `Some(None)` says that there is no such entry.
    fn peek(&self, _user: &UserId, _key: &Key) -> Option<Option<Content>> {
        None
    }

    /// Tells at once where the stream of `user` stands, where that is in memory.
    ///
    /// `None` says nothing. What is told is what a read that begins now would find at the least: no
    /// acknowledged change lies behind it.
    fn peek_head(&self, _user: &UserId) -> Option<Position> {
        None
    }

    /// Returns one live entry; `None` where there is none, it was deleted, or there is no such user.
    fn get(&self, user: &UserId, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>>;

    /// Returns the session of an access token and, in the same look, what [`EntryStore::get`] finds.
    ///
    /// For a request whose session is not in memory. `None` where there is no such session: the
    /// entry is not looked for then.
    fn get_in_session(
        &self,
        user: &UserId,
        access: TokenHash,
        key: &Key,
    ) -> BoxFuture<'_, Result<Option<SessionAndEntry>, StoreError>>;

    /// Returns the selected live entries of one user, in the order of their keys.
    fn list(
        &self,
        user: &UserId,
        selector: Selector,
    ) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>>;

    /// Returns the descriptions of up to `limit` of the selected live entries behind `after`, in the
    /// order of their keys. No content is read.
    ///
    /// An `after` need not be there any more, nor be selected.
    fn describe(
        &self,
        user: &UserId,
        selector: Selector,
        after: Option<Key>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<EntryDescription>, StoreError>>;

    /// Returns what changed for `user` behind `after`, and the head of the stream: one snapshot.
    ///
    /// Everything live where `after` is `None`, lies before the horizon of collected tombstones, or
    /// lies behind the head.
    fn changes(
        &self,
        user: &UserId,
        after: Option<Position>,
    ) -> BoxFuture<'_, Result<Changes, StoreError>>;

    /// Returns everything live of `user`, and the head of the stream: one snapshot.
    ///
    /// The same as [`EntryStore::changes`] without a position tells, packed.
    fn live(&self, user: &UserId) -> BoxFuture<'_, Result<Live, StoreError>>;

    /// Applies all of `ops` in one transaction, or none.
    ///
    /// Returns only when the changes will survive a loss of power, and after waiting subscriptions
    /// were woken.
    /// # Errors
    /// [`ApplyError::Refused`] for the first operation that is refused; nothing was changed then.
    fn apply(
        &self,
        user: &UserId,
        write: Write,
        ops: Vec<Op>,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>>;

    /// Reads an entry, lets `update` decide, and writes, in one transaction.
    ///
    /// For doors that change a part of a content. `update` must be quick and must not block: it
    /// runs while other writers wait.
    /// # Errors
    /// As [`EntryStore::apply`].
    fn update(
        &self,
        user: &UserId,
        write: Write,
        key: Key,
        update: UpdateFn,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>>;

    /// Starts to listen for changes of `user`.
    fn subscribe(&self, user: &UserId) -> Subscription;
}

/// The pure function of [`EntryStore::update`]: from the live entry to what becomes of it.
pub type UpdateFn = Box<dyn FnOnce(Option<&Entry>) -> Change + Send>;

/// Who writes, and under which condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Checked inside the transaction.
    pub guard: Guard,
    /// Recorded with each entry.
    pub writer: Writer,
    /// Recorded with each entry.
    pub at: UnixMs,
    /// Which part of the quota may be used.
    pub allowance: Allowance,
}

/// What must hold inside the transaction, so that no write outlives the session that sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// The account exists and is not deactivated.
    Account,
    /// The device exists in this very incarnation.
    Device(DeviceId, Incarnation),
}

/// One operation of [`EntryStore::apply`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Deletes an entry; where there is none nothing happens and no position is taken.
    Delete(Key),
    /// Replaces the content of an entry, provided that the expectation holds (MSC4547).
    Put(Key, Content, Expectation),
}

impl Op {
    /// Returns the key of the entry that the operation writes.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Delete(key) | Self::Put(key, ..) => key,
        }
    }
}

/// What an [`UpdateFn`] decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// The entry is deleted.
    Delete,
    /// Nothing is written and no position is taken.
    Keep,
    /// The content replaces what was there.
    Put(Content),
}

/// What was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// For each operation the position that it took; `None` where nothing was to be done.
    pub positions: Vec<Option<Position>>,
}

/// Why nothing was applied.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ApplyError {
    /// An operation is refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an operation is refused. Checked in this order, inside the transaction.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Refusal {
    /// The guard does not hold: the session, its device or the account is gone.
    #[error("the session has ended")]
    SessionGone,
    /// The key names a device that the user does not have.
    #[error("the user has no such device")]
    NoSuchDevice,
    /// The stored revision is not the expected one (MSC4547).
    #[error("the stored content has another revision")]
    Conflict {
        /// The stored content.
        current: Content,
    },
    /// The user's or the device's data would grow beyond the quota.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
}

/// What changed for one user, read in one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// Where the stream stands.
    pub head: Position,
    /// Whether these are all live entries, without tombstones, instead of the changes.
    pub is_full: bool,
    /// Each changed entry once, at its latest content, in the order of positions.
    pub entries: Vec<Entry>,
}
