//! Stored changes of push rules, and edits of them.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use kitbag_push::{
    Actions, Changes, Defaults, Edit, Kind, Limits, NewRule, Place, RuleId, Ruleset, served,
};
use serde_json::Value;

const USER: &str = "@alice:localhost";

/// Reads a line with what is stored and then an edit a line: whatever is stored, what is served is
/// whole, with all defaults; what is written is read as it was; no edit that is refused, and no
/// text that cannot be read, is lost.
///
/// An edit is `put KIND ID BODY`, `before KIND ID OTHER BODY`, `after …`, `actions KIND ID BODY`,
/// `on KIND ID`, `off KIND ID` or `delete KIND ID`.
pub fn push_changes(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    let mut lines = text.lines();
    let Ok(mut changes) = Changes::parse(lines.next().unwrap_or_default()) else {
        return;
    };
    let limits = Limits {
        rules_max: 8,
        ..Limits::default()
    };
    check(&changes);
    for edit in lines.filter_map(|line| edit(line, &limits)) {
        let own = changes.own_rules();
        let Ok(after) = changes.apply(&Defaults::spec(), edit, &limits) else {
            continue;
        };
        assert!(after.own_rules() <= own.max(limits.rules_max));
        check(&after);
        changes = after;
    }
}

fn check(changes: &Changes) {
    let stored = changes.to_json();
    let read = Changes::parse(&stored);
    assert_eq!(read.as_ref(), Ok(changes), "{stored}");
    assert_eq!(read.unwrap().to_json(), stored);
    for (defaults, untouched) in &*UNTOUCHED {
        let text = served(changes, defaults, USER);
        // A number that no `Value` can hold is kept and served.
        if let Ok(shown) = serde_json::from_str::<Value>(&text) {
            check_served(&shown, untouched);
        }
        drop(Ruleset::compile(&text, USER));
    }
}

/// What is served to who changed nothing.
static UNTOUCHED: LazyLock<[(Defaults, Value); 2]> = LazyLock::new(|| {
    [Defaults::spec(), Defaults::with_legacy_mentions()].map(|defaults| {
        let untouched = served(&Changes::default(), &defaults, USER);
        (defaults, serde_json::from_str(&untouched).unwrap())
    })
});

fn check_served(shown: &Value, untouched: &Value) {
    assert_eq!(shown.as_object().unwrap().len(), 1);
    for kind in Kind::ALL {
        let rules = shown["global"][kind.as_str()].as_array().unwrap();
        let ids: BTreeSet<_> = rules
            .iter()
            .map(|rule| rule["rule_id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), rules.len(), "an ID stands twice");
        let is_default = |rule: &&Value| rule["default"] == true;
        let shown: Vec<_> = rules
            .iter()
            .filter(is_default)
            .map(|rule| &rule["rule_id"])
            .collect();
        let all = untouched["global"][kind.as_str()].as_array().unwrap();
        assert_eq!(
            shown,
            all.iter().map(|rule| &rule["rule_id"]).collect::<Vec<_>>()
        );
    }
}

fn edit(line: &str, limits: &Limits) -> Option<Edit> {
    let (what, rest) = line.split_once(' ')?;
    let (kind, rest) = rest.split_once(' ')?;
    let kind = Kind::parse(kind)?;
    let (id, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    let own_id = || RuleId::parse(id, limits).ok();
    let id = || id.to_owned();
    let put = |place, body| {
        Some(Edit::Put {
            id: own_id()?,
            rule: NewRule::parse(kind, body, limits).ok()?,
            place,
        })
    };
    match what {
        "put" => put(Place::default(), rest),
        "before" | "after" => {
            let (other, body) = rest.split_once(' ')?;
            let other = Some(other.to_owned());
            let (before, after) = if what == "before" {
                (other, None)
            } else {
                (None, other)
            };
            put(Place { before, after }, body)
        }
        "actions" => Some(Edit::SetActions {
            kind,
            id: id(),
            actions: Actions::parse(rest, limits).ok()?,
        }),
        "on" | "off" => Some(Edit::SetEnabled {
            kind,
            id: id(),
            enabled: what == "on",
        }),
        "delete" => Some(Edit::Delete { kind, id: id() }),
        _ => None,
    }
}
