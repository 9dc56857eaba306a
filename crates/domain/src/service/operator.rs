//! What an operator writes into users' account data.

use thiserror::Error;

use super::AccountData;
use crate::{
    Allowance, ApplyError, Content, EventType, Expectation, Guard, Key, Op, Position, Refusal,
    StoreError, UserId, Write, WriteError, WritePolicy, Writer,
};

/// The operator's hand on account data; [`AccountData::operator`] returns it.
///
/// Bypasses ownership, and nothing else: what the server manages, limits, quotas and expectations
/// hold. The writer is recorded as [`Writer::Admin`].
#[derive(Clone)]
pub struct Operator(AccountData);

/// Why an operator's write was not made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum OperatorWriteError {
    /// There is no such account, or it is deactivated.
    #[error("there is no such account")]
    NoSuchAccount,
    /// The user has no such device.
    #[error("the user has no such device")]
    NoSuchDevice,
    /// The type is the server's.
    #[error("account data of type `{0}` is controlled by the server and cannot be set here")]
    ServerManaged(EventType),
    /// As for any write.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl AccountData {
    /// Returns the operator's hand on all users' account data.
    #[must_use]
    pub fn operator(&self) -> Operator {
        Operator(self.clone())
    }
}

impl Operator {
    /// Replaces the content of an entry and returns the position at which readers see it.
    /// # Errors
    /// [`OperatorWriteError`].
    pub async fn put(
        &self,
        user: &UserId,
        key: Key,
        content: Content,
        expectation: Expectation,
    ) -> Result<Position, OperatorWriteError> {
        let position = self
            .apply(user, key, |service, key| {
                service.check_content(user, key, &content)?;
                Ok(Op::Put(key.clone(), content, expectation))
            })
            .await?;
        Ok(position.expect("a put always takes a position"))
    }

    /// Deletes an entry and returns the position; `None` where there was nothing.
    /// # Errors
    /// [`OperatorWriteError`].
    pub async fn delete(
        &self,
        user: &UserId,
        key: Key,
    ) -> Result<Option<Position>, OperatorWriteError> {
        self.apply(user, key, |_, key| Ok(Op::Delete(key.clone())))
            .await
    }

    async fn apply(
        &self,
        user: &UserId,
        key: Key,
        op: impl FnOnce(&AccountData, &Key) -> Result<Op, WriteError>,
    ) -> Result<Option<Position>, OperatorWriteError> {
        if WritePolicy::of(&key) == WritePolicy::ServerManaged {
            return Err(OperatorWriteError::ServerManaged(key.event_type));
        }
        let Self(service) = self;
        let op = op(service, &key)?;
        let write = Write {
            guard: Guard::Account,
            writer: Writer::Admin,
            at: service.clock.now_ms(),
            allowance: Allowance::Ordinary,
        };
        let names = match &op {
            Op::Put(_, _, expectation) => expectation.names(),
            Op::Delete(_) => crate::RevisionNames::Stable,
        };
        let applied = service.store.apply(user, write, vec![op]).await;
        let applied = applied.map_err(|error| match error {
            ApplyError::Refused(Refusal::SessionGone) => OperatorWriteError::NoSuchAccount,
            ApplyError::Refused(Refusal::NoSuchDevice) => OperatorWriteError::NoSuchDevice,
            ApplyError::Refused(Refusal::Conflict { current }) => {
                WriteError::Conflict { current, names }.into()
            }
            ApplyError::Refused(Refusal::Quota(exceeded)) => WriteError::from(exceeded).into(),
            ApplyError::Store(error) => error.into(),
        })?;
        Ok(applied.positions.last().copied().flatten())
    }
}

impl From<StoreError> for OperatorWriteError {
    fn from(error: StoreError) -> Self {
        Self::Write(error.into())
    }
}
