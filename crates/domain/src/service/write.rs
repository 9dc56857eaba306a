use thiserror::Error;

use super::{AccountData, Requester};
use crate::{
    Allowance, ApplyError, Content, ContentError, EventType, Expectation, Key, Op, Position,
    QuotaExceeded, Refusal, RevisionNames, StoreError, UserId, Write, WritePolicy, ignored_users,
};

/// Why a requester may not write an entry at all; checked before a body is read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PermitError {
    /// The user has no such device.
    #[error("the user has no such device")]
    NoSuchDevice,
    /// The entry belongs to another device (MSC4331).
    #[error("only the device itself may write its account data")]
    NotOwnDevice,
    /// The type is the server's.
    #[error("account data of type `{0}` is controlled by the server and cannot be set here")]
    ServerManaged(EventType),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a permitted write was not made.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum WriteError {
    /// The stored revision is not the expected one (MSC4547).
    #[error("the stored content has another revision")]
    Conflict {
        /// The stored content.
        current: Content,
        /// The names that the answer must use.
        names: RevisionNames,
    },
    /// The content is too large for its scope.
    #[error(transparent)]
    Content(#[from] ContentError),
    /// The user would ignore themselves.
    #[error("you cannot ignore yourself")]
    IgnoresSelf,
    /// The user's or the device's data would grow beyond the quota.
    #[error(transparent)]
    Quota(#[from] QuotaExceeded),
    /// The session ended while the write was under way.
    #[error("the session has ended")]
    SessionGone,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The right of one requester to write one entry, which only [`AccountData::permit`] gives.
pub struct WritePermit<'a> {
    service: &'a AccountData,
    requester: &'a Requester,
    key: Key,
}

impl AccountData {
    /// Checks whether the requester may write the entry, before anything of a body is read.
    ///
    /// Order: the device must exist, then protected types, then the owner.
    /// # Errors
    /// [`PermitError`].
    pub async fn permit<'a>(
        &'a self,
        requester: &'a Requester,
        key: Key,
    ) -> Result<WritePermit<'a>, PermitError> {
        let other_device = key
            .scope
            .device()
            .filter(|device| !requester.is_device(device));
        if let Some(device) = other_device
            && self.store.device(&requester.user, device).await?.is_none()
        {
            return Err(PermitError::NoSuchDevice);
        }
        match WritePolicy::of(&key) {
            WritePolicy::ServerManaged => Err(PermitError::ServerManaged(key.event_type)),
            WritePolicy::OwnDevice if other_device.is_some() => Err(PermitError::NotOwnDevice),
            WritePolicy::AnyDevice | WritePolicy::OwnDevice => Ok(WritePermit {
                service: self,
                requester,
                key,
            }),
        }
    }
}

impl AccountData {
    /// Checks what may be known of a content before the store is asked.
    pub(super) fn check_content(
        &self,
        user: &UserId,
        key: &Key,
        content: &Content,
    ) -> Result<(), WriteError> {
        content.check_scope(&key.scope, &self.limits)?;
        if ignored_users::ignores_self(user, key, content) {
            return Err(WriteError::IgnoresSelf);
        }
        Ok(())
    }
}

impl WritePermit<'_> {
    /// Replaces the content and returns the position at which readers see it.
    ///
    /// No merging; an equal content takes a position too, since clients wait for the echo (law 11).
    /// # Errors
    /// [`WriteError`]; a conflict is told before a full quota.
    pub async fn put(
        self,
        content: Content,
        expectation: Expectation,
    ) -> Result<Position, WriteError> {
        let Self {
            service,
            requester,
            key,
        } = &self;
        service.check_content(&requester.user, key, &content)?;
        let names = expectation.names();
        let position = self
            .apply(
                vec![Op::Put(self.key.clone(), content, expectation)],
                names,
                Allowance::Ordinary,
            )
            .await?;
        Ok(position.expect("a put always takes a position"))
    }

    /// Does as [`Self::put`], but deletes where `{}` is put at global or room scope (MSC3391).
    ///
    /// For servers that tell their clients so. At device scope `{}` stays a value (MSC4331).
    /// # Errors
    /// [`WriteError`].
    pub async fn put_or_delete(
        self,
        content: Content,
        expectation: Expectation,
    ) -> Result<Position, WriteError> {
        let is_device = self.key.scope.device().is_some();
        if content.is_empty_object() && !is_device {
            return self.delete_expecting(expectation).await;
        }
        self.put(content, expectation).await
    }

    /// Deletes the entry (MSC3391) and returns the position; `None` where there was nothing.
    /// # Errors
    /// [`WriteError`].
    pub async fn delete(self) -> Result<Option<Position>, WriteError> {
        self.apply(
            vec![Op::Delete(self.key.clone())],
            RevisionNames::Stable,
            Allowance::Ordinary,
        )
        .await
    }

    /// Deletes the entry, provided that the expectation holds (MSC4547); returns the position.
    ///
    /// For a `PUT {}` that is a deletion (MSC3391). Like every put it takes a position, also where
    /// there was nothing: clients wait for the echo (law 11).
    /// # Errors
    /// [`WriteError`].
    pub async fn delete_expecting(self, expectation: Expectation) -> Result<Position, WriteError> {
        let names = expectation.names();
        // The put compares, and leaves something to delete.
        let put = Op::Put(self.key.clone(), Content::empty(), expectation);
        let delete = Op::Delete(self.key.clone());
        // The reserve, since a full account may delete, and nothing of the put stays.
        let position = self
            .apply(vec![put, delete], names, Allowance::OwnDoor)
            .await?;
        Ok(position.expect("what was just put is deleted"))
    }

    /// Applies all of `ops`; returns the position that the last one took.
    async fn apply(
        &self,
        ops: Vec<Op>,
        names: RevisionNames,
        allowance: Allowance,
    ) -> Result<Option<Position>, WriteError> {
        let Self {
            service, requester, ..
        } = self;
        let write = Write {
            allowance,
            ..requester.write_at(service.clock.now_ms())
        };
        let applied = service.store.apply(&requester.user, write, ops).await;
        let applied = applied.map_err(|error| write_error(error, names))?;
        Ok(applied.positions.last().copied().flatten())
    }
}

pub(super) fn write_error(error: ApplyError, names: RevisionNames) -> WriteError {
    let refusal = match error {
        ApplyError::Refused(refusal) => refusal,
        ApplyError::Store(error) => return WriteError::Store(error),
    };
    match refusal {
        Refusal::Conflict { current } => WriteError::Conflict { current, names },
        // The permit was given to the device itself: it went together with its session.
        Refusal::NoSuchDevice | Refusal::SessionGone => WriteError::SessionGone,
        Refusal::Quota(exceeded) => WriteError::Quota(exceeded),
    }
}
