//! What the server itself reads: the account data of all its users.

use std::any::type_name;

use serde::de::DeserializeOwned;
use thiserror::Error;

use super::AccountData;
use crate::{
    Content, DeviceChanges, DeviceEntry, DeviceId, DevicePlace, DeviceSubscription, Entry,
    EntryDescription, EventType, FeedPosition, GetError, Key, Scope, Selector, StoreError, UnixMs,
    UserId, limit,
};

/// The server's own eye on account data; [`AccountData::reader`] returns it.
///
/// For programs of the operator and for a homeserver that acts on what devices tell it (MSC4331):
/// nothing here asks whose the data are, so no request of a user may come here.
///
/// A homeserver that asks what its users' devices can do, with a struct of its own:
///
/// ```
/// use std::sync::Arc;
///
/// use kitbag_domain::{AccountData, EventType, Limits, MemoryStore, Pointer, Store};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Capabilities {
///     #[serde(default)]
///     room_versions: Vec<String>,
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let limits = Limits::default();
/// let store: Arc<dyn Store> = Arc::new(MemoryStore::new(limits.clone(), 1));
/// # let phone = kitbag_testkit::Actor::register(&store, "alice").await;
/// # phone.put(&phone.own_key("org.example.capabilities"), r#"{"room_versions":["11"]}"#).await;
/// # let laptop = phone.login("LAPTOP").await;
/// # laptop.put(&laptop.own_key("org.example.capabilities"), r#"{"room_versions":"all"}"#).await;
/// # let clock = Arc::new(kitbag_testkit::clock::TestClock::default());
/// # let rules = Arc::new(kitbag_testkit::rules::PlainRules::default());
/// let data = AccountData::new(store, rules, clock, Arc::new(limits));
/// let reader = data.reader();
///
/// let wanted = EventType::parse("org.example.capabilities")?;
/// let mut after = None;
/// loop {
///     let page = reader.devices::<Capabilities>(&wanted, after, 100).await?;
///     let Some(last) = page.last() else { break };
///     after = Some(last.place());
///     for found in page {
///         match found.value {
///             Ok(it) => assert!(!it.room_versions.contains(&"12".to_owned())),
///             // Devices write what they like; the text says of what kind it is, never what it says.
///             Err(unreadable) => eprintln!("{}: {unreadable}", found.user),
///         }
///     }
/// }
///
/// // The same question, answered without reading more than one place of each.
/// let tally = reader.tally(&wanted, &Pointer::parse("/room_versions/0")?).await?;
/// assert_eq!((tally.devices, tally.absent), (2, 1));
/// assert_eq!(tally.values, [("\"11\"".to_owned(), 1)]);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Reader(pub(super) AccountData);

/// A content is not of the form that its reader asked for.
///
/// Tells where and of which kind the fault is, and nothing of the content.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("the account data `{event_type}`{} are no `{wanted}` (line {line}, column {column})", of(.scope))]
pub struct Unreadable {
    /// The type of the entry.
    pub event_type: EventType,
    /// Where the entry lives.
    pub scope: Scope,
    /// The Rust type that was asked for.
    pub wanted: &'static str,
    /// The line of the content, from 1.
    pub line: usize,
    /// The column of that line in bytes, from 1.
    pub column: usize,
}

/// Why an entry was not read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum ReadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The content has another form.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
}

/// A page of the list of a user's entries, without contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptions {
    /// The entries, in the order of their keys.
    pub entries: Vec<EntryDescription>,
    /// Behind which key the next page begins, where there may be one.
    pub next: Option<Key>,
}

/// Why entries were not described.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum DescribeError {
    /// The selector names a device that the user does not have.
    #[error("the user has no device {0}")]
    NoSuchDevice(DeviceId),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What one device keeps, read as a `T`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceValue<T> {
    /// The user.
    pub user: UserId,
    /// The device.
    pub device: DeviceId,
    /// The device's name for people.
    pub display_name: Option<String>,
    /// When it was written.
    pub written_at: UnixMs,
    /// What it says; devices write what they like, and one that is wrong hides no other.
    pub value: Result<T, Unreadable>,
}

impl<T> DeviceValue<T> {
    /// Returns the device, which is where the next page begins.
    #[must_use]
    pub fn place(&self) -> DevicePlace {
        DevicePlace {
            user: self.user.clone(),
            device: self.device.clone(),
        }
    }
}

impl AccountData {
    /// Returns the server's own eye on all users' account data.
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader(self.clone())
    }
}

impl Reader {
    /// Returns one entry of a user, read as a `T`; `None` where there is none, or no such user.
    ///
    /// As its user would get it: global `m.push_rules` always exists, also of who is not there, who
    /// has the defaults.
    /// # Errors
    /// [`ReadError::Unreadable`] where the content is no `T`.
    pub async fn get<T: DeserializeOwned>(
        &self,
        user: &UserId,
        key: &Key,
    ) -> Result<Option<T>, ReadError> {
        match self.content(user, key).await {
            Ok(content) => Ok(Some(read(key, &content)?)),
            Err(GetError::NotFound) => Ok(None),
            Err(GetError::Store(error)) => Err(error.into()),
        }
    }

