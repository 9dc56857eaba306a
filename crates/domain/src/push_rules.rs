//! What is served as `m.push_rules`.

use std::sync::LazyLock;

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

/// The default push rules of the specification (v1.17 and later), the same for every user.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpecDefaults;

/// CS API, modules "Push Notifications", "Default rules"; `@user@` stands for the user's ID.
const RULES: &str = include_str!("push_rules/defaults.json");
const USER: &str = "\"@user@\"";

/// What stands between the places of the user's ID: they are the same in every answer.
static PARTS: LazyLock<Vec<&str>> = LazyLock::new(|| RULES.trim_end().split(USER).collect());
static FINGERPRINT: LazyLock<u32> = LazyLock::new(|| crc32fast::hash(RULES.as_bytes()));

impl PushRules for SpecDefaults {
    fn served(&self, user: &UserId, _stored: Option<&Content>) -> Content {
        let user = serde_json::to_string(user.as_str()).expect("a string is serialisable");
        Content::from_stored(PARTS.join(&user).into())
    }

    fn fingerprint(&self) -> u32 {
        *FINGERPRINT
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::Limits;

    fn served() -> Value {
        let user = UserId::parse("@a\"\\b:example.org").unwrap();
        let content = SpecDefaults.served(&user, None);
        assert_eq!(
            Content::parse(content.bytes().clone(), &Limits::default()),
            Ok(content.clone())
        );
        serde_json::from_str(content.as_str()).unwrap()
    }

    #[test]
    fn has_five_kinds_and_the_order_of_the_spec() {
        let rules = served();
        let ids = |kind: &str| -> Vec<String> {
            let rules = rules["global"][kind].as_array().unwrap().iter();
            rules
                .map(|rule| rule["rule_id"].as_str().unwrap().replace(".m.rule.", ""))
                .collect()
        };
        let overrides = [
            "master",
            "suppress_notices",
            "invite_for_me",
            "member_event",
            "is_user_mention",
            "is_room_mention",
            "tombstone",
            "reaction",
            "room.server_acl",
            "suppress_edits",
        ];
        let underrides = [
            "call",
            "encrypted_room_one_to_one",
            "room_one_to_one",
            "message",
            "encrypted",
        ];
        assert_eq!(ids("override"), overrides);
        assert_eq!(ids("underride"), underrides);
        assert!(ids("content").is_empty() && ids("room").is_empty() && ids("sender").is_empty());
    }

    #[test]
    fn names_the_user_escaped() {
        let rules = served();
        let conditions = &rules["global"]["override"][2]["conditions"];
        assert_eq!(conditions[2]["pattern"], "@a\"\\b:example.org");
        assert_eq!(
            rules["global"]["override"][4]["conditions"][0]["value"],
            "@a\"\\b:example.org"
        );
    }

    #[test]
    fn only_the_master_rule_is_off() {
        let rules = served();
        for kind in ["override", "underride"] {
            for rule in rules["global"][kind].as_array().unwrap() {
                assert_eq!(rule["default"], true);
                assert_eq!(rule["enabled"], rule["rule_id"] != ".m.rule.master");
            }
        }
    }
}
