use std::sync::Arc;

use super::{MemoryStore, SessionState, UserState};
use crate::{
    Account, AccountStore, ApplyError, BoxFuture, Device, DeviceId, DeviceSelection,
    DeviceWithEntries, FilterError, Guard, Incarnation, Key, Limits, Login, LoginError, NewAccount,
    Profile, ProfileField, RefreshError, Refusal, RegisterError, Seen, Session, SessionTokens,
    StoreError, TokenHash, UserId, Write, local_notification_keys,
};

impl AccountStore for MemoryStore {
    fn account(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Account>, StoreError>> {
        let account = self.users().get(user).map(UserState::account);
        Box::pin(async { Ok(account) })
    }

    fn accounts(
        &self,
        after: Option<UserId>,
        limit: usize,
    ) -> BoxFuture<'_, Result<Vec<Account>, StoreError>> {
        let users = self.users();
        let behind = users
            .iter()
            .filter(|(user, _)| after.as_ref().is_none_or(|a| *user > a));
        let accounts = behind
            .take(limit)
            .map(|(_, state)| state.account())
            .collect();
        drop(users);
        Box::pin(async { Ok(accounts) })
    }

    fn register(
        &self,
        account: NewAccount,
        login: Option<Login>,
    ) -> BoxFuture<'_, Result<(), RegisterError>> {
        let mut users = self.users();
        let result = if users.contains_key(&account.user) {
            Err(RegisterError::UserInUse)
        } else {
            let user = account.user.clone();
            let mut state = UserState::new(account);
            if let Some(login) = login {
                state.log_in(login);
            }
            self.note_account(&user);
            users.insert(user, state);
            Ok(())
        };
        drop(users);
        Box::pin(async { result })
    }

    fn login(&self, user: &UserId, login: Login) -> BoxFuture<'_, Result<(), LoginError>> {
        let limit = self.limits.devices_max;
        let mut users = self.users();
        let state = users.get_mut(user).filter(|state| {
            state.deactivated_at.is_none() && state.account.password_hash == login.verified_hash
        });
        let result = match state {
            None => Err(LoginError::PasswordChanged),
            Some(state)
                if state.devices.len() as u64 >= limit
                    && !state.devices.contains_key(&login.device) =>
            {
                Err(LoginError::TooManyDevices { limit })
            }
            Some(state) => {
                state.log_in(login);
                self.wakeups.publish(user, state.position);
                Ok(())
            }
        };
        drop(users);
        Box::pin(async { result })
    }

    fn session(
        &self,
        user: &UserId,
        access: TokenHash,
    ) -> BoxFuture<'_, Result<Option<Session>, StoreError>> {
        let session = self
            .users()
            .get(user)
            .and_then(|state| state.session(access));
        Box::pin(async { Ok(session) })
    }

    fn touch(
        &self,
        user: &UserId,
        access: TokenHash,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        if let Some(state) = self.users().get_mut(user)
            && let Some(at) = state
                .sessions
                .iter()
                .position(|s| s.tokens.access == access)
        {
            state.use_session(at, seen);
        }
        Box::pin(async { Ok(()) })
    }

    fn refresh(
        &self,
        user: &UserId,
        refresh: TokenHash,
        tokens: SessionTokens,
        seen: Seen,
    ) -> BoxFuture<'_, Result<(), RefreshError>> {
        let refreshed = self.users().get_mut(user).and_then(|state| {
            let known = |session: &SessionState| session.tokens.refresh == Some(refresh);
            let at = state.sessions.iter().position(known)?;
            let at = state.use_session(at, seen);
            let device = state.sessions[at].device.clone();
            // New tokens that nobody used make way: their answer was missed.
            let mut index = 0;
            state.sessions.retain(|session| {
                index += 1;
                index - 1 <= at || session.device != device
            });
            state.sessions.push(SessionState { device, tokens });
            Some(())
        });
        Box::pin(async move { refreshed.ok_or(RefreshError::UnknownToken) })
    }

    fn devices(&self, user: &UserId) -> BoxFuture<'_, Result<Vec<Device>, StoreError>> {
        let users = self.users();
        let devices = users
            .get(user)
            .into_iter()
            .flat_map(|state| state.devices.values());
        let devices = devices.cloned().collect();
        drop(users);
        Box::pin(async { Ok(devices) })
    }

    fn devices_with_entries(
        &self,
        user: &UserId,
        device: Option<DeviceId>,
    ) -> BoxFuture<'_, Result<Vec<DeviceWithEntries>, StoreError>> {
        let users = self.users();
        let found = users.get(user).map_or(Vec::new(), |state| {
            let is_wanted = |known: &&Device| device.as_ref().is_none_or(|id| known.id == *id);
            let devices = state.devices.values().filter(is_wanted);
            let live = state
                .entries
                .values()
                .filter(|entry| entry.content.is_some());
            DeviceWithEntries::of(devices.cloned().collect(), live.cloned().collect())
        });
        drop(users);
        Box::pin(async { Ok(found) })
    }

    fn device(
        &self,
        user: &UserId,
        device: &DeviceId,
    ) -> BoxFuture<'_, Result<Option<Device>, StoreError>> {
        let found = self
            .users()
            .get(user)
            .and_then(|state| state.devices.get(device).cloned());
        Box::pin(async { Ok(found) })
    }

    fn rename_device(
        &self,
        user: &UserId,
        guard: Guard,
        device: &DeviceId,
        display_name: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        let result = self.write(user, &guard, |state| {
            let device = state.devices.get_mut(device).ok_or(Refusal::NoSuchDevice)?;
            device.display_name = display_name;
            Ok(())
        });
        Box::pin(async { result })
    }

    fn remove_devices(
        &self,
        user: &UserId,
        write: Write,
        devices: DeviceSelection,
    ) -> BoxFuture<'_, Result<Vec<DeviceId>, ApplyError>> {
        let result = self.write(user, &write.guard, |state| {
            state.remove_devices(&self.limits, &write, &devices)
        });
        Box::pin(async { result })
    }

    fn set_password(
        &self,
        user: &UserId,
        write: Write,
        password_hash: String,
        logout: Option<DeviceSelection>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        let result = self.write(user, &write.guard, |state| {
            if let Some(devices) = logout {
                state.remove_devices(&self.limits, &write, &devices)?;
            }
            state.account.password_hash = password_hash;
            Ok(())
        });
        Box::pin(async { result })
    }

    fn deactivate(&self, user: &UserId, write: Write) -> BoxFuture<'_, Result<(), ApplyError>> {
        let result = self.write(user, &write.guard, |state| {
            let mut ended = UserState::new(NewAccount {
                password_hash: String::new(),
                ..state.account.clone()
            });
            ended.deactivated_at = Some(write.at);
            ended.position = state.position.next();
            ended.horizon = ended.position;
            *state = ended;
            Ok(())
        });
        Box::pin(async { result })
    }

    fn profile(&self, user: &UserId) -> BoxFuture<'_, Result<Option<Profile>, StoreError>> {
        let users = self.users();
        let state = users
            .get(user)
            .filter(|state| state.deactivated_at.is_none());
        let profile = state.map(|state| state.profile.clone());
        drop(users);
        Box::pin(async { Ok(profile) })
    }

    fn set_profile(
        &self,
        user: &UserId,
        guard: Guard,
        field: ProfileField,
        value: Option<String>,
    ) -> BoxFuture<'_, Result<(), ApplyError>> {
        let result = self.write(user, &guard, |state| {
            match field {
                ProfileField::AvatarUrl => state.profile.avatar_url = value,
                ProfileField::Displayname => state.profile.displayname = value,
            }
            Ok(())
        });
        Box::pin(async { result })
    }

    fn add_filter(
        &self,
        user: &UserId,
        guard: Guard,
        filter: String,
    ) -> BoxFuture<'_, Result<u64, FilterError>> {
        let limit = self.limits.filters_max;
        let mut users = self.users();
        let result = match users.get_mut(user).filter(|state| state.admits(&guard)) {
            None => Err(FilterError::SessionGone),
            Some(state) => match state.filters.iter().position(|known| **known == *filter) {
                Some(index) => Ok(index as u64),
                None if state.filters.len() as u64 >= limit => Err(FilterError::TooMany { limit }),
                None => {
                    state.filters.push(filter.into());
                    Ok(state.filters.len() as u64 - 1)
                }
            },
        };
        drop(users);
        Box::pin(async { result })
    }

    fn filter(
        &self,
        user: &UserId,
        id: u64,
    ) -> BoxFuture<'_, Result<Option<Arc<str>>, StoreError>> {
        let users = self.users();
        let filters = users
            .get(user)
            .map(|state| state.filters.as_slice())
            .unwrap_or_default();
        let filter = usize::try_from(id)
            .ok()
            .and_then(|id| filters.get(id).cloned());
        drop(users);
        Box::pin(async { Ok(filter) })
    }
}

