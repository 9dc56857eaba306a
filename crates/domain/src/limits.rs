//! Every limit of the domain, with its default and its reason, and the quota of a user.

use thiserror::Error;

use crate::Scope;

/// The defaults: each has the unit last in its name.
pub mod limit {
    /// Bytes of an event type: that of room events [spec, "Size limits"].
    pub const TYPE_BYTES_MAX: usize = 255;
    /// Bytes of a user ID [spec, appendices "User Identifiers"].
    pub const USER_ID_BYTES_MAX: usize = 255;
    /// Bytes of a room ID [spec, appendices "Room IDs"].
    pub const ROOM_ID_BYTES_MAX: usize = 255;
    /// Bytes of a server name: what is left of a user ID.
    pub const SERVER_NAME_BYTES_MAX: usize = 230;
    /// Bytes of a device ID at login; generated ones have ten.
    pub const DEVICE_ID_BYTES_MAX: usize = 128;
    /// Bytes of one content. `m.direct` and push rules pass 100 KiB on real accounts.
    pub const CONTENT_BYTES_MAX: u64 = 1024 * 1024;
    /// Bytes of one content at device scope: the server itself reads these.
    pub const DEVICE_CONTENT_BYTES_MAX: u64 = 64 * 1024;
    /// Nesting of JSON: what other parsers of the ecosystem accept.
    pub const JSON_DEPTH_MAX: usize = 128;
    /// Entries of one user, over all scopes.
    pub const USER_ENTRIES_MAX: u64 = 50_000;
    /// Bytes of one user's entries, names included.
    pub const USER_BYTES_MAX: u64 = 128 * 1024 * 1024;
    /// Entries of one device.
    pub const DEVICE_ENTRIES_MAX: u64 = 64;
    /// Entries that the user's own doors (tags, markers, rules) may use beyond the quota.
    pub const RESERVE_ENTRIES: u64 = 64;
    /// Bytes that the user's own doors may use beyond the quota.
    pub const RESERVE_BYTES: u64 = 1024 * 1024;
    /// Devices of one user: bots that log in anew at each start reach hundreds.
    pub const DEVICES_MAX: u64 = 1_000;
    /// Tombstones kept for one user; older ones go first and the horizon follows.
    pub const TOMBSTONES_MAX: u64 = 1_000;
    /// How long a tombstone is kept: a client away for longer syncs afresh.
    pub const TOMBSTONE_AGE_MS_MAX: u64 = 90 * 24 * 60 * 60 * 1_000;
    /// Filters kept for one user; clients upload the same few again and again.
    pub const FILTERS_MAX: u64 = 100;
    /// Bytes of one filter.
    pub const FILTER_BYTES_MAX: usize = 64 * 1024;
    /// Bytes kept of a `User-Agent` header.
    pub const USER_AGENT_BYTES_MAX: usize = 255;
    /// Characters of a device's display name, as on Synapse.
    pub const DEVICE_NAME_CHARS_MAX: usize = 100;
    /// Bytes of a display name or avatar URL of a profile.
    pub const PROFILE_FIELD_BYTES_MAX: usize = 1_000;
    /// Bytes of a JSON pointer: those of people have a few names.
    pub const POINTER_BYTES_MAX: usize = 1_024;
    /// Names in a JSON pointer: no content nests deeper by default.
    pub const POINTER_NAMES_MAX: usize = JSON_DEPTH_MAX;
    /// Values that a tally tells apart: more than that nobody reads.
    pub const TALLY_VALUES_MAX: usize = 1_000;
    /// Bytes of a value that a tally tells apart: with the number above, 1 MiB in all.
    pub const TALLY_VALUE_BYTES_MAX: usize = 1_024;
    /// Descriptions of a user's entries that are read at once: with long names some MiB.
    pub const DESCRIPTIONS_AT_ONCE_MAX: usize = 5_000;
    /// Bytes of contents of many devices that the server itself reads at once.
    pub const DEVICE_PAGE_BYTES_MAX: u64 = 4 * 1024 * 1024;
    /// Entries of many devices that the server itself reads at once, however small they are.
    pub const DEVICE_PAGE_ENTRIES_MAX: usize = 250;
}

