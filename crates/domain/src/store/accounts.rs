use std::collections::HashMap;
use std::sync::Arc;

use thiserror::Error;

use super::{ApplyError, BoxFuture, Guard, KeptSession, StoreError, Write};
use crate::{DeviceId, Entry, Incarnation, TokenHash, UnixMs, Usage, UserId};

/// Accounts, their devices and sessions, profiles and filters.
pub trait AccountStore: Send + Sync + 'static {
    /// Returns one account, deactivated ones too.
    fn account(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Account>, StoreError>>;

    /// Returns up to `limit` accounts in the order of their IDs, those behind `after`.
    fn accounts(
        &self,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Account>, StoreError>>;

    /// Creates an account and, where asked for, its first device and session.
    fn register(
        &self,
        account: NewAccount,
        login: Option<Login>,
    ) -> BoxFuture<'_, Result<(), RegisterError>>;

    /// Starts a session: makes the device or takes the existing one, whose old tokens die.
    ///
    /// An existing device keeps its incarnation, its entries and its display name.
    fn login(&self, user: &UserId, login: Login) -> BoxFuture<'_, Result<(), LoginError>>;

    /// Answers [`AccountStore::session`] at once where the answer is in memory; `None` says nothing.
    ///
    /// The caller may keep the answer, and ask that instead.
    fn peek_session(&self, _user: &UserId, _access: TokenHash) -> Option<Option<KeptSession>> {
        None
    }

    /// Returns the session of an access token, expired ones too.
    fn session(
        &self,
        user: &UserId,
        access: TokenHash,
    ) -> BoxFuture<'_, Result<Option<Session>, StoreError>>;

    /// Notes that a session was used: remembers where from, and ends the tokens that it replaced.
    ///
    /// Nothing happens where the session has ended.
    fn touch(
        &self,
        user: &UserId,
        access: TokenHash,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Replaces the tokens of a session.
    ///
    /// The old ones stay valid until one of the new ones is used; a second refresh with the same
    /// old token replaces the unused new ones, so a client that missed an answer can ask again.
    fn refresh(
        &self,
        user: &UserId,
        refresh: TokenHash,
        tokens: SessionTokens,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), RefreshError>>;

    /// Returns the devices of a user in the order of their IDs.
    fn devices(&self, user: &UserId) -> BoxFuture<'_, Result<Vec<Device>, StoreError>>;

    /// Returns the devices of a user, or one of them, each with its live entries: one snapshot.
    ///
    /// In the order of their IDs, and the entries in that of their keys.
    fn devices_with_entries(
        &self,
        user: &UserId,
        device: Option<DeviceId>,
    ) -> BoxFuture<'_, Result<Vec<DeviceWithEntries>, StoreError>>;

    /// Returns one device.
    fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> BoxFuture<'_, Result<Option<Device>, StoreError>>;

    /// Sets the display name of a device.
    /// # Errors
    /// `Refused(SessionGone)` by the guard, `Refused(NoSuchDevice)`.
    fn rename_device(
        &self,
        user: &UserId,
        guard: Guard,
        device: &DeviceId,
        display_name: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>>;

    /// Removes devices with their sessions and entries (law 6), and the entries that name them
    /// (MSC3890), in one transaction.
    ///
    /// Entries become tombstones. Takes a position even where no entry was dropped, so that waiting
    /// syncs look whether their session lives. Returns the devices that existed.
    /// # Errors
    /// `Refused(SessionGone)` by the guard.
    fn remove_devices(
        &self,
        user: &UserId,
        write: Write,
        devices: DeviceSelection,
    ) -> BoxFuture<'_, Result<Vec<DeviceId>, ApplyError>>;

    /// Replaces the password hash and removes the selected devices, in one transaction.
    /// # Errors
    /// `Refused(SessionGone)` by the guard.
    fn set_password(
        &self,
        user: &UserId,
        write: Write,
        password_hash: String,
        logout: Option<DeviceSelection>,
    ) -> BoxFuture<'_, Result<(), ApplyError>>;

    /// Ends an account: removes its devices, sessions, entries, filters, profile and password.
    ///
    /// The user ID stays taken. No tombstones are left, so nothing tells what there was: a token from
    /// before lies before the horizon.
    /// # Errors
    /// `Refused(SessionGone)` by the guard.
    fn deactivate(&self, user: &UserId, write: Write) -> BoxFuture<'_, Result<(), ApplyError>>;

    /// Returns the profile; `None` where there is no such account or it is deactivated.
    fn profile(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Profile>, StoreError>>;

    /// Sets or, with `None`, removes one field of the profile.
    /// # Errors
    /// `Refused(SessionGone)` by the guard.
    fn set_profile(
        &self,
        user: &UserId,
        guard: Guard,
        field: ProfileField,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>>;

    /// Keeps a filter and returns its number; an equal one is kept once.
    fn add_filter(
        &self,
        user: &UserId,
        guard: Guard,
        filter: String,
    ) -> BoxFuture<'_, Result<u64, FilterError>>;

    /// Returns a filter.
    fn filter(&self, user: &UserId, id: u64)
    -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>>;
}

/// One account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Its user ID.
    pub user: UserId,
    /// The password in PHC form; `None` once deactivated.
    pub password_hash: Option<String>,
    /// When it was made.
    pub created_at: UnixMs,
    /// When it was deactivated.
    pub deactivated_at: Option<UnixMs>,
    /// How many devices it has.
    pub devices: u64,
    /// What its live entries count.
    pub usage: Usage,
}

/// An account to be made.
#[derive(Clone, PartialEq, Eq)]
pub struct NewAccount {
    /// Its user ID.
    pub user: UserId,
    /// The password in PHC form.
    pub password_hash: String,
    /// When it is made.
    pub at: UnixMs,
}

/// A session to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// The password hash that the caller verified; refused if it was changed since.
    pub verified_hash: String,
    /// The device, new or existing.
    pub device: DeviceId,
    /// The display name of a new device.
    pub display_name: Option<String>,
    /// The tokens of the session.
    pub tokens: SessionTokens,
    /// When and where from.
    pub seen: Seen,
}

/// The tokens of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionTokens {
    /// The access token.
    pub access: TokenHash,
    /// When the access token ends; `None` is never.
    pub access_expires_at: Option<UnixMs>,
    /// The refresh token, if the client can use one.
    pub refresh: Option<TokenHash>,
}

/// When and where from a session was used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// When.
    pub at: UnixMs,
    /// The client's address.
    pub ip: Option<String>,
    /// What the client called itself.
    pub user_agent: Option<Arc<str>>,
}

/// A session, as found by its access token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Its device.
    pub device: DeviceId,
    /// Which device of that ID.
    pub incarnation: Incarnation,
    /// When the access token ends; `None` is never.
    pub expires_at: Option<UnixMs>,
    /// When the device was last noted to be in use.
    pub last_seen_at: UnixMs,
    /// Whether older tokens are still valid, which the first use ends; see [`AccountStore::touch`].
    pub replaces_others: bool,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its ID.
    pub id: DeviceId,
    /// Which device of that ID.
    pub incarnation: Incarnation,
    /// Its name for people.
    pub display_name: Option<String>,
    /// When, where from and by what it was last noted to be in use.
    pub seen: Seen,
}

