//! The one table that says who may write which entry.

use crate::{EventType, Key, Scope};

/// The type of the user's push rules.
pub const PUSH_RULES: &str = "m.push_rules";

/// Types that the server manages through doors of their own, in every scope.
///
/// CS API, Client Config, "Server Behaviour" (`m.push_rules` since v1.10: MSC4010).
pub const SERVER_MANAGED: [&str; 2] = ["m.fully_read", PUSH_RULES];

/// Types of device account data with a policy of their own: a newer text of MSC4331 wants such
/// rules. There are none yet.
const DEVICE_TYPES: &[(&str, WritePolicy)] = &[];

/// Who may write an entry through the account-data endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WritePolicy {
    /// Every device of the user, and a session without one.
    AnyDevice,
    /// Only the device whose ID the scope names (MSC4331); never a session without a device.
    OwnDevice,
    /// Nobody: the type has doors of its own (405 `M_BAD_JSON` on the wire).
    ServerManaged,
}

impl WritePolicy {
    /// Returns the policy of an entry.
    #[must_use]
    pub fn of(key: &Key) -> Self {
        if SERVER_MANAGED.contains(&key.event_type.as_str()) {
            return Self::ServerManaged;
        }
        match key.scope {
            Scope::Global | Scope::Room(_) => Self::AnyDevice,
            Scope::Device(_) => device_policy(&key.event_type, DEVICE_TYPES),
        }
    }
}

fn device_policy(event_type: &EventType, rules: &[(&str, WritePolicy)]) -> WritePolicy {
    let rule = rules
        .iter()
        .find(|(known, _)| *known == event_type.as_str());
    rule.map_or(WritePolicy::OwnDevice, |(_, policy)| *policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DeviceId, RoomId};

    #[test]
    fn the_table() {
        let room = Scope::Room(RoomId::parse("!r").unwrap());
        let device = Scope::Device(DeviceId::parse("D").unwrap());
        let rows = [
            (&Scope::Global, "m.direct", WritePolicy::AnyDevice),
            (&room, "m.tag", WritePolicy::AnyDevice),
            (&device, "m.direct", WritePolicy::OwnDevice),
            (&Scope::Global, "m.push_rules", WritePolicy::ServerManaged),
            (&room, "m.push_rules", WritePolicy::ServerManaged),
            (&device, "m.push_rules", WritePolicy::ServerManaged),
            (&Scope::Global, "m.fully_read", WritePolicy::ServerManaged),
            (&room, "m.fully_read", WritePolicy::ServerManaged),
            (&device, "m.fully_read", WritePolicy::ServerManaged),
            (&Scope::Global, "M.push_rules", WritePolicy::AnyDevice),
        ];
        for (scope, event_type, policy) in rows {
            let key = Key::new(scope.clone(), EventType::parse(event_type).unwrap());
            assert_eq!(WritePolicy::of(&key), policy, "{key:?}");
        }
    }

    #[test]
    fn a_type_of_device_data_can_have_a_policy_of_its_own() {
        let rules = [("org.example.shared", WritePolicy::AnyDevice)];
        let policy = |event_type| device_policy(&EventType::parse(event_type).unwrap(), &rules);
        assert_eq!(policy("org.example.shared"), WritePolicy::AnyDevice);
        assert_eq!(policy("org.example.other"), WritePolicy::OwnDevice);
    }
}
