use std::sync::{Arc, Mutex};

use kitbag_domain::{
    Account, AccountStore, Applied, ApplyError, BoxFuture, Changes, Device, DeviceId,
    DeviceSelection, Entry, EntryStore, FilterError, Guard, Key, Limits, Login, LoginError,
    MemoryStore, NewAccount, Op, Position, Profile, ProfileField, RefreshError, RegisterError,
    Seen, Selector, Session, SessionTokens, StoreError, StoreInfo, Subscription, TokenHash,
    UpdateFn, UserId, Write,
};

/// A store in memory that notes how it is used, and fails or lets something happen when told.
pub(crate) struct FailingStore {
    memory: MemoryStore,
    plan: Mutex<Plan>,
}

type Interlude = Box<dyn FnOnce(&MemoryStore) + Send>;

#[derive(Default)]
struct Plan {
    calls: Vec<&'static str>,
    failure: Option<(usize, StoreError)>,
    interlude: Option<(&'static str, Interlude)>,
}

impl FailingStore {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            memory: MemoryStore::new(limits, 0xe90c),
            plan: Mutex::default(),
        }
    }

    /// Returns the store below, which never fails and notes nothing.
    pub(crate) fn memory(&self) -> &MemoryStore {
        &self.memory
    }

    /// Fails the call that comes after `calls` others from now on.
    pub(crate) fn fail_after(&self, calls: usize, error: StoreError) {
        *self.plan.lock().unwrap() = Plan {
            failure: Some((calls, error)),
            ..Plan::default()
        };
    }

    /// Does something to the store right before the next call of `method`.
    pub(crate) fn before(
        &self,
        method: &'static str,
        interlude: impl FnOnce(&MemoryStore) + Send + 'static,
    ) {
        self.plan.lock().unwrap().interlude = Some((method, Box::new(interlude)));
    }

    /// Returns the methods called since the last time this was asked.
    pub(crate) fn take_calls(&self) -> Vec<&'static str> {
        std::mem::take(&mut self.plan.lock().unwrap().calls)
    }

    fn call<'a, T: 'a, E: From<StoreError> + Send + 'a>(
        &'a self,
        method: &'static str,
        call: impl FnOnce(&'a MemoryStore) -> BoxFuture<'a, Result<T, E>>,
    ) -> BoxFuture<'a, Result<T, E>> {
        let mut plan = self.plan.lock().unwrap();
        let number = plan.calls.len();
        plan.calls.push(method);
        let failure = plan.failure.take_if(|(at, _)| *at == number);
        let interlude = plan.interlude.take_if(|(before, _)| *before == method);
        drop(plan);
        if let Some((_, interlude)) = interlude {
            interlude(&self.memory);
        }
        match failure {
            Some((_, error)) => Box::pin(async { Err(error.into()) }),
            None => call(&self.memory),
        }
    }
}

impl EntryStore for FailingStore {
    fn info(&self) -> StoreInfo {
        self.memory.info()
    }

    fn get(&self, user: &UserId, key: &Key) -> BoxFuture<'_, Result<Option<Entry>, StoreError>> {
        self.call("get", |store| store.get(user, key))
    }

    fn list(
        &self,
        user: &UserId,
        selector: Selector,
    ) -> BoxFuture<'_, Result<Vec<Entry>, StoreError>> {
        self.call("list", |store| store.list(user, selector))
    }

    fn changes(
        &self,
        user: &UserId,
        after: Option<Position>,
    ) -> BoxFuture<'_, Result<Changes, StoreError>> {
        self.call("changes", |store| store.changes(user, after))
    }

    fn apply(
        &self,
        user: &UserId,
        write: Write,
        ops: Vec<Op>,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>> {
        self.call("apply", |store| store.apply(user, write, ops))
    }

    fn update(
        &self,
        user: &UserId,
        write: Write,
        key: Key,
        update: UpdateFn,
    ) -> BoxFuture<'_, Result<Applied, ApplyError>> {
        self.call("update", |store| store.update(user, write, key, update))
    }

    fn subscribe(&self, user: &UserId) -> Subscription {
        self.memory.subscribe(user)
    }
}

impl AccountStore for FailingStore {
    fn account(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Account>, StoreError>> {
        self.call("account", |store| store.account(user))
    }

    fn accounts(
        &self,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Account>, StoreError>> {
        self.call("accounts", |store| store.accounts(after, limit))
    }

    fn register(
        &self,
        account: NewAccount,
        login: Option<Login>,
    ) -> BoxFuture<'_, Result<(), RegisterError>> {
        self.call("register", |store| store.register(account, login))
    }

    fn login(&self, user: &UserId, login: Login) -> BoxFuture<'_, Result<(), LoginError>> {
        self.call("login", |store| store.login(user, login))
    }

    fn session(
        &self,
        user: &UserId,
        access: TokenHash,
    ) -> BoxFuture<'_, Result<Option<Session>, StoreError>> {
        self.call("session", |store| store.session(user, access))
    }

    fn touch(
        &self,
        user: &UserId,
        access: TokenHash,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        self.call("touch", |store| store.touch(user, access, seen))
    }

    fn refresh(
        &self,
        user: &UserId,
        refresh: TokenHash,
        tokens: SessionTokens,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), RefreshError>> {
        self.call("refresh", |store| {
            store.refresh(user, refresh, tokens, seen)
        })
    }

    fn devices(&self, user: &UserId) -> BoxFuture<'_, Result<Vec<Device>, StoreError>> {
        self.call("devices", |store| store.devices(user))
    }

    fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> BoxFuture<'_, Result<Option<Device>, StoreError>> {
        self.call("device", |store| store.device(user, device))
    }

    fn rename_device(
        &self,
        user: &UserId,
        guard: Guard,
        device: &DeviceId,
        display_name: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        self.call("rename_device", |store| {
            store.rename_device(user, guard, device, display_name)
        })
    }

    fn remove_devices(
        &self,
        user: &UserId,
        write: Write,
        devices: DeviceSelection,
    ) -> BoxFuture<'_, Result<Vec<DeviceId>, ApplyError>> {
        self.call("remove_devices", |store| {
            store.remove_devices(user, write, devices)
        })
    }

    fn set_password(
        &self,
        user: &UserId,
        write: Write,
        password_hash: String,
        logout: Option<DeviceSelection>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        self.call("set_password", |store| {
            store.set_password(user, write, password_hash, logout)
        })
    }

    fn deactivate(&self, user: &UserId, write: Write) -> BoxFuture<'_, Result<(), ApplyError>> {
        self.call("deactivate", |store| store.deactivate(user, write))
    }

    fn profile(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Profile>, StoreError>> {
        self.call("profile", |store| store.profile(user))
    }

    fn set_profile(
        &self,
        user: &UserId,
        guard: Guard,
        field: ProfileField,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        self.call("set_profile", |store| {
            store.set_profile(user, guard, field, value)
        })
    }

    fn add_filter(
        &self,
        user: &UserId,
        guard: Guard,
        filter: String,
    ) -> BoxFuture<'_, Result<u64, FilterError>> {
        self.call("add_filter", |store| store.add_filter(user, guard, filter))
    }

    fn filter(
        &self,
        user: &UserId,
        id: u64,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        self.call("filter", |store| store.filter(user, id))
    }
}
