//! What clients may send: what is kept as it is, and what is refused with a reason.

use kitbag_push::{
    Actions, Changes, Defaults, Edit, Kind, Limits, NewRule, Place, RuleError, RuleId, find_rule,
    limits, parse_enabled, served,
};

use crate::account::USER;

fn limits() -> Limits {
    Limits {
        rule_bytes_max: 400,
        conditions_max: 3,
        actions_max: 3,
        wildcards_max: 3,
        ..Limits::default()
    }
}

fn parse(kind: Kind, body: &str) -> Result<String, RuleError> {
    NewRule::parse(kind, body, &limits()).map(|rule| rule.as_str().to_owned())
}

/// The refusal of an override rule with this condition alone.
fn condition(condition: &str) -> Option<RuleError> {
    parse(
        Kind::Override,
        &format!(r#"{{"actions":[],"conditions":[{condition}]}}"#),
    )
    .err()
}

/// The refusal of a room rule with this action alone.
fn action(action: &str) -> Option<RuleError> {
    parse(Kind::Room, &format!(r#"{{"actions":[{action}]}}"#)).err()
}

#[test]
fn what_a_client_sent_is_served_byte_for_byte() {
    let limits = Limits::default();
    let unknown = r#""org.example.x":{"b":[ 1.50,-0 , 1e999 ],"a":"\ud800"},"org.example.x":2"#;
    for (kind, sent) in [
        (
            Kind::Content,
            format!(r#"{{ "pattern":"\u0063*","actions":["notify"],{unknown} }}"#),
        ),
        (
            Kind::Room,
            format!(r#"{{{unknown},"actions" : [ "dont_notify" ]}}"#),
        ),
        (
            Kind::Override,
            format!(
                r#"{{"actions":["coalesce",{{"set_tweak":"org.example.t","value":[],{unknown}}}],
                "conditions":[{{"kind":"org.example.c",{unknown}}},
                {{"kind":"event_match","key":"","pattern":"",{unknown}}}]}}"#
            ),
        ),
        // Members that are of another kind are as good as unknown ones.
        (
            Kind::Sender,
            r#"{"actions":[],"pattern":1,"conditions":"x"}"#.to_owned(),
        ),
        (
            Kind::Underride,
            r#"{"actions":[],"conditions":[],"pattern":[]}"#.to_owned(),
        ),
        (
            Kind::Content,
            r#"{"actions":[],"pattern":"","conditions":0}"#.to_owned(),
        ),
    ] {
        let edit = Edit::Put {
            id: RuleId::parse("a", &limits).unwrap(),
            rule: NewRule::parse(kind, &format!(" \n{sent}\t"), &limits).unwrap(),
            place: Place::default(),
        };
        let changes = Changes::default()
            .apply(&Defaults::spec(), edit, &limits)
            .unwrap();
        let served = served(
            &Changes::parse(&changes.to_json()).unwrap(),
            &Defaults::spec(),
            USER,
        );
        let expected = format!(
            "{{\"rule_id\":\"a\",\"default\":false,\"enabled\":true,{}",
            &sent[1..]
        );
        assert_eq!(find_rule(&served, kind, "a").unwrap().text, expected);
    }
}

#[test]
fn members_that_are_the_servers_are_left_out() {
    let sent =
        r#"{"rule_id":"b","x": 1,"default":true,"\u0065nabled":false,"actions":[],"enabled":0}"#;
    assert_eq!(parse(Kind::Room, sent).unwrap(), r#"{"x": 1,"actions":[]}"#);
    for (sent, kept) in [
        (
            r#"{ "\u0078" :"," ,"enabled":true , "actions" : [ ] }"#,
            r#"{ "\u0078" :"," , "actions" : [ ] }"#,
        ),
        (
            r#"{ "enabled":true,"default":[","] , "actions":[], ",":{} }"#,
            r#"{ "actions":[], ",":{} }"#,
        ),
        (
            "{\n  \"actions\": [],\n  \"rule_id\": \"a\"\n}",
            "{\n  \"actions\": []\n}",
        ),
    ] {
        assert_eq!(parse(Kind::Room, sent).unwrap(), kept);
    }
}

#[test]
fn every_kind_needs_what_it_is_made_of() {
    let missing = |member| Err(RuleError::Missing { member });
    for kind in Kind::ALL {
        let refused = parse(kind, r#"{"pattern":"a","conditions":[]}"#);
        assert_eq!(refused, missing("actions"), "{kind}");
        let expected = match kind {
            Kind::Override | Kind::Underride => missing("conditions"),
            Kind::Content => missing("pattern"),
            Kind::Room | Kind::Sender => Ok(r#"{"actions":[]}"#.to_owned()),
        };
        assert_eq!(parse(kind, r#"{"actions":[]}"#), expected);
    }
}

#[test]
fn a_member_that_readers_would_disagree_about_is_refused() {
    for (kind, body, member) in [
        (
            Kind::Room,
            r#"{"actions":[],"actions":["notify"]}"#,
            "actions",
        ),
        (
            Kind::Content,
            r#"{"actions":[],"pattern":"a","p\u0061ttern":"b"}"#,
            "pattern",
        ),
        (
            Kind::Override,
            r#"{"actions":[],"conditions":[],"conditions":[]}"#,
            "conditions",
        ),
    ] {
        assert_eq!(parse(kind, body), Err(RuleError::Repeated { member }));
    }
}

#[test]
fn other_values_than_objects_and_other_texts_than_json_are_refused() {
    for body in ["[]", "1", "null", "\"{}\"", " true "] {
        assert_eq!(parse(Kind::Room, body), Err(RuleError::NotObject), "{body}");
    }
    for body in [
        "",
        " ",
        "{",
        "{}}",
        "{\"actions\":[],}",
        "nul",
        "\u{feff}{}",
        "{\"\\ud800\":1}",
    ] {
        assert_eq!(parse(Kind::Room, body), Err(RuleError::NotJson), "{body}");
    }
}

#[test]
fn members_of_the_wrong_form_are_refused() {
    let malformed = |member, expected| Err(RuleError::Malformed { member, expected });
    for value in ["{}", "\"notify\"", "null", "1"] {
        let body = format!(r#"{{"actions":{value}}}"#);
        assert_eq!(parse(Kind::Room, &body), malformed("actions", "a list"));
        let body = format!(r#"{{"actions":[],"conditions":{value}}}"#);
        assert_eq!(
            parse(Kind::Underride, &body),
            malformed("conditions", "a list")
        );
    }
    for value in ["{}", "[\"a\"]", "null", "1", "\"\\ud800\""] {
        let body = format!(r#"{{"actions":[],"pattern":{value}}}"#);
        assert_eq!(
            parse(Kind::Content, &body),
            malformed("pattern", "a string")
        );
    }
}

#[test]
fn actions_are_known_words_and_tweaks() {
    for fine in [
        "",
        r#""notify""#,
        r#""dont_notify""#,
        r#""coalesce""#,
        r#"{"set_tweak":"highlight"}"#,
        r#"{"set_tweak":"org.example.x","value":{}}"#,
        r#"{"value":1,"set_tweak":""}"#,
    ] {
        assert_eq!(action(fine), None, "{fine}");
    }
    for bad in [
        r#""not_an_action""#,
        r#""Notify""#,
        r#""""#,
        "1",
        "null",
        "[]",
        "{}",
        r#"{"set_tweak":1}"#,
        r#"{"set_tweak":"a","set_tweak":"b"}"#,
        r#"{"set_tweak":"sound","value":"a","v\u0061lue":"b"}"#,
        r#"{"set_sound":"default"}"#,
    ] {
        assert_eq!(
            action(bad),
            Some(RuleError::BadAction { index: 0 }),
            "{bad}"
        );
    }
    let second = action(r#""notify","x""#);
    assert_eq!(second, Some(RuleError::BadAction { index: 1 }));
}

#[test]
fn conditions_of_known_kinds_have_what_they_need() {
    for fine in [
        r#"{"kind":"event_match","key":"content.body","pattern":"a*b?"}"#,
        r#"{"kind":"event_property_is","key":"content.x","value":true}"#,
        r#"{"kind":"event_property_is","key":"content.x","value":null}"#,
        r#"{"kind":"event_property_is","key":"content.x","value":-9007199254740991}"#,
        r#"{"kind":"event_property_contains","key":"content.x","value":"a"}"#,
        r#"{"kind":"contains_display_name"}"#,
        r#"{"kind":"sender_notification_permission","key":"room"}"#,
        r#"{"kind":"room_member_count","is":"2"}"#,
        r#"{"kind":"room_member_count","is":">=10"}"#,
        r#"{"kind":"room_member_count","is":"==0"}"#,
        r#"{"kind":"room_member_count","is":"<99999999999999999999"}"#,
        r#"{"kind":"org.example.unknown","key":[],"pattern":1}"#,
        r#"{"kind":""}"#,
    ] {
        assert_eq!(condition(fine), None, "{fine}");
    }
    for bad in [
        "1",
        "[]",
        "\"event_match\"",
        "{}",
        r#"{"kind":1}"#,
        r#"{"kind":"x","kind":"event_match"}"#,
        r#"{"kind":"event_match","key":"content.body"}"#,
        r#"{"kind":"event_match","pattern":"a"}"#,
        r#"{"kind":"event_match","key":1,"pattern":"a"}"#,
        r#"{"kind":"event_match","key":"a","pattern":null}"#,
        r#"{"kind":"event_match","key":"a","pattern":"a","pattern":"b"}"#,
        r#"{"kind":"event_property_is","key":"a"}"#,
        r#"{"kind":"event_property_is","value":1}"#,
        r#"{"kind":"event_property_is","key":"a","value":{}}"#,
        r#"{"kind":"event_property_is","key":"a","value":1.5}"#,
        r#"{"kind":"event_property_is","key":"a","value":9007199254740992}"#,
        r#"{"kind":"event_property_contains","key":"a","value":["a"]}"#,
        r#"{"kind":"sender_notification_permission"}"#,
        r#"{"kind":"room_member_count"}"#,
        r#"{"kind":"room_member_count","is":2}"#,
        r#"{"kind":"room_member_count","is":""}"#,
        r#"{"kind":"room_member_count","is":"=2"}"#,
        r#"{"kind":"room_member_count","is":"< 2"}"#,
        r#"{"kind":"room_member_count","is":"-1"}"#,
    ] {
        let refused = condition(bad);
        let is_first = matches!(refused, Some(RuleError::BadCondition { index: 0, .. }));
        assert!(is_first, "{bad}: {refused:?}");
    }
    let second = condition(r#"{"kind":"contains_display_name"},{}"#);
    assert!(matches!(
        second,
        Some(RuleError::BadCondition { index: 1, .. })
    ));
}

#[test]
fn a_rule_of_exactly_its_limits_is_fine_and_one_beyond_is_not() {
    let list = |item: &str, count| vec![item; count].join(",");
    let actions = |count| action(&list("\"notify\"", count));
    let too_many = |parts| Some(RuleError::TooMany { parts, limit: 3 });
    assert_eq!((actions(3), actions(4)), (None, too_many("actions")));
    let conditions = |count| condition(&list(r#"{"kind":"x"}"#, count));
    assert_eq!(
        (conditions(3), conditions(4)),
        (None, too_many("conditions"))
    );
    let wildcards = |pattern: &str| {
        let matching = format!(r#"{{"kind":"event_match","key":"k","pattern":"{pattern}"}}"#);
        let body = format!(r#"{{"actions":[],"pattern":"{pattern}"}}"#);
        let refused = parse(Kind::Content, &body).err();
        assert_eq!(condition(&matching), refused);
        refused
    };
    let refused = too_many("wildcards in a pattern");
    assert_eq!(
        (wildcards("*a?b*"), wildcards("*?*\\u002a")),
        (None, refused)
    );
    let chars_max = limits::PATTERN_CHARS_MAX;
    let chars = |count: usize| {
        let pattern = "語".repeat(count);
        let content = format!(r#"{{"actions":[],"pattern":"{pattern}"}}"#);
        let matching = format!(r#"{{"kind":"event_match","key":"k","pattern":"{pattern}"}}"#);
        let matching = format!(r#"{{"actions":[],"conditions":[{matching}]}}"#);
        let limits = Limits::default();
        let refused = NewRule::parse(Kind::Content, &content, &limits).err();
        assert_eq!(
            NewRule::parse(Kind::Override, &matching, &limits).err(),
            refused
        );
        refused
    };
    let refused = Some(RuleError::TooMany {
        parts: "characters in a pattern",
        limit: chars_max,
    });
    assert_eq!((chars(chars_max), chars(chars_max + 1)), (None, refused));
    let bytes = |count: usize| {
        let frame = r#"{"actions":[],"x":""}"#.len();
        let body = format!(
            r#"  {{"actions":[],"x":"{}"}}  "#,
            "x".repeat(count - frame)
        );
        parse(Kind::Room, &body).err()
    };
    let refused = RuleError::TooLarge { limit_bytes: 400 };
    assert_eq!((bytes(400), bytes(401)), (None, Some(refused)));
    let nested = |count: usize| {
        let (open, close) = ("[".repeat(count - 1), "]".repeat(count - 1));
        parse(
            Kind::Room,
            &format!(r#"{{"actions":[],"x":{open}{close}}}"#),
        )
        .err()
    };
    let limit = limits::RULE_DEPTH_MAX;
    let refused = Some(RuleError::TooDeep { limit });
    assert_eq!((nested(limit), nested(limit + 1)), (None, refused));
}

#[test]
fn actions_alone_are_checked_as_those_of_a_rule() {
    let parse = |body| Actions::parse(body, &limits()).map(|a| a.as_str().to_owned());
    assert_eq!(
        parse(r#"{"actions":[ "notify" ],"x":1}"#).unwrap(),
        r#"[ "notify" ]"#
    );
    assert_eq!(parse("[]"), Err(RuleError::NotObject));
    assert_eq!(parse("{}"), Err(RuleError::Missing { member: "actions" }));
    assert_eq!(
        parse(r#"{"actions":["x"]}"#),
        Err(RuleError::BadAction { index: 0 })
    );
}

#[test]
fn enabled_is_true_or_false_in_an_object_or_alone() {
    let parse = |body: &str| parse_enabled(body, &limits());
    for (body, enabled) in [
        (r#"{"enabled":true}"#, true),
        (r#" {"x":1,"enabled": false} "#, false),
        ("true", true),
        (" false ", false),
    ] {
        assert_eq!(parse(body), Ok(enabled));
    }
    for value in ["1", "0", "\"true\"", "null", "[]", "{}"] {
        let refused = parse(&format!("{{\"enabled\":{value}}}"));
        assert!(matches!(
            refused,
            Err(RuleError::Malformed {
                member: "enabled",
                ..
            })
        ));
    }
    let repeated = parse(r#"{"enabled":true,"enabled":false}"#);
    assert_eq!(repeated, Err(RuleError::Repeated { member: "enabled" }));
    assert_eq!(parse("{}"), Err(RuleError::Missing { member: "enabled" }));
    assert_eq!(parse("1"), Err(RuleError::NotObject));
    assert_eq!(parse("tru"), Err(RuleError::NotJson));
}

#[test]
fn no_text_of_a_user_is_shown_by_debug_or_by_an_error() {
    let limits = limits();
    let body = r#"{"actions":["secret"],"pattern":"secret"}"#;
    let error = NewRule::parse(Kind::Content, body, &limits).unwrap_err();
    let rule = r#"{"actions":[{"set_tweak":"secret"}],"pattern":"secret"}"#;
    let rule = NewRule::parse(Kind::Content, rule, &limits).unwrap();
    let actions = Actions::parse(r#"{"actions":[{"set_tweak":"secret"}]}"#, &limits).unwrap();
    let edit = Edit::Put {
        id: RuleId::parse("a", &limits).unwrap(),
        rule,
        place: Place::default(),
    };
    let changes = Changes::default().apply(&Defaults::spec(), edit.clone(), &limits);
    let shown = format!(
        "{error} {error:?} {edit:?} {actions:?} {:?}",
        changes.unwrap()
    );
    assert!(!shown.contains("secret"), "{shown}");
}
