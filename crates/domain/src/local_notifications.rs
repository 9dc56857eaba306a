//! MSC3890: a device's notification settings, kept as global account data that names the device.

use crate::{DeviceId, EventType, Key, Scope};

const PREFIXES: [&str; 2] = [
    "m.local_notification_settings.",
    "org.matrix.msc3890.local_notification_settings.",
];

/// Returns the keys of the global entries that go together with `device` (MSC3890), if they exist.
pub fn local_notification_keys(device: &DeviceId) -> impl Iterator<Item = Key> + '_ {
    // A type longer than the limit cannot have been stored.
    PREFIXES
        .into_iter()
        .filter_map(move |prefix| EventType::parse(format!("{prefix}{device}")).ok())
        .map(|event_type| Key::new(Scope::Global, event_type))
}