impl UserState {
    fn account(&self) -> Account {
        let hash = &self.account.password_hash;
        Account {
            user: self.account.user.clone(),
            password_hash: self.deactivated_at.is_none().then(|| hash.clone()),
            created_at: self.account.at,
            deactivated_at: self.deactivated_at,
            devices: self.devices.len() as u64,
            usage: self.usage,
        }
    }

    fn log_in(&mut self, login: Login) {
        let Login {
            device,
            display_name,
            tokens,
            seen,
            ..
        } = login;
        self.sessions.retain(|session| session.device != device);
        if let Some(known) = self.devices.get_mut(&device) {
            known.seen = seen;
        } else {
            let incarnation = Incarnation(self.take_position().0);
            let id = device.clone();
            self.devices.insert(
                id.clone(),
                Device {
                    id,
                    incarnation,
                    display_name,
                    seen,
                },
            );
        }
        self.sessions.push(SessionState { device, tokens });
    }

    pub(super) fn session(&self, access: TokenHash) -> Option<Session> {
        let at = self
            .sessions
            .iter()
            .position(|session| session.tokens.access == access)?;
        let session = &self.sessions[at];
        let device = &self.devices[&session.device];
        Some(Session {
            device: device.id.clone(),
            incarnation: device.incarnation,
            expires_at: session.tokens.access_expires_at,
            last_seen_at: device.seen.at,
            replaces_others: self.sessions[..at].iter().any(|s| s.device == device.id),
        })
    }

