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

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use kitbag_client::{Client, Method, Request, Response};
use kitbag_domain::Limits;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{
    Asked, Scripted, ScriptedBody, chunked, cut, json as answer, reset, whole,
};
use serde_json::{Value, json};

use crate::support::{Running, gateway_at};
use crate::toy::{self, Stored, entry};

const PREFIX: &str = "org.matrix.msc4331.device_account_data.";
const TOMBSTONE: &str = "{\"org.matrix.msc4331.deleted\": true}";
const CONTENT: &str = "{\"com.beeper.revision_id\":\"1\"}";
const NEXT: &str = "{\"com.beeper.revision_id\":\"2\"}";
const HTML: &str = "<html><body>Welcome</body></html>";

/// What a question may take where the homeserver does not answer it.
const ASK_TIMEOUT_MS: u64 = 400;

/// How long after a failure nothing is emptied.
const PAUSE_MS: u64 = 30_000;

/// What the gateway asks by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Whoami,
    Device,
    Devices,
    Listing,
    Stored,
    Tombstone,
}

impl Question {
    fn is(self, asked: &Asked) -> bool {
        let path = asked.target.split('?').next().unwrap();
        let is_get = asked.method == Method::GET;
        match self {
            Self::Whoami => path.ends_with("/account/whoami"),
            Self::Device => is_get && path.contains("/v3/devices/"),
            Self::Devices => is_get && path.ends_with("/v3/devices"),
            Self::Listing => path.ends_with("/sync"),
            Self::Stored => is_get && path.contains("/account_data/"),
            Self::Tombstone => asked.method == Method::PUT && asked.body == TOMBSTONE,
        }
    }

    /// Bytes of an answer to it that are read.
    fn bytes_max(self) -> usize {
        match self {
            Self::Whoami | Self::Device | Self::Tombstone => 64 * 1024,
            Self::Devices => 4 * 1024 * 1024,
            Self::Listing | Self::Stored => 16 * 1024 * 1024,
        }
    }
}

/// How the homeserver answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Not at all.
    Slow,
    /// The connection ends without an answer.
    Reset,
    /// The connection ends amid what would be the answer.
    Cut,
    /// At once, with a status and a body.
    Told(u16, &'static str),
    /// As it should be, but for spaces behind it: more than is read.
    Long,
    /// As it should be, in pieces.
    Chunked,
}

/// What the client hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hears {
    /// An error of the gateway's own, `M_UNKNOWN`.
    Own(u16),
    /// What the homeserver said, as it came.
    Same,
    /// That it is done.
    Done,
}

use Hears::{Done, Own, Same};

const LIMITED: &str = "{\"errcode\":\"M_LIMIT_EXCEEDED\",\"error\":\"no\",\"retry_after_ms\":7000}";
const FAILED: &str = "{\"errcode\":\"M_UNKNOWN\",\"error\":\"Internal server error\"}";
const UNRECOGNIZED: &str = "{\"errcode\":\"M_UNRECOGNIZED\",\"error\":\"no\"}";

