//! The order of checks: of any set of simultaneous faults the earliest is told.

use kitbag_domain::{Limits, Quota};

use super::{Lab, V1};
use crate::support::Call;

/// In the order of checks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Token,
    Id,
    User,
    Device,
    Policy,
    Body,
    Expectation,
    Quota,
}

const FAULTS: [Fault; 8] = [
    Fault::Token,
    Fault::Id,
    Fault::User,
    Fault::Device,
    Fault::Policy,
    Fault::Body,
    Fault::Expectation,
    Fault::Quota,
];

impl Fault {
    fn row(self) -> (u16, &'static str) {
        match self {
            Self::Token => (401, "M_UNKNOWN_TOKEN"),
            Self::Id => (400, "M_INVALID_PARAM"),
            Self::User | Self::Device => (404, "M_NOT_FOUND"),
            Self::Policy => (405, "M_BAD_JSON"),
            Self::Body => (400, "M_NOT_JSON"),
            Self::Expectation => (409, "M_REVISION_ID_MISMATCH"),
            Self::Quota => (403, "M_USER_LIMIT_EXCEEDED"),
        }
    }
}

/// Returns a PUT with these faults; `None` where they exclude each other.
fn call(has: impl Fn(Fault) -> bool) -> Option<Call> {
    // The type that is too long cannot be the server's.
    if has(Fault::Id) && has(Fault::Policy) {
        return None;
    }
    let long = "x".repeat(256);
    let event_type = match (has(Fault::Id), has(Fault::Policy)) {
        (true, _) => long.as_str(),
        (_, true) => "m.push_rules",
        _ => "app.test",
    };
    let user = if has(Fault::User) {
        "@nobody:localhost"
    } else {
        "@alice:localhost"
    };
    let device = if has(Fault::Device) { "GONE" } else { "PHONE" };
    let query = if has(Fault::Expectation) {
        "?expect_revision_id=7"
    } else {
        ""
    };
    let body = match (has(Fault::Body), has(Fault::Quota)) {
        (true, _) => "{".to_owned(),
        (_, true) => format!("{{\"a\":\"{}\"}}", "x".repeat(1_000)),
        _ => "{}".to_owned(),
    };
    let path = format!("{V1}/users/{user}/devices/{device}/account_data/{event_type}{query}");
    let put = Call::put(path, body);
    Some(if has(Fault::Token) {
        put.token("none-of-the-tokens")
    } else {
        put.admin()
    })
}

#[tokio::test]
async fn the_earliest_of_any_set_of_an_operators_faults_is_told() {
    let lab = Lab::with(|setup| {
        setup.limits = Limits {
            quota: Quota {
                bytes_max: 500,
                reserve_bytes: 0,
                ..Quota::default()
            },
            ..Limits::default()
        };
    });
    let lab = lab.await;
    lab.tell(&lab.alice, "app.test", "{\"m.revision_id\":\"1\"}")
        .await;
    let mut tried = 0;
    for set in 1..1_u32 << FAULTS.len() {
        let has = |fault| {
            let at = FAULTS.iter().position(|known| *known == fault).unwrap();
            set & 1 << at != 0
        };
        let Some(call) = call(has) else {
            continue;
        };
        let earliest = *FAULTS.iter().find(|fault| has(**fault)).unwrap();
        let (status, errcode) = earliest.row();
        let reply = lab.send(call).await;
        let faults: Vec<_> = FAULTS.iter().filter(|fault| has(**fault)).collect();
        assert_eq!(
            reply.row(),
            (status, errcode.to_owned()),
            "{faults:?}: {reply:?}"
        );
        // Both are 404.
        let text = reply.json()["error"].to_string();
        assert_eq!(
            text.contains("account, or"),
            earliest == Fault::User,
            "{faults:?}: {text}"
        );
        tried += 1;
    }
    assert_eq!(tried, 191);
}
