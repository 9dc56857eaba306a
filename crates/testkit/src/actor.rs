//! A user's device, as the cases of the suite move it: short names for what stores are asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kitbag_domain::{
    Allowance, Applied, ApplyError, Changes, Content, DeviceId, DeviceSelection, Entry, EventType,
    Expectation, Guard, Incarnation, Key, Limits, LiveEntry, Login, LoginError, NewAccount, Op,
    Position, Requester, RoomId, Scope, Seen, Session, SessionTokens, Store, Subscription,
    TokenHash, UnixMs, UserId, Write, Writer,
};

use crate::clock::TestClock;

/// The password hash of every account that [`Actor::register`] makes.
const PASSWORD_HASH: &str = "$test$hash";

/// One session of one device of one user, straight on a store.
#[derive(Clone)]
pub struct Actor {
    /// The store.
    pub store: Arc<dyn Store>,
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// Which device of that ID.
    pub incarnation: Incarnation,
    /// The tokens that it logged in with.
    pub tokens: SessionTokens,
}

impl Actor {
    /// Registers `localpart` with the device `PHONE`.
    pub async fn register(store: &Arc<dyn Store>, localpart: &str) -> Self {
        let user = user_id(localpart);
        let account = NewAccount {
            user: user.clone(),
            password_hash: PASSWORD_HASH.to_owned(),
            at: TestClock::START_MS,
        };
        let login = Self::login_of("PHONE");
        let tokens = login.tokens.clone();
        store.register(account, Some(login)).await.unwrap();
        Self::found(store, user, tokens).await
    }

    /// Logs another (or the same) device of the user in.
    pub async fn login(&self, device: &str) -> Self {
        self.try_login(device).await.unwrap()
    }

    /// Logs another (or the same) device of the user in, if the store lets it.
    /// # Errors
    /// As the store says.
    pub async fn try_login(&self, device: &str) -> Result<Self, LoginError> {
        let login = Self::login_of(device);
        let tokens = login.tokens.clone();
        self.store.login(&self.user, login).await?;
        Ok(Self::found(&self.store, self.user.clone(), tokens).await)
    }

    /// Returns a login of `device` with fresh tokens and the right password.
    #[must_use]
    pub fn login_of(device: &str) -> Login {
        Login {
            verified_hash: PASSWORD_HASH.to_owned(),
            device: device_id(device),
            display_name: Some(format!("name of {device}")),
            tokens: fresh_tokens(),
            seen: Seen::default(),
        }
    }

    async fn found(store: &Arc<dyn Store>, user: UserId, tokens: SessionTokens) -> Self {
        let session = store.session(&user, tokens.access).await.unwrap();
        let session = session.expect("the session was just started");
        Self {
            store: Arc::clone(store),
            user,
            device: session.device,
            incarnation: session.incarnation,
            tokens,
        }
    }

    /// Returns the session of the actor's access token.
    pub async fn session(&self) -> Option<Session> {
        let session = self.store.session(&self.user, self.tokens.access).await;
        session.unwrap()
    }

    /// Returns the condition under which the actor writes.
    #[must_use]
    pub fn guard(&self) -> Guard {
        Guard::Device(self.device.clone(), self.incarnation)
    }

    /// Returns what the service would send along with a write.
    #[must_use]
    pub fn write(&self) -> Write {
        self.write_at(TestClock::START_MS)
    }

    /// Returns what the service would send along with a write at another time.
    #[must_use]
    pub fn write_at(&self, at: UnixMs) -> Write {
        let writer = Writer::Device {
            id: self.device.clone(),
            user_agent: Some("testkit".into()),
        };
        Write {
            guard: self.guard(),
            writer,
            at,
            allowance: Allowance::Ordinary,
        }
    }

    /// Returns the actor as the service knows it.
    #[must_use]
    pub fn requester(&self) -> Requester {
        Requester {
            user: self.user.clone(),
            device: Some((self.device.clone(), self.incarnation)),
            user_agent: Some("testkit".into()),
        }
    }

    /// Returns a key of the actor's own device.
    #[must_use]
    pub fn own_key(&self, event_type: &str) -> Key {
        device_key(self.device.as_str(), event_type)
    }

    /// Applies operations.
    /// # Errors
    /// As the store says.
    pub async fn apply(&self, ops: Vec<Op>) -> Result<Applied, ApplyError> {
        self.store.apply(&self.user, self.write(), ops).await
    }

    /// Puts an entry that must be accepted.
    pub async fn put(&self, key: &Key, text: &str) -> Position {
        self.try_put(key, text).await.unwrap()
    }

