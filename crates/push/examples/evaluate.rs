//! Tells whom one event notifies: `cargo run -p kitbag-push --example evaluate`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use kitbag_push::{
    Action, Changes, Defaults, FlatEvent, MemberContext, RoomContext, Ruleset, evaluate_all,
    highlights, notifies, served,
};

/// What Bob changed, as a server stores it: he is highlighted where somebody speaks of cake.
const BOBS_CHANGES: &str = r#"{"version": 1, "own": {"content": [{"rule_id": "sweets",
    "enabled": true, "rule": {"pattern": "cake*", "actions": ["notify", {"set_tweak": "highlight"}]}
}]}}"#;
const EVENT: &str = r#"{"type": "m.room.message", "sender": "@alice:example.org",
    "room_id": "!kitchen:example.org", "content": {"msgtype": "m.text", "body": "Cakes are ready!"}}"#;

/// Returns a line for each member.
pub(crate) fn told() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    // Once for each user, until their rules change.
    let compile =
        |user, changes: &Changes| Ruleset::compile(&served(changes, &Defaults::spec(), user), user);
    let members = [
        compile("@alice:example.org", &Changes::default()),
        compile("@bob:example.org", &Changes::parse(BOBS_CHANGES)?),
        compile("@carol:example.org", &Changes::default()),
    ];
    // Once for each event, whoever it reaches.
    let event = FlatEvent::parse(EVENT)?;
    let room = RoomContext {
        joined_members: 3,
        ..RoomContext::default()
    };
    let asked = members
        .iter()
        .map(|rules| (rules, MemberContext::new(&room)));
    let lines = members.iter().zip(evaluate_all(&event, asked));
    let line = |(rules, actions): (&Ruleset, &[Action])| {
        let (user, notified, loud) = (rules.user_id(), notifies(actions), highlights(actions));
        format!("{user}: notified {notified}, highlighted {loud}")
    };
    Ok(lines.map(line).collect())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    told()?.iter().for_each(|line| println!("{line}"));
    Ok(())
}
