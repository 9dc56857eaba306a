//! [`AccountStore`]: each call is one job of a reader or of the writer.

mod life;
mod read;
mod sessions;

use std::future::ready;
use std::sync::Arc;

use kitbag_domain::{
    Account, AccountStore, ApplyError, BoxFuture, Device, DeviceId, DeviceSelection,
    DeviceWithEntries, FilterError, Guard, KeptSession, Login, LoginError, NewAccount, Profile,
    ProfileField, RefreshError, RegisterError, Seen, Session, SessionTokens, StoreError, TokenHash,
    UserId, Write,
};

use crate::SqliteStore;
use crate::cache::{Item, Touched, Value};
use crate::error::Halt;
use crate::writer::{Tx, Weight};

impl SqliteStore {
    /// Queues a write that may change whatever belongs to `user`.
    fn change<T, E>(
        &self,
        user: &UserId,
        work: impl FnOnce(&mut Tx<'_>, &UserId) -> Result<T, Halt<E>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, E>>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let user = user.clone();
        self.writes.submit(Weight::default(), move |tx| {
            tx.touched = Touched::User(user.clone());
            work(tx, &user)
        })
    }
}

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
        let user = account.user.clone();
        self.change(&user, move |tx, _| {
            life::register(tx, &account, login.as_ref())
        })
    }

    fn login(&self, user: &UserId, login: Login) -> BoxFuture<'_, Result<(), LoginError>> {
        self.change(user, move |tx, user| sessions::login(tx, user, &login))
    }

    fn peek_session(&self, user: &UserId, access: TokenHash) -> Option<Option<KeptSession>> {
        self.cache.session(user, &access)
    }

    fn session(
        &self,
        user: &UserId,
        access: TokenHash,
    ) -> BoxFuture<'_, Result<Option<Session>, StoreError>> {
        let item = Item::Session(&access);
        let known = |value: &Value| value.session().map(Option::<&Session>::cloned);
        if let Some(known) = self.cache.look(user, &item, known) {
            return Box::pin(ready(Ok(known)));
        }
        let (user, cache) = (user.clone(), Arc::clone(&self.cache));
        self.reads.submit(move |connection| {
            let item = Item::Session(&access);
            let read = || read::session(connection, &user, access);
            cache.read_through(&user, &item, Value::Session, read)
        })
    }

    fn touch(
        &self,
        user: &UserId,
        access: TokenHash,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.change(user, move |tx, user| {
            sessions::touch(tx, user, access, &seen)
        })
    }

    fn refresh(
        &self,
        user: &UserId,
        refresh: TokenHash,
        tokens: SessionTokens,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), RefreshError>> {
        self.change(user, move |tx, user| {
            sessions::refresh(tx, user, refresh, &tokens, &seen)
        })
    }

    fn devices(&self, user: &UserId) -> BoxFuture<'_, Result<Vec<Device>, StoreError>> {
        let user = user.clone();
        self.reads
            .submit(move |connection| read::devices(connection, &user))
    }

    fn devices_with_entries(
        &self,
        user: &UserId,
        device: Option<DeviceId>,
    ) -> BoxFuture<'_, Result<Vec<DeviceWithEntries>, StoreError>> {
        let user = user.clone();
        self.reads.submit(move |connection| {
            read::devices_with_entries(connection, &user, device.as_ref())
        })
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
        let device = device.clone();
        self.change(user, move |tx, user| {
            life::rename_device(tx, user, &guard, &device, display_name.as_deref())
        })
    }

    fn remove_devices(
        &self,
        user: &UserId,
        write: Write,
        devices: DeviceSelection,
    ) -> BoxFuture<'_, Result<Vec<DeviceId>, ApplyError>> {
        self.change(user, move |tx, user| {
            life::remove_devices(tx, user, &write, &devices)
        })
    }

    fn set_password(
        &self,
        user: &UserId,
        write: Write,
        password_hash: String,
        logout: Option<DeviceSelection>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        self.change(user, move |tx, user| {
            life::set_password(tx, user, &write, &password_hash, logout.as_ref())
        })
    }

    fn deactivate(&self, user: &UserId, write: Write) -> BoxFuture<'_, Result<(), ApplyError>> {
        self.change(user, move |tx, user| life::deactivate(tx, user, &write))
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
        self.change(user, move |tx, user| {
            life::set_profile(tx, user, &guard, field, value.as_deref())
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
            ..Weight::default()
        };
        self.writes.submit(weight, move |tx| {
            tx.touched = Touched::User(user.clone());
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
