//! The same question to ruma.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use ruma_common::power_levels::NotificationPowerLevels;
use ruma_common::push::{PushConditionPowerLevelsCtx, PushConditionRoomCtx, Ruleset};
use ruma_common::room_version_rules::{AuthorizationRules, RoomPowerLevelsRules};
use ruma_common::serde::Raw;
use serde_json::Value;

use crate::cases::{Member, ROOM, USER};

/// What ruma comes to: the rule and its actions, or why it does not take the ruleset at all.
pub(crate) fn decision(
    served: &Value,
    event: &Value,
    member: &Member,
) -> Result<Option<(String, Vec<Value>)>, serde_json::Error> {
    let ruleset: Ruleset = serde_json::from_value(served["global"].clone())?;
    let event = Raw::<Value>::new(event)?;
    let context = context(&event, member);
    let rule = at_once(ruleset.get_match(&event, &context));
    Ok(rule.map(|rule| {
        let actions = rule.actions().iter();
        let actions = actions.map(|action| serde_json::to_value(action).unwrap());
        (rule.rule_id().to_owned(), actions.collect())
    }))
}

fn context(event: &Raw<Value>, member: &Member) -> PushConditionRoomCtx {
    let sender: Option<String> = event.get_field("sender").unwrap();
    let users = sender.map(|sender| {
        let sender = sender.try_into().unwrap();
        (sender, i32::try_from(member.sender_level).unwrap().into())
    });
    let mut notifications = NotificationPowerLevels::new();
    notifications.room = i32::try_from(member.room_level).unwrap().into();
    let levels = PushConditionPowerLevelsCtx::new(
        BTreeMap::from_iter(users),
        0.into(),
        notifications,
        RoomPowerLevelsRules::new(&AuthorizationRules::V11, None),
    );
    PushConditionRoomCtx::new(
        ROOM.try_into().unwrap(),
        member.joined_members.into(),
        USER.try_into().unwrap(),
        member.display_name.clone(),
    )
    .with_power_levels(levels)
}

/// Takes the value of a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("no condition that is drawn waits"),
    }
}
