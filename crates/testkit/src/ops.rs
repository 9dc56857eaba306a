//! The one generator of operations: property tests, concurrent histories, and later drivers too.
//!
//! A [`Step`] names users, devices and entries by number, so that it makes sense in whatever state it
//! is run, and a list of steps stays a list of steps when some are left out.

use kitbag_domain::{DeviceId, Key, Limits, Quota};

use crate::dice::Dice;
use crate::{device_id, device_key, global, room_key};

/// Users of a history.
pub const USERS: usize = 2;
/// Devices of each user. The number behind them stands for a session without a device.
pub const DEVICES: usize = 3;
/// A type that no ordinary request may write.
const MANAGED: [&str; 2] = ["m.push_rules", "m.fully_read"];

/// One of the devices of one of the users.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The number of the user.
    pub user: usize,
    /// The number of the device; [`DEVICES`] is a session without one.
    pub device: usize,
}

impl Slot {
    /// Returns the ID of the device; `None` for a session without one.
    #[must_use]
    pub fn device_id(self) -> Option<DeviceId> {
        (self.device < DEVICES).then(|| device_name(self.device))
    }
}

pub(crate) fn device_name(number: usize) -> DeviceId {
    device_id(["A", "B", "C", "NOBODY"][number])
}

/// One operation to be tried.
#[derive(Clone, Debug)]
pub struct Step {
    /// Who does it.
    pub who: Slot,
    /// What is done.
    pub what: What,
}

/// What a [`Step`] does.
#[derive(Clone, Debug)]
pub enum What {
    /// Ends the account.
    Deactivate,
    /// Deletes an entry.
    Delete(Key),
    /// Edits the push rules.
    Edit,
    /// Deletes an entry by a put.
    Erase(Key, Expect),
    /// Asks for everything.
    Everything(Since),
    /// Reads an entry.
    Get(Key),
    /// Logs the device in, perhaps again.
    Login,
    /// Removes the session's own device.
    Logout,
    /// Changes the password, and where asked for removes the other devices.
    Password {
        /// Whether the other devices go.
        logout: bool,
    },
    /// Puts an entry.
    Put(Key, Make, Expect),
    /// Replaces the tokens of the session.
    Refresh,
    /// Removes devices, by number; the last one does not exist.
    Remove(Vec<usize>),
    /// Syncs.
    Sync(Since),
    /// Lets time pass.
    Tick {
        /// How long.
        by_ms: u64,
    },
}

/// What content is put: its form is drawn, its number is given when it is made.
#[derive(Clone, Copy, Debug)]
pub struct Make {
    form: usize,
    pad_bytes: usize,
    stable: bool,
    unstable: bool,
}

/// What a writer expects to replace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Anything.
    Anything,
    /// The revisions that were last seen, under both names.
    Both,
    /// The revision that was last seen under the stable name.
    Stable,
    /// The revision that was last seen under the unstable name.
    Unstable,
    /// A revision that nobody ever wrote.
    Wrong,
}

/// Where a sync starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// The start.
    Beginning,
    /// A token of another epoch.
    Foreign,
    /// A token from the future.
    Future,
    /// The latest token of the chain.
    Latest,
    /// An older token, once more.
    Older(usize),
    /// The token of another user.
    OtherUser,
}

/// Which rare steps a history may hold.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rare {
    /// Whether accounts end.
    pub deactivation: bool,
    /// Whether time passes.
    pub ticks: bool,
}

impl Step {
    /// Draws a step.
    pub fn draw(dice: &mut Dice, rare: Rare) -> Self {
        let who = Slot {
            user: dice.below(USERS),
            device: if dice.chance(6) {
                DEVICES
            } else {
                dice.below(DEVICES)
            },
        };
        let what = match dice.below(1_000) {
            0..385 => {
                let key = draw_key(dice, who);
                What::Put(key, Make::draw(dice), Expect::draw(dice))
            }
            385..420 => What::Erase(draw_key(dice, who), Expect::draw(dice)),
            420..520 => What::Delete(draw_key(dice, who)),
            520..660 => What::Get(draw_key(dice, who)),
            660..820 => What::Sync(Since::draw(dice)),
            820..850 => What::Everything(Since::draw(dice)),
            850..890 => What::Login,
            890..905 => What::Refresh,
            905..935 => What::Logout,
            935..960 => What::Remove((0..=DEVICES).filter(|_| dice.chance(40)).collect()),
            960..975 => What::Password {
                logout: dice.chance(70),
            },
            975..980 if rare.deactivation => What::Deactivate,
            980..1_000 if rare.ticks => match dice.below(6) as u64 {
                0 => What::Edit,
                quarters => What::Tick {
                    by_ms: AGE_MS / 4 * quarters,
                },
            },
            _ => What::Edit,
        };
        Self { who, what }
    }
}