    /// Ends the tokens that the session at `at` replaced; returns where it stands now.
    fn use_session(&mut self, at: usize, seen: Seen) -> usize {
        let device = self.sessions[at].device.clone();
        let older = self.sessions[..at]
            .iter()
            .filter(|session| session.device == device)
            .count();
        let mut index = 0;
        self.sessions.retain(|session| {
            index += 1;
            index > at || session.device != device
        });
        if let Some(device) = self.devices.get_mut(&device) {
            device.seen = seen;
        }
        at - older
    }

    fn remove_devices(
        &mut self,
        limits: &Limits,
        write: &Write,
        devices: &DeviceSelection,
    ) -> Result<Vec<DeviceId>, ApplyError> {
        let selected = self
            .devices
            .keys()
            .filter(|device| devices.contains(device));
        let selected: Vec<DeviceId> = selected.cloned().collect();
        for device in &selected {
            let own = self
                .entries
                .keys()
                .filter(|key| key.scope.device() == Some(device));
            let own: Vec<Key> = own.cloned().collect();
            for key in own.into_iter().chain(local_notification_keys(device)) {
                self.write_entry(limits, write, key, None)?;
            }
            self.devices.remove(device);
            self.sessions.retain(|session| session.device != *device);
        }
        self.take_position();
        Ok(selected)
    }
}