/// The limits in force: the [`limit`] defaults, unless the configuration says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one content at global and room scope.
    pub content_bytes_max: u64,
    /// Bytes of one content at device scope.
    pub device_content_bytes_max: u64,
    /// Nesting of JSON in a content.
    pub json_depth_max: usize,
    /// What one user may store.
    pub quota: Quota,
    /// Devices of one user.
    pub devices_max: u64,
    /// Tombstones kept for one user.
    pub tombstones_max: u64,
    /// Age in milliseconds at which a tombstone goes.
    pub tombstone_age_ms_max: u64,
    /// Filters kept for one user.
    pub filters_max: u64,
}

impl Limits {
    /// Returns how many bytes a content in `scope` may have.
    #[must_use]
    pub fn content_bytes_max_in(&self, scope: &Scope) -> u64 {
        match scope {
            Scope::Global | Scope::Room(_) => self.content_bytes_max,
            Scope::Device(_) => self.device_content_bytes_max,
        }
    }

    /// Returns how many entries of devices to read at once, at least 1: as many as stay within
    /// [`limit::DEVICE_PAGE_BYTES_MAX`] where each is as large as it may be, and within
    /// [`limit::DEVICE_PAGE_ENTRIES_MAX`].
    #[must_use]
    pub fn device_entries_at_once(&self) -> usize {
        let fit = limit::DEVICE_PAGE_BYTES_MAX / self.device_content_bytes_max.max(1);
        let fit = usize::try_from(fit).unwrap_or(usize::MAX);
        fit.clamp(1, limit::DEVICE_PAGE_ENTRIES_MAX)
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            content_bytes_max: limit::CONTENT_BYTES_MAX,
            device_content_bytes_max: limit::DEVICE_CONTENT_BYTES_MAX,
            json_depth_max: limit::JSON_DEPTH_MAX,
            quota: Quota::default(),
            devices_max: limit::DEVICES_MAX,
            tombstones_max: limit::TOMBSTONES_MAX,
            tombstone_age_ms_max: limit::TOMBSTONE_AGE_MS_MAX,
            filters_max: limit::FILTERS_MAX,
        }
    }
}

/// What one user may store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Live entries over all scopes; tombstones do not count.
    pub entries_max: u64,
    /// Bytes of the live entries, see [`Entry::size_bytes`](crate::Entry::size_bytes).
    pub bytes_max: u64,
    /// Live entries of one device.
    pub device_entries_max: u64,
    /// Entries beyond `entries_max` for the user's own doors.
    pub reserve_entries: u64,
    /// Bytes beyond `bytes_max` for the user's own doors.
    pub reserve_bytes: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            entries_max: limit::USER_ENTRIES_MAX,
            bytes_max: limit::USER_BYTES_MAX,
            device_entries_max: limit::DEVICE_ENTRIES_MAX,
            reserve_entries: limit::RESERVE_ENTRIES,
            reserve_bytes: limit::RESERVE_BYTES,
        }
    }
}

/// What one user has stored: live entries and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Live entries over all scopes.
    pub entries: u64,
    /// Bytes of the live entries.
    pub bytes: u64,
}

impl Usage {
    /// Returns the usage after an entry of `old` bytes became one of `new` bytes; `None` is absence.
    #[must_use]
    pub fn replace(self, old: Option<u64>, new: Option<u64>) -> Self {
        let removed = self.entries.checked_sub(u64::from(old.is_some()));
        let freed = self.bytes.checked_sub(old.unwrap_or(0));
        Self {
            entries: removed.expect("a live entry is counted") + u64::from(new.is_some()),
            bytes: freed.expect("the bytes of a live entry are counted") + new.unwrap_or(0),
        }
    }
}

/// A write that would pass a quota.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum QuotaExceeded {
    /// The user has as many entries as allowed.
    #[error("the account holds {limit} entries, which is its limit")]
    Entries {
        /// The limit that the write would pass.
        limit: u64,
    },
    /// The user's entries would be larger than allowed.
    #[error("the account's data would be larger than its limit of {limit} bytes")]
    Bytes {
        /// The limit that the write would pass.
        limit: u64,
    },
    /// The device has as many entries as allowed.
    #[error("the device holds {limit} entries, which is its limit")]
    DeviceEntries {
        /// The limit that the write would pass.
        limit: u64,
    },
}