fn draw_key(dice: &mut Dice, who: Slot) -> Key {
    let name = format!("t{}", dice.below(3));
    match dice.below(100) {
        0..30 => global(&name),
        30..55 => room_key(["!r", "!s:x"][dice.below(2)], &name),
        55..82 => device_key(device_name(who.device.min(DEVICES - 1)).as_str(), &name),
        82..90 => device_key(device_name(dice.below(DEVICES + 1)).as_str(), &name),
        90..95 => {
            let device = device_name(dice.below(DEVICES));
            let namespace = ["m", "org.matrix.msc3890"][dice.below(2)];
            global(&format!("{namespace}.local_notification_settings.{device}"))
        }
        _ => {
            let managed = MANAGED[dice.below(2)];
            match dice.below(4) {
                0 => room_key("!r", managed),
                1 => device_key(device_name(dice.below(DEVICES + 1)).as_str(), managed),
                _ => global(managed),
            }
        }
    }
}

impl Make {
    fn draw(dice: &mut Dice) -> Self {
        Self {
            form: dice.below(8),
            pad_bytes: if dice.chance(30) { dice.below(200) } else { 0 },
            stable: dice.chance(50),
            unstable: dice.chance(25),
        }
    }

    /// Writes the content down. Unless it is an empty object, `number` makes it unlike all others.
    #[must_use]
    pub fn text(&self, number: u64) -> String {
        if self.form == 0 {
            return ["{}", "{ }"][usize::from(self.stable)].to_owned();
        }
        let mut members = vec![format!("\"n\":{number}")];
        if self.stable {
            members.push(format!("\"m.revision_id\":\"s{number}\""));
        }
        if self.unstable {
            members.push(format!("\"com.beeper.revision_id\":\"u{number}\""));
        }
        if self.pad_bytes > 0 {
            members.push(format!("\"pad\":\"{}\"", "x".repeat(self.pad_bytes)));
        }
        let body = match self.form {
            1 => format!(
                "\"m.revision_id\":\"earlier\",\"n\":1e400,{}",
                members.join(",")
            ),
            2 => format!(
                " \"\u{e9}\\u00e9\" : [ 1.0, -0 ],\t{}\r\n",
                members.join(" , ")
            ),
            3 => format!("\"in\":{{\"m.revision_id\":\"in\"}},{}", members.join(",")),
            4 if !self.stable => format!("\"m.revision_id\":{number},{}", members.join(",")),
            _ => members.join(","),
        };
        format!("{{{body}}}")
    }
}

impl Expect {
    fn draw(dice: &mut Dice) -> Self {
        match dice.below(20) {
            0..9 => Self::Anything,
            9..15 => Self::Stable,
            15..17 => Self::Unstable,
            17 | 18 => Self::Both,
            _ => Self::Wrong,
        }
    }
}

impl Since {
    fn draw(dice: &mut Dice) -> Self {
        match dice.below(100) {
            0..62 => Self::Latest,
            62..80 => Self::Older(dice.below(50)),
            80..94 => Self::Beginning,
            94 | 95 => Self::Foreign,
            96 | 97 => Self::Future,
            _ => Self::OtherUser,
        }
    }
}

/// How long tombstones are kept in histories in which time passes.
const AGE_MS: u64 = 1_000_000_000;

/// Returns limits so small that histories meet them.
#[must_use]
pub fn small_limits(tombstones_max: u64) -> Limits {
    Limits {
        quota: Quota {
            entries_max: 9,
            bytes_max: 600,
            device_entries_max: 2,
            reserve_entries: 0,
            reserve_bytes: 0,
        },
        tombstones_max,
        tombstone_age_ms_max: AGE_MS,
        ..Limits::default()
    }
}