    /// Returns one entry of one device, read as a `T`; `None` where there is none.
    /// # Errors
    /// [`ReadError::Unreadable`] where the content is no `T`.
    pub async fn device<T: DeserializeOwned>(
        &self,
        user: &UserId,
        device: &DeviceId,
        event_type: &EventType,
    ) -> Result<Option<T>, ReadError> {
        let key = Key::new(Scope::Device(device.clone()), event_type.clone());
        self.get(user, &key).await
    }

    /// Returns up to `limit` entries of one type of all devices behind `after`, each read as a `T`.
    ///
    /// In the order of [`Reader::device_entries`]; an empty page is the end.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn devices<T: DeserializeOwned>(
        &self,
        event_type: &EventType,
        after: Option<DevicePlace>,
        limit: usize,
    ) -> Result<Vec<DeviceValue<T>>, StoreError> {
        let page = self.device_entries(event_type, after, limit).await?;
        Ok(page.into_iter().filter_map(device_value).collect())
    }

    /// Returns the content of one entry as its user would get it.
    /// # Errors
    /// [`GetError::NotFound`] where there is none, or no such user; never for global `m.push_rules`,
    /// which are the defaults where nobody wrote any.
    pub async fn content(&self, user: &UserId, key: &Key) -> Result<Content, GetError> {
        self.0.content(user, key).await
    }

    /// Returns the selected live entries of one user, in the order of their keys, as stored.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn list(&self, user: &UserId, selector: Selector) -> Result<Vec<Entry>, StoreError> {
        self.0.store.list(user, selector).await
    }

    /// Returns a page of descriptions of the selected live entries of one user, those behind `after`,
    /// in the order of their keys: no content is read.
    ///
    /// At most [`limit::DESCRIPTIONS_AT_ONCE_MAX`] on a page. Nothing of a user who is not there.
    /// # Errors
    /// [`DescribeError::NoSuchDevice`] where the selector names one that the user does not have.
    pub async fn describe(
        &self,
        user: &UserId,
        selector: Selector,
        after: Option<Key>,
    ) -> Result<Descriptions, DescribeError> {
        let Self(AccountData { store, .. }) = self;
        if let Selector::Scope(Scope::Device(device)) = &selector
            && store.device(user, device).await?.is_none()
        {
            return Err(DescribeError::NoSuchDevice(device.clone()));
        }
        let limit = limit::DESCRIPTIONS_AT_ONCE_MAX;
        let entries = store.describe(user, selector, after, limit).await?;
        let last = entries.last().filter(|_| entries.len() == limit);
        Ok(Descriptions {
            next: last.map(|last| last.key.clone()),
            entries,
        })
    }

    /// Returns up to `limit` entries of one type of all devices of all users, those behind `after`.
    ///
    /// In the order in which the accounts were made, and of an account in that of its device IDs.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn device_entries(
        &self,
        event_type: &EventType,
        after: Option<DevicePlace>,
        limit: usize,
    ) -> Result<Vec<DeviceEntry>, StoreError> {
        self.0.store.device_entries(event_type, after, limit).await
    }

    /// Returns up to `limit` changes of device account data behind `after`.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn device_changes(
        &self,
        after: Option<FeedPosition>,
        limit: usize,
    ) -> Result<DeviceChanges, StoreError> {
        self.0.store.device_changes(after, limit).await
    }

    /// Does as [`Reader::device_changes`], but waits where there is nothing yet.
    ///
    /// For programs that follow: call it with `next` of what it returned before. May be cancelled,
    /// and misses nothing. Returns at once where the stream starts anew.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn next_device_changes(
        &self,
        after: Option<FeedPosition>,
        limit: usize,
    ) -> Result<DeviceChanges, StoreError> {
        let mut subscription = self.subscribe();
        loop {
            let changes = self.device_changes(after, limit).await?;
            if changes.starts_anew || !changes.changes.is_empty() {
                return Ok(changes);
            }
            subscription.changed().await;
        }
    }

    /// Starts to listen for changes of device account data: before reading, so that none is missed.
    #[must_use]
    pub fn subscribe(&self) -> DeviceSubscription {
        self.0.store.subscribe_to_devices()
    }
}

fn device_value<T: DeserializeOwned>(found: DeviceEntry) -> Option<DeviceValue<T>> {
    let DevicePlace { user, device } = found.place();
    Some(DeviceValue {
        user,
        device,
        value: read(&found.entry.key, found.entry.content.as_ref()?),
        display_name: found.display_name,
        written_at: found.entry.written_at,
    })
}

fn read<T: DeserializeOwned>(key: &Key, content: &Content) -> Result<T, Unreadable> {
    // The text of the error could quote the content, so its place alone is told.
    serde_json::from_str(content.as_str()).map_err(|error| Unreadable {
        event_type: key.event_type.clone(),
        scope: key.scope.clone(),
        wanted: type_name::<T>(),
        line: error.line(),
        column: error.column(),
    })
}

fn of(scope: &Scope) -> String {
    match scope {
        Scope::Global => String::new(),
        Scope::Room(room) => format!(" in the room {room}"),
        Scope::Device(device) => format!(" of the device {device}"),
    }
}
