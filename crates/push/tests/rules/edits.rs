//! The rules of writing, one by one [spec, "Push Rules: API"; SPEC.md 7.2].

use kitbag_push::{EditError, Kind, Place, find_rule};
use serde_json::json;

use crate::account::{Account, after, before, body};

/// All default rules, by kind.
fn defaults(account: &Account) -> Vec<(Kind, String)> {
    let of = |kind| {
        account
            .rules(kind)
            .into_iter()
            .map(move |rule| (kind, rule))
    };
    let rules = Kind::ALL.into_iter().flat_map(of);
    rules
        .map(|(kind, rule)| (kind, rule["rule_id"].as_str().unwrap().to_owned()))
        .collect()
}

#[test]
fn a_new_rule_is_on_and_comes_before_the_others_of_the_users_own() {
    for kind in Kind::ALL {
        let mut account = Account::new();
        for id in ["a", "b", "c"] {
            account.put(kind, id);
            assert_eq!(account.rule(kind, id).unwrap()["enabled"], true);
        }
        assert_eq!(account.own(kind), ["c", "b", "a"], "{kind}");
    }
}

#[test]
fn a_users_rules_come_between_the_master_rule_and_the_other_defaults() {
    let mut account = Account::new();
    account.defaults = kitbag_push::Defaults::with_legacy_mentions();
    for kind in Kind::ALL {
        account.put(kind, "own");
        let rules = account.rules(kind);
        let place = rules.iter().position(|rule| rule["default"] == false);
        assert_eq!(place, Some(usize::from(kind == Kind::Override)), "{kind}");
    }
    assert_eq!(
        account.rules(Kind::Override)[0]["rule_id"],
        ".m.rule.master"
    );
    assert_eq!(account.rules(Kind::Content)[1]["default"], true);
}

#[test]
fn a_rule_put_again_keeps_its_place_and_whether_it_is_on() {
    let mut account = Account::new();
    for id in ["a", "b", "c"] {
        account.put(Kind::Room, id);
    }
    account.switch(Kind::Room, "b", false).unwrap();
    let body = r#"{"actions":["dont_notify"]}"#;
    account
        .put_at(Kind::Room, "b", body, Place::default())
        .unwrap();
    assert_eq!(account.own(Kind::Room), ["c", "b", "a"]);
    let rule = account.rule(Kind::Room, "b").unwrap();
    assert_eq!(rule["enabled"], false);
    assert_eq!(rule["actions"], json!(["dont_notify"]));
}

#[test]
fn a_rule_deleted_and_made_again_is_on_and_first() {
    let mut account = Account::new();
    account.put(Kind::Sender, "a");
    account.put(Kind::Sender, "b");
    account.switch(Kind::Sender, "a", false).unwrap();
    account.delete(Kind::Sender, "a").unwrap();
    assert_eq!(account.own(Kind::Sender), ["b"]);
    account.put(Kind::Sender, "a");
    assert_eq!(account.own(Kind::Sender), ["a", "b"]);
    assert_eq!(account.rule(Kind::Sender, "a").unwrap()["enabled"], true);
}

#[test]
fn before_and_after_place_a_new_rule_beside_another() {
    for kind in Kind::ALL {
        for (place, expected) in [
            (before("c"), ["new", "c", "b", "a"]),
            (before("b"), ["c", "new", "b", "a"]),
            (before("a"), ["c", "b", "new", "a"]),
            (after("c"), ["c", "new", "b", "a"]),
            (after("b"), ["c", "b", "new", "a"]),
            (after("a"), ["c", "b", "a", "new"]),
        ] {
            let mut account = Account::new();
            for id in ["a", "b", "c"] {
                account.put(kind, id);
            }
            account.put_at(kind, "new", body(kind), place).unwrap();
            assert_eq!(account.own(kind), expected, "{kind}");
        }
    }
}

#[test]
fn before_and_after_move_a_rule_that_is_there_and_leave_it_off() {
    for (id, place, expected) in [
        ("a", before("c"), ["a", "c", "b"]),
        ("c", after("a"), ["b", "a", "c"]),
        ("c", after("b"), ["b", "c", "a"]),
        ("b", before("c"), ["b", "c", "a"]),
        ("b", before("a"), ["c", "b", "a"]),
        ("b", before("b"), ["c", "b", "a"]),
        ("b", after("b"), ["c", "b", "a"]),
    ] {
        let mut account = Account::new();
        for id in ["a", "b", "c"] {
            account.put(Kind::Content, id);
        }
        account.switch(Kind::Content, id, false).unwrap();
        let body = body(Kind::Content);
        account.put_at(Kind::Content, id, body, place).unwrap();
        assert_eq!(account.own(Kind::Content), expected);
        assert_eq!(account.rule(Kind::Content, id).unwrap()["enabled"], false);
    }
}

