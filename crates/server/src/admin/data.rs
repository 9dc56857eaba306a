//! What an operator reads and writes of users' account data.

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use kitbag_domain::{
    AccountStore as _, Content, ContentError, DescribeError, Descriptions, DeviceId, DevicePlace,
    EventType, Expectation, GetError, Key, OperatorWriteError, Pointer, RoomId, Scope, Selector,
    UserId, WriteError,
};
use kitbag_http::admin::{DeviceEntryRow, DeviceRow, EntryRow, Summary};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::watch;

use super::copying::Far;
use super::{Admin, Reply};

/// Rows with a content in one reply, at most; fewer where contents may be large.
const CONTENT_ROWS_MAX: usize = 100;
/// Names of devices or types that an answer to a wrong one repeats.
const HINTS_MAX: usize = 8;
/// How like a known type must be to be named: below it, a hint would only puzzle.
const LIKENESS_MIN: f64 = 0.7;

/// A command that concerns account data.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(tag = "command", rename_all = "snake_case")]
pub(crate) enum DataCommand {
    /// Deletes an entry.
    DeleteData { place: Place },
    /// Returns the content of an entry.
    GetData { place: Place },
    /// Lists devices that have the type, but not the value.
    LackingDevices {
        question: Question,
        /// JSON.
        value: String,
        after: Option<After>,
    },
    /// Lists entries of a user, without contents.
    ListData {
        user: String,
        selection: Selection,
        after: Option<After>,
    },
    /// Lists devices that have the type, with the content.
    ListDevices {
        event_type: String,
        after: Option<After>,
    },
    /// Replaces the content of an entry by what follows the command.
    PutData {
        place: Place,
        content_bytes: u64,
        /// The revision that is to be replaced (MSC4547).
        if_revision: Option<String>,
    },
    /// Counts devices by what they say.
    TallyDevices { question: Question },
}

/// An entry as an operator names it: the user by localpart or whole ID, at most one of room and
/// device.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Place {
    pub(crate) user: String,
    pub(crate) room: Option<String>,
    pub(crate) device: Option<String>,
    pub(crate) event_type: String,
}

/// Which entries of a user.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Selection {
    All,
    Device(String),
    Devices,
    Global,
    Room(String),
    Rooms,
}

/// What is asked of all devices.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Question {
    pub(crate) event_type: String,
    pub(crate) pointer: String,
}

/// Behind what the next rows come.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum After {
    Device { user: String, device: String },
    Entry(Place),
}

impl DataCommand {
    /// Returns how many bytes of content follow the command.
    pub(crate) fn content_bytes(&self) -> u64 {
        match self {
            Self::PutData { content_bytes, .. } => *content_bytes,
            _ => 0,
        }
    }

    /// Tells whether it goes through all devices.
    pub(crate) fn is_long(&self) -> bool {
        matches!(
            self,
            Self::LackingDevices { .. } | Self::TallyDevices { .. }
        )
    }
}

impl Admin {
    /// Returns how large a content may be.
    pub(crate) fn content_bytes_max(&self) -> u64 {
        self.data.limits().content_bytes_max
    }

    /// Carries a command out, with the content that followed it; `tells` how far a long one is.
    pub(crate) async fn look_after(
        &self,
        command: DataCommand,
        content: Bytes,
        tells: &watch::Sender<Far>,
    ) -> Reply {
        let done = self.try_look_after(command, content, tells).await;
        done.unwrap_or_else(|error| Reply::Failed {
            error: format!("{error:#}"),
        })
    }

    async fn try_look_after(
        &self,
        command: DataCommand,
        content: Bytes,
        tells: &watch::Sender<Far>,
    ) -> Result<Reply> {
        match command {
            DataCommand::DeleteData { place } => self.delete(&place).await,
            DataCommand::GetData { place } => self.get(&place).await,
            DataCommand::LackingDevices {
                question,
                value,
                after,
            } => self.lacking(&question, &value, after).await,
            DataCommand::ListData {
                user,
                selection,
                after,
            } => self.list_data(&user, selection, after).await,
            DataCommand::ListDevices { event_type, after } => {
                self.list_devices(&event_type, after).await
            }
            DataCommand::PutData {
                place,
                if_revision: stable,
                ..
            } => {
                let unstable = None;
                let expectation = Expectation { stable, unstable };
                self.put(&place, content, expectation).await
            }
            DataCommand::TallyDevices { question } => self.tally(&question, tells).await,
        }
    }