/// What the client hears where one of these questions is answered so: who asks; whether there is the
/// device; which entries there are; what is stored; and where a tombstone is put.
#[rustfmt::skip] // a table is read by its columns
const ROWS: [(Fault, [Hears; 5]); 19] = [
    (Fault::Slow,                     [Own(504), Own(504), Own(504), Own(504), Own(504)]),
    (Fault::Reset,                    [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Cut,                      [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(200, "{\"a\":"),     [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    // Nobody asks for members of a stored content, or of what is answered to a write.
    (Fault::Told(200, "{\"a\":1}"),   [Own(502), Own(502), Own(502), Done,     Done]),
    // What is no object has no revision, so that it is as any expects it (MSC4547).
    (Fault::Told(200, "[]"),          [Own(502), Own(502), Own(502), Done,     Own(502)]),
    (Fault::Told(200, HTML),          [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(200, ""),            [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(202, "{}"),          [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(204, ""),            [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(302, ""),            [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(307, HTML),          [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(404, HTML),          [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(404, UNRECOGNIZED),  [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Told(429, LIMITED),       [Same,     Same,     Same,     Same,     Same]),
    (Fault::Told(500, FAILED),        [Same,     Same,     Same,     Same,     Same]),
    (Fault::Told(503, HTML),          [Same,     Same,     Same,     Same,     Same]),
    (Fault::Long,                     [Own(502), Own(502), Own(502), Own(502), Own(502)]),
    (Fault::Chunked,                  [Done,     Done,     Done,     Done,     Done]),
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
        }
    }

    /// Returns what is stored of the phone once it is done.
    fn leaves(self) -> Vec<(&'static str, &'static str)> {
        match self {
            Self::Read | Self::Protected => vec![("org.example.a", CONTENT)],
            Self::Add => vec![("org.example.a", CONTENT), ("org.example.new", NEXT)],
            Self::Swap => vec![("org.example.a", NEXT)],
            Self::Delete | Self::Logout | Self::Remove | Self::Password => {
                vec![("org.example.a", TOMBSTONE)]
            }
        }
    }
}

/// The questions of the columns, and who has the gateway ask them.
const COLUMNS: [(Question, &[Wish]); 5] = [
    (
        Question::Whoami,
        &[Wish::Read, Wish::Add, Wish::Delete, Wish::Protected],
    ),
    (Question::Device, &[Wish::Read, Wish::Add, Wish::Delete]),
    (Question::Listing, &[Wish::Add]),
    (Question::Stored, &[Wish::Swap]),
    (Question::Tombstone, &[Wish::Delete]),
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
        for device in ["PHONE", "LAPTOP"] {
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
        if self.wish == Wish::Read {
            assert_eq!(response.body, CONTENT, "{self}");
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

/// What the homeserver answers where it should not.
async fn fail(
    question: Question,
    fault: Fault,
    asked: &Asked,
    stored: &Stored,
) -> http::Response<ScriptedBody> {
    let right = match question {
        Question::Whoami => json!({"user_id": "@alice:x", "device_id": "PHONE"}).to_string(),
        Question::Device => json!({"device_id": "PHONE"}).to_string(),
        Question::Devices => json!({"devices": [{"device_id": "LAPTOP"}]}).to_string(),
        Question::Listing => json!({"next_batch": "s"}).to_string(),
        Question::Stored => CONTENT.to_owned(),
        Question::Tombstone => "{}".to_owned(),
    };
    match fault {
        Fault::Slow => std::future::pending().await,
        Fault::Reset => reset(),
        Fault::Cut => cut(200, right),
        Fault::Told(status, body) => {
            if (status, body.starts_with("{\"a\":1")) == (200, true) {
                drop(toy::answer(asked, stored));
            }
            let mut response = whole(status, body);
            let headers = response.headers_mut();
            headers.insert("retry-after", "7".parse().unwrap());
            if (300..400).contains(&status) {
                headers.insert("location", "https://elsewhere.example/".parse().unwrap());
            }
            response
        }
        Fault::Long => {
            let bytes = question.bytes_max() + 1;
            whole(200, right + &" ".repeat(bytes))
        }
        Fault::Chunked => {
            let right = toy::answer(asked, stored).into_body();
            let right = http_body_util::BodyExt::collect(right).await.unwrap();
            chunked(200, right.to_bytes())
        }
    }
}

/// What it answers where it is well. The phone may end.
fn well(asked: &Asked, stored: &Stored, has_ended: &Mutex<bool>) -> http::Response<ScriptedBody> {
    let path = asked.target.split('?').next().unwrap();
    let mut has_ended = has_ended.lock().unwrap();
    let is_end = ["/logout", "/account/password"]
        .iter()
        .any(|end| path.ends_with(end));
    if is_end || asked.method == Method::DELETE {
        *has_ended = true;
        return answer(200, &json!({}));
    }
    match *has_ended {
        true if asked.headers["authorization"] == "Bearer alice.PHONE" => {
            toy::error(401, "M_UNKNOWN_TOKEN")
        }
        true if path.ends_with("/devices/PHONE") => toy::error(404, "M_NOT_FOUND"),
        true if path.ends_with("/devices") => {
            answer(200, &json!({"devices": [{"device_id": "LAPTOP"}]}))
        }
        _ => toy::answer(asked, stored),
    }
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
