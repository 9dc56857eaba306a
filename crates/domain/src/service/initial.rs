use bytes::Bytes;

use super::{AccountData, Requester};
use crate::{Content, Live, LiveEntry, PUSH_RULES, ScopeRef, StoreError, SyncToken};

/// What an initial sync has to tell of account data, and the token for the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialSnapshot {
    live: Live,
    /// `m.push_rules` as it is served.
    pub push_rules: Content,
    /// The token that stands behind all of this.
    pub next: SyncToken,
}

impl InitialSnapshot {
    /// Returns the live entries of all scopes, in the order of their positions; never
    /// `m.push_rules`.
    pub fn entries(&self) -> impl Iterator<Item = LiveEntry<'_>> {
        self.live.entries().filter(|entry| !is_rules(entry))
    }
}

impl AccountData {
    /// Returns everything, as [`AccountData::since`] does without a token, for less.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn initial(&self, requester: &Requester) -> Result<InitialSnapshot, StoreError> {
        let live = self.store.live(&requester.user).await?;
        let stored = live.entries().find(is_rules);
        let stored =
            stored.map(|entry| Content::from_stored(Bytes::copy_from_slice(entry.content)));
        let push_rules = self.rules.served(&requester.user, stored.as_ref());
        let next = self.token_at(requester, live.head);
        Ok(InitialSnapshot {
            live,
            push_rules,
            next,
        })
    }
}

fn is_rules(entry: &LiveEntry<'_>) -> bool {
    entry.scope == ScopeRef::Global && entry.event_type == PUSH_RULES
}
