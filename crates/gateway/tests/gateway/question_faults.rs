//! The gateway asks the homeserver questions of its own, and gets all sorts of answers.
//!
//! What the client is told:
//!
//! - What the homeserver refuses (4xx, 429 too) or cannot do now (5xx) is the client's answer, as it
//!   came.
//! - What is no answer to the question is a 502 of the gateway's own, and what does not come in time a
//!   504. That includes each success that is not the one asked for; a redirect, by which the client
//!   would be led to an answer to the gateway's question; and a 404 that does not say that the thing
//!   asked for is not there, which the client would take to be about its own.
//! - Nothing is written or emptied meanwhile, and the next request is done.
//! - The end of a device goes on whatever becomes of these questions, and what could not be emptied
//!   reads as none and is emptied later.

mod homeserver;

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use kitbag_client::{Client, Method, Request, Response};
use kitbag_domain::Limits;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{Asked, Scripted};
use serde_json::{Value, json};

use self::homeserver::{Fault, Question, fail, well};
use crate::support::{Running, gateway_at};
use crate::toy::{PREFIX, Stored, TOMBSTONE, entry};

const CONTENT: &str = "{\"com.beeper.revision_id\":\"1\"}";
const NEXT: &str = "{\"com.beeper.revision_id\":\"2\"}";
const HTML: &str = "<html><body>Welcome</body></html>";

/// What a question may take where the homeserver does not answer it.
const ASK_TIMEOUT_MS: u64 = 400;

/// How long after a failure nothing is emptied.
const PAUSE_MS: u64 = 30_000;

/// What the client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hears {
    /// An error of the gateway's own, `M_UNKNOWN`.
    Own(u16),
    /// What the homeserver said, as it came.
    Same,
    /// That it is done.
    Done,
    /// That there is none, as the homeserver said before.
    Absent,
}

use Hears::{Absent, Done, Own, Same};

const LIMITED: &str = "{\"errcode\":\"M_LIMIT_EXCEEDED\",\"error\":\"no\",\"retry_after_ms\":7000}";
const FAILED: &str = "{\"errcode\":\"M_UNKNOWN\",\"error\":\"Internal server error\"}";
const UNRECOGNIZED: &str = "{\"errcode\":\"M_UNRECOGNIZED\",\"error\":\"no\"}";

