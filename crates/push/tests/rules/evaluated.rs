//! What is served is what is evaluated, whatever else a client wrote into a rule.

use kitbag_push::{FlatEvent, Kind, MemberContext, Place, RoomContext, Ruleset};

use crate::account::{Account, USER};

const EVENT: &str = r#"{"type":"m.room.message","room_id":"!room:x","sender":"@bob:x",
    "content":{"body":"a cake","count":2,"names":["x"]}}"#;

/// The rule that decides about the event in a room of three, whose sender may notify all.
fn deciding(account: &Account) -> Option<(Kind, String)> {
    let rules = Ruleset::compile(&account.served(), USER);
    let room = RoomContext {
        joined_members: 3,
        sender_power_level: Some(50),
        ..RoomContext::default()
    };
    let member = MemberContext::named(&room, "cake");
    let rule = rules.deciding(&FlatEvent::parse(EVENT).unwrap(), &member)?;
    Some((rule.kind(), rule.id().to_owned()))
}

#[test]
fn a_rule_with_unknown_members_of_any_form_is_evaluated() {
    let unknown = r#""org.example.x":{"b":[1.5,-0,1e999],"a":"\ud800"},"org.example.x":2"#;
    let tweak = format!(r#"{{"set_tweak":"org.example.t",{unknown}}}"#);
    let rules = [
        (
            Kind::Content,
            "a",
            format!(r#""pattern":"c*","conditions":1,{unknown}"#),
        ),
        (Kind::Room, "!room:x", format!(r#"{unknown},"pattern":[]"#)),
        (Kind::Sender, "@bob:x", unknown.to_owned()),
    ];
    let conditions = [
        r#""event_match","key":"content.body","pattern":"CAKE""#,
        r#""event_property_is","key":"content.count","value":2"#,
        r#""event_property_contains","key":"content.names","value":"x""#,
        r#""contains_display_name""#,
        r#""room_member_count","is":">=3""#,
        r#""sender_notification_permission","key":"room""#,
    ];
    let conditions = conditions.map(|condition| {
        let conditions = format!(r#""conditions":[{{{unknown},"kind":{condition}}}],{unknown}"#);
        (Kind::Override, "a", conditions)
    });
    for (kind, id, members) in rules.into_iter().chain(conditions) {
        let mut account = Account::new();
        let body = format!(r#"{{"actions":[{tweak},"notify","dont_notify"],{members}}}"#);
        account.put_at(kind, id, &body, Place::default()).unwrap();
        assert_eq!(deciding(&account), Some((kind, id.to_owned())), "{body}");
        account.switch(kind, id, false).unwrap();
        let message = (Kind::Underride, ".m.rule.message".to_owned());
        assert_eq!(deciding(&account), Some(message));
    }
}
