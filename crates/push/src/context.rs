//! What evaluation has to know beside the event.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;

/// The power level that a notification needs where the room does not say [spec,
/// `m.room.power_levels`].
pub const NOTIFICATION_LEVEL_DEFAULT: i64 = 50;

/// The room as it is when the event is sent: the same for all its members.
///
/// It can be read from JSON, each field under its name and each of them optional.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoomContext {
    /// How many have joined the room.
    pub joined_members: u64,
    /// The power level of who sent the event. Where it is not known, nothing that needs one
    /// matches. Creators whose power is without bound have [`i64::MAX`].
    pub sender_power_level: Option<i64>,
    /// `notifications` of the room's power levels; what is not there needs
    /// [`NOTIFICATION_LEVEL_DEFAULT`].
    pub notification_levels: BTreeMap<String, i64>,
}

impl RoomContext {
    pub(crate) fn notification_level(&self, key: &str) -> i64 {
        let level = self.notification_levels.get(key).copied();
        level.unwrap_or(NOTIFICATION_LEVEL_DEFAULT)
    }
}

/// A member of the room, whose rules are evaluated.
///
/// Who the member is stands in the [`Ruleset`](crate::Ruleset), which is of one user.
#[derive(Clone, Copy)]
pub struct MemberContext<'a> {
    room: &'a RoomContext,
    display_name: &'a str,
}

impl<'a> MemberContext<'a> {
    /// Makes the context of a member without a display name.
    #[must_use]
    pub fn new(room: &'a RoomContext) -> Self {
        Self::named(room, "")
    }

    /// Makes the context of a member with the display name in this room. An empty name is as none.
    #[must_use]
    pub fn named(room: &'a RoomContext, display_name: &'a str) -> Self {
        Self { room, display_name }
    }

    /// Returns the room that the member is in.
    #[must_use]
    pub fn room(&self) -> &'a RoomContext {
        self.room
    }

    /// Returns the display name of the member in the room; it is empty where there is none.
    #[must_use]
    pub fn display_name(&self) -> &'a str {
        self.display_name
    }
}

impl fmt::Debug for MemberContext<'_> {
    /// Shows the room alone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut member = f.debug_struct("MemberContext");
        member.field("room", self.room).finish_non_exhaustive()
    }
}
