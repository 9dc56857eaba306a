//! The push rules of the specification with what users changed, by the crate `kitbag-push`.

use std::convert::Infallible;
use std::hash::Hash;
use std::sync::Arc;

use kitbag_domain::{Content, PushRules, UserId};
use kitbag_push::{Changes, ChangesError, Defaults, Edit, EditError, Limits, Ruleset, served};
use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use thiserror::Error;

use crate::settings::CompatSettings;

/// What one user's rules cost besides their texts: the name, and the place in the map.
const ITEM_BYTES: u64 = 256;
/// What one user's rules have as a rule, for the size of the map: the defaults and some own.
const ITEM_BYTES_USUAL: u64 = 8 * 1024;
/// The part of a map for what was asked for again. The rest takes what is new, and the rules of one
/// user, as many as there can be, have to fit in.
const PROVEN_SHARE: f64 = 0.7;

/// Bytes of all compiled rules that are remembered, some: those of eight hundred users who have 20
/// rules of their own. Nobody but who asks for explanations has theirs compiled.
const RULESETS_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// What compiled rules take for each byte of their text, the text included: measured at 200 rules
/// with a pattern each. Patterns that are all wildcards take seven times that.
const RULESET_BYTES_A_BYTE: u64 = 4;

/// Lays users' changes over the default rules, and remembers the result.
pub struct SpecRules {
    defaults: Defaults,
    limits: Limits,
    remembered: Map<UserId, Arc<Remembered>>,
    /// By what they are compiled from: so they are right as long as they are there.
    rulesets: Map<(UserId, Content), Arc<Ruleset>>,
}

type Map<K, V> = Cache<K, V, Weigher>;

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
        Self {
            limits: Limits {
                changes_bytes_max: limits.changes_bytes_max.min(content_bytes_max),
                ..limits
            },
            defaults,
            remembered: map(bytes_max),
            rulesets: map(RULESETS_BYTES_MAX),
        }
    }

    /// Returns the limits of rules.
    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Returns what is to be stored after an edit of what is.
    ///
    /// What is then served is remembered too: whoever waits for a sync is about to ask, and it takes
    /// a tenth of the time while the changes are at hand.
    pub(crate) fn edit(
        &self,
        user: &UserId,
        stored: Option<&Content>,
        edit: Edit,
    ) -> Result<Content, SpecRulesError> {
        let changes = match stored {
            Some(stored) => Changes::parse(stored.as_str())?,
            None => Changes::default(),
        };
        let changes = changes.apply(&self.defaults, edit, &self.limits)?;
        let edited = Content::from_stored(changes.to_json().into());
        self.remember(user, &edited, &self.lay(&changes, user));
        Ok(edited)
    }

    fn lay(&self, changes: &Changes, user: &UserId) -> Content {
        let text = served(changes, &self.defaults, user.as_str());
        Content::from_stored(text.into())
    }

    /// Returns the compiled rules of a user, of the text that is served.
    ///
    /// They are compiled once for each text, however many ask at a time, and shared.
    pub(crate) fn ruleset(&self, user: &UserId, served: &Content) -> Arc<Ruleset> {
        let compile = || {
            let ruleset = Ruleset::compile(served.as_str(), user.as_str());
            Ok::<_, Infallible>(Arc::new(ruleset))
        };
        let key = (user.clone(), served.clone());
        let Ok(ruleset) = self.rulesets.get_or_insert_with(&key, compile);
        ruleset
    }

    fn recall(&self, user: &UserId, stored: &Content) -> Option<Content> {
        let known = self.remembered.get(user)?;
        let (old, new) = (known.stored.bytes(), stored.bytes());
        // The store's memory hands out the same bytes as long as they are stored.
        let is_same = old.as_ptr() == new.as_ptr() && old.len() == new.len();
        (is_same || old == new).then(|| known.served.clone())
    }

    fn remember(&self, user: &UserId, stored: &Content, served: &Content) {
        let (stored, served) = (stored.clone(), served.clone());
        let remembered = Remembered { stored, served };
        self.remembered.insert(user.clone(), Arc::new(remembered));
    }
}

impl PushRules for SpecRules {
    fn served(&self, user: &UserId, stored: Option<&Content>) -> Content {
        let Some(stored) = stored else {
            return self.lay(&Changes::default(), user);
        };
        if let Some(known) = self.recall(user, stored) {
            return known;
        }
        let content = match Changes::parse(stored.as_str()) {
            Ok(changes) => self.lay(&changes, user),
            Err(error) => {
                tracing::error!(%user, %error, "push rules cannot be read: the defaults are served");
                self.lay(&Changes::default(), user)
            }
        };
        self.remember(user, stored, &content);
        content
    }

    fn fingerprint(&self) -> u32 {
        self.defaults.fingerprint()
    }
}

/// A map of some `bytes_max`, undivided: one user's can be a good part of them. Readers do not wait
/// for each other.
fn map<K: Clone + Eq + Hash, V: Clone>(bytes_max: u64) -> Map<K, V>
where
    Weigher: Weighter<K, V>,
{
    let items = usize::try_from(bytes_max / ITEM_BYTES_USUAL).unwrap_or(usize::MAX);
    let mut options = OptionsBuilder::new();
    options.shards(1).weight_capacity(bytes_max);
    options.hot_allocation(PROVEN_SHARE);
    options.estimated_items_capacity(items.max(1));
    let options = options.build().expect("all that it needs is there");
    let (hasher, lifecycle) = (DefaultHashBuilder::default(), DefaultLifecycle::default());
    Cache::with_options(options, Weigher, hasher, lifecycle)
}

