//! The order of checks: of any set of simultaneous faults the earliest is told.

use crate::support::{Call, Reply, Server, Session};
use kitbag_domain::{Limits, Quota};

/// In the order of checks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    Token,
    User,
    Id,
    Device,
    Policy,
    Body,
    Expectation,
    Quota,
}

const FAULTS: [Fault; 8] = [
    Fault::Token,
    Fault::User,
    Fault::Id,
    Fault::Device,
    Fault::Policy,
    Fault::Body,
    Fault::Expectation,
    Fault::Quota,
];

const CONTENT_BYTES_MAX: usize = 2_000;
const QUOTA_BYTES_MAX: usize = 1_000;

#[derive(Clone, Copy, Debug, PartialEq)]
enum Place {
    Room,
    Device,
}

/// Returns the path below the user with these faults; `None` where they exclude each other.
fn place_path(place: Place, has: impl Fn(Fault) -> bool) -> Option<String> {
    let long = "x".repeat(256);
    let event_type = match (place, has(Fault::Id), has(Fault::Policy)) {
        (Place::Device, true, _) => long.as_str(),
        (_, _, true) => "m.push_rules",
        _ => "app.test",
    };
    Some(match place {
        Place::Room if has(Fault::Device) => return None,
        Place::Room if has(Fault::Id) => format!("rooms/r/account_data/{event_type}"),
        Place::Room => format!("rooms/!r/account_data/{event_type}"),
        Place::Device => {
            let device = match (has(Fault::Device), has(Fault::Id) && has(Fault::Policy)) {
                (true, true) => return None,
                (true, false) => "NOBODY",
                // The type is taken by another fault: here it is somebody else's device.
                (false, true) => "TABLET",
                (false, false) => "PHONE",
            };
            format!("devices/{device}/account_data/{event_type}")
        }
    })
}

struct Lab {
    server: Server,
    alice: Session,
}

impl Lab {
    async fn new() -> Self {
        let server = Server::with(|setup| {
            setup.limits = Limits {
                content_bytes_max: CONTENT_BYTES_MAX as u64,
                device_content_bytes_max: CONTENT_BYTES_MAX as u64,
                quota: Quota {
                    bytes_max: QUOTA_BYTES_MAX as u64,
                    ..Quota::default()
                },
                ..Limits::default()
            };
        });
        let alice = server.user("alice").await;
        server.device(&alice.user, "TABLET").await;
        let lab = Self { server, alice };
        for path in [
            "rooms/!r/account_data/app.test",
            "devices/PHONE/account_data/app.test",
        ] {
            let path = format!("{}/{path}", lab.alice.base());
            let stored = "{\"m.revision_id\":\"1\"}";
            let put = Call::put(path, stored).by(&lab.alice);
            assert_eq!(lab.server.send(put).await.status, 200);
        }
        lab
    }

    async fn send(&self, place: Place, faults: &[Fault], too_large: bool) -> Option<Reply> {
        let has = |fault| faults.contains(&fault);
        let mut path = format!("{}/{}", self.alice.base(), place_path(place, has)?);
        if has(Fault::User) {
            path = path.replace("@alice", "@bob");
        }
        let expected = if has(Fault::Expectation) { "2" } else { "1" };
        path.push_str(&format!("?expect_revision_id={expected}"));
        let bytes = if has(Fault::Quota) {
            QUOTA_BYTES_MAX
        } else {
            10
        };
        let mut body = format!("{{\"a\":\"{}\"}}", "x".repeat(bytes));
        match (has(Fault::Body), too_large) {
            (true, true) => body.push_str(&" ".repeat(CONTENT_BYTES_MAX)),
            (true, false) => body.push('}'),
            (false, _) => {}
        }
        let mut call = Call::put(path, body);
        if !has(Fault::Token) {
            call = call.by(&self.alice);
        }
        Some(self.server.send(call).await)
    }
}

