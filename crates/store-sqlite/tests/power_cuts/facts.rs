//! What the clients of a load were told, and when.

use std::collections::HashMap;
use std::sync::Arc;

use kitbag_domain::{DeviceId, Incarnation, Key, Position, TokenHash, UserId};

/// A place in the log of the disk.
pub(crate) type Place = usize;

/// All that clients were told.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    pub(crate) accounts: Vec<Account>,
    /// By the client that moves it.
    pub(crate) devices: HashMap<usize, Device>,
    pub(crate) heads: Vec<Head>,
    /// Where the feed of all users' device data was told to stand.
    pub(crate) feed_heads: Vec<(Place, u64)>,
    pub(crate) writes: Vec<Written>,
    /// What each position that was told stands for.
    pub(crate) positions: HashMap<(UserId, Position), Meaning>,
}

/// When a position was told, of what, and with what content.
pub(crate) type Meaning = (Place, Key, Option<Arc<str>>);

/// An account that was to be registered, and perhaps deactivated.
#[derive(Debug)]
pub(crate) struct Account {
    pub(crate) user: UserId,
    pub(crate) registered: Option<Place>,
    pub(crate) deactivation_begun: Option<Place>,
    pub(crate) deactivated: Option<Place>,
}

/// What became of one device, which only one client moves.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) user: UserId,
    pub(crate) id: DeviceId,
    pub(crate) chapters: Vec<Chapter>,
}

/// A change of a device.
#[derive(Clone, Debug)]
pub(crate) struct Chapter {
    pub(crate) begun: Place,
    /// `None` where the outcome is not known.
    pub(crate) told: Option<Place>,
    pub(crate) session: Option<Session>,
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) access: TokenHash,
    /// `None` where it was not looked at.
    pub(crate) incarnation: Option<Incarnation>,
}

/// Where a user's stream was told to stand.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) user: UserId,
    pub(crate) told: Place,
    pub(crate) position: Position,
}

/// A write of one entry; `text` is `None` for a deletion.
#[derive(Debug)]
pub(crate) struct Written {
    pub(crate) user: UserId,
    pub(crate) key: Key,
    pub(crate) text: Option<Arc<str>>,
    pub(crate) begun: Place,
    /// `None` where the outcome is not known.
    pub(crate) told: Option<(Place, Position)>,
}

impl Facts {
    /// Notes a write, and that no position is told for two things.
    pub(crate) fn write(&mut self, written: Written) {
        if let Some((told, position)) = written.told {
            let at = (written.user.clone(), position);
            let what = (told, written.key.clone(), written.text.clone());
            let before = self.positions.insert(at, what);
            assert_eq!(before, None, "{} told twice", position.0);
        }
        self.writes.push(written);
    }
}