    async fn get(&self, place: &Place) -> Result<Reply> {
        let (user, key) = self.find(place).await?;
        match self.data.reader().content(&user, &key).await {
            Ok(content) => Ok(Reply::Content {
                content: content.as_str().to_owned(),
            }),
            Err(GetError::NotFound) => Err(self.nothing(&user, &key).await?),
            Err(GetError::Store(error)) => Err(error.into()),
        }
    }

    async fn put(&self, place: &Place, content: Bytes, expectation: Expectation) -> Result<Reply> {
        let (user, key) = self.find(place).await?;
        let parsed = Content::parse(content.clone(), self.data.limits());
        let content = parsed.map_err(|error| explain(error, &content))?;
        let operator = self.data.operator();
        let put = operator.put(&user, key.clone(), content, expectation).await;
        match put {
            Ok(_) => Ok(Reply::Done {
                user: user.to_string(),
            }),
            Err(error) => Err(self.refusal(error, &user, &key).await?),
        }
    }

    async fn delete(&self, place: &Place) -> Result<Reply> {
        let (user, key) = self.find(place).await?;
        match self.data.operator().delete(&user, key.clone()).await {
            Ok(position) => Ok(Reply::Deleted {
                user: user.to_string(),
                was_there: position.is_some(),
            }),
            Err(error) => Err(self.refusal(error, &user, &key).await?),
        }
    }

    async fn list_data(
        &self,
        user: &str,
        selection: Selection,
        after: Option<After>,
    ) -> Result<Reply> {
        let user = self.existing(user).await?;
        let after = match after {
            Some(After::Entry(place)) => Some(key_of(&place)?),
            _ => None,
        };
        let selector = match selection {
            Selection::All => Selector::All,
            Selection::Device(device) => Selector::Scope(Scope::Device(DeviceId::parse(device)?)),
            Selection::Devices => Selector::AllDevices,
            Selection::Global => Selector::Scope(Scope::Global),
            Selection::Room(room) => Selector::Scope(Scope::Room(room_id(&room)?)),
            Selection::Rooms => Selector::AllRooms,
        };
        let page = match self.data.reader().describe(&user, selector, after).await {
            Err(DescribeError::NoSuchDevice(device)) => {
                return Err(self.no_device(&user, &device).await?);
            }
            page => page?,
        };
        let rows = page.entries.iter().map(|entry| row(&EntryRow::new(entry)));
        let rows = rows.collect::<Result<_>>()?;
        let after = page.next.map(|last| After::Entry(place_of(&user, &last)));
        Ok(Reply::Rows { rows, after })
    }

    async fn list_devices(&self, event_type: &str, after: Option<After>) -> Result<Reply> {
        let event_type = EventType::parse(event_type)?;
        let reader = self.data.reader();
        let limit = CONTENT_ROWS_MAX.min(self.data.limits().device_entries_at_once());
        let page = reader.device_entries(&event_type, device_place(after)?, limit);
        let page = page.await?;
        let rows = page.iter().map(|found| row(&DeviceEntryRow::new(found)));
        Ok(Reply::Rows {
            rows: rows.collect::<Result<_>>()?,
            after: page.last().map(|last| after_device(&last.place())),
        })
    }

    async fn lacking(
        &self,
        question: &Question,
        value: &str,
        after: Option<After>,
    ) -> Result<Reply> {
        let (event_type, pointer) = question.parse()?;
        let value: Value = serde_json::from_str(value).context("the value is not JSON")?;
        let reader = self.data.reader();
        let after = device_place(after)?;
        let lacking = reader.lacking(&event_type, &pointer, &value, after, CONTENT_ROWS_MAX);
        let page = lacking.await?;
        let rows = page.iter().map(|found| row(&DeviceRow::new(found)));
        let last = page.last().filter(|_| page.len() == CONTENT_ROWS_MAX);
        Ok(Reply::Rows {
            rows: rows.collect::<Result<_>>()?,
            after: last.map(|last| after_device(&last.place())),
        })
    }

    async fn tally(&self, question: &Question, tells: &watch::Sender<Far>) -> Result<Reply> {
        let (event_type, pointer) = question.parse()?;
        let reader = self.data.reader();
        let tell = |devices| {
            tells.send_replace(Far::Counting { devices });
        };
        let tally = reader.tally_telling(&event_type, &pointer, tell).await?;
        Ok(Reply::Rows {
            rows: vec![row(&Summary::new(&event_type, &pointer, tally))?],
            after: None,
        })
    }

    async fn find(&self, place: &Place) -> Result<(UserId, Key)> {
        let key = key_of(place)?;
        Ok((self.existing(&place.user).await?, key))
    }

