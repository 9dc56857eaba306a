//! The push rules of the specification with what users changed, by the crate `kitbag-push`.

use std::sync::{Mutex, PoisonError};

use kitbag_domain::{Content, PushRules, UserId};
use kitbag_push::{Changes, ChangesError, Defaults, Edit, EditError, Limits, served};
use quick_cache::{Weighter, unsync};
use thiserror::Error;

use crate::settings::CompatSettings;

/// What one user's rules cost besides their texts: the name, and the place in the map.
const ITEM_BYTES: u64 = 256;
/// What one user's rules have as a rule, for the size of the map: the defaults and some own.
const ITEM_BYTES_USUAL: u64 = 8 * 1024;

/// What stands for the user where the parts of the defaults are cut: in no text of theirs.
const CUT_USER: &str = "@\u{1}:\u{1}";
const CUT_LOCALPART: &str = "\u{1}";

/// Lays users' changes over the default rules, and remembers the result.
pub struct SpecRules {
    defaults: Defaults,
    limits: Limits,
    /// What users without changes are served: what stands there, and what of the user is behind it.
    unchanged: Vec<(String, Option<OfUser>)>,
    remembered: Option<Mutex<Map>>,
}

type Map = unsync::Cache<UserId, Remembered, Weigher>;

#[derive(Clone, Copy)]
enum OfUser {
    Id,
    Localpart,
}

/// What was made of what: with 20 rules of a user's own it takes 15 us to make, 125 us with 200.
///
/// The changes are compared with those that are stored now, so that nothing has to be cleared.
struct Remembered {
    stored: Content,
    served: Content,
}

/// Why what is stored was not edited.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum SpecRulesError {
    /// The rules do not allow it.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// What is stored cannot be read: an edit would lose it.
    #[error(transparent)]
    Unreadable(#[from] ChangesError),
}

impl SpecRules {
    /// Returns the rules as the settings want them, of which some `bytes_max` are remembered.
    ///
    /// The changes of a user are one content, so they have at most `content_bytes_max` bytes, and
    /// what switching rules on and off has added.
    #[must_use]
    pub fn new(compat: CompatSettings, bytes_max: u64, content_bytes_max: u64) -> Self {
        let defaults = if compat.legacy_mention_rules {
            Defaults::with_legacy_mentions()
        } else {
            Defaults::spec()
        };
        let limits = Limits::default();
        let content_bytes_max = usize::try_from(content_bytes_max).unwrap_or(usize::MAX);
        let items = usize::try_from(bytes_max / ITEM_BYTES_USUAL).unwrap_or(usize::MAX);
        let map = || Mutex::new(Map::with_weighter(items.max(1), bytes_max, Weigher));
        Self {
            limits: Limits {
                changes_bytes_max: limits.changes_bytes_max.min(content_bytes_max),
                ..limits
            },
            unchanged: cut(&served(&Changes::default(), &defaults, CUT_USER)),
            defaults,
            remembered: (bytes_max > 0).then(map),
        }
    }

    /// Returns the limits of rules.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns what is to be stored after an edit of what is.
    pub(crate) fn edit(
        &self,
        stored: Option<&Content>,
        edit: Edit,
    ) -> Result<Content, SpecRulesError> {
        let changes = match stored {
            Some(stored) => Changes::parse(stored.as_str())?,
            None => Changes::default(),
        };
        let changes = changes.apply(&self.defaults, edit, &self.limits)?;
        Ok(Content::from_stored(changes.to_json().into()))
    }

    fn recall(&self, user: &UserId, stored: &Content) -> Option<Content> {
        let map = self.remembered.as_ref()?.lock();
        let map = map.unwrap_or_else(PoisonError::into_inner);
        let known = map.get(user)?;
        let (old, new) = (known.stored.bytes(), stored.bytes());
        // The store's memory hands out the same bytes as long as they are stored.
        let is_same = old.as_ptr() == new.as_ptr() && old.len() == new.len();
        (is_same || old == new).then(|| known.served.clone())
    }

    fn remember(&self, user: &UserId, stored: &Content, served: &Content) {
        if let Some(map) = &self.remembered {
            let (stored, served) = (stored.clone(), served.clone());
            let mut map = map.lock().unwrap_or_else(PoisonError::into_inner);
            map.insert(user.clone(), Remembered { stored, served });
        }
    }

    /// Writes what a user without changes is served.
    fn unchanged(&self, user: &UserId) -> Content {
        let quoted = |text| serde_json::to_string(text).expect("a string is serialisable");
        let id = quoted(user.as_str());
        let bytes = self.unchanged.iter().map(|(text, _)| text.len() + id.len());
        let mut served = String::with_capacity(bytes.sum());
        for (text, of_user) in &self.unchanged {
            served.push_str(text);
            match of_user {
                Some(OfUser::Id) => served.push_str(&id),
                Some(OfUser::Localpart) => served.push_str(&quoted(user.localpart())),
                None => {}
            }
        }
        Content::from_stored(served.into())
    }
}

impl PushRules for SpecRules {
    fn served(&self, user: &UserId, stored: Option<&Content>) -> Content {
        let Some(stored) = stored else {
            return self.unchanged(user);
        };
        if let Some(known) = self.recall(user, stored) {
            return known;
        }
        let content = match Changes::parse(stored.as_str()) {
            Ok(changes) => {
                let text = served(&changes, &self.defaults, user.as_str());
                Content::from_stored(text.into())
            }
            Err(error) => {
                tracing::error!(%user, %error, "push rules cannot be read: the defaults are served");
                self.unchanged(user)
            }
        };
        self.remember(user, stored, &content);
        content
    }

