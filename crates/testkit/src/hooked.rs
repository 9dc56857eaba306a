//! A store that does something before and after each call of another one.

use std::sync::Arc;

use kitbag_domain::{
    Account, AccountStore, Applied, ApplyError, BoxFuture, Changes, Device, DeviceChanges,
    DeviceDataStore, DeviceEntry, DeviceId, DevicePlace, DeviceSelection, DeviceSubscription,
    DeviceWithEntries, Entry, EntryDescription, EntryStore, EventType, FeedPosition, FilterError,
    Guard, Key, Live, Login, LoginError, NewAccount, Op, Position, Profile, ProfileField,
    RefreshError, RegisterError, Seen, Selector, Session, SessionAndEntry, SessionTokens, Store,
    StoreError, StoreInfo, Subscription, TokenHash, UpdateFn, UserId, Write,
};

/// What is done around the calls of a store, by the names of their methods.
pub trait Hook: Send + Sync + 'static {
    /// Called first; an error is what the caller gets, and the store is not asked.
    fn before(&self, method: &'static str) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Called once the store has answered.
    fn after(&self, method: &'static str) -> BoxFuture<'_, ()> {
        let _ = method;
        Box::pin(async {})
    }
}

/// Hands everything on to another store, with a hook around each call that reads or writes.
///
/// It knows nothing at once (`peek`), so that every look comes by the hook; heads of streams only
/// where it is told to.
pub struct HookedStore<H> {
    store: Arc<dyn Store>,
    tells_heads: bool,
    /// The hook.
    pub hook: H,
}

impl<H: Hook> HookedStore<H> {
    /// Returns a store over `store`.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, hook: H) -> Self {
        Self {
            store,
            tells_heads: false,
            hook,
        }
    }

    /// Lets `peek_head` through, past the hook.
    #[must_use]
    pub fn telling_heads(self) -> Self {
        Self {
            tells_heads: true,
            ..self
        }
    }

    fn call<'a, T: Send + 'a, E: From<StoreError> + Send + 'a>(
        &'a self,
        method: &'static str,
        call: impl FnOnce(&'a dyn Store) -> BoxFuture<'a, Result<T, E>> + Send + 'a,
    ) -> BoxFuture<'a, Result<T, E>> {
        Box::pin(async move {
            self.hook.before(method).await?;
            let answer = call(&*self.store).await;
            self.hook.after(method).await;
            answer
        })
    }
}

impl<H: Hook> EntryStore for HookedStore<H> {
    fn info(&self) -> StoreInfo {
        self.store.info()
    }

    fn takes_writes(&self) -> bool {
        self.store.takes_writes()
    }

    fn peek_head(&self, user: &UserId) -> Option<Position> {
        self.store.peek_head(user).filter(|_| self.tells_heads)
    }

    fn get(&self, user: &UserId, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        let (user, key) = (user.clone(), key.clone());
        self.call("get", move |store| store.get(&user, &key))
    }

