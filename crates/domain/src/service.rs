//! The service that every door to account data uses.

mod initial;
mod operator;
mod push_rules;
mod read;
mod reader;
mod report;
mod write;

use std::sync::Arc;

use crate::{
    Allowance, Clock, DeviceId, Guard, Incarnation, Limits, PushRules, Store, UnixMs, UserId,
    Write, Writer,
};

pub use initial::InitialSnapshot;
pub use operator::{Operator, OperatorWriteError};
pub use push_rules::PushRulesWriteError;
pub use read::{GetError, Snapshot};
pub use reader::{DescribeError, Descriptions, DeviceValue, ReadError, Reader, Unreadable};
pub use report::{LackingDevice, Tally};
pub use write::{PermitError, WriteError, WritePermit};

/// On whose behalf a request is made.
///
/// Every operation of [`AccountData`] works on the account of its requester: there is no way to name
/// another user's (law 5). What the server itself reads and its operator writes goes through
/// [`AccountData::reader`] and [`AccountData::operator`], which no request of a user may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requester {
    /// The user.
    pub user: UserId,
    /// The device of the session; a session without one never owns a device's entries.
    pub device: Option<(DeviceId, Incarnation)>,
    /// What the client calls itself.
    pub user_agent: Option<Arc<str>>,
}

impl Requester {
    /// Returns the condition under which this requester's writes are made.
    #[must_use]
    pub fn guard(&self) -> Guard {
        match &self.device {
            Some((id, incarnation)) => Guard::Device(id.clone(), *incarnation),
            None => Guard::Account,
        }
    }

    /// Returns whom to record as the writer.
    #[must_use]
    pub fn writer(&self) -> Writer {
        match &self.device {
            Some((id, _)) => Writer::Device {
                id: id.clone(),
                user_agent: self.user_agent.clone(),
            },
            None => Writer::Server,
        }
    }

    /// Returns how this requester's writes are made and recorded.
    #[must_use]
    pub fn write_at(&self, at: UnixMs) -> Write {
        Write {
            guard: self.guard(),
            writer: self.writer(),
            at,
            allowance: Allowance::Ordinary,
        }
    }

    /// Tells whether the session's device is `device`.
    #[must_use]
    pub fn is_device(&self, device: &DeviceId) -> bool {
        self.device.as_ref().is_some_and(|(id, _)| id == device)
    }
}

/// Account data by the rules: policy, limits, compare-and-swap, push rules laid over.
#[derive(Clone)]
pub struct AccountData {
    store: Arc<dyn Store>,
    rules: Arc<dyn PushRules>,
    clock: Arc<dyn Clock>,
    limits: Arc<Limits>,
}

impl AccountData {
    /// Returns the service over a store.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        rules: Arc<dyn PushRules>,
        clock: Arc<dyn Clock>,
        limits: Arc<Limits>,
    ) -> Self {
        Self {
            store,
            rules,
            clock,
            limits,
        }
    }

    /// Returns the limits in force.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.limits
    }
}