    fn fingerprint(&self) -> u32 {
        self.defaults.fingerprint()
    }
}

/// Cuts what is served to [`CUT_USER`] where something of the user stands.
fn cut(mut text: &str) -> Vec<(String, Option<OfUser>)> {
    let cuts = [(CUT_USER, OfUser::Id), (CUT_LOCALPART, OfUser::Localpart)];
    let quoted = |text| serde_json::to_string(text).expect("a string is serialisable");
    let cuts = cuts.map(|(text, of_user)| (quoted(text), of_user));
    let mut parts = Vec::new();
    loop {
        let found = cuts.iter().filter_map(|(cut, of_user)| {
            let at = text.find(cut)?;
            Some((at, at + cut.len(), *of_user))
        });
        let Some((at, behind, of_user)) = found.min_by_key(|(at, ..)| *at) else {
            parts.push((text.to_owned(), None));
            return parts;
        };
        parts.push((text[..at].to_owned(), Some(of_user)));
        text = &text[behind..];
    }
}

/// Weighs remembered rules in bytes.
#[derive(Clone, Copy)]
struct Weigher;

impl Weighter<UserId, Remembered> for Weigher {
    fn weight(&self, user: &UserId, known: &Remembered) -> u64 {
        let texts = known.stored.size_bytes() + known.served.size_bytes();
        ITEM_BYTES + user.as_str().len() as u64 + texts
    }
}

#[cfg(test)]
mod tests {
    use kitbag_push::{Kind, NewRule, Place, RuleId};

    use super::*;

    fn rules(legacy_mention_rules: bool) -> SpecRules {
        let compat = CompatSettings {
            legacy_mention_rules,
            ..CompatSettings::default()
        };
        SpecRules::new(compat, 1 << 20, 1 << 20)
    }

    fn user(localpart: &str) -> UserId {
        UserId::parse(format!("@{localpart}:example.org")).unwrap()
    }

    /// What is stored once a rule of this ID is added.
    fn with_rule(rules: &SpecRules, stored: Option<&Content>, id: &str) -> Content {
        let rule = NewRule::parse(Kind::Room, "{\"actions\":[]}", rules.limits()).unwrap();
        let id = RuleId::parse(id, rules.limits()).unwrap();
        let place = Place::default();
        rules.edit(stored, Edit::Put { id, rule, place }).unwrap()
    }

    #[test]
    fn who_changed_nothing_is_served_the_defaults_with_their_own_names() {
        for rules in [rules(false), rules(true)] {
            for user in [user("alice"), user("a\"\\b"), user("")] {
                let expected = served(&Changes::default(), &rules.defaults, user.as_str());
                assert_eq!(rules.served(&user, None).as_str(), expected);
                let empty = Content::empty();
                assert_eq!(rules.served(&user, Some(&empty)).as_str(), expected);
            }
        }
        assert_ne!(rules(false).fingerprint(), rules(true).fingerprint());
    }

    #[test]
    fn what_is_remembered_is_told_of_that_user_and_those_changes_alone() {
        let rules = rules(false);
        let (alice, bob) = (user("alice"), user("bob"));
        let one = with_rule(&rules, None, "one");
        let two = with_rule(&rules, Some(&one), "two");
        let as_long_as_one = with_rule(&rules, None, "six");
        let fresh = |user: &UserId, stored: &Content| {
            let changes = Changes::parse(stored.as_str()).unwrap();
            served(&changes, &Defaults::spec(), user.as_str())
        };
        for (user, stored) in [
            (&alice, &one),
            (&alice, &one),
            (&alice, &as_long_as_one),
            (&bob, &one),
            (&alice, &two),
            (&alice, &one),
            (&bob, &two),
        ] {
            let served = rules.served(user, Some(stored));
            assert_eq!(served.as_str(), fresh(user, stored));
        }
        let first = rules.served(&alice, Some(&two));
        let copy = Content::from_stored(two.bytes().to_vec().into());
        let second = rules.served(&alice, Some(&copy));
        assert_eq!(first.bytes().as_ptr(), second.bytes().as_ptr(), "no copy");
    }

    #[test]
    fn what_is_remembered_has_its_bound() {
        let bytes_max = 100 * 1024;
        let rules = SpecRules::new(CompatSettings::default(), bytes_max, 1 << 20);
        let stored = with_rule(&rules, None, "a");
        for number in 0..100 {
            rules.served(&user(&number.to_string()), Some(&stored));
        }
        let map = rules.remembered.as_ref().unwrap().lock().unwrap();
        let texts = map.iter().map(|(_, known)| known.served.size_bytes());
        assert!(texts.sum::<u64>() <= bytes_max, "{}", map.len());
        assert!(map.len() > 4, "{}", map.len());
        let none = SpecRules::new(CompatSettings::default(), 0, 1 << 20);
        assert!(none.remembered.is_none());
        assert_eq!(none.served(&user("a"), Some(&stored)), {
            drop(map);
            rules.served(&user("a"), Some(&stored))
        });
    }
}