    fn get_in_session(
        &self,
        user: &UserId,
        access: TokenHash,
        key: &Key,
    ) -> BoxFuture<'_, Result<Option<SessionAndEntry>, StoreError>> {
        let (user, key) = (user.clone(), key.clone());
        self.call("get_in_session", move |store| {
            store.get_in_session(&user, access, &key)
        })
    }

    fn list(
        &self,
        user: &UserId,
        selector: Selector,
    ) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        let user = user.clone();
        self.call("list", move |store| store.list(&user, selector))
    }

    fn describe(
        &self,
        user: &UserId,
        selector: Selector,
        after: Option<Key>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<EntryDescription>, StoreError>> {
        let user = user.clone();
        self.call("describe", move |store| {
            store.describe(&user, selector, after, limit)
        })
    }

    fn changes(
        &self,
        user: &UserId,
        after: Option<Position>,
    ) -> BoxFuture<'_, Result<Changes, StoreError>> {
        let user = user.clone();
        self.call("changes", move |store| store.changes(&user, after))
    }

    fn live(&self, user: &UserId) -> BoxFuture<'_, Result<Live, StoreError>> {
        let user = user.clone();
        self.call("live", move |store| store.live(&user))
    }

    fn apply(
        &self,
        user: &UserId,
        write: Write,
        ops: Vec<Op>,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>> {
        let user = user.clone();
        self.call("apply", move |store| store.apply(&user, write, ops))
    }

    fn update(
        &self,
        user: &UserId,
        write: Write,
        key: Key,
        update: UpdateFn,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>> {
        let user = user.clone();
        self.call("update", move |store| {
            store.update(&user, write, key, update)
        })
    }

    fn subscribe(&self, user: &UserId) -> Subscription {
        self.store.subscribe(user)
    }
}

impl<H: Hook> DeviceDataStore for HookedStore<H> {
    fn device_entries(
        &self,
        event_type: &EventType,
        after: Option<DevicePlace>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<DeviceEntry>, StoreError>> {
        let event_type = event_type.clone();
        self.call("device_entries", move |store| {
            store.device_entries(&event_type, after, limit)
        })
    }

    fn device_changes(
        &self,
        after: Option<FeedPosition>,
        limit: usize,
    ) -> BoxFuture<'_, Result<DeviceChanges, StoreError>> {
        self.call("device_changes", move |store| {
            store.device_changes(after, limit)
        })
    }

    fn subscribe_to_devices(&self) -> DeviceSubscription {
        self.store.subscribe_to_devices()
    }
}

impl<H: Hook> AccountStore for HookedStore<H> {
    fn account(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Account>, StoreError>> {
        let user = user.clone();
        self.call("account", move |store| store.account(&user))
    }

    fn accounts(
        &self,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Account>, StoreError>> {
        self.call("accounts", move |store| store.accounts(after, limit))
    }

    fn register(
        &self,
        account: NewAccount,
        login: Option<Login>,
    ) -> BoxFuture<'_, Result<(), RegisterError>> {
        self.call("register", move |store| store.register(account, login))
    }

    fn login(&self, user: &UserId, login: Login) -> BoxFuture<'_, Result<(), LoginError>> {
        let user = user.clone();
        self.call("login", move |store| store.login(&user, login))
    }

    fn session(
        &self,
        user: &UserId,
        access: TokenHash,
    ) -> BoxFuture<'_, Result<Option<Session>, StoreError>> {
        let user = user.clone();
        self.call("session", move |store| store.session(&user, access))
    }

    fn touch(
        &self,
        user: &UserId,
        access: TokenHash,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let user = user.clone();
        self.call("touch", move |store| store.touch(&user, access, seen))
    }

    fn refresh(
        &self,
        user: &UserId,
        refresh: TokenHash,
        tokens: SessionTokens,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), RefreshError>> {
        let user = user.clone();
        self.call("refresh", move |store| {
            store.refresh(&user, refresh, tokens, seen)
        })
    }

    fn devices(&self, user: &UserId) -> BoxFuture<'_, Result<Vec<Device>, StoreError>> {
        let user = user.clone();
        self.call("devices", move |store| store.devices(&user))
    }

    fn devices_with_entries(
        &self,
        user: &UserId,
        device: Option<DeviceId>,
    ) -> BoxFuture<'_, Result<Vec<DeviceWithEntries>, StoreError>> {
        let user = user.clone();
        self.call("devices_with_entries", move |store| {
            store.devices_with_entries(&user, device)
        })
    }

    fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> BoxFuture<'_, Result<Option<Device>, StoreError>> {
        let (user, device) = (user.clone(), device.clone());
        self.call("device", move |store| store.device(&user, &device))
    }

    fn rename_device(
        &self,
        user: &UserId,
        guard: Guard,
        device: &DeviceId,
        display_name: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        let (user, device) = (user.clone(), device.clone());
        self.call("rename_device", move |store| {
            store.rename_device(&user, guard, &device, display_name)
        })
    }

    fn remove_devices(
        &self,
        user: &UserId,
        write: Write,
        devices: DeviceSelection,
    ) -> BoxFuture<'_, Result<Vec<DeviceId>, ApplyError>> {
        let user = user.clone();
        self.call("remove_devices", move |store| {
            store.remove_devices(&user, write, devices)
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
        self.call("set_password", move |store| {
            store.set_password(&user, write, password_hash, logout)
        })
    }

    fn deactivate(&self, user: &UserId, write: Write) -> BoxFuture<'_, Result<(), ApplyError>> {
        let user = user.clone();
        self.call("deactivate", move |store| store.deactivate(&user, write))
    }

    fn profile(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Profile>, StoreError>> {
        let user = user.clone();
        self.call("profile", move |store| store.profile(&user))
    }

    fn set_profile(
        &self,
        user: &UserId,
        guard: Guard,
        field: ProfileField,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        let user = user.clone();
        self.call("set_profile", move |store| {
            store.set_profile(&user, guard, field, value)
        })
    }

    fn add_filter(
        &self,
        user: &UserId,
        guard: Guard,
        filter: String,
    ) -> BoxFuture<'_, Result<u64, FilterError>> {
        let user = user.clone();
        self.call("add_filter", move |store| {
            store.add_filter(&user, guard, filter)
        })
    }

    fn filter(
        &self,
        user: &UserId,
        id: u64,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        let user = user.clone();
        self.call("filter", move |store| store.filter(&user, id))
    }
}