/// Weighs remembered rules in bytes.
#[derive(Clone, Copy)]
struct Weigher;

impl Weighter<UserId, Arc<Remembered>> for Weigher {
    fn weight(&self, user: &UserId, known: &Arc<Remembered>) -> u64 {
        let texts = known.stored.size_bytes() + known.served.size_bytes();
        ITEM_BYTES + user.as_str().len() as u64 + texts
    }
}

impl Weighter<(UserId, Content), Arc<Ruleset>> for Weigher {
    fn weight(&self, (user, served): &(UserId, Content), _: &Arc<Ruleset>) -> u64 {
        let ruleset = RULESET_BYTES_A_BYTE * served.size_bytes();
        ITEM_BYTES + user.as_str().len() as u64 + ruleset
    }
}

#[cfg(test)]
mod tests {
    use kitbag_push::limits::CHANGES_BYTES_MAX;
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
        let edit = Edit::Put { id, rule, place };
        rules.edit(&user("editor"), stored, edit).unwrap()
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
    fn what_is_served_behind_an_edit_is_there_at_once() {
        let rules = rules(false);
        let editor = user("editor");
        let one = with_rule(&rules, None, "one");
        let two = with_rule(&rules, Some(&one), "two");
        let known = rules.recall(&editor, &two).unwrap();
        let changes = Changes::parse(two.as_str()).unwrap();
        let fresh = served(&changes, &Defaults::spec(), editor.as_str());
        assert_eq!(known.as_str(), fresh);
        assert_eq!(rules.recall(&editor, &one), None, "not stored any more");
        assert_eq!(rules.recall(&user("alice"), &two), None, "of another user");
    }

    #[test]
    fn what_is_remembered_has_its_bound() {
        let bytes_max = 100 * 1024;
        let rules = SpecRules::new(CompatSettings::default(), bytes_max, 1 << 20);
        let stored = with_rule(&rules, None, "a");
        for number in 0..100 {
            rules.served(&user(&number.to_string()), Some(&stored));
        }
        let map = &rules.remembered;
        let texts = map.iter().map(|(_, known)| known.served.size_bytes());
        assert!(texts.sum::<u64>() <= bytes_max, "{}", map.len());
        assert!(map.len() > 4, "{}", map.len());
        let none = SpecRules::new(CompatSettings::default(), 0, 1 << 20);
        let served = rules.served(&user("a"), Some(&stored));
        assert_eq!(none.served(&user("a"), Some(&stored)), served);
        assert!(none.remembered.is_empty());
    }

    #[test]
    fn rules_are_compiled_once_until_they_are_edited() {
        let rules = rules(false);
        let (alice, bob) = (user("alice"), user("bob"));
        let ruleset = |user: &UserId, stored: Option<&Content>| {
            let served = rules.served(user, stored);
            let copy = Content::from_stored(served.bytes().to_vec().into());
            rules.ruleset(user, &copy)
        };
        let one = with_rule(&rules, None, "one");
        let two = with_rule(&rules, Some(&one), "two");
        let of = |stored: Option<&Content>| ruleset(&alice, stored);
        let all = [
            of(None),
            of(Some(&one)),
            of(Some(&two)),
            ruleset(&bob, None),
        ];
        let again = [
            of(None),
            of(Some(&one)),
            of(Some(&two)),
            ruleset(&bob, None),
        ];
        for (index, first) in all.iter().enumerate() {
            for (other, second) in again.iter().enumerate() {
                assert_eq!(
                    Arc::ptr_eq(first, second),
                    index == other,
                    "{index} {other}"
                );
            }
        }
        let users = all.map(|ruleset| ruleset.user_id().to_owned());
        assert_eq!(users[2..], ["@alice:example.org", "@bob:example.org"]);
    }

    #[test]
    fn who_ask_at_once_share_what_is_compiled() {
        let (rules, user) = (rules(false), user("alice"));
        let served = rules.served(&user, None);
        let begin = std::sync::Barrier::new(4);
        let ruleset = || {
            begin.wait();
            rules.ruleset(&user, &served)
        };
        std::thread::scope(|scope| {
            let all = [(); 4].map(|()| scope.spawn(ruleset));
            let all = all.map(|thread| thread.join().unwrap());
            assert!(all.iter().all(|other| Arc::ptr_eq(other, &all[0])));
        });
    }

    #[test]
    fn compiled_rules_have_their_bound() {
        let rules = rules(false);
        for number in 0..2_000 {
            let user = user(&number.to_string());
            rules.ruleset(&user, &rules.served(&user, None));
        }
        let texts = rules
            .rulesets
            .iter()
            .map(|((_, served), _)| served.size_bytes());
        let bytes = texts.sum::<u64>() * RULESET_BYTES_A_BYTE;
        assert!(bytes <= RULESETS_BYTES_MAX, "{bytes}");
        assert!(bytes > RULESETS_BYTES_MAX / 2, "{bytes}");
        // Those of who has as many as there can be are no exception.
        let largest = format!("{{\"global\":\"{}\"}}", "x".repeat(CHANGES_BYTES_MAX));
        let largest = Content::from_stored(largest.into());
        let ruleset = || rules.ruleset(&user("alice"), &largest);
        assert!(Arc::ptr_eq(&ruleset(), &ruleset()));
    }
}
