//! Which devices ended.

use std::collections::BTreeSet;

use kitbag_domain::DeviceId;

/// Whose entries.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// Those of all devices.
    All,
    /// Those of all devices but one.
    AllBut(DeviceId),
    /// Those of devices that the homeserver does not have any more.
    Others,
    /// Those of one device.
    Device(DeviceId),
}

/// What ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ended(pub(super) BTreeSet<Whose>);

impl Ended {
    /// All devices of a user.
    pub(crate) fn all() -> Self {
        Self([Whose::All].into())
    }

    /// All devices of a user but one.
    pub(crate) fn all_but(device: Option<DeviceId>) -> Self {
        Self([device.map_or(Whose::All, Whose::AllBut)].into())
    }

    /// Some devices.
    pub(crate) fn these(devices: impl IntoIterator<Item = DeviceId>) -> Self {
        Self(devices.into_iter().map(Whose::Device).collect())
    }

    /// Those that the homeserver does not have any more.
    pub(crate) fn others() -> Self {
        Self([Whose::Others].into())
    }

    /// Returns both.
    pub(crate) fn and(mut self, more: Self) -> Self {
        self.0.extend(more.0);
        self
    }

    /// Returns all but one device.
    pub(crate) fn but(mut self, device: Option<&DeviceId>) -> Self {
        if let Some(device) = device {
            self.0.remove(&Whose::Device(device.clone()));
        }
        self
    }

    /// Returns what is known to have ended, and what the homeserver does not have any more.
    pub(crate) fn parts(mut self) -> [Self; 2] {
        let others = self.0.take(&Whose::Others);
        [self, Self(others.into_iter().collect())]
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells whether this is one of them.
    pub(crate) fn contains(&self, whose: &Whose) -> bool {
        self.0.contains(whose)
    }

    /// Tells whether a device is known to be one of them.
    pub(crate) fn has(&self, device: &DeviceId) -> bool {
        let mut of_many = self.0.iter().take_while(|whose| whose.is_of_many());
        of_many.any(|whose| whose.has(device)) || self.contains(&Whose::Device(device.clone()))
    }

    /// Tells whether it is all devices, or all but one.
    pub(crate) fn are_all(&self) -> bool {
        self.0.first().is_some_and(Whose::is_of_many)
    }

    /// Returns those that are named.
    pub(crate) fn devices(&self) -> impl Iterator<Item = &DeviceId> {
        self.0.iter().filter_map(|whose| match whose {
            Whose::Device(device) => Some(device),
            Whose::All | Whose::AllBut(_) | Whose::Others => None,
        })
    }
}

impl Whose {
    /// These come before all others in their order.
    pub(super) fn is_of_many(&self) -> bool {
        matches!(self, Self::All | Self::AllBut(_))
    }

    pub(super) fn has(&self, device: &DeviceId) -> bool {
        match self {
            Self::All => true,
            Self::AllBut(other) => other != device,
            Self::Others => false,
            Self::Device(own) => own == device,
        }
    }
}
