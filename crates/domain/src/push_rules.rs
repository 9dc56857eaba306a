//! What is served as `m.push_rules`.

use crate::{Content, UserId};

/// Lays what a user changed over the default push rules.
///
/// What a change looks like is the implementation's alone: whoever calls
/// [`AccountData::edit_push_rules`](crate::AccountData::edit_push_rules) edits what it can serve.
pub trait PushRules: Send + Sync + 'static {
    /// Returns the content of `m.push_rules` as every door shows it.
    ///
    /// `stored` is the content of the user's entry `m.push_rules`, which holds the changes only. It
    /// never fails: what it cannot read hides nothing else.
    fn served(&self, user: &UserId, stored: Option<&Content>) -> Content;

    /// Returns a number that changes when the defaults change, so that syncs announce new ones.
    fn fingerprint(&self) -> u32;
}
