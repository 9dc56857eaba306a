//! What a plain reading of the specification makes of push rules, with no regard to time.

use kitbag_push::RoomContext;
use serde_json::Value;

const KINDS: [&str; 5] = ["override", "content", "room", "sender", "underride"];
const MASTER: &str = ".m.rule.master";
const LEGACY_MENTIONS: [(&str, &str); 3] = [
    ("override", ".m.rule.contains_display_name"),
    ("override", ".m.rule.roomnotif"),
    ("content", ".m.rule.contains_user_name"),
];
/// The largest integer that events have.
const INTEGER_MAX: i64 = (1 << 53) - 1;

/// An event, who it reaches and where.
pub(crate) struct Question<'a> {
    pub(crate) event: &'a Value,
    pub(crate) user_id: &'a str,
    pub(crate) display_name: &'a str,
    pub(crate) room: &'a RoomContext,
}

impl Question<'_> {
    /// Returns the kind and the ID of the first rule that matches.
    pub(crate) fn decided_by<'a>(&self, served: &'a Value) -> Option<(&'static str, &'a str)> {
        if self.event["sender"] == self.user_id {
            return None;
        }
        let of_kind = |kind| {
            let rules = served["global"][kind].as_array().into_iter().flatten();
            rules.map(move |rule| (kind, rule))
        };
        let mut rules: Vec<_> = KINDS.into_iter().flat_map(of_kind).collect();
        let is_master = |(kind, rule): &(&str, &Value)| {
            *kind == "override"
                && rule["rule_id"] == MASTER
                && rule["default"] == true
                && is_readable(kind, rule)
        };
        if let Some(at) = rules.iter().position(is_master) {
            let master = rules.remove(at);
            rules.insert(0, master);
        }
        let matching = rules.iter().find(|(kind, rule)| self.matches(kind, rule));
        matching.map(|(kind, rule)| (*kind, rule["rule_id"].as_str().unwrap()))
    }

    fn matches(&self, kind: &str, rule: &Value) -> bool {
        let id = &rule["rule_id"];
        let is_legacy =
            |(legacy_kind, legacy_id): &(&str, &str)| kind == *legacy_kind && id == legacy_id;
        let is_legacy = rule["default"] == true && LEGACY_MENTIONS.iter().any(is_legacy);
        let has_mentions = self.event["content"].get("m.mentions").is_some();
        let is_on = rule.get("enabled").is_none_or(|enabled| enabled == true);
        is_readable(kind, rule)
            && is_on
            && !(is_legacy && has_mentions)
            && match kind {
                "override" | "underride" => {
                    let conditions = rule["conditions"].as_array().into_iter().flatten();
                    conditions
                        .into_iter()
                        .all(|condition| self.holds(condition, rule["default"] == true))
                }
                "content" => {
                    let body = self.event["content"]["body"].as_str();
                    let pattern = rule["pattern"].as_str().unwrap();
                    let name = self.user_id.strip_prefix('@').unwrap_or(self.user_id);
                    let name = name.split(':').next().unwrap();
                    let is_name = rule["default"] == true && pattern == name;
                    body.is_some_and(|body| match is_name {
                        true => between_boundaries(&letters(pattern), body),
                        false => matches_words(pattern, body),
                    })
                }
                "room" => self.event["room_id"] == *id,
                _ => self.event["sender"] == *id,
            }
    }

    /// In a default rule, the pattern that is the user's ID means that alone.
    fn holds(&self, condition: &Value, is_default: bool) -> bool {
        let text = |name: &str| condition[name].as_str();
        let property = || text("key").and_then(|key| self.property(key));
        match text("kind") {
            Some("event_match") => {
                let is_name = is_default && text("pattern") == Some(self.user_id);
                let wanted = text("pattern").map(if is_name { letters } else { wanted });
                let seen = property().and_then(Value::as_str).zip(wanted);
                seen.is_some_and(|(seen, wanted)| match text("key") {
                    Some("content.body") => between_boundaries(&wanted, seen),
                    _ => whole(&wanted, seen),
                })
            }
            Some("event_property_is") => {
                let wanted = condition.get("value");
                wanted.is_some_and(|wanted| is_simple(wanted) && property() == Some(wanted))
            }
            Some("event_property_contains") => {
                let wanted = condition.get("value").filter(|wanted| is_simple(wanted));
                let elements = property().and_then(Value::as_array);
                wanted
                    .zip(elements)
                    .is_some_and(|(wanted, elements)| elements.contains(wanted))
            }
            Some("contains_display_name") => {
                let body = self.event["content"]["body"].as_str();
                !self.display_name.is_empty()
                    && body
                        .is_some_and(|body| between_boundaries(&letters(self.display_name), body))
            }
            Some("room_member_count") => {
                text("is").is_some_and(|is| is_count(is, self.room.joined_members))
            }
            Some("sender_notification_permission") => text("key").is_some_and(|key| {
                let levels = &self.room.notification_levels;
                let needed = levels.get(key).copied().unwrap_or(50);
                self.room
                    .sender_power_level
                    .is_some_and(|level| level >= needed)
            }),
            _ => false,
        }
    }

    fn property(&self, key: &str) -> Option<&Value> {
        let mut names = vec![String::new()];
        let mut rest = key;
        while let Some(c) = rest.chars().next() {
            let name = names.last_mut().unwrap();
            if rest.starts_with("\\.") || rest.starts_with("\\\\") {
                name.push_str(&rest[1..2]);
                rest = &rest[2..];
                continue;
            }
            match c {
                '.' => names.push(String::new()),
                _ => name.push(c),
            }
            rest = &rest[c.len_utf8()..];
        }
        let mut value = self.event;
        for name in names {
            value = value.as_object()?.get(&name)?;
        }
        Some(value)
    }
}

