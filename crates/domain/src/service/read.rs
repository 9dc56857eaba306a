use std::collections::HashSet;

use thiserror::Error;

use super::push_rules::PUSH_RULES_KEY;
use super::{AccountData, Requester};
use crate::{
    Content, DeviceId, DeviceWithEntries, Entry, Key, Position, Session, StoreError, Subscription,
    SyncToken, TokenHash, UserId,
};

/// Why an entry was not returned.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum GetError {
    /// There is no such entry, or the device that it would belong to does not exist.
    #[error("no such account data")]
    NotFound,
    /// The store failed, which is never a "not found".
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a sync has to tell of account data, and the token for the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Changed entries of all scopes, or all live ones where `is_full`; never `m.push_rules`.
    pub entries: Vec<Entry>,
    /// Whether the answer is that to an initial sync.
    pub is_full: bool,
    /// `m.push_rules` as it is served, where it changed or `is_full`.
    pub push_rules: Option<Content>,
    /// The token that stands behind all of this.
    pub next: SyncToken,
}

impl AccountData {
    /// Returns the content of one entry of the requester.
    ///
    /// Global `m.push_rules` always exists: the defaults with the user's changes laid over. In
    /// other scopes the type holds nothing.
    /// # Errors
    /// [`GetError::NotFound`] where there is none.
    pub async fn get(&self, requester: &Requester, key: &Key) -> Result<Content, GetError> {
        self.content(&requester.user, key).await
    }

    /// Returns what [`AccountData::get`] returns to `user`, where that is in memory and there is
    /// something. `None` says nothing.
    #[must_use]
    pub fn peek(&self, user: &UserId, key: &Key) -> Option<Content> {
        let stored = self.store.peek(user, key)?;
        self.told(user, key, stored)
    }

    /// Returns the session of an access token and, in the same look at the store, what
    /// [`AccountData::get`] returns to it.
    ///
    /// For a request whose session is not in memory; the token says who asks. `None` where it is of
    /// no session.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn get_in_session(
        &self,
        user: &UserId,
        access: TokenHash,
        key: &Key,
    ) -> Result<Option<(Session, Option<Content>)>, StoreError> {
        let found = self.store.get_in_session(user, access, key).await?;
        Ok(found.map(|(session, entry)| {
            let stored = entry.and_then(|entry| entry.content);
            (session, self.told(user, key, stored))
        }))
    }

    /// Does as [`AccountData::get`], for any user.
    pub(super) async fn content(&self, user: &UserId, key: &Key) -> Result<Content, GetError> {
        let stored = self.stored(user, key).await?;
        let content = self.told(user, key, stored);
        content.ok_or(GetError::NotFound)
    }

    /// Returns what an entry holds.
    pub(super) async fn stored(
        &self,
        user: &UserId,
        key: &Key,
    ) -> Result<Option<Content>, StoreError> {
        if let Some(known) = self.store.peek(user, key) {
            return Ok(known);
        }
        let entry = self.store.get(user, key).await?;
        Ok(entry.and_then(|entry| entry.content))
    }

    /// Returns what is told of an entry that holds `stored`.
    fn told(&self, user: &UserId, key: &Key, stored: Option<Content>) -> Option<Content> {
        if *key == *PUSH_RULES_KEY {
            return Some(self.rules.served(user, stored.as_ref()));
        }
        stored
    }

    /// Returns the requester's devices, or one of them, each with its account data.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn devices(
        &self,
        requester: &Requester,
        device: Option<DeviceId>,
    ) -> Result<Vec<DeviceWithEntries>, StoreError> {
        self.store
            .devices_with_entries(&requester.user, device)
            .await
    }

    /// Starts to listen for changes of the requester's data: before reading, so that none is missed.
    #[must_use]
    pub fn subscribe(&self, requester: &Requester) -> Subscription {
        self.store.subscribe(&requester.user)
    }

    /// Returns what changed behind `since`, or everything without one.
    ///
    /// A token of another store, user or epoch, from the future, or older than the horizon is
    /// answered as an initial sync, so that no client is ever stuck.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn since(
        &self,
        requester: &Requester,
        since: Option<SyncToken>,
    ) -> Result<Snapshot, StoreError> {
        let ours = since.filter(|token| self.is_own(requester, token));
        let after = ours.map(|token| token.position);
        let changes = self.store.changes(&requester.user, after).await?;

        let fingerprint = self.rules.fingerprint();
        let mut entries = changes.entries;
        let is_rules = |entry: &Entry| entry.key == *PUSH_RULES_KEY;
        let rules_changed = changes.is_full
            || ours.is_some_and(|token| token.rules != fingerprint)
            || entries.iter().any(is_rules);
        let push_rules = if rules_changed {
            // Unchanged changes of the user are not among the entries, and may be newer than the
            // snapshot: the next sync then tells them again, which the laws allow.
            Some(match entries.iter().find(|entry| is_rules(entry)) {
                Some(stored) => {
                    let stored = stored.content.as_ref();
                    self.rules.served(&requester.user, stored)
                }
                None => self.push_rules(requester).await?,
            })
        } else {
            None
        };
        entries.retain(|entry| !is_rules(entry));
        let next = match ours {
            // Of this store and this user, as one of now would be.
            Some(ours) => SyncToken {
                position: changes.head,
                rules: fingerprint,
                ..ours
            },
            None => self.token_at(requester, changes.head),
        };
        Ok(Snapshot {
            entries,
            is_full: changes.is_full,
            push_rules,
            next,
        })
    }

    /// Tells whether a token is of this store and of this user; another one tells nothing.
    #[must_use]
    pub fn is_own(&self, requester: &Requester, token: &SyncToken) -> bool {
        let (epoch, user) = self.mark(requester);
        token.epoch == epoch && token.user == user
    }

    /// Returns the epoch and the user that the requester's tokens bear.
    fn mark(&self, requester: &Requester) -> (u64, u32) {
        let user = SyncToken::user_mark(&requester.user);
        (self.store.info().epoch, user)
    }

    /// Tells at once which token an answer of now would bear, where the store knows without reading.
    ///
    /// What was answered with this token before is still all there is to tell.
    #[must_use]
    pub fn peek_next(&self, requester: &Requester) -> Option<SyncToken> {
        let position = self.store.peek_head(&requester.user)?;
        Some(self.token_at(requester, position))
    }

    /// Returns the token that an answer of now bears where the stream stands at `position`.
    pub(super) fn token_at(&self, requester: &Requester, position: Position) -> SyncToken {
        let (epoch, user) = self.mark(requester);
        SyncToken {
            epoch,
            user,
            position,
            rules: self.rules.fingerprint(),
        }
    }

    /// Returns everything live, and the deletions behind `since`.
    ///
    /// For `full_state=true`: without the deletions the client's new token would pass them over.
    /// # Errors
    /// [`StoreError`] where the store failed.
    pub async fn everything(
        &self,
        requester: &Requester,
        since: Option<SyncToken>,
    ) -> Result<Snapshot, StoreError> {
        let changed = self.since(requester, since).await?;
        if changed.is_full {
            return Ok(changed);
        }
        let mut all = self.since(requester, None).await?;
        let live: HashSet<Key> = all.entries.iter().map(|entry| entry.key.clone()).collect();
        let is_deleted = |entry: &Entry| entry.content.is_none() && !live.contains(&entry.key);
        all.entries
            .extend(changed.entries.into_iter().filter(is_deleted));
        // The earlier snapshot's token: what changed between the two is told again.
        all.next = changed.next;
        Ok(all)
    }
}