/// A device and its account data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceWithEntries {
    /// The device.
    pub device: Device,
    /// Its live entries.
    pub entries: Vec<Entry>,
}

impl DeviceWithEntries {
    /// Gives each device its own of the entries, which were read with them.
    #[must_use]
    pub fn of(devices: Vec<Device>, entries: Vec<Entry>) -> Vec<Self> {
        let mut by_device: HashMap<_, Vec<Entry>> = HashMap::new();
        for entry in entries {
            if let Some(id) = entry.key.scope.device().cloned() {
                by_device.entry(id).or_default().push(entry);
            }
        }
        let devices = devices.into_iter().map(|device| Self {
            entries: by_device.remove(&device.id).unwrap_or_default(),
            device,
        });
        devices.collect()
    }
}

/// Which devices of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSelection {
    /// All of them.
    All,
    /// All but one.
    AllExcept(DeviceId),
    /// Those named; unknown ones are passed over.
    These(Vec<DeviceId>),
}

impl DeviceSelection {
    /// Tells whether `device` is selected.
    #[must_use]
    pub fn contains(&self, device: &DeviceId) -> bool {
        match self {
            Self::All => true,
            Self::AllExcept(kept) => kept != device,
            Self::These(devices) => devices.contains(device),
        }
    }
}

/// What others may know of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// The name for people.
    pub displayname: Option<String>,
    /// The picture, an `mxc://` URI.
    pub avatar_url: Option<String>,
}

/// A field of [`Profile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProfileField {
    /// [`Profile::avatar_url`].
    AvatarUrl,
    /// [`Profile::displayname`].
    Displayname,
}

/// Why an account was not made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RegisterError {
    /// The user ID is taken, perhaps by a deactivated account.
    #[error("the user ID is taken")]
    UserInUse,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a session was not started.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LoginError {
    /// The account has as many devices as allowed.
    #[error("the account has {limit} devices, which is its limit")]
    TooManyDevices {
        /// The limit.
        limit: u64,
    },
    /// The password is not the verified one any more, or the account is gone.
    #[error("the password was changed meanwhile")]
    PasswordChanged,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why tokens were not replaced.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RefreshError {
    /// The refresh token is not (or no longer) valid.
    #[error("the refresh token is not valid")]
    UnknownToken,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a filter was not kept.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FilterError {
    /// The guard does not hold.
    #[error("the session has ended")]
    SessionGone,
    /// The user has as many filters as allowed.
    #[error("the account has {limit} filters, which is its limit")]
    TooMany {
        /// The limit.
        limit: u64,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