    /// Returns the error that there is no such entry, with what may have been meant.
    async fn nothing(&self, user: &UserId, key: &Key) -> Result<anyhow::Error> {
        let Key { event_type, scope } = key;
        if let Scope::Device(device) = scope
            && self.store.device(user, device).await?.is_none()
        {
            return self.no_device(user, device).await;
        }
        let selector = Selector::Scope(scope.clone());
        let Descriptions { entries, .. } =
            self.data.reader().describe(user, selector, None).await?;
        let likeness = |known: &str| strsim::jaro_winkler(event_type.as_str(), known);
        let known = entries.iter().map(|entry| entry.key.event_type.as_str());
        let known = known.filter(|known| likeness(known) >= LIKENESS_MIN);
        let nearest = known.max_by(|one, other| likeness(one).total_cmp(&likeness(other)));
        let hint = nearest.map_or(String::new(), |known| format!("; there is `{known}`"));
        let place = match scope {
            Scope::Global => String::new(),
            Scope::Room(room) => format!(" in the room {room}"),
            Scope::Device(device) => format!(" on the device {device}"),
        };
        Ok(anyhow!("{user} has no `{event_type}`{place}{hint}"))
    }

    /// Returns the error that there is no such device, with those that are.
    async fn no_device(&self, user: &UserId, device: &DeviceId) -> Result<anyhow::Error> {
        let devices = self.store.devices(user).await?;
        let names = devices
            .iter()
            .take(HINTS_MAX)
            .map(|known| known.id.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let more = if devices.len() > HINTS_MAX {
            " …"
        } else {
            ""
        };
        Ok(if devices.is_empty() {
            anyhow!("{user} has no device {device}, nor any other")
        } else {
            anyhow!("{user} has no device {device}, but {names}{more}")
        })
    }

    async fn refusal(
        &self,
        error: OperatorWriteError,
        user: &UserId,
        key: &Key,
    ) -> Result<anyhow::Error> {
        match (error, &key.scope) {
            (OperatorWriteError::NoSuchDevice, Scope::Device(device)) => {
                self.no_device(user, device).await
            }
            (OperatorWriteError::Write(WriteError::IgnoresSelf), _) => {
                Ok(anyhow!("a user cannot ignore themselves"))
            }
            (error, _) => Ok(error.into()),
        }
    }
}

impl Question {
    fn parse(&self) -> Result<(EventType, Pointer)> {
        let event_type = EventType::parse(&*self.event_type)?;
        Ok((event_type, Pointer::parse(&self.pointer)?))
    }
}

/// Says where a content is not JSON, and nothing of what stands there.
fn explain(error: ContentError, content: &[u8]) -> anyhow::Error {
    let place = match std::str::from_utf8(content) {
        Ok(text) => serde_json::from_str::<IgnoredAny>(text).err(),
        Err(_) => return anyhow!("{error}: it is not UTF-8"),
    };
    match (error, place) {
        // A scan that builds nothing has texts of its own only, and none of the content's.
        (ContentError::NotJson, Some(place)) => anyhow!("{}: {place}", ContentError::NotJson),
        (error, _) => error.into(),
    }
}

/// Writes a row of JSON without a line break: JSON has one as white space only.
fn row(row: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string(row)?.replace(['\n', '\r'], " "))
}

fn key_of(place: &Place) -> Result<Key> {
    let scope = match (&place.room, &place.device) {
        (None, None) => Scope::Global,
        (Some(room), None) => Scope::Room(room_id(room)?),
        (None, Some(device)) => Scope::Device(DeviceId::parse(&**device)?),
        (Some(_), Some(_)) => bail!("an entry is of a room or of a device"),
    };
    Ok(Key::new(scope, EventType::parse(&*place.event_type)?))
}

fn room_id(room: &str) -> Result<RoomId> {
    RoomId::parse(room).with_context(|| format!("`{room}` is not a room ID"))
}

fn place_of(user: &UserId, key: &Key) -> Place {
    let (room, device) = match &key.scope {
        Scope::Global => (None, None),
        Scope::Room(room) => (Some(room.to_string()), None),
        Scope::Device(device) => (None, Some(device.to_string())),
    };
    Place {
        user: user.to_string(),
        room,
        device,
        event_type: key.event_type.to_string(),
    }
}

fn device_place(after: Option<After>) -> Result<Option<DevicePlace>> {
    match after {
        Some(After::Device { user, device }) => Ok(Some(DevicePlace {
            user: UserId::parse(user)?,
            device: DeviceId::parse(device)?,
        })),
        _ => Ok(None),
    }
}

fn after_device(place: &DevicePlace) -> After {
    After::Device {
        user: place.user.to_string(),
        device: place.device.to_string(),
    }
}
