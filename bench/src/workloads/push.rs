//! Evaluating push rules, beside ruma: the same served rules and the same events, in this process
//! and by turns.

use std::future::Future;
use std::hint::black_box;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use anyhow::{Result, ensure};
use kitbag_push::{
    Changes, Defaults, FlatEvent, MemberContext, RoomContext, Ruleset, evaluate_all, notifies,
    served,
};
use ruma_common::push::{FlattenedJson, PushConditionRoomCtx, Ruleset as RumaRuleset};
use ruma_common::serde::Raw;
use rustix::time::{ClockId, clock_gettime};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::plan::Plan;
use crate::report::{Row, Table};
use crate::stats::Spread;

/// Rules of each member's own, beside the defaults.
const OWN_RULES: usize = 20;
const ROOM: &str = "!everybody:localhost";

/// The row of an event that only one of the last rules matches, as with most events.
pub(crate) const MESSAGE: &str = "message, kitbag";

/// One event reaches the members of a room: from its JSON to whom it notifies.
pub(super) fn evaluate(name: &str, plan: &Plan) -> Result<Table> {
    let members = Members::new(plan.members)?;
    let mut rows = Vec::new();
    for (event, json) in events() {
        let json = json.to_string();
        ensure!(
            members.notified(&json)? == members.notified_by_ruma(&json)?,
            "{event}ruma notifies others"
        );
        rows.extend(compare(
            plan,
            event,
            members.count(),
            || members.notified(black_box(&json)),
            || members.notified_by_ruma(black_box(&json)),
        )?);
    }
    let what = format!(
        "one event, from its JSON to the actions of each of {} members with the defaults and \
         {OWN_RULES} rules of their own; ruma, asked in the same way, flattens it once too",
        members.count()
    );
    Ok(Table::new(name, what, &[CPU_A_MEMBER], rows))
}

/// What is served becomes what is evaluated.
pub(super) fn compile(name: &str, plan: &Plan) -> Result<Table> {
    let members = Members::new(plan.members)?;
    let count = members.count();
    let ours = || {
        for (user, served) in &members.served {
            black_box(Ruleset::compile(served, user));
        }
        Ok(count)
    };
    let theirs = || {
        for (_, served) in &members.served {
            black_box(serde_json::from_str::<Served>(served)?);
        }
        Ok(count)
    };
    let rows = compare(plan, "", count, ours, theirs)?;
    let what = format!("the JSON of the defaults and {OWN_RULES} own rules, made ready");
    Ok(Table::new(name, what, &[CPU_A_MEMBER], rows))
}

/// The one column.
pub(crate) const CPU_A_MEMBER: &str = "CPU us a member";

#[derive(Deserialize)]
struct Served {
    global: RumaRuleset,
}

/// The members of a room, all of whose rules differ.
struct Members {
    room: RoomContext,
    /// Users, and the text that each is served.
    served: Vec<(String, String)>,
    ours: Vec<(Ruleset, String)>,
    ruma: Vec<(RumaRuleset, PushConditionRoomCtx)>,
}

impl Members {
    fn new(count: usize) -> Result<Self> {
        let mut members = Self {
            room: RoomContext {
                joined_members: count as u64,
                ..RoomContext::default()
            },
            served: Vec::new(),
            ours: Vec::new(),
            ruma: Vec::new(),
        };
        for number in 0..count {
            let user = format!("@user{number}:localhost");
            let name = format!("User {number}");
            let changes = Changes::parse(&changes(number).to_string())?;
            let text = served(&changes, &Defaults::spec(), &user);
            let Served { global } = serde_json::from_str(&text)?;
            let context = PushConditionRoomCtx::new(
                ROOM.try_into()?,
                u32::try_from(count)?.into(),
                user.as_str().try_into()?,
                name.clone(),
            );
            members.ruma.push((global, context));
            members.ours.push((Ruleset::compile(&text, &user), name));
            members.served.push((user, text));
        }
        Ok(members)
    }

    fn count(&self) -> usize {
        self.served.len()
    }

    /// Counts the members who are notified.
    fn notified(&self, event: &str) -> Result<usize> {
        let event = FlatEvent::parse(event)?;
        let members = self.ours.iter();
        let members =
            members.map(|(ruleset, name)| (ruleset, MemberContext::named(&self.room, name)));
        let actions = evaluate_all(&event, members);
        Ok(actions.filter(|actions| notifies(actions)).count())
    }

    fn notified_by_ruma(&self, event: &str) -> Result<usize> {
        let event: Raw<Value> = serde_json::from_str(event)?;
        let event = FlattenedJson::from_raw(&event);
        let mut notified = 0;
        for (ruleset, context) in &self.ruma {
            for rule in ruleset {
                if at_once(rule.applies(&event, context)) {
                    notified += usize::from(rule.triggers_notification());
                    break;
                }
            }
        }
        Ok(notified)
    }
}

/// Takes the value of a future that waits for nothing.
fn at_once<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => unreachable!("conditions wait for nothing"),
    }
}