/// What the client hears where one of these questions is answered so: who asks; whether there is the
/// device; which entries there are; what is stored; where a tombstone is put; and the push rules, of
/// which a 404 says that there are none.
#[rustfmt::skip] // a table is read by its columns
const ROWS: [(Fault, [Hears; 6]); 19] = [
    (Fault::Slow,                      [Own(504), Own(504), Own(504), Own(504), Own(504), Own(504)]),
    (Fault::Reset,                     [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Cut,                       [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(200, "{\"a\":"),      [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    // Nobody asks for members of a stored content, or of what is answered to a write.
    (Fault::Told(200, "{\"a\":1}"),    [Own(502), Own(502), Own(502), Done,     Done,     Own(502)]),
    // What is no object has no revision, so that it is as any expects it (MSC4547).
    (Fault::Told(200, "[]"),           [Own(502), Own(502), Own(502), Done,     Own(502), Own(502)]),
    (Fault::Told(200, HTML),           [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(200, ""),             [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(202, "{}"),           [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(204, ""),             [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(302, ""),             [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(307, HTML),           [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(404, HTML),           [Own(502), Own(502), Own(502), Own(502), Own(502), Absent]),
    (Fault::Told(404, UNRECOGNIZED),   [Own(502), Own(502), Own(502), Own(502), Own(502), Absent]),
    (Fault::Told(429, LIMITED),        [Same,     Same,     Same,     Same,     Same,     Same]),
    (Fault::Told(500, FAILED),         [Same,     Same,     Same,     Same,     Same,     Same]),
    (Fault::Told(503, HTML),           [Same,     Same,     Same,     Same,     Same,     Same]),
    (Fault::Long,                      [Own(502), Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Chunked,                   [Done,     Done,     Done,     Done,     Done,     Done]),
];

/// What the client asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    /// An entry.
    Read,
    /// To write one that is not there.
    Add,
    /// To write one in place of the revision that is there.
    Swap,
    /// To delete one.
    Delete,
    /// To write what is protected.
    Protected,
    Logout,
    /// To remove another device.
    Remove,
    /// A new password, which ends the other devices.
    Password,
    /// Push rules, which the homeserver has by their own path alone.
    PushRules,
    /// The devices with their account data.
    Devices,
    /// An entry of a device that is not there any more.
    Gone,
}

impl Wish {
    fn request(self) -> Request {
        let v3 = |method, path: &str| Request::new(method, format!("/_matrix/client/v3/{path}"));
        let own = |method, prefix, kind| {
            let path = format!("/_matrix/client/{prefix}/user/@alice:x/devices/PHONE");
            Request::new(method, format!("{path}/account_data/{kind}")).token("alice.PHONE")
        };
        match self {
            Self::Read => own(Method::GET, "v3", "org.example.a"),
            Self::Add => own(Method::PUT, "v3", "org.example.new").body(NEXT),
            Self::Swap => {
                let kind = "org.example.a?com.beeper.expect_revision_id=1";
                own(Method::PUT, "v3", kind).body(NEXT)
            }
            Self::Delete => {
                let prefix = "unstable/org.matrix.msc3391";
                own(Method::DELETE, prefix, "org.example.a")
            }
            Self::Protected => {
                let path = "user/@alice:x/account_data/m.push_rules";
                v3(Method::PUT, path).body("{}").token("alice.PHONE")
            }
            Self::Logout => v3(Method::POST, "logout").token("alice.PHONE"),
            Self::Remove => {
                let request = v3(Method::DELETE, "devices/PHONE");
                request.body("{}").token("alice.LAPTOP")
            }
            Self::Password => {
                let request = v3(Method::POST, "account/password");
                request.body("{}").token("alice.LAPTOP")
            }
            Self::PushRules => {
                let path = "user/@alice:x/account_data/m.push_rules";
                v3(Method::GET, path).token("alice.PHONE")
            }
            Self::Devices => v3(Method::GET, "devices").token("alice.LAPTOP"),
            Self::Gone => entry(Method::GET, "GONE", "", "alice.LAPTOP"),
        }
    }

    /// Returns what is stored of the phone once it is done.
    fn leaves(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Read | Self::Protected | Self::PushRules | Self::Devices | Self::Gone => {
                vec![("org.example.a", CONTENT)]
            }
            Self::Add => vec![("org.example.a", CONTENT), ("org.example.new", NEXT)],
            Self::Swap => vec![("org.example.a", NEXT)],
            Self::Delete | Self::Logout | Self::Remove | Self::Password => {
                vec![("org.example.a", TOMBSTONE)]
            }
        }
    }
}

/// The questions of the columns, and who has the gateway ask them.
const COLUMNS: [(Question, &[Wish]); 6] = [
    (
        Question::Whoami,
        &[Wish::Read, Wish::Add, Wish::Delete, Wish::Protected],
    ),
    (Question::Device, &[Wish::Read, Wish::Add, Wish::Delete]),
    (Question::Listing, &[Wish::Add]),
    (Question::Stored, &[Wish::Swap]),
    (Question::Tombstone, &[Wish::Delete]),
    (Question::PushRules, &[Wish::PushRules]),
];

/// The same where devices end.
const ENDS: [(Question, &[Wish]); 3] = [
    (Question::Devices, &[Wish::Password]),
    (Question::Listing, &[Wish::Logout, Wish::Remove]),
    (Question::Tombstone, &[Wish::Logout, Wish::Remove]),
];

/// A homeserver that answers one question as it should not.
struct Case {
    question: Question,
    fault: Fault,
    wish: Wish,
    /// Whether it still does.
    is_on: Arc<Mutex<bool>>,
    stored: Stored,
    clock: Arc<TestClock>,
    gateway: Running,
    upstream: Scripted,
}

impl Case {
    async fn start(question: Question, fault: Fault, wish: Wish) -> Self {
        let (is_on, stored) = (Arc::new(Mutex::new(true)), Stored::default());
        let gone = (wish == Wish::Gone).then_some("GONE");
        for device in ["PHONE", "LAPTOP"].into_iter().chain(gone) {
            stored.lock().unwrap().insert(
                (
                    "@alice:x".to_owned(),
                    format!("{PREFIX}{device}.org.example.a"),
                ),
                CONTENT.to_owned(),
            );
        }
        let has_ended = Arc::<Mutex<bool>>::default();
        let (asked_on, of) = (Arc::clone(&is_on), Arc::clone(&stored));
        let upstream = Scripted::start(move |asked| {
            let fails = question.is(&asked) && *asked_on.lock().unwrap();
            let (of, has_ended) = (Arc::clone(&of), Arc::clone(&has_ended));
            async move {
                match fails {
                    true => fail(question, fault, &asked, &of).await,
                    false => well(&asked, &of, &has_ended),
                }
            }
        })
        .await;
        let (clock, url) = (Arc::<TestClock>::default(), upstream.url());
        let gateway = gateway_at(&url, Arc::clone(&clock), Limits::default(), |set| {
            set.upstream.remember_ms = 0;
            set.msc4547.enabled = wish == Wish::Swap;
            set.msc4331.in_devices = wish == Wish::Devices;
            if fault == Fault::Slow {
                set.upstream.ask_timeout_ms = ASK_TIMEOUT_MS;
            }
        });
        Self {
            question,
            fault,
            wish,
            is_on,
            stored,
            clock,
            gateway: gateway.await,
            upstream,
        }
    }

    async fn send(&self, request: Request) -> Response {
        let client = Client::new(&self.gateway.url).unwrap();
        client.send(request).await.unwrap()
    }

    /// Returns what is stored of a device, by type.
    fn stored(&self, device: &str) -> Vec<(String, String)> {
        let prefix = format!("{PREFIX}{device}.");
        let stored = self.stored.lock().unwrap();
        let of_device = stored.iter().filter_map(|((_, kind), content)| {
            let kind = kind.strip_prefix(&prefix)?;
            Some((kind.to_owned(), content.clone()))
        });
        let mut of_device: Vec<_> = of_device.collect();
        of_device.sort();
        of_device
    }

    fn assert_stored(&self, device: &str, expected: &[(&str, &str)]) {
        let expected = expected.iter();
        let expected = expected.map(|(kind, content)| ((*kind).to_owned(), (*content).to_owned()));
        let expected: Vec<_> = expected.collect();
        assert_eq!(self.stored(device), expected, "{self}");
    }

    fn assert_done(&self, response: &Response) {
        let told = (response.status, errcode(response));
        let expected = match self.wish {
            Wish::Protected => (405, json!("M_BAD_JSON")),
            _ => (200, Value::Null),
        };
        assert_eq!(told, expected, "{self}");
        match self.wish {
            Wish::Read => assert_eq!(response.body, CONTENT, "{self}"),
            Wish::PushRules => assert_eq!(response.body, "{\"global\":{}}", "{self}"),
            _ => {}
        }
    }

    async fn see(self, hears: Hears) {
        let response = self.send(self.wish.request()).await;
        match hears {
            Own(status) => {
                let told = (response.status, errcode(&response));
                assert_eq!(told, (status, json!("M_UNKNOWN")), "{self}");
                assert!(response.header("location").is_none(), "{self}");
            }
            Same => {
                let Fault::Told(status, body) = self.fault else {
                    unreachable!("{self}");
                };
                assert_eq!(
                    (response.status, &*response.body),
                    (status, body.as_bytes())
                );
                assert_eq!(response.header("retry-after"), Some("7"), "{self}");
            }
            Done => {
                self.assert_done(&response);
                return self.assert_stored("PHONE", &self.wish.leaves());
            }
            Absent => {
                let told = (response.status, errcode(&response));
                assert_eq!(told, (404, json!("M_NOT_FOUND")), "{self}");
            }
        }
        self.assert_stored("PHONE", &[("org.example.a", CONTENT)]);
        let puts = |asked: &Asked| asked.method == Method::PUT && !self.question.is(asked);
        assert!(
            !self.upstream.asked().iter().any(puts),
            "{self}: it was written"
        );
        *self.is_on.lock().unwrap() = false;
        self.assert_done(&self.send(self.wish.request()).await);
        self.assert_stored("PHONE", &self.wish.leaves());
        self.assert_stored("LAPTOP", &[("org.example.a", CONTENT)]);
    }

    /// The device ends all the same, and is emptied now or later.
    async fn see_the_end(self) {
        self.assert_done(&self.send(self.wish.request()).await);
        let phone = entry(Method::GET, "PHONE", "", "alice.LAPTOP");
        let read = self.send(phone).await;
        let told = (read.status, errcode(&read));
        assert_eq!(told, (404, json!("M_NOT_FOUND")), "{self}");
        *self.is_on.lock().unwrap() = false;
        self.clock.advance(PAUSE_MS);
        let own = self
            .send(entry(Method::GET, "LAPTOP", "", "alice.LAPTOP"))
            .await;
        assert_eq!(
            (own.status, &*own.body),
            (200, CONTENT.as_bytes()),
            "{self}"
        );
        self.assert_stored("PHONE", &self.wish.leaves());
        self.assert_stored("LAPTOP", &[("org.example.a", CONTENT)]);
    }

    /// The devices come all the same, if need be without their account data.
    async fn see_the_devices(self, hears: Hears) {
        let told = |entries: bool| {
            let data = json!({"events": [
                {"type": "org.example.a", "content": {"com.beeper.revision_id": "1"}},
            ]});
            let devices = ["PHONE", "LAPTOP"].map(|device| match entries {
                true => json!({"device_id": device, "account_data": data}),
                false => json!({"device_id": device}),
            });
            (200, json!({"devices": devices}))
        };
        for entries in [hears == Done, true] {
            let response = self.send(self.wish.request()).await;
            let body: Value = response.json().unwrap();
            assert_eq!((response.status, body), told(entries), "{self}");
            *self.is_on.lock().unwrap() = false;
        }
    }

    /// The device reads as none all the same, and is emptied now or later.
    async fn see_the_gone(self) {
        for _ in 0..2 {
            let read = self.send(self.wish.request()).await;
            let told = (read.status, errcode(&read));
            assert_eq!(told, (404, json!("M_NOT_FOUND")), "{self}");
            *self.is_on.lock().unwrap() = false;
            self.clock.advance(PAUSE_MS);
        }
        self.assert_stored("GONE", &[("org.example.a", TOMBSTONE)]);
        self.assert_stored("PHONE", &self.wish.leaves());
        self.assert_stored("LAPTOP", &[("org.example.a", CONTENT)]);
    }

    /// What is still to be emptied is not forgotten by a login that comes to nothing.
    async fn see_the_login(self, hears: Hears) {
        // It ends itself, so that nobody has a token to empty it with.
        let end = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
        self.assert_done(&self.send(end.body("{}").token("alice.PHONE")).await);
        self.assert_stored("PHONE", &[("org.example.a", CONTENT)]);
        let login = || Request::new(Method::POST, "/_matrix/client/v3/login").body("{}");
        let response = self.send(login()).await;
        let told = (response.status, errcode(&response));
        match (hears, self.fault) {
            (Own(status), _) => assert_eq!(told, (status, json!("M_UNKNOWN")), "{self}"),
            (_, Fault::Told(status, body)) => {
                assert_eq!(told.0, status, "{self}");
                assert_eq!(response.body, body, "{self}");
            }
            _ => assert_eq!(told, (200, Value::Null), "{self}"),
        }
        let is_done = hears == Done;
        let left = if is_done { TOMBSTONE } else { CONTENT };
        self.assert_stored("PHONE", &[("org.example.a", left)]);
        *self.is_on.lock().unwrap() = false;
        assert_eq!(self.send(login()).await.status, 200, "{self}");
        self.assert_stored("PHONE", &[("org.example.a", TOMBSTONE)]);
        self.assert_stored("LAPTOP", &[("org.example.a", CONTENT)]);
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            question,
            fault,
            wish,
            ..
        } = self;
        write!(f, "{question:?} answered by {fault:?} for {wish:?}")
    }
}

fn errcode(response: &Response) -> Value {
    let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
    body["errcode"].clone()
}

#[tokio::test]
async fn what_is_no_answer_to_a_question_of_the_gateways_own_is_told_and_changes_nothing() {
    for (fault, row) in ROWS {
        let cases = COLUMNS
            .iter()
            .zip(row)
            .flat_map(|((question, wishes), hears)| {
                wishes.iter().map(move |wish| async move {
                    Case::start(*question, fault, *wish).await.see(hears).await;
                })
            });
        join_all(cases).await;
    }
}

/// What is no object can be written over, and is told to nobody.
#[tokio::test]
async fn a_page_in_place_of_an_entry_is_not_read_as_one() {
    let cases = [HTML, "[]", ""].map(|body| async move {
        let fault = Fault::Told(200, body);
        let case = Case::start(Question::Stored, fault, Wish::Read).await;
        case.see(Own(502)).await;
    });
    join_all(cases).await;
}

#[tokio::test]
async fn a_device_ends_whatever_is_answered_and_is_emptied_later() {
    for (fault, _) in ROWS {
        let cases = ENDS.iter().flat_map(|(question, wishes)| {
            wishes.iter().map(move |wish| async move {
                Case::start(*question, fault, *wish)
                    .await
                    .see_the_end()
                    .await;
            })
        });
        join_all(cases).await;
    }
}

#[tokio::test]
async fn devices_are_told_whatever_is_answered_of_their_account_data() {
    let cases = ROWS.map(|(fault, row)| async move {
        let case = Case::start(Question::Listing, fault, Wish::Devices).await;
        case.see_the_devices(row[2]).await;
    });
    join_all(cases).await;
}

#[tokio::test]
async fn a_device_that_is_gone_reads_as_none_whatever_is_answered_and_is_emptied_later() {
    for (fault, _) in ROWS {
        let cases = [Question::Listing, Question::Tombstone].map(|question| async move {
            let case = Case::start(question, fault, Wish::Gone).await;
            case.see_the_gone().await;
        });
        join_all(cases).await;
    }
}

#[tokio::test]
async fn a_login_that_cannot_be_read_empties_nothing_and_the_next_one_does() {
    let cases = [
        (Fault::Reset, Own(502)),
        (Fault::Cut, Own(502)),
        (Fault::Long, Own(502)),
        (Fault::Told(200, HTML), Same),
        (Fault::Told(403, UNRECOGNIZED), Same),
        (Fault::Told(429, LIMITED), Same),
        (Fault::Told(503, HTML), Same),
        (Fault::Chunked, Done),
    ];
    let cases = cases.map(|(fault, hears)| async move {
        let case = Case::start(Question::Login, fault, Wish::Remove).await;
        case.see_the_login(hears).await;
    });
    join_all(cases).await;
}