#[test]
fn before_is_obeyed_where_after_is_given_too() {
    for other in ["a", "c", "missing"] {
        let mut account = Account::new();
        for id in ["a", "b", "c"] {
            account.put(Kind::Room, id);
        }
        let place = Place {
            before: Some("b".to_owned()),
            after: Some(other.to_owned()),
        };
        let body = body(Kind::Room);
        account.put_at(Kind::Room, "new", body, place).unwrap();
        assert_eq!(account.own(Kind::Room), ["c", "new", "b", "a"]);
    }
}

#[test]
fn a_neighbour_must_be_a_rule_of_the_users_own_of_the_same_kind() {
    let mut account = Account::new();
    account.put(Kind::Override, "own");
    account.put(Kind::Underride, "elsewhere");
    let unchanged = account.stored.clone();
    for id in [
        ".m.rule.master",
        ".m.rule.tombstone",
        "elsewhere",
        "missing",
        "new",
        "",
    ] {
        for place in [before(id), after(id)] {
            for rule in ["new", "own"] {
                let kind = Kind::Override;
                let refused = account.put_at(kind, rule, body(kind), place.clone());
                assert_eq!(refused, Err(EditError::NoSuchNeighbour), "{id}");
            }
        }
    }
    assert_eq!(account.stored, unchanged);
}

#[test]
fn the_same_id_may_stand_in_every_kind() {
    let mut account = Account::new();
    for kind in Kind::ALL {
        account.put(kind, "тест");
    }
    account.switch(Kind::Room, "тест", false).unwrap();
    account.delete(Kind::Sender, "тест").unwrap();
    for kind in Kind::ALL {
        let enabled = account
            .rule(kind, "тест")
            .map(|rule| rule["enabled"].clone());
        let expected = match kind {
            Kind::Room => Some(json!(false)),
            Kind::Sender => None,
            _ => Some(json!(true)),
        };
        assert_eq!(enabled, expected, "{kind}");
    }
}

#[test]
fn every_default_rule_can_be_switched_and_given_other_actions() {
    let fresh = Account::new();
    let rules = defaults(&fresh);
    assert_eq!(rules.len(), 15);
    for (kind, id) in rules {
        let mut account = Account::new();
        let untouched = account.rule(kind, &id).unwrap();
        for enabled in [false, true] {
            account.switch(kind, &id, enabled).unwrap();
            let mut expected = untouched.clone();
            expected["enabled"] = json!(enabled);
            assert_eq!(account.rule(kind, &id).unwrap(), expected);
        }
        account.act(kind, &id, "[ \"dont_notify\" ]").unwrap();
        let served = account.served();
        let rule = find_rule(&served, kind, &id).unwrap();
        assert_eq!(rule.actions, "[ \"dont_notify\" ]");
        assert!(rule.is_enabled && rule.is_default);
        for (other, id) in defaults(&account)
            .into_iter()
            .filter(|(_, other)| *other != id)
        {
            assert_eq!(account.rule(other, &id), fresh.rule(other, &id));
        }
    }
}

#[test]
fn default_rules_are_not_deleted() {
    let mut account = Account::new();
    for (kind, id) in defaults(&account) {
        assert_eq!(account.delete(kind, &id), Err(EditError::DefaultRule));
        account.switch(kind, &id, false).unwrap();
        assert_eq!(account.delete(kind, &id), Err(EditError::DefaultRule));
    }
}

#[test]
fn rules_that_are_not_there_are_not_found() {
    let mut account = Account::new();
    account.put(Kind::Room, "a");
    let unchanged = account.stored.clone();
    for (kind, id) in [
        (Kind::Room, "b"),
        (Kind::Sender, "a"),
        (Kind::Room, ""),
        (Kind::Override, ".m.rule.unknown"),
        (Kind::Underride, ".m.rule.master"),
        (Kind::Override, ".m.rule.roomnotif"),
    ] {
        assert_eq!(account.delete(kind, id), Err(EditError::NotFound), "{id}");
        assert_eq!(account.switch(kind, id, true), Err(EditError::NotFound));
        assert_eq!(account.act(kind, id, "[]"), Err(EditError::NotFound));
    }
    assert_eq!(account.stored, unchanged);
}