    /// Puts an entry.
    /// # Errors
    /// As the store says.
    pub async fn try_put(&self, key: &Key, text: &str) -> Result<Position, ApplyError> {
        self.try_swap(key, text, Expectation::default()).await
    }

    /// Puts an entry under an expectation.
    /// # Errors
    /// As the store says.
    pub async fn try_swap(
        &self,
        key: &Key,
        text: &str,
        expectation: Expectation,
    ) -> Result<Position, ApplyError> {
        let op = Op::Put(key.clone(), content(text), expectation);
        let applied = self.apply(vec![op]).await?;
        Ok(applied.positions[0].expect("a put takes a position"))
    }

    /// Deletes an entry.
    pub async fn delete(&self, key: &Key) -> Option<Position> {
        let applied = self.apply(vec![Op::Delete(key.clone())]).await;
        applied.unwrap().positions[0]
    }

    /// Deletes an entry at another time.
    pub async fn delete_at(&self, key: &Key, at: UnixMs) -> Option<Position> {
        let ops = vec![Op::Delete(key.clone())];
        let applied = self.store.apply(&self.user, self.write_at(at), ops).await;
        applied.unwrap().positions[0]
    }

    /// Returns an entry.
    pub async fn entry(&self, key: &Key) -> Option<Entry> {
        self.store.get(&self.user, key).await.unwrap()
    }

    /// Returns the text of an entry.
    pub async fn text(&self, key: &Key) -> Option<String> {
        let entry = self.entry(key).await?;
        let content = entry.content.expect("a get never returns a tombstone");
        Some(content.as_str().to_owned())
    }

    /// Returns what changed behind `after`; everything must be the same packed.
    pub async fn changes(&self, after: Option<Position>) -> Changes {
        let changes = self.store.changes(&self.user, after).await.unwrap();
        if after.is_none() {
            let live = self.store.live(&self.user).await.unwrap();
            // Others may have written in between.
            if live.head == changes.head {
                let entries = changes.entries.iter().map(LiveEntry::of);
                assert!(live.entries().eq(entries), "{live:?}: {changes:?}");
            }
        }
        changes
    }

    /// Returns where the user's stream stands.
    pub async fn head(&self) -> Position {
        self.changes(None).await.head
    }

    /// Removes devices of the user.
    pub async fn remove(&self, devices: DeviceSelection) -> Vec<DeviceId> {
        let removed = self
            .store
            .remove_devices(&self.user, self.write(), devices)
            .await;
        removed.unwrap()
    }

    /// Removes the actor's own device, as a logout does.
    pub async fn log_out(&self) {
        let own = DeviceSelection::These(vec![self.device.clone()]);
        assert_eq!(
            self.remove(own).await.as_slice(),
            std::slice::from_ref(&self.device)
        );
    }

    /// Starts to listen for changes of the user.
    #[must_use]
    pub fn subscribe(&self) -> Subscription {
        self.store.subscribe(&self.user)
    }
}

/// Returns tokens that nobody else has.
#[must_use]
pub fn fresh_tokens() -> SessionTokens {
    SessionTokens {
        access: fresh_hash(),
        access_expires_at: None,
        refresh: Some(fresh_hash()),
    }
}

/// Returns the hash of a token that nobody else has.
#[must_use]
pub fn fresh_hash() -> TokenHash {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_le_bytes());
    TokenHash(bytes)
}

/// Returns a content.
#[must_use]
pub fn content(text: &str) -> Content {
    Content::parse(text.to_owned().into(), &Limits::default()).unwrap()
}

/// Returns the user `@localpart:localhost`.
#[must_use]
pub fn user_id(localpart: &str) -> UserId {
    UserId::parse(format!("@{localpart}:localhost")).unwrap()
}

/// Returns a device ID.
#[must_use]
pub fn device_id(id: &str) -> DeviceId {
    DeviceId::parse(id).unwrap()
}

/// Returns an event type.
#[must_use]
pub fn event_type(text: &str) -> EventType {
    EventType::parse(text).unwrap()
}

/// Returns a key at global scope.
#[must_use]
pub fn global(text: &str) -> Key {
    Key::new(Scope::Global, event_type(text))
}

/// Returns a key at room scope.
#[must_use]
pub fn room_key(room: &str, text: &str) -> Key {
    Key::new(Scope::Room(RoomId::parse(room).unwrap()), event_type(text))
}

/// Returns a key at device scope.
#[must_use]
pub fn device_key(device: &str, text: &str) -> Key {
    Key::new(Scope::Device(device_id(device)), event_type(text))
}
