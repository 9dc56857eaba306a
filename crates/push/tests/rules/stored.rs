//! The stored form: what is written, what is read, and what is kept though it cannot be read.

use kitbag_push::{
    Changes, ChangesError, Defaults, EditError, Kind, Place, find_rule, find_rules, find_ruleset,
};

use crate::account::{Account, body};

#[test]
fn only_changes_are_stored() {
    let mut account = Account::new();
    assert_eq!(account.stored, r#"{"version":1}"#);
    let sent = r#"{"actions": ["notify"], "pattern": "cake"}"#;
    account
        .put_at(Kind::Content, "sweets", sent, Place::default())
        .unwrap();
    account.switch(Kind::Content, "sweets", false).unwrap();
    account.act(Kind::Underride, ".m.rule.call", "[]").unwrap();
    account
        .switch(Kind::Underride, ".m.rule.message", false)
        .unwrap();
    account
        .switch(Kind::Override, ".m.rule.master", true)
        .unwrap();
    assert_eq!(
        account.stored,
        concat!(
            r#"{"version":1,"own":{"content":["#,
            r#"{"rule_id":"sweets","enabled":false,"rule":{"actions": ["notify"], "pattern": "cake"}}]},"#,
            r#""defaults":{"override":[{"rule_id":".m.rule.master","enabled":true}],"#,
            r#""underride":[{"rule_id":".m.rule.call","actions":[]},"#,
            r#"{"rule_id":".m.rule.message","enabled":false}]}}"#
        )
    );
    account.delete(Kind::Content, "sweets").unwrap();
    assert_eq!(account.changes().own_rules(), 0);
    assert!(!account.stored.contains("own"));
}

#[test]
fn an_empty_object_is_that_of_a_user_without_changes() {
    assert_eq!(Changes::parse("{}"), Ok(Changes::default()));
    assert_eq!(Changes::parse(" { } "), Ok(Changes::default()));
}

#[test]
fn rules_that_cannot_be_read_are_kept_and_hide_nothing() {
    let rule = r#"{"rule_id":"good","enabled":true,"rule":{"actions":[]}}"#;
    for bad in [
        "null",
        "[1, 2]",
        "{}",
        r#"{"rule_id":"","enabled":true,"rule":{"actions":[]}}"#,
        r#"{"rule_id":".m.rule.master","enabled":true,"rule":{"actions":[]}}"#,
        r#"{"rule_id":1,"enabled":true,"rule":{"actions":[]}}"#,
        r#"{"rule_id":"bad","enabled":1,"rule":{"actions":[]}}"#,
        r#"{"rule_id":"bad","rule":{"actions":[]}}"#,
        r#"{"rule_id":"bad","enabled":true}"#,
        r#"{"rule_id":"bad","enabled":true,"rule":[]}"#,
        r#"{"rule_id":"bad","enabled":true,"rule":{}}"#,
        r#"{"rule_id":"bad","enabled":true,"rule":{"actions":[],"enabled":false}}"#,
        r#"{"rule_id":"bad","enabled":true,"enabled":true,"rule":{"actions":[]}}"#,
        // The second of an ID, which no request could name.
        r#"{"rule_id":"good","enabled":false,"rule":{"actions":["notify"]}}"#,
    ] {
        let stored = format!(r#"{{"version":1,"own":{{"override":[{rule},{bad}]}}}}"#);
        let mut account = Account::of(&stored);
        assert_eq!(account.changes().to_json(), stored);
        assert_eq!(account.own(Kind::Override), ["good"]);
        assert_eq!(account.rules(Kind::Override).len(), 11);
        assert_eq!(
            account.switch(Kind::Override, "bad", true),
            Err(EditError::NotFound)
        );
        account.put(Kind::Override, "new");
        assert_eq!(account.own(Kind::Override), ["new", "good"]);
        assert!(account.stored.contains(&format!("{rule},{bad}]")), "{bad}");
    }
}

#[test]
fn overrides_that_cannot_be_read_are_kept_and_hide_nothing() {
    for bad in [
        "0",
        r#"{"enabled":true}"#,
        r#"{"rule_id":".m.rule.message","enabled":"no"}"#,
        r#"{"rule_id":".m.rule.message","actions":{}}"#,
    ] {
        let good = r#"{"rule_id":".m.rule.call","enabled":false}"#;
        let stored = format!(r#"{{"version":1,"defaults":{{"underride":[{bad},{good}]}}}}"#);
        let mut account = Account::of(&stored);
        assert_eq!(account.changes().to_json(), stored);
        let enabled =
            |account: &Account, id| account.rule(Kind::Underride, id).unwrap()["enabled"] == true;
        assert!(!enabled(&account, ".m.rule.call"));
        assert!(enabled(&account, ".m.rule.message"));
        account
            .switch(Kind::Underride, ".m.rule.message", false)
            .unwrap();
        assert!(!enabled(&account, ".m.rule.message"));
        assert!(account.stored.contains(&format!("[{bad},{good},")));
    }
}

#[test]
fn unknown_members_are_kept_through_edits() {
    let stored = concat!(
        r#"{"version":1,"own":{"room":[{"rule_id":"a","enabled":true,"rule":{"actions":[]},"x":[1.0]}],"#,
        r#""postcontent":[{}]},"defaults":{"override":[{"rule_id":".m.rule.master","y":{}}],"z":0},"w":"\ud800"}"#
    );
    let mut account = Account::of(stored);
    assert_eq!(account.changes().to_json(), stored);
    account
        .switch(Kind::Override, ".m.rule.master", true)
        .unwrap();
    account
        .put_at(
            Kind::Room,
            "a",
            r#"{"actions":["notify"]}"#,
            Place::default(),
        )
        .unwrap();
    let expected = stored
        .replace(r#"[]},"x""#, r#"["notify"]},"x""#)
        .replace(r#","y""#, r#","enabled":true,"y""#);
    assert_eq!(account.stored, expected);
}

#[test]
fn an_override_waits_for_the_return_of_its_rule() {
    let id = ".m.rule.contains_user_name";
    let mut account = Account::new();
    account.defaults = Defaults::with_legacy_mentions();
    account.switch(Kind::Content, id, false).unwrap();
    account.defaults = Defaults::spec();
    assert_eq!(account.rule(Kind::Content, id), None);
    account.put(Kind::Room, "a");
    account.defaults = Defaults::with_legacy_mentions();
    assert_eq!(account.rule(Kind::Content, id).unwrap()["enabled"], false);
}

#[test]
fn what_another_program_wrote_is_not_taken_for_changes() {
    for (stored, error) in [
        (r#"{"version":2}"#, ChangesError::UnknownVersion),
        (r#"{"version":"1"}"#, ChangesError::UnknownVersion),
        (
            r#"{"global":{"override":[]}}"#,
            ChangesError::UnknownVersion,
        ),
        ("", ChangesError::Malformed),
        ("[]", ChangesError::Malformed),
        (r#"{"version":1,"own":[]}"#, ChangesError::Malformed),
        (
            r#"{"version":1,"own":{"room":{}}}"#,
            ChangesError::Malformed,
        ),
        (
            r#"{"version":1,"defaults":{"room":null}}"#,
            ChangesError::Malformed,
        ),
        (
            r#"{"version":1,"own":{},"own":{}}"#,
            ChangesError::Malformed,
        ),
        (
            r#"{"version":1,"own":{"room":[],"room":[]}}"#,
            ChangesError::Malformed,
        ),
    ] {
        assert_eq!(Changes::parse(stored), Err(error), "{stored}");
    }
}

#[test]
fn look_ups_read_the_served_text() {
    let served = concat!(
        r#"{"global": {"room": [ {"rule_id":"\u0061","default":false,"enabled":false,"actions": [ ],"x":{}}, "#,
        r#"{"rule_id":"b"}, 1, {"rule_id":"c","default":true,"enabled":true,"actions":[1]} ] } }"#
    );
    let rules = &served[20..served.len() - 4];
    assert_eq!(find_ruleset(served), Some(&served[11..served.len() - 2]));
    assert_eq!(find_rules(served, Kind::Room), Some(rules));
    assert_eq!(find_rules(served, Kind::Sender), None);
    let rule = find_rule(served, Kind::Room, "a").unwrap();
    assert_eq!(
        (rule.is_default, rule.is_enabled, rule.actions),
        (false, false, "[ ]")
    );
    assert!(rule.text.starts_with(r#"{"rule_id":"\u0061""#) && rule.text.ends_with("}}"));
    let rule = find_rule(served, Kind::Room, "c").unwrap();
    assert_eq!(
        (rule.is_default, rule.is_enabled, rule.actions),
        (true, true, "[1]")
    );
    assert_eq!(find_rule(served, Kind::Room, "b"), None);
    assert_eq!(find_rule(served, Kind::Sender, "a"), None);
    for text in ["", "{}", "[]", r#"{"global":1}"#] {
        assert_eq!(find_rules(text, Kind::Room), None);
    }
}

#[test]
fn what_is_found_of_a_kind_is_its_part_of_the_served_text() {
    let mut account = Account::new();
    for kind in Kind::ALL {
        account.put(kind, "a\"\u{1}b");
        let served = account.served();
        let rules = find_rules(&served, kind).unwrap();
        assert!(served.contains(&format!("\"{kind}\":{rules}")));
        let rule = find_rule(&served, kind, "a\"\u{1}b").unwrap();
        assert!(rule.text.ends_with(&body(kind)[1..]) && rules.contains(rule.text));
    }
}
