//! What a client remembers between two steps.

use std::collections::HashMap;
use std::sync::Arc;

use kitbag_domain::{Expectation, Key, Position, RevisionNames, SyncToken, UserId};

use crate::history::revision;
use crate::ops::{Expect, Since, USERS};

/// What one client keeps to itself: the tokens that it was given for each user, and contents, which
/// may be stale.
#[derive(Debug, Default)]
pub struct Mind {
    pub(super) tokens: [Vec<SyncToken>; USERS],
    pub(super) seen: HashMap<(UserId, Key), Arc<str>>,
}

impl Mind {
    /// Returns the token that a sync starts from, and again where its position is one of the user's.
    pub(super) fn token(
        &self,
        user: usize,
        since: Since,
    ) -> (Option<SyncToken>, Option<SyncToken>) {
        let other = self.tokens[(user + 1) % USERS].last().copied();
        let tokens = &self.tokens[user];
        let latest = tokens.last().copied();
        match since {
            Since::Beginning => (None, None),
            Since::Foreign => {
                let foreign = latest.map(|token| SyncToken {
                    epoch: token.epoch.wrapping_add(1),
                    ..token
                });
                (foreign, None)
            }
            Since::Future => {
                let future = latest.map(|token| token.at(Position(u64::MAX / 2)));
                (future, future)
            }
            Since::Latest => (latest, latest),
            Since::Older(number) => {
                let older = latest.map(|_| tokens[number % tokens.len()]);
                (older, older)
            }
            Since::OtherUser => (other, None),
        }
    }

    pub(super) fn expectation(&self, user: &UserId, key: &Key, expect: Expect) -> Expectation {
        let seen = self.seen.get(&(user.clone(), key.clone()));
        let last = |names| {
            let last = seen.and_then(|text| revision(text, names));
            Some(last.unwrap_or_else(|| "none".to_owned()))
        };
        let (stable, unstable) = match expect {
            Expect::Anything => (None, None),
            Expect::Both => (last(RevisionNames::Stable), last(RevisionNames::Unstable)),
            Expect::Stable => (last(RevisionNames::Stable), None),
            Expect::Unstable => (None, last(RevisionNames::Unstable)),
            Expect::Wrong => (Some("wrong".to_owned()), None),
        };
        Expectation { stable, unstable }
    }

    pub(super) fn learn(&mut self, user: &UserId, key: &Key, text: Option<Arc<str>>) {
        let known = (user.clone(), key.clone());
        match text {
            Some(text) => drop(self.seen.insert(known, text)),
            None => drop(self.seen.remove(&known)),
        }
    }
}
