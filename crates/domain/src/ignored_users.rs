//! `m.ignored_user_list`: the one type whose content the server looks at before it stores it.

use std::collections::HashMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::{Content, Key, Scope, UserId};

const IGNORED_USER_LIST: &str = "m.ignored_user_list";

#[derive(Deserialize)]
struct IgnoredUserList {
    ignored_users: HashMap<String, IgnoredAny>,
}

/// Tells whether the write would make `user` ignore their own events.
///
/// A malformed list ignores nobody and is stored as it is [spec, modules "Ignoring Users"].
pub(crate) fn ignores_self(user: &UserId, key: &Key, content: &Content) -> bool {
    if key.scope != Scope::Global || key.event_type.as_str() != IGNORED_USER_LIST {
        return false;
    }
    serde_json::from_slice::<IgnoredUserList>(content.bytes())
        .is_ok_and(|list| list.ignored_users.contains_key(user.as_str()))
}