/// Tells whether a rule has what its kind needs.
fn is_readable(kind: &str, rule: &Value) -> bool {
    let is_flag = |name: &str| rule.get(name).is_none_or(Value::is_boolean);
    rule["rule_id"].is_string()
        && rule["actions"].is_array()
        && is_flag("default")
        && is_flag("enabled")
        && match kind {
            "override" | "underride" => rule.get("conditions").is_none_or(Value::is_array),
            "content" => rule["pattern"].is_string(),
            _ => true,
        }
}

/// Tells whether a condition can name the value.
pub(crate) fn is_simple(value: &Value) -> bool {
    match value {
        Value::Number(number) => number
            .as_i64()
            .is_some_and(|number| (-INTEGER_MAX..=INTEGER_MAX).contains(&number)),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
        Value::Array(_) | Value::Object(_) => false,
    }
}

fn is_count(is: &str, joined: u64) -> bool {
    let digits = is.trim_start_matches(['<', '>', '=']);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return false;
    }
    let count = digits.parse().unwrap_or(u64::MAX);
    match &is[..is.len() - digits.len()] {
        "" | "==" => joined == count,
        "<" => joined < count,
        ">" => joined > count,
        "<=" => joined <= count,
        ">=" => joined >= count,
        _ => false,
    }
}

/// Tells whether a glob pattern matches a whole value, whatever the case of both.
pub(crate) fn matches(pattern: &str, value: &str) -> bool {
    whole(&wanted(pattern), value)
}

/// Tells whether it matches some part of a value that stands between boundaries of words.
pub(crate) fn matches_words(pattern: &str, value: &str) -> bool {
    between_boundaries(&wanted(pattern), value)
}

#[derive(Clone, Copy)]
enum Wanted {
    Any,
    Char(char),
    Run,
}

fn wanted(pattern: &str) -> Vec<Wanted> {
    let wanted = pattern.chars().map(|c| match c {
        '*' => Wanted::Run,
        '?' => Wanted::Any,
        c => Wanted::Char(lower(c)),
    });
    wanted.collect()
}

/// The same where nothing is a wildcard.
fn letters(text: &str) -> Vec<Wanted> {
    text.chars().map(|c| Wanted::Char(lower(c))).collect()
}

fn whole(wanted: &[Wanted], value: &str) -> bool {
    reached(wanted, value, |at| at == 0).last() == Some(&true)
}

fn between_boundaries(wanted: &[Wanted], value: &str) -> bool {
    let chars: Vec<char> = value.chars().map(lower).collect();
    let is_word = |at: Option<usize>| {
        let c = at.and_then(|at| chars.get(at));
        c.is_some_and(|c| c.is_ascii_alphanumeric() || *c == '_')
    };
    let is_boundary = |at: usize| {
        let is_end = at == 0 || at == chars.len();
        is_end || !is_word(at.checked_sub(1)) || !is_word(Some(at))
    };
    let reached = reached(wanted, value, is_boundary);
    (0..reached.len()).any(|at| reached[at] && is_boundary(at))
}

/// Behind how many characters of the value all that is wanted can end, if it begins at a start.
fn reached(wanted: &[Wanted], value: &str, is_start: impl Fn(usize) -> bool) -> Vec<bool> {
    let value: Vec<char> = value.chars().map(lower).collect();
    let mut row: Vec<bool> = (0..=value.len()).map(is_start).collect();
    for wanted in wanted {
        let before = row.clone();
        for at in 0..row.len() {
            let behind = at.checked_sub(1);
            let is_behind = behind.is_some_and(|behind| before[behind]);
            row[at] = match wanted {
                Wanted::Run => before[at] || behind.is_some_and(|behind| row[behind]),
                Wanted::Any => is_behind,
                Wanted::Char(c) => is_behind && behind.is_some_and(|behind| value[behind] == *c),
            };
        }
    }
    row
}

/// Unicode's simple lower case: one character for one.
fn lower(c: char) -> char {
    c.to_lowercase().next().unwrap_or(c)
}
