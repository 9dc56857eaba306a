//! Who may do what, however the path is spelled: every cell of the matrix against one small rule.

use kitbag_domain::{AccountStore as _, Allowance, Guard, Write, Writer};

use crate::support::{Call, Server, Session};

#[derive(Clone, Copy, Debug, PartialEq)]
enum Identity {
    Nobody,
    Garbage,
    Unknown,
    OtherUser,
    SiblingDevice,
    OwnDevice,
    RemovedDevice,
    Deactivated,
}

const IDENTITIES: [Identity; 8] = [
    Identity::Nobody,
    Identity::Garbage,
    Identity::Unknown,
    Identity::OtherUser,
    Identity::SiblingDevice,
    Identity::OwnDevice,
    Identity::RemovedDevice,
    Identity::Deactivated,
];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Verb {
    Get,
    Head,
    Put,
    Delete,
    DeleteByMsc3391,
    Post,
}

const VERBS: [Verb; 6] = [
    Verb::Get,
    Verb::Head,
    Verb::Put,
    Verb::Delete,
    Verb::DeleteByMsc3391,
    Verb::Post,
];

impl Verb {
    fn method(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Put => "PUT",
            Self::Delete | Self::DeleteByMsc3391 => "DELETE",
            Self::Post => "POST",
        }
    }
}

/// The scope as the path has it, between user and type.
const PLACES: [&str; 4] = [
    "account_data",
    "rooms/!r:x/account_data",
    "devices/PHONE/account_data",
    "devices/PHONE/net.zemos.account_data",
];

const TYPES: [&str; 3] = ["app.test", "m.push_rules", "m.fully_read"];

/// A way to write a path, and whether it is one that the server knows.
#[rustfmt::skip] // a table is read by its columns
const SPELLINGS: [(&str, &str, bool); 18] = [
    // Decoded once, a segment is the same segment.
    ("", "", true),
    ("/v3/", "/r0/", true),
    ("@alice:localhost", "%40alice%3Alocalhost", true),
    ("@alice:localhost", "%40%61%6c%69%63%65%3a%6C%6F%63%61%6C%68%6F%73%74", true),
    ("app.test", "%61%70%70%2Etest", true),
    ("m.push_rules", "m%2Epush%5Frules", true),
    ("m.fully_read", "%6D.fully%5fread", true),
    ("!r:x", "%21r%3Ax", true),
    ("PHONE", "%50HON%45", true),
    // Fixed segments are as they are, and none is empty.
    ("account_data", "account%5Fdata", false),
    ("account_data/", "account_data//", false),
    ("/user/", "//user/", false),
    ("/user/", "/USER/", false),
    ("/user/", "/./user/", false),
    ("/_matrix", "//_matrix", false),
    ("/client/", "/client/v1/", false),
    ("app.test", "app.test/", false),
    ("m.push_rules", "m.push_rules/", false),
];

/// The rule: what the matrix of the specifications says, in words of its own.
fn expected(
    identity: Identity,
    verb: Verb,
    place: &str,
    is_route: bool,
    event_type: &str,
) -> (u16, &'static str) {
    let is_protected = event_type != "app.test";
    let is_foreign = identity == Identity::SiblingDevice && place.starts_with("devices/");
    if !is_route {
        return (404, "M_UNRECOGNIZED");
    }
    if verb == Verb::Post {
        return (405, "M_UNRECOGNIZED");
    }
    match identity {
        Identity::Nobody => return (401, "M_MISSING_TOKEN"),
        Identity::Garbage | Identity::Unknown | Identity::RemovedDevice | Identity::Deactivated => {
            return (401, "M_UNKNOWN_TOKEN");
        }
        Identity::OtherUser => return (403, "M_FORBIDDEN"),
        Identity::SiblingDevice | Identity::OwnDevice => {}
    }
    match verb {
        Verb::Get | Verb::Head => {
            let rules = event_type == "m.push_rules" && place == "account_data";
            let (found, absent) = ((200, ""), (404, "M_NOT_FOUND"));
            if rules || !is_protected {
                found
            } else {
                absent
            }
        }
        _ if is_protected => (405, "M_BAD_JSON"),
        Verb::Put | Verb::DeleteByMsc3391 if is_foreign => (403, "M_FORBIDDEN"),
        Verb::Put | Verb::DeleteByMsc3391 => (200, ""),
        Verb::Delete | Verb::Post => (405, "M_UNRECOGNIZED"),
    }
}

struct Matrix {
    server: Server,
    own: Session,
    tokens: Vec<(Identity, Option<String>)>,
}

impl Matrix {
    async fn new() -> Self {
        let server = Server::start();
        let own = server.user("alice").await;
        let sibling = server.device(&own.user, "TABLET").await;
        let removed = server.device(&own.user, "OLD").await;
        let logout = Call::post("/_matrix/client/v3/logout", "").by(&removed);
        assert_eq!(server.send(logout).await.status, 200);
        let other = server.user("bob").await;
        let ended = server.user("dora").await;
        let write = Write {
            guard: Guard::Account,
            writer: Writer::Server,
            at: 0,
            allowance: Allowance::Ordinary,
        };
        let store = server.store.memory();
        store.deactivate(&ended.user, write).await.unwrap();
        let (_, unknown) = server.new_session(&own.user, "PHONE");
        let tokens = vec![
            (Identity::Nobody, None),
            (Identity::Garbage, Some("kt_garbage".to_owned())),
            (Identity::Unknown, Some(unknown.token)),
            (Identity::OtherUser, Some(other.token)),
            (Identity::SiblingDevice, Some(sibling.token)),
            (Identity::OwnDevice, Some(own.token.clone())),
            (Identity::RemovedDevice, Some(removed.token)),
            (Identity::Deactivated, Some(ended.token)),
        ];
        Self {
            server,
            own,
            tokens,
        }
    }

