//! Every limit of push rules, with its default and its reason.
//!
//! Deleting a rule, and switching one off or on, is allowed whatever the limits say: so changes can
//! pass theirs by a byte for each rule, and the names of the default rules.

/// Rules of one user, over all kinds: who mutes each of some thousand rooms has one for each.
pub const RULES_MAX: usize = 5_000;
/// Bytes of a rule as a client sends it: room for [`CONDITIONS_MAX`] conditions of usual length.
pub const RULE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a rule ID: room and user IDs have at most 255, keywords fewer.
pub const RULE_ID_BYTES_MAX: usize = 512;
/// Conditions of a rule: the defaults have at most three, and all are asked for each event.
pub const CONDITIONS_MAX: usize = 64;
/// Actions of a rule: there are three of a meaning.
pub const ACTIONS_MAX: usize = 32;
/// `*` and `?` in a pattern: more are no keyword.
pub const WILDCARDS_MAX: usize = 64;
/// Characters of a pattern, which bound the work that it makes: IDs have at most 255. A condition
/// with a longer one never matches, whoever made it.
pub const PATTERN_CHARS_MAX: usize = 512;
/// Nesting of JSON in a rule: with what is around it, it stays below the 128 of most parsers.
pub const RULE_DEPTH_MAX: usize = 64;
/// Bytes of all changes of one user, as they are stored: those of one content of account data.
pub const CHANGES_BYTES_MAX: usize = 1024 * 1024;

/// The limits in force: the defaults of [this module](self), unless the program says otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rules of one user, over all kinds, without the defaults.
    pub rules_max: usize,
    /// Bytes of a rule as a client sends it, from `{` to `}`.
    pub rule_bytes_max: usize,
    /// Bytes of a rule ID.
    pub rule_id_bytes_max: usize,
    /// Conditions of a rule.
    pub conditions_max: usize,
    /// Actions of a rule.
    pub actions_max: usize,
    /// `*` and `?` in a pattern.
    pub wildcards_max: usize,
    /// Bytes of all changes of one user, as they are stored.
    pub changes_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            rules_max: RULES_MAX,
            rule_bytes_max: RULE_BYTES_MAX,
            rule_id_bytes_max: RULE_ID_BYTES_MAX,
            conditions_max: CONDITIONS_MAX,
            actions_max: ACTIONS_MAX,
            wildcards_max: WILDCARDS_MAX,
            changes_bytes_max: CHANGES_BYTES_MAX,
        }
    }
}
