//! The default rules of the specification.

use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::Kind;
use crate::json::{push_comma, push_string, truth};
use crate::served::served;

/// The default rules that every user has: those of the specification, the same for all.
///
/// Cheap to copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defaults {
    has_legacy_mentions: bool,
}

/// The rule that comes before all others, users' own too; switched on, it silences everything.
pub(crate) const MASTER: &str = ".m.rule.master";

/// CS API, "Push Notifications", "Default Rules": the rules in their order, one a line. The rule that
/// comes before all others is the first of its kind.
///
/// `"@user@"` stands for the user's ID and `"@localpart@"` for its localpart. `legacy_mention`
/// marks the three that v1.17 removed (MSC4210).
const RULES: &str = include_str!("defaults.json");
const USER: &str = "\"@user@\"";
const LOCALPART: &str = "\"@localpart@\"";

static TABLE: LazyLock<[Vec<DefaultRule>; Kind::ALL.len()]> = LazyLock::new(|| {
    let rows: Vec<Row> = serde_json::from_str(RULES).expect("the table of the defaults is JSON");
    Kind::ALL.map(|kind| {
        let rows = rows.iter().filter(|row| row.kind == kind.as_str());
        rows.map(DefaultRule::of).collect()
    })
});
static FINGERPRINTS: LazyLock<[u32; 2]> = LazyLock::new(|| {
    [false, true].map(|has_legacy_mentions| {
        let defaults = Defaults {
            has_legacy_mentions,
        };
        hash(&served(
            &crate::Changes::default(),
            &defaults,
            "@user:server",
        ))
    })
});

impl Defaults {
    /// Returns the rules of the specification since v1.17.
    #[must_use]
    pub const fn spec() -> Self {
        Self {
            has_legacy_mentions: false,
        }
    }

    /// Returns the rules of the specification before v1.17: with `.m.rule.contains_display_name`,
    /// `.m.rule.roomnotif` and `.m.rule.contains_user_name`, which look for names in the body.
    ///
    /// A server that has them must not advertise v1.17 or later.
    #[must_use]
    pub const fn with_legacy_mentions() -> Self {
        Self {
            has_legacy_mentions: true,
        }
    }

    /// Tells whether the rules that look for names in the body are among them.
    #[must_use]
    pub const fn has_legacy_mentions(&self) -> bool {
        self.has_legacy_mentions
    }

    /// Tells whether there is a default rule of this kind and ID.
    #[must_use]
    pub fn has(&self, kind: Kind, rule_id: &str) -> bool {
        self.of(kind).any(|rule| rule.id == rule_id)
    }

    /// Returns a number that changes when what is served to users without changes of their own
    /// does, so that syncs can announce it.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        FINGERPRINTS[usize::from(self.has_legacy_mentions)]
    }

    /// The rules of a kind in their order.
    pub(crate) fn of(&self, kind: Kind) -> impl Iterator<Item = &'static DefaultRule> {
        let has_legacy_mentions = self.has_legacy_mentions;
        let of_kind = TABLE[kind as usize].iter();
        of_kind.filter(move |rule| has_legacy_mentions || !rule.is_legacy_mention)
    }
}

impl Default for Defaults {
    fn default() -> Self {
        Self::spec()
    }
}

/// Tells whether the default rule of this kind and ID looks for names in the body. Such rules are
/// not for events that say themselves whom they mention.
pub(crate) fn is_legacy_mention(kind: Kind, rule_id: &str) -> bool {
    let mut of_kind = TABLE[kind as usize].iter();
    of_kind.any(|rule| rule.is_legacy_mention && rule.id == rule_id)
}

/// A default rule, ready to be written for any user.
#[derive(Debug)]
pub(crate) struct DefaultRule {
    is_legacy_mention: bool,
    pub(crate) id: &'static str,
    is_enabled: bool,
    /// The rule as most users have it, who changed nothing about it.
    unchanged: Vec<Piece>,
    /// What is written before and behind the value of `enabled`: they end where it and that of
    /// `actions` stand.
    before_enabled: String,
    before_actions: Vec<Piece>,
    actions: &'static str,
}

/// Text between the places where something of the user stands, and these places.
#[derive(Debug)]
enum Piece {
    Text(String),
    User,
    Localpart,
}

impl DefaultRule {
    fn of(row: &Row) -> Self {
        let (name, subject) = match (row.conditions, row.pattern) {
            (Some(conditions), None) => ("conditions", conditions),
            (None, Some(pattern)) => ("pattern", pattern),
            _ => unreachable!("a default rule has either conditions or a pattern"),
        };
        let before_enabled = format!(
            "{{\"rule_id\":\"{}\",\"default\":true,\"enabled\":",
            row.rule_id
        );
        let before_actions = format!(",\"{name}\":{subject},\"actions\":");
        let actions = row.actions.get();
        let is_enabled = truth(row.enabled);
        Self {
            is_legacy_mention: row.legacy_mention,
            id: row.rule_id,
            is_enabled: row.enabled,
            unchanged: pieces(&format!(
                "{before_enabled}{is_enabled}{before_actions}{actions}}}"
            )),
            before_enabled,
            before_actions: pieces(&before_actions),
            actions,
        }
    }

    /// Tells whether the rule comes before users' own ones.
    pub(crate) fn is_first(&self) -> bool {
        self.id == MASTER
    }

    /// Writes the rule for a user, with what the user changed about it.
    pub(crate) fn push(
        &self,
        out: &mut String,
        user_id: &str,
        is_enabled: Option<bool>,
        actions: Option<&str>,
    ) {
        push_comma(out);
        if is_enabled.is_none() && actions.is_none() {
            return push_pieces(out, &self.unchanged, user_id);
        }
        out.push_str(&self.before_enabled);
        out.push_str(truth(is_enabled.unwrap_or(self.is_enabled)));
        push_pieces(out, &self.before_actions, user_id);
        out.push_str(actions.unwrap_or(self.actions));
        out.push('}');
    }
}

fn push_pieces(out: &mut String, pieces: &[Piece], user_id: &str) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::User => push_string(out, user_id),
            Piece::Localpart => push_string(out, localpart(user_id)),
        }
    }
}

pub(crate) fn localpart(user_id: &str) -> &str {
    let name = user_id.strip_prefix('@').unwrap_or(user_id);
    name.split_once(':')
        .map_or(name, |(localpart, _)| localpart)
}

fn pieces(mut text: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    loop {
        let places = [(USER, Piece::User), (LOCALPART, Piece::Localpart)];
        let found = places.map(|(place, piece)| text.find(place).map(|at| (at, place, piece)));
        let Some((at, place, piece)) = found.into_iter().flatten().min_by_key(|(at, ..)| *at)
        else {
            break;
        };
        pieces.extend([Piece::Text(text[..at].to_owned()), piece]);
        text = &text[at + place.len()..];
    }
    pieces.push(Piece::Text(text.to_owned()));
    pieces
}

/// A line of the table.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    kind: &'static str,
    rule_id: &'static str,
    #[serde(default = "on")]
    enabled: bool,
    #[serde(default)]
    legacy_mention: bool,
    conditions: Option<&'static RawValue>,
    pattern: Option<&'static RawValue>,
    actions: &'static RawValue,
}

fn on() -> bool {
    true
}

/// FNV-1a: it has to differ for texts that differ by chance, and no more.
fn hash(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