    fn call(&self, identity: Identity, method: &str, path: &str) -> Call {
        let tokens = self.tokens.iter();
        let (_, token) = tokens
            .into_iter()
            .find(|(known, _)| *known == identity)
            .unwrap();
        let call = Call::new(method, path).body("{\"new\":true}");
        match token {
            Some(token) => call.token(token),
            None => call,
        }
    }

    /// Makes all ordinary entries exist with the content of the start.
    async fn restore(&self) {
        for place in PLACES {
            let path = format!("{}/{place}/app.test", self.own.base());
            let put = Call::put(path, "{\"old\":true}").by(&self.own);
            assert_eq!(self.server.send(put).await.status, 200);
        }
    }

    async fn check(&self, identity: Identity, verb: Verb, spelling: (&str, &str, bool)) {
        let (plain, spelled, is_route) = spelling;
        let before = self.server.entries(&self.own).await;
        for (place, event_type) in PLACES.iter().flat_map(|p| TYPES.map(|t| (*p, t))) {
            let mut path = format!("{}/{place}/{event_type}", self.own.base());
            if verb == Verb::DeleteByMsc3391 {
                path = path.replace("/v3/", "/unstable/org.matrix.msc3391/");
            }
            let respelled = path.replacen(plain, spelled, 1);
            let is_route = is_route || respelled == path;
            let call = self.call(identity, verb.method(), &respelled);
            let reply = self.server.send(call).await;
            let (status, errcode) = expected(identity, verb, place, is_route, event_type);
            let context = format!("{identity:?} {verb:?} {respelled}: {reply:?}");
            assert_eq!(reply.status, status, "{context}");
            if verb != Verb::Head {
                assert_eq!(reply.row().1, errcode, "{context}");
            }
            let changes = status == 200 && verb.method() != "GET" && verb != Verb::Head;
            let after = self.server.entries(&self.own).await;
            assert_eq!(after != before, changes, "{context}");
            if changes {
                self.restore().await;
            }
        }
    }
}

#[tokio::test]
async fn every_cell_follows_the_rule() {
    let matrix = Matrix::new().await;
    matrix.restore().await;
    for identity in IDENTITIES {
        for verb in VERBS {
            for spelling in SPELLINGS {
                matrix.check(identity, verb, spelling).await;
            }
        }
    }
}

#[tokio::test]
async fn only_the_very_same_user_id_is_the_users_own() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let names = [
        "alice",
        "@Alice:localhost",
        "@alice:LOCALHOST",
        "@alice:localhost%00",
        "@alice:localhost%20",
        "%2540alice%3Alocalhost",
        "@alice",
        "@nobody:localhost",
        "@alice:elsewhere",
        "@alice:localhost%2F",
    ];
    for name in names {
        let path = format!("/_matrix/client/v3/user/{name}/account_data/m.direct");
        for call in [
            Call::get(&path),
            Call::put(&path, "{}"),
            Call::delete(&path),
        ] {
            let reply = server.send(call.by(&alice)).await;
            assert_eq!(reply.row(), (403, "M_FORBIDDEN".to_owned()), "{name}");
        }
    }
}

/// What differs from a protected type in one character is another type, which everybody may write.
#[tokio::test]
async fn protected_types_are_exactly_two() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let types = [
        "M.push_rules",
        "m.push_rules%20",
        "m.push%255Frules",
        "m.push_rule",
        "m.push_rules.x",
        "m.tag",
        "%2Fm.push_rules",
    ];
    for event_type in types {
        let put = Call::put(alice.global(event_type), "{\"a\":1}").by(&alice);
        assert_eq!(server.send(put).await.status, 200, "{event_type}");
        let get = Call::get(alice.global(event_type)).by(&alice);
        assert_eq!(server.send(get).await.text(), "{\"a\":1}", "{event_type}");
    }
    let nul = Call::put(alice.global("m.push_rules%00"), "{}").by(&alice);
    server.send(nul).await.assert_is(400, "M_INVALID_PARAM");
}

#[tokio::test]
async fn tokens_are_taken_from_the_header_and_only_if_told_from_the_query() {
    let (strict, lenient) = (
        Server::start(),
        Server::with(|setup| setup.settings.compat.query_access_token = true),
    );
    for (server, status) in [(strict, 401), (lenient, 200)] {
        let alice = server.user("alice").await;
        let query = format!(
            "{}?access_token={}",
            alice.global("m.push_rules"),
            alice.token
        );
        assert_eq!(server.send(Call::get(query)).await.status, status);
        let schemes = [("Bearer", 200), ("bearer", 200), ("Basic", 401), ("", 401)];
        for (scheme, status) in schemes {
            let header = format!("{scheme} {}", alice.token);
            let get = Call::get(alice.global("m.push_rules")).header("authorization", header);
            assert_eq!(server.send(get).await.status, status, "{scheme}");
        }
    }
}

#[tokio::test]
async fn a_percent_encoded_path_that_is_not_utf8_is_refused() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let path = alice.global("%FF%FE");
    let reply = server.send(Call::put(&path, "{}").by(&alice)).await;
    reply.assert_is(400, "M_INVALID_PARAM");
    let bob = server.user("bob").await;
    for call in [Call::put(&path, "{}"), Call::get(&path)] {
        let reply = server.send(call.by(&bob)).await;
        reply.assert_is(403, "M_FORBIDDEN");
    }
    server
        .send(Call::put(&path, "{}"))
        .await
        .assert_is(401, "M_MISSING_TOKEN");
}