/// What a member has changed: keywords, muted rooms and people, and rules of bots and bridges.
fn changes(number: usize) -> Value {
    let rule = |id: String, body: Value| json!({"rule_id": id, "enabled": true, "rule": body});
    let of = |count: usize, make: &dyn Fn(usize) -> (String, Value)| -> Vec<Value> {
        let rules = (0..count).map(make);
        rules.map(|(id, body)| rule(id, body)).collect()
    };
    let highlight = json!(["notify", {"set_tweak": "highlight"}]);
    let matching = |key: &str, pattern: String| {
        let condition = json!({"kind": "event_match", "key": key, "pattern": pattern});
        json!({"conditions": [condition], "actions": []})
    };
    let [overrides, keywords, rooms, senders, underrides] = [4, 6, 6, 3, 1];
    assert_eq!(
        overrides + keywords + rooms + senders + underrides,
        OWN_RULES,
        "all are counted"
    );
    json!({"version": 1, "own": {
        "override": of(overrides, &|n| match n % 2 {
            0 => (format!("kind{n}"), matching("content.msgtype", format!("org.example.{number}.{n}"))),
            _ => (format!("state{n}"), matching("state_key", format!("@bridge{number}_*"))),
        }),
        "content": of(keywords, &|n| {
            let pattern = match n % 3 {
                0 => format!("project {number} {n}"),
                1 => format!("word{number}x{n}"),
                _ => format!("re*{number}-{n}"),
            };
            (format!("word{n}"), json!({"pattern": pattern, "actions": highlight}))
        }),
        "room": of(rooms, &|n| (format!("!room{number}x{n}:localhost"), json!({"actions": []}))),
        "sender": of(senders, &|n| (format!("@friend{number}x{n}:localhost"), json!({"actions": ["notify"]}))),
        "underride": of(underrides, &|n| (format!("under{n}"), matching("type", format!("org.example.{number}.*")))),
    }})
}

fn events() -> [(&'static str, Value); 3] {
    let event = |kind: &str, content: Value| {
        json!({
            "type": kind,
            "event_id": "$143273582443PhrSn",
            "sender": "@sender:localhost",
            "room_id": ROOM,
            "origin_server_ts": 1_432_735_824_653_u64,
            "unsigned": {"age": 1234},
            "content": content,
        })
    };
    let body =
        "Good morning everybody! The new release is out: it starts faster, it needs half of \
                the memory, and nothing is to be done but to restart. Tell us what you find. "
            .repeat(2);
    [
        (
            "message, ",
            event(
                "m.room.message",
                json!({"msgtype": "m.text", "body": body, "m.mentions": {}}),
            ),
        ),
        (
            "no match, ",
            event("org.example.note", json!({"body": body})),
        ),
        (
            "reaction, ",
            event(
                "m.reaction",
                json!({"m.relates_to": {"rel_type": "m.annotation", "event_id": "$a", "key": "+"}}),
            ),
        ),
    ]
}

/// Measures both by turns: their figures for `event`, and the ratios pair by pair.
fn compare(
    plan: &Plan,
    event: &str,
    members: usize,
    ours: impl Fn() -> Result<usize>,
    theirs: impl Fn() -> Result<usize>,
) -> Result<Vec<Row>> {
    let measure = |run: &dyn Fn() -> Result<usize>| cpu_us(plan.measure, members, run);
    measure(&ours)?;
    measure(&theirs)?;
    let mut pairs = Vec::with_capacity(plan.pairs);
    for number in 0..plan.pairs {
        let pair = if number % 2 == 0 {
            let ours = measure(&ours)?;
            (ours, measure(&theirs)?)
        } else {
            let theirs = measure(&theirs)?;
            (measure(&ours)?, theirs)
        };
        pairs.push(pair);
    }
    let row = |name: &str, figure: &dyn Fn(&(f64, f64)) -> f64| {
        let name = format!("{event}{name}");
        Row::new(&name, vec![Spread::of(pairs.iter().map(figure))])
    };
    Ok(vec![
        row("kitbag", &|(ours, _)| *ours),
        row("ruma", &|(_, theirs)| *theirs),
        row("ruma / kitbag", &|(ours, theirs)| theirs / ours),
    ])
}

/// Runs `run` for some time; returns the CPU time of this thread, for each member.
fn cpu_us(measure: Duration, members: usize, run: &dyn Fn() -> Result<usize>) -> Result<f64> {
    let (began, mut rounds) = (cpu_time(), 0_u32);
    loop {
        black_box(run()?);
        rounds += 1;
        let took = cpu_time().saturating_sub(began);
        if took >= measure {
            #[expect(clippy::cast_precision_loss, reason = "a count of members")]
            let evaluations = f64::from(rounds) * members as f64;
            return Ok(took.as_secs_f64() * 1e6 / evaluations);
        }
    }
}

fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.try_into()
        .expect("a clock that only goes up is positive")
}
