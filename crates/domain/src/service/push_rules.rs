use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use thiserror::Error;

use super::write::write_error;
use super::{AccountData, Requester, WriteError};
use crate::{
    Allowance, Change, Content, EventType, Key, PUSH_RULES, Position, RevisionNames, Scope,
    StoreError, UpdateFn, UserId, Write,
};

/// The entry that holds what a user changed about the push rules.
pub(super) static PUSH_RULES_KEY: LazyLock<Key> = LazyLock::new(|| {
    let event_type = EventType::parse(PUSH_RULES).expect("the type is well-formed");
    Key::new(Scope::Global, event_type)
});

/// Why edited push rules were not written; `E` is what the edit itself says.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PushRulesWriteError<E> {
    /// The edit does not apply to what is stored; nothing was written.
    #[error("{0}")]
    Refused(E),
    /// The result was not written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl AccountData {
    /// Returns the requester's push rules: the one value behind every door.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn push_rules(&self, requester: &Requester) -> Result<Content, StoreError> {
        self.push_rules_of(&requester.user).await
    }

    pub(super) async fn push_rules_of(&self, user: &UserId) -> Result<Content, StoreError> {
        let stored = self.stored(user, &PUSH_RULES_KEY).await?;
        Ok(self.rules.served(user, stored.as_ref()))
    }

    /// Edits the requester's push rules and returns the position at which readers see it.
    ///
    /// `edit` gets what is stored of the user's changes, if anything is, and returns what is to be
    /// stored, which must follow from that alone. It runs before the transaction, which others wait
    /// for, and once more inside where it finds that something else is stored by then: so of several
    /// devices' edits none is lost. What it accepts takes a position, also where it changes nothing:
    /// clients wait for the echo (law 11).
    /// # Errors
    /// [`PushRulesWriteError::Refused`] with what `edit` says, otherwise as of any write. How large
    /// the result may be is for `edit` to say, which alone knows what must not be refused for that.
    pub async fn edit_push_rules<E: Send + 'static>(
        &self,
        requester: &Requester,
        edit: impl Fn(Option<&Content>) -> Result<Content, E> + Send + 'static,
    ) -> Result<Position, PushRulesWriteError<E>> {
        let before = self.stored(&requester.user, &PUSH_RULES_KEY).await;
        let before = before.map_err(WriteError::from)?;
        let prepared = edit(before.as_ref());
        let refusal = Arc::new(Mutex::new(None));
        let refused = Arc::clone(&refusal);
        let update: UpdateFn = Box::new(move |entry| {
            let stored = entry.and_then(|entry| entry.content.as_ref());
            let is_same = stored == before.as_ref();
            let edited = if is_same { prepared } else { edit(stored) };
            match edited {
                Ok(content) => Change::Put(content),
                Err(error) => {
                    *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    Change::Keep
                }
            }
        });
        let write = Write {
            allowance: Allowance::OwnDoor,
            ..requester.write_at(self.clock.now_ms())
        };
        let key = PUSH_RULES_KEY.clone();
        let applied = self.store.update(&requester.user, write, key, update).await;
        let applied = applied.map_err(|error| write_error(error, RevisionNames::Stable))?;
        let mut refusal = refusal.lock().unwrap_or_else(PoisonError::into_inner);
        match refusal.take() {
            Some(error) => Err(PushRulesWriteError::Refused(error)),
            None => Ok(applied.positions[0].expect("a put always takes a position")),
        }
    }
}