#[test]
fn edits_that_change_nothing_succeed() {
    let mut account = Account::new();
    account.put(Kind::Room, "a");
    account
        .switch(Kind::Override, ".m.rule.master", true)
        .unwrap();
    account.act(Kind::Override, ".m.rule.master", "[]").unwrap();
    let unchanged = account.stored.clone();
    account.put(Kind::Room, "a");
    account.switch(Kind::Room, "a", true).unwrap();
    account.act(Kind::Room, "a", r#"["notify"]"#).unwrap();
    account
        .switch(Kind::Override, ".m.rule.master", true)
        .unwrap();
    account.act(Kind::Override, ".m.rule.master", "[]").unwrap();
    assert_eq!(account.stored, unchanged);
}

#[test]
fn other_actions_leave_all_else_of_a_rule_as_it_was_sent() {
    let mut account = Account::new();
    let sent =
        r#"{"x":1.0e999, "actions":["notify"],"conditions":[ {"kind":"new","\u0061":[-0.0]} ]}"#;
    account
        .put_at(Kind::Override, "a", sent, Place::default())
        .unwrap();
    account
        .act(
            Kind::Override,
            "a",
            r#"[ "coalesce",{"set_tweak":"x","y":1E2} ]"#,
        )
        .unwrap();
    let served = account.served();
    let rule = find_rule(&served, Kind::Override, "a").unwrap();
    assert_eq!(
        rule.text,
        concat!(
            r#"{"rule_id":"a","default":false,"enabled":true,"x":1.0e999, "#,
            r#""actions":[ "coalesce",{"set_tweak":"x","y":1E2} ],"#,
            r#""conditions":[ {"kind":"new","\u0061":[-0.0]} ]}"#
        )
    );
}

#[test]
fn rules_over_all_kinds_are_bounded() {
    let mut account = Account::new();
    account.limits.rules_max = 2;
    account.put(Kind::Room, "a");
    account.put(Kind::Sender, "a");
    let refused = account.put_at(Kind::Room, "b", body(Kind::Room), Place::default());
    assert_eq!(refused, Err(EditError::TooManyRules { limit: 2 }));
    // What is there already can be replaced, and room be made.
    account.put(Kind::Room, "a");
    account.delete(Kind::Sender, "a").unwrap();
    account.put(Kind::Room, "b");
    assert_eq!(account.own(Kind::Room), ["b", "a"]);
}

#[test]
fn who_has_more_than_a_lowered_limit_can_still_shrink() {
    let mut account = Account::new();
    for id in ["a", "b", "c"] {
        account.put(Kind::Room, id);
    }
    account.limits.rules_max = 1;
    account.limits.changes_bytes_max = account.stored.len() - 1;
    let limit_bytes = account.limits.changes_bytes_max;
    let larger = r#"{"actions":["notify","notify"]}"#;
    let too_large = Err(EditError::TooLarge { limit_bytes });
    assert_eq!(
        account.put_at(Kind::Room, "a", larger, Place::default()),
        too_large
    );
    assert_eq!(
        account.act(Kind::Room, "a", r#"["notify",{"set_tweak":"x"}]"#),
        too_large
    );
    // Switching is always allowed, and so is what makes it no larger.
    account.switch(Kind::Room, "a", false).unwrap();
    account
        .switch(Kind::Override, ".m.rule.master", true)
        .unwrap();
    account
        .put_at(
            Kind::Room,
            "b",
            r#"{"actions":["coalesce"],"x":1}"#,
            Place::default(),
        )
        .unwrap_err();
    account
        .put_at(Kind::Room, "b", r#"{"actions":[]}"#, Place::default())
        .unwrap();
    account.act(Kind::Room, "c", "[]").unwrap();
    account.delete(Kind::Room, "c").unwrap();
    assert_eq!(account.own(Kind::Room), ["b", "a"]);
}

#[test]
fn a_rule_with_other_actions_has_the_size_of_a_rule() {
    let mut account = Account::new();
    let rule = r#"{"actions":[],"x":"0123456789"}"#;
    account
        .put_at(Kind::Room, "a", rule, Place::default())
        .unwrap();
    let limit_bytes = rule.len() + 8;
    account.limits.rule_bytes_max = limit_bytes;
    account.act(Kind::Room, "a", r#"["notify"]"#).unwrap();
    let refused = account.act(Kind::Room, "a", r#"["coalesce"]"#);
    assert_eq!(refused, Err(EditError::RuleTooLarge { limit_bytes }));
    // As with a limit that was lowered since.
    account.limits.rule_bytes_max = limit_bytes - 1;
    account.act(Kind::Room, "a", r#"["notify"]"#).unwrap();
}

#[test]
fn changes_may_be_as_large_as_their_limit() {
    let mut account = Account::new();
    account.put(Kind::Room, "a");
    let limit_bytes = account.stored.len();
    let mut account = Account::new();
    account.limits.changes_bytes_max = limit_bytes;
    account.put(Kind::Room, "a");
    account.delete(Kind::Room, "a").unwrap();
    let refused = account.put_at(Kind::Room, "ab", body(Kind::Room), Place::default());
    assert_eq!(refused, Err(EditError::TooLarge { limit_bytes }));
}
