//! [`AccountStore`]: each call is one job of a reader or of the writer.

mod life;
mod read;
mod sessions;

use std::sync::Arc;

use kitbag_domain::{
    Account, AccountStore, ApplyError, BoxFuture, Device, DeviceId, DeviceSelection, FilterError,
    Guard, Login, LoginError, NewAccount, Profile, ProfileField, RefreshError, RegisterError, Seen,
    Session, SessionTokens, StoreError, TokenHash, UserId, Write,
};

use crate::SqliteStore;
use crate::writer::Weight;

impl AccountStore for SqliteStore {
    fn account(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Account>, StoreError>> {
        let user = user.clone();
        self.reads
            .submit(move |connection| read::account(connection, &user))
    }

    fn accounts(
        &self,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Account>, StoreError>> {
        self.reads
            .submit(move |connection| read::accounts(connection, after.as_ref(), limit))
    }

    fn register(
        &self,
        account: NewAccount,
        login: Option<Login>,
    ) -> BoxFuture<'_, Result<(), RegisterError>> {
        self.writes.submit(Weight::default(), move |tx| {
            life::register(tx, &account, login.as_ref())
        })
    }

    fn login(&self, user: &UserId, login: Login) -> BoxFuture<'_, Result<(), LoginError>> {
        let user = user.clone();
        self.writes.submit(Weight::default(), move |tx| {
            sessions::login(tx, &user, &login)
        })
    }

    fn session(
        &self,
        user: &UserId,
        access: TokenHash,
    ) -> BoxFuture<'_, Result<Option<Session>, StoreError>> {
        let user = user.clone();
        self.reads
            .submit(move |connection| read::session(connection, &user, access))
    }

    fn touch(
        &self,
        user: &UserId,
        access: TokenHash,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let user = user.clone();
        self.writes.submit(Weight::default(), move |tx| {
            sessions::touch(tx, &user, access, &seen)
        })
    }

    fn refresh(
        &self,
        user: &UserId,
        refresh: TokenHash,
        tokens: SessionTokens,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), RefreshError>> {
        let user = user.clone();
        self.writes.submit(Weight::default(), move |tx| {
            sessions::refresh(tx, &user, refresh, &tokens, &seen)
        })
    }

    fn devices(&self, user: &UserId) -> BoxFuture<'_, Result<Vec<Device>, StoreError>> {
        let user = user.clone();
        self.reads
            .submit(move |connection| read::devices(connection, &user))
    }

    fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> BoxFuture<'_, Result<Option<Device>, StoreError>> {
        let (user, device) = (user.clone(), device.clone());
        self.reads
            .submit(move |connection| read::device(connection, &user, &device))
    }

    fn rename_device(
        &self,
        user: &UserId,
        guard: Guard,
        device: &DeviceId,
        display_name: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        let (user, device) = (user.clone(), device.clone());
        self.writes.submit(Weight::default(), move |tx| {
            life::rename_device(tx, &user, &guard, &device, display_name.as_deref())
        })
    }

    fn remove_devices(
        &self,
        user: &UserId,
        write: Write,
        devices: DeviceSelection,
    ) -> BoxFuture<'_, Result<Vec<DeviceId>, ApplyError>> {
        let user = user.clone();
        self.writes.submit(Weight::default(), move |tx| {
            life::remove_devices(tx, &user, &write, &devices)
        })
    }

    fn set_password(
        &self,
        user: &UserId,
        write: Write,
        password_hash: String,
        logout: Option<DeviceSelection>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        let user = user.clone();
        self.writes.submit(Weight::default(), move |tx| {
            life::set_password(tx, &user, &write, &password_hash, logout.as_ref())
        })
    }

    fn deactivate(&self, user: &UserId, write: Write) -> BoxFuture<'_, Result<(), ApplyError>> {
        let user = user.clone();
        self.writes.submit(Weight::default(), move |tx| {
            life::deactivate(tx, &user, &write)
        })
    }

    fn profile(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Profile>, StoreError>> {
        let user = user.clone();
        self.reads
            .submit(move |connection| read::profile(connection, &user))
    }

    fn set_profile(
        &self,
        user: &UserId,
        guard: Guard,
        field: ProfileField,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        let user = user.clone();
        self.writes.submit(Weight::default(), move |tx| {
            life::set_profile(tx, &user, &guard, field, value.as_deref())
        })
    }

    fn add_filter(
        &self,
        user: &UserId,
        guard: Guard,
        filter: String,
    ) -> BoxFuture<'_, Result<u64, FilterError>> {
        let user = user.clone();
        let weight = Weight {
            bytes: filter.len() as u64,
            needs_savepoint: false,
        };
        self.writes.submit(weight, move |tx| {
            life::add_filter(tx, &user, &guard, &filter)
        })
    }

    fn filter(
        &self,
        user: &UserId,
        id: u64,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        let user = user.clone();
        self.reads
            .submit(move |connection| read::filter(connection, &user, id))
    }
}