fn expected(first: Fault, place: Place, faults: &[Fault], too_large: bool) -> (u16, &'static str) {
    let takes_other_device = place == Place::Device && faults.contains(&Fault::Id);
    match first {
        Fault::Token => (401, "M_MISSING_TOKEN"),
        Fault::User => (403, "M_FORBIDDEN"),
        Fault::Id => (400, "M_INVALID_PARAM"),
        Fault::Device => (404, "M_NOT_FOUND"),
        Fault::Policy if takes_other_device => (403, "M_FORBIDDEN"),
        Fault::Policy => (405, "M_BAD_JSON"),
        Fault::Body if too_large => (413, "M_TOO_LARGE"),
        Fault::Body => (400, "M_NOT_JSON"),
        Fault::Expectation => (409, "M_REVISION_ID_MISMATCH"),
        Fault::Quota => (403, "M_USER_LIMIT_EXCEEDED"),
    }
}

/// Returns all sets of faults but the empty one.
fn sets() -> impl Iterator<Item = Vec<Fault>> {
    (1_usize..1 << FAULTS.len()).map(|set| {
        let faults = FAULTS.iter().enumerate();
        let faults = faults.filter(|(index, _)| set & 1 << index != 0);
        faults.map(|(_, fault)| *fault).collect()
    })
}

#[tokio::test]
async fn the_earliest_of_any_set_of_faults_is_told() {
    let lab = Lab::new().await;
    let mut told = 0;
    for faults in sets() {
        for (place, too_large) in [
            (Place::Room, false),
            (Place::Room, true),
            (Place::Device, false),
            (Place::Device, true),
        ] {
            let Some(reply) = lab.send(place, &faults, too_large).await else {
                continue;
            };
            let (status, errcode) = expected(faults[0], place, &faults, too_large);
            let context = format!("{place:?} {faults:?}: {reply:?}");
            assert_eq!(reply.row(), (status, errcode.to_owned()), "{context}");
            told += 1;
        }
    }
    assert!(told > 600, "{told} sets were possible");
    for place in [Place::Room, Place::Device] {
        let reply = lab.send(place, &[], false).await.unwrap();
        assert_eq!(reply.status, 200, "without a fault");
    }
}

#[tokio::test]
async fn at_device_scope_a_protected_type_comes_before_the_owner() {
    let lab = Lab::new().await;
    let path = lab.alice.device_data("TABLET", "m.push_rules");
    let reply = lab.server.send(Call::put(path, "{").by(&lab.alice)).await;
    reply.assert_is(405, "M_BAD_JSON");
}

/// A device ID that cannot exist is no device; the type is looked at first all the same.
#[tokio::test]
async fn ids_come_before_devices() {
    let lab = Lab::new().await;
    let device = "D".repeat(129);
    for (event_type, status, errcode) in [
        ("app.test".to_owned(), 404, "M_NOT_FOUND"),
        ("x".repeat(256), 400, "M_INVALID_PARAM"),
        ("m.push_rules".to_owned(), 404, "M_NOT_FOUND"),
    ] {
        let path = lab.alice.device_data(&device, &event_type);
        let reply = lab.server.send(Call::put(path, "{}").by(&lab.alice)).await;
        assert_eq!(reply.row(), (status, errcode.to_owned()), "{event_type}");
    }
}

/// The query holds expectations, so it is looked at with them: behind the policy.
#[tokio::test]
async fn a_protected_type_comes_before_a_broken_query() {
    let lab = Lab::new().await;
    let query = "?expect_revision_id=1&expect_revision_id=2";
    for (event_type, status, errcode) in [
        ("m.push_rules", 405, "M_BAD_JSON"),
        ("m.fully_read", 405, "M_BAD_JSON"),
        ("app.test", 400, "M_INVALID_PARAM"),
    ] {
        let path = format!("{}{query}", lab.alice.global(event_type));
        let reply = lab.server.send(Call::put(path, "{}").by(&lab.alice)).await;
        assert_eq!(reply.row(), (status, errcode.to_owned()), "{event_type}");
    }
}

/// Somebody without a token learns nothing by what they send.
#[tokio::test]
async fn without_a_token_the_body_is_not_looked_at() {
    let lab = Lab::new().await;
    lab.server.store.take_calls();
    for body in ["", "{", "[]", &"x".repeat(CONTENT_BYTES_MAX * 2)] {
        let put = Call::put(lab.alice.global("app.test"), body.to_owned());
        let reply = lab.server.send(put).await;
        assert_eq!(reply.row(), (401, "M_MISSING_TOKEN".to_owned()));
        assert_eq!(
            lab.server.store.take_calls(),
            Vec::<&str>::new(),
            "nothing is looked up"
        );
    }
}
