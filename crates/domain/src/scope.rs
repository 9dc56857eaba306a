//! Where an entry lives: its scope and its key.

use std::fmt;

use crate::{DeviceId, EventType, RoomId};

/// The scope of an entry within its user's account.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// The account itself.
    Global,
    /// One room, which the server need not know.
    Room(RoomId),
    /// One device of the user (MSC4331).
    Device(DeviceId),
}

impl Scope {
    /// Returns the room or device ID, empty for the global scope.
    #[must_use]
    pub fn place(&self) -> &str {
        match self {
            Self::Global => "",
            Self::Room(room) => room.as_str(),
            Self::Device(device) => device.as_str(),
        }
    }

    /// Returns the device of a device scope.
    #[must_use]
    pub fn device(&self) -> Option<&DeviceId> {
        match self {
            Self::Device(device) => Some(device),
            Self::Global | Self::Room(_) => None,
        }
    }
}

/// The name of an entry within its user's account.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Where the entry lives.
    pub scope: Scope,
    /// Its type, such as `m.direct`.
    pub event_type: EventType,
}

impl Key {
    /// Returns the key of `event_type` in `scope`.
    #[must_use]
    pub fn new(scope: Scope, event_type: EventType) -> Self {
        Self { scope, event_type }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}/{}", self.scope, self.event_type)
    }
}

/// Which entries of a user to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Those of every scope.
    All,
    /// Those of all devices.
    AllDevices,
    /// Those of all rooms.
    AllRooms,
    /// Those of one scope.
    Scope(Scope),
}

impl Selector {
    /// Tells whether entries of `scope` are selected.
    #[must_use]
    pub fn matches(&self, scope: &Scope) -> bool {
        match self {
            Self::All => true,
            Self::AllDevices => scope.device().is_some(),
            Self::AllRooms => matches!(scope, Scope::Room(_)),
            Self::Scope(wanted) => wanted == scope,
        }
    }
}
