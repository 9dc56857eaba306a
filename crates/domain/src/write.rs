//! What one write does: the decision that every store takes inside its transaction.

use crate::entry::entry_size_bytes;
use crate::{Content, Key, Quota, QuotaExceeded, Usage};

/// Which part of the quota a write may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allowance {
    /// Writes through the account-data endpoints.
    Ordinary,
    /// Writes through the user's own doors (tags, markers, rules), which have a reserve.
    OwnDoor,
}

/// What a store reads before it decides on a write, in the same transaction.
#[derive(Clone, Copy, Debug)]
pub struct Before {
    /// What the live entry counts towards the quota, as [`Entry::size_bytes`](crate::Entry::size_bytes) tells it; `None` where
    /// there is none, or a tombstone.
    pub live_bytes: Option<u64>,
    /// What the user has stored.
    pub usage: Usage,
    /// Live entries of the device that the key names; not looked at in other scopes.
    pub device_entries: u64,
}

/// What a write does to an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The content replaces what was there, at a new position, also where it is equal (law 11).
    Put(Content, Usage),
    /// A tombstone replaces what was there, at a new position.
    Delete(Usage),
    /// There is nothing to delete, and no position is taken.
    Nothing,
}

/// Decides on replacing the entry under `key` by `new`, `None` being deletion.
///
/// Shrinking and deleting are always allowed (law 10).
/// # Errors
/// [`QuotaExceeded`] where the user's or the device's data would grow beyond the quota.
pub fn decide(
    key: &Key,
    new: Option<Content>,
    allowance: Allowance,
    quota: &Quota,
    before: Before,
) -> Result<Decision, QuotaExceeded> {
    let old_bytes = before.live_bytes;
    let Some(content) = new else {
        let usage = before.usage.replace(old_bytes, None);
        return Ok(if old_bytes.is_some() {
            Decision::Delete(usage)
        } else {
            Decision::Nothing
        });
    };
    let usage = before
        .usage
        .replace(old_bytes, Some(entry_size_bytes(key, content.size_bytes())));
    let (spare_entries, spare_bytes) = match allowance {
        Allowance::Ordinary => (0, 0),
        Allowance::OwnDoor => (quota.reserve_entries, quota.reserve_bytes),
    };
    let entries_max = quota.entries_max.saturating_add(spare_entries);
    let bytes_max = quota.bytes_max.saturating_add(spare_bytes);
    if usage.entries > before.usage.entries && usage.entries > entries_max {
        return Err(QuotaExceeded::Entries { limit: entries_max });
    }
    if usage.bytes > before.usage.bytes && usage.bytes > bytes_max {
        return Err(QuotaExceeded::Bytes { limit: bytes_max });
    }
    let new_device_entry = old_bytes.is_none() && key.scope.device().is_some();
    if new_device_entry && before.device_entries >= quota.device_entries_max {
        return Err(QuotaExceeded::DeviceEntries {
            limit: quota.device_entries_max,
        });
    }
    Ok(Decision::Put(content, usage))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceId, EventType, Limits, Scope};

    const QUOTA: Quota = Quota {
        entries_max: 2,
        bytes_max: 40,
        device_entries_max: 1,
        reserve_entries: 1,
        reserve_bytes: 10,
    };

    fn content(bytes: usize) -> Content {
        let text = format!("{{\"\":\"{}\"}}", "x".repeat(bytes - 7));
        Content::parse(text.into(), &Limits::default()).unwrap()
    }

    fn key() -> Key {
        Key::new(Scope::Global, EventType::parse("abcde").unwrap())
    }

    fn put(
        bytes: usize,
        allowance: Allowance,
        live_bytes: Option<u64>,
        usage: (u64, u64),
    ) -> Result<Decision, QuotaExceeded> {
        let key = key();
        let usage = Usage {
            entries: usage.0,
            bytes: usage.1,
        };
        let before = Before {
            live_bytes,
            usage,
            device_entries: 0,
        };
        decide(&key, Some(content(bytes)), allowance, &QUOTA, before)
    }

    #[test]
    fn limits_are_inclusive_and_the_reserve_is_for_own_doors() {
        let usage = Usage {
            entries: 2,
            bytes: 40,
        };
        let decision = put(10, Allowance::Ordinary, None, (1, 25));
        assert_eq!(decision, Ok(Decision::Put(content(10), usage)));
        let error = put(11, Allowance::Ordinary, None, (1, 25)).unwrap_err();
        assert_eq!(error, QuotaExceeded::Bytes { limit: 40 });
        assert!(put(20, Allowance::OwnDoor, None, (1, 25)).is_ok());
        let error = put(10, Allowance::Ordinary, None, (2, 0)).unwrap_err();
        assert_eq!(error, QuotaExceeded::Entries { limit: 2 });
        assert!(put(10, Allowance::OwnDoor, None, (2, 0)).is_ok());
        assert!(put(10, Allowance::OwnDoor, None, (3, 0)).is_err());
    }

    #[test]
    fn shrinking_and_deleting_are_always_allowed() {
        // The type counts too.
        let live_bytes = Some(25);
        assert!(
            put(20, Allowance::Ordinary, live_bytes, (9, 900)).is_ok(),
            "not larger"
        );
        assert!(put(21, Allowance::Ordinary, live_bytes, (9, 900)).is_err());
        let usage = Usage {
            entries: 9,
            bytes: 900,
        };
        let before = Before {
            live_bytes,
            usage,
            device_entries: 0,
        };
        let decision = decide(&key(), None, Allowance::Ordinary, &QUOTA, before);
        let usage = Usage {
            entries: 8,
            bytes: 875,
        };
        assert_eq!(decision, Ok(Decision::Delete(usage)));
    }

    #[test]
    fn deleting_what_is_not_there_does_nothing() {
        let before = Before {
            live_bytes: None,
            usage: Usage::default(),
            device_entries: 0,
        };
        let decision = decide(&key(), None, Allowance::Ordinary, &QUOTA, before);
        assert_eq!(decision, Ok(Decision::Nothing));
    }

    #[test]
    fn a_device_has_its_own_count() {
        let scope = Scope::Device(DeviceId::parse("D").unwrap());
        let key = Key::new(scope, EventType::parse("a").unwrap());
        let before = Before {
            live_bytes: None,
            usage: Usage::default(),
            device_entries: 1,
        };
        let error =
            decide(&key, Some(content(9)), Allowance::Ordinary, &QUOTA, before).unwrap_err();
        assert_eq!(error, QuotaExceeded::DeviceEntries { limit: 1 });
        let live_bytes = entry_size_bytes(&key, 9);
        let usage = Usage {
            entries: 1,
            bytes: live_bytes,
        };
        let before = Before {
            live_bytes: Some(live_bytes),
            usage,
            device_entries: 1,
        };
        assert!(decide(&key, Some(content(9)), Allowance::Ordinary, &QUOTA, before).is_ok());
    }
}
