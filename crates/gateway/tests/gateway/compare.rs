//! Compare-and-swap (MSC4547) over homeservers with and without it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kitbag_client::path::{Naming, account_data};
use kitbag_client::{Client, Method, PutOutcome, Request, Response, Revision, Scope};
use kitbag_gateway::Settings;
use kitbag_testkit::dice::Dice;
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, json as answer, whole};
use kitbag_testkit::settings::{is_long, seed};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::support::{Lab, Running, gateway, told};

/// What can only take so long where something hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

const FENCE_MS: u64 = 30_000;

pub(crate) const PATH: &str = "/_matrix/client/v3/user/@a:x/account_data/org.example.a";

/// Writers of one round: they all expect what the last round stored.
const WRITERS: usize = 12;
const ROUNDS: usize = 12;
const ROUNDS_LONG: usize = 1_000;

pub(crate) fn on(settings: &mut Settings) {
    settings.msc4547.enabled = true;
    settings.msc4547.fence_ms = FENCE_MS;
    settings.writes.enabled = false;
}

/// Contents by path, of a homeserver that knows no revisions.
pub(crate) type Contents = Arc<Mutex<HashMap<String, String>>>;

/// What it answers; everybody is the localpart that their token reads, but for `none`.
pub(crate) fn plain(asked: &Asked, contents: &Contents) -> hyper::Response<ScriptedBody> {
    let token = asked
        .headers
        .get("authorization")
        .unwrap()
        .to_str()
        .unwrap();
    let user = token.strip_prefix("Bearer kt_").unwrap();
    if user == "none" {
        return answer(401, &json!({"errcode": "M_UNKNOWN_TOKEN", "error": ""}));
    }
    let path = asked.target.split('?').next().unwrap();
    if path.ends_with("/whoami") {
        return answer(
            200,
            &json!({"user_id": format!("@{user}:x"), "device_id": "D"}),
        );
    }
    // As the gateway and the tests spell it.
    let path = path
        .replace("/r0/", "/v3/")
        .replace("%40", "@")
        .replace("%3A", ":")
        .replace("%21", "!");
    let mut contents = contents.lock().unwrap();
    match asked.method {
        Method::GET => match contents.get(&path) {
            Some(content) => whole(200, content.clone()),
            None => answer(404, &json!({"errcode": "M_NOT_FOUND", "error": ""})),
        },
        _ => {
            contents.insert(path, String::from_utf8(asked.body.to_vec()).unwrap());
            answer(200, &json!({}))
        }
    }
}

/// Starts a homeserver without compare-and-swap, whose answers come in any order.
pub(crate) async fn homeserver_without() -> Scripted {
    let contents = Contents::default();
    let dice = Arc::new(Mutex::new(Dice::new(seed().unwrap_or(1))));
    Scripted::start(move |asked| {
        let pauses = dice.lock().unwrap().below(20);
        let contents = Arc::clone(&contents);
        async move {
            for _ in 0..pauses {
                tokio::task::yield_now().await;
            }
            plain(&asked, &contents)
        }
    })
    .await
}

pub(crate) async fn put(client: &Client, token: &str, path: &str, body: &str) -> Response {
    let request = Request::new(Method::PUT, path)
        .token(token)
        .body(body.to_owned());
    client.send(request).await.unwrap()
}

/// Lets writers who expect the same race, round for round, and counts who wins.
async fn race(client: &Client, token: &str, path: &str) {
    let rounds = if is_long() { ROUNDS_LONG } else { ROUNDS };
    let mut expected = String::new();
    for round in 0..rounds {
        let mut writers = JoinSet::new();
        for writer in 0..WRITERS {
            let (client, token) = (client.clone(), token.to_owned());
            let path = format!("{path}?com.beeper.expect_revision_id={expected}");
            let revision = format!("{round}.{writer}");
            writers.spawn(async move {
                let content = json!({"com.beeper.revision_id": revision}).to_string();
                let response = put(&client, &token, &path, &content).await;
                (revision, response)
            });
        }
        let answers = timeout(DEADLINE, writers.join_all()).await.unwrap();
        let (won, lost): (Vec<_>, _) = answers
            .into_iter()
            .partition(|(_, told)| told.status == 200);
        assert_eq!(won.len(), 1, "round {round}");
        let winner = won.into_iter().next().unwrap().0;
        for (_, response) in lost {
            let expected = (409, json!("COM.BEEPER.REVISION_ID_MISMATCH"));
            assert_eq!(told(&response), expected);
            let body: Value = response.json().unwrap();
            let current = &body["com.beeper.current_content"]["com.beeper.revision_id"];
            assert_eq!(*current, json!(winner), "the others get its content");
        }
        expected = winner;
    }
}

/// The first round writes what is not there: nobody expects anything of it.
async fn race_behind_a_first(client: &Client, token: &str, path: &str) {
    let first = json!({"com.beeper.revision_id": ""}).to_string();
    assert_eq!(put(client, token, path, &first).await.status, 200);
    race(client, token, path).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writers_with_the_same_expectation_one_wins_over_a_homeserver_without() {
    let upstream = homeserver_without().await;
    let gateway = gateway(&upstream.url(), on).await;
    let client = Client::new(&gateway.url).unwrap();
    let in_room = PATH.replace("account_data", "rooms/!r:x/account_data");
    tokio::join!(
        race_behind_a_first(&client, "kt_a", PATH),
        race_behind_a_first(&client, "kt_a", &in_room),
        race_behind_a_first(
            &client,
            "kt_b",
            "/_matrix/client/r0/user/%40b:x/account_data/a"
        ),
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writers_with_the_same_expectation_one_wins_over_kitbag() {
    let lab = Lab::with(on).await;
    let phone = lab.user("PHONE").await;
    let session = phone.session();
    let path = account_data(
        &session.user_id,
        Scope::Global,
        Naming::Stable,
        "org.example.a",
    );
    race_behind_a_first(&lab.client(), &session.access_token, &path).await;
}

#[tokio::test]
async fn a_conflict_is_told_as_the_api_tells_it() {
    let upstream = homeserver_without().await;
    let gateway = gateway(&upstream.url(), on).await;
    let client = Client::new(&gateway.url).unwrap();
    let stored = r#"{ "m.revision_id": "1",  "n": 1.0 }"#;
    let write = |query, body| {
        let (client, path) = (&client, format!("{PATH}{query}"));
        async move { put(client, "kt_a", &path, body).await }
    };
    // Nothing is stored: any expectation holds.
    assert_eq!(write("?expect_revision_id=x", stored).await.status, 200);
    let response = write("?expect_revision_id=2", "{}").await;
    assert_eq!(told(&response), (409, json!("M_REVISION_ID_MISMATCH")));
    let body = String::from_utf8(response.body.to_vec()).unwrap();
    assert!(
        body.ends_with(&format!(r#","current_content":{stored}}}"#)),
        "{body}"
    );
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    for (query, body, status) in [
        ("?expect_revision_id=", "{}", 409),
        // Each name is compared with its own.
        ("?com.beeper.expect_revision_id=2", stored, 200),
        (
            "?expect_revision_id=1&com.beeper.expect_revision_id=2",
            stored,
            200,
        ),
        ("?expect_revision_id=1", "{}", 200),
        ("?expect_revision_id=1", "{}", 200),
        ("", stored, 200),
        ("?a=b", "{}", 200),
    ] {
        assert_eq!(write(query, body).await.status, status, "{query} {body}");
    }
    // The homeserver gets the target as it came: it may look at revisions itself.
    let asked = upstream.asked();
    let written = asked
        .iter()
        .find(|asked| asked.method == Method::PUT)
        .unwrap();
    assert_eq!(written.target, format!("{PATH}?expect_revision_id=x"));
    assert_eq!(written.body, stored);
}

#[tokio::test]
async fn everything_else_is_told_before_a_conflict() {
    let upstream = homeserver_without().await;
    let gateway = gateway(&upstream.url(), on).await;
    let client = Client::new(&gateway.url).unwrap();
    let stored = r#"{"m.revision_id": "1"}"#;
    assert_eq!(put(&client, "kt_a", PATH, stored).await.status, 200);
    let large = " ".repeat(1024 * 1024 + 1);
    for (token, path, body, status, errcode) in [
        ("kt_none", PATH, "{}", 401, "M_UNKNOWN_TOKEN"),
        ("kt_b", PATH, "{}", 403, "M_FORBIDDEN"),
        (
            "kt_a",
            &PATH.replace("org.example.a", "m.push_rules"),
            "{}",
            405,
            "M_BAD_JSON",
        ),
        ("kt_a", PATH, &large, 413, "M_TOO_LARGE"),
        ("kt_a", PATH, "no JSON", 400, "M_NOT_JSON"),
        ("kt_a", PATH, "[]", 400, "M_BAD_JSON"),
        ("kt_a", PATH, "{}", 409, "M_REVISION_ID_MISMATCH"),
    ] {
        let path = format!("{path}?expect_revision_id=2");
        let response = put(&client, token, &path, body).await;
        assert_eq!(told(&response), (status, json!(errcode)), "{token} {path}");
    }
    let path = format!("{PATH}?expect_revision_id=1&expect_revision_id=2");
    let response = put(&client, "kt_a", &path, "{}").await;
    assert_eq!(told(&response), (400, json!("M_INVALID_PARAM")));
    // A body that nobody expects anything of is the homeserver's to judge.
    assert_eq!(put(&client, "kt_a", PATH, "no JSON").await.status, 200);
}

#[tokio::test]
async fn expectations_are_not_looked_at_unless_switched_on() {
    let upstream = homeserver_without().await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let path = format!("{PATH}?expect_revision_id=2");
    for _ in 0..2 {
        assert_eq!(
            put(&client, "kt_a", &path, r#"{"m.revision_id": "1"}"#)
                .await
                .status,
            200
        );
    }
    assert_eq!(upstream.asked().len(), 2, "and nothing is asked for them");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_writers_with_the_same_expectation_one_wins_an_entry_of_a_device() {
    let lab = Lab::with(on).await;
    let phone = lab.user("PHONE").await;
    let session = phone.session();
    let scope = Scope::Device("PHONE");
    let path = account_data(&session.user_id, scope, Naming::Unstable, "org.example.a");
    race_behind_a_first(&lab.client(), &session.access_token, &path).await;
}

/// A homeserver whose writes wait until the test lets them.
struct Held {
    upstream: Scripted,
    /// The paths of writes that came.
    came: mpsc::UnboundedReceiver<String>,
    go: Arc<Semaphore>,
}

impl Held {
    async fn start() -> Self {
        let (tell, came) = mpsc::unbounded_channel();
        let go = Arc::new(Semaphore::new(0));
        let (contents, turns) = (Contents::default(), Arc::clone(&go));
        let upstream = Scripted::start(move |asked: Asked| {
            let (contents, turns, tell) = (Arc::clone(&contents), Arc::clone(&turns), tell.clone());
            async move {
                if matches!(asked.method, Method::PUT | Method::DELETE) {
                    tell.send(asked.target.clone()).unwrap();
                    turns.acquire().await.unwrap().forget();
                }
                plain(&asked, &contents)
            }
        });
        Self {
            upstream: upstream.await,
            came,
            go,
        }
    }

    async fn next(&mut self) -> String {
        timeout(DEADLINE, self.came.recv()).await.unwrap().unwrap()
    }

    fn let_go(&self) {
        self.go.add_permits(1);
    }
}

/// Sends a write without waiting for it.
fn begin(
    gateway: &Running,
    method: Method,
    token: &'static str,
    path: &str,
) -> tokio::task::JoinHandle<Response> {
    let client = Client::new(&gateway.url).unwrap();
    let request = Request::new(method, path)
        .token(token)
        .body(r#"{"m.revision_id": "1"}"#);
    tokio::spawn(async move { client.send(request).await.unwrap() })
}

#[tokio::test]
async fn all_writes_of_an_entry_take_turns_and_those_of_others_do_not_wait() {
    let mut held = Held::start().await;
    let gateway = gateway(&held.upstream.url(), on).await;
    let first = begin(&gateway, Method::PUT, "kt_a", PATH);
    assert_eq!(held.next().await, PATH);
    // The same entry by other spellings, without an expectation, and to be deleted.
    let spelled = PATH.replace("v3", "r0").replace("@a:x", "%40a%3Ax");
    let deleted = PATH.replace("v3", "unstable/org.matrix.msc3391");
    let same = [
        begin(&gateway, Method::PUT, "kt_a", &spelled),
        begin(&gateway, Method::DELETE, "kt_a", &deleted),
        begin(
            &gateway,
            Method::PUT,
            "kt_a",
            &format!("{PATH}?expect_revision_id=1"),
        ),
    ];
    let mut others = Vec::new();
    for (token, path) in [
        (
            "kt_a",
            PATH.replace("account_data", "rooms/!r:x/account_data"),
        ),
        ("kt_a", PATH.replace("example.a", "example.b")),
        ("kt_b", PATH.replace("@a", "@b")),
    ] {
        others.push(begin(&gateway, Method::PUT, token, &path));
        assert_eq!(held.next().await, path, "while the first is under way");
    }
    for _ in 0..4 {
        held.let_go();
    }
    for write in others.into_iter().chain([first]) {
        assert_eq!(write.await.unwrap().status, 200);
    }
    for _ in 0..same.len() {
        held.next().await;
        assert!(held.came.try_recv().is_err(), "one at a time");
        held.let_go();
    }
    for write in same {
        assert_eq!(write.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn tags_of_a_room_take_the_turn_of_the_entry_that_they_are() {
    let mut held = Held::start().await;
    let gateway = gateway(&held.upstream.url(), on).await;
    let tag = |room: &str, tag: &str| {
        format!("/_matrix/client/v3/user/@a:x/rooms/{room}:x/tags/{tag}?a=%7e")
    };
    let first = begin(&gateway, Method::PUT, "kt_a", &tag("!r", "u.a"));
    assert_eq!(held.next().await, tag("!r", "u.a"));
    let entry = PATH.replace("account_data", "rooms/!r:x/account_data");
    let entry = entry.replace("org.example.a", "m.tag");
    let same = [
        begin(&gateway, Method::PUT, "kt_a", &entry),
        begin(&gateway, Method::DELETE, "kt_a", &tag("%21r", "u.b")),
    ];
    let other = begin(&gateway, Method::PUT, "kt_a", &tag("!s", "u.a"));
    assert_eq!(
        held.next().await,
        tag("!s", "u.a"),
        "while the first is under way"
    );
    // What is wrong with the path is told without it.
    let strangers = tag("!r", "u.a").replace("@a", "@b");
    let refused = timeout(DEADLINE, begin(&gateway, Method::PUT, "kt_a", &strangers)).await;
    assert_eq!(refused.unwrap().unwrap().status, 403);
    held.let_go();
    held.let_go();
    for write in [first, other] {
        assert_eq!(write.await.unwrap().status, 200);
    }
    for _ in 0..same.len() {
        held.next().await;
        assert!(held.came.try_recv().is_err(), "one at a time");
        held.let_go();
    }
    for write in same {
        assert_eq!(write.await.unwrap().status, 200);
    }
}

#[tokio::test]
async fn nobody_else_waits_for_or_has_the_turn_of_an_entry() {
    let mut held = Held::start().await;
    let gateway = gateway(&held.upstream.url(), on).await;
    let first = begin(&gateway, Method::PUT, "kt_a", PATH);
    held.next().await;
    for (token, status) in [("kt_none", 401), ("kt_b", 403)] {
        let refused = timeout(DEADLINE, begin(&gateway, Method::PUT, token, PATH)).await;
        assert_eq!(refused.unwrap().unwrap().status, status, "at once");
    }
    held.let_go();
    assert_eq!(first.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_no_outcome_open() {
    let mut held = Held::start().await;
    let gateway = gateway(&held.upstream.url(), on).await;
    let gone = begin(&gateway, Method::PUT, "kt_a", PATH);
    held.next().await;
    gone.abort();
    assert!(gone.await.unwrap_err().is_cancelled());
    let next = begin(
        &gateway,
        Method::PUT,
        "kt_a",
        &format!("{PATH}?expect_revision_id=2"),
    );
    held.let_go();
    let response = timeout(DEADLINE, next).await.unwrap().unwrap();
    assert_eq!(
        told(&response),
        (409, json!("M_REVISION_ID_MISMATCH")),
        "what was written stays"
    );
}

#[tokio::test]
async fn by_the_client_of_the_api_a_swap_is_one() {
    let lab = Lab::with(on).await;
    let phone = lab.user("PHONE").await;
    let revision = |id| Revision {
        id,
        naming: Naming::Stable,
    };
    for (scope, kind) in [
        (Scope::Device("PHONE"), "org.example.a"),
        (Scope::Global, "org.example.a"),
        (Scope::Room("!r:x"), "org.example.a"),
    ] {
        let first = json!({"m.revision_id": "1"});
        phone.put(scope, kind, &first).await.unwrap();
        let second = json!({"m.revision_id": "2"});
        let outcome = phone
            .put_expecting(scope, kind, &second, revision("0"))
            .await
            .unwrap();
        assert!(
            matches!(outcome, PutOutcome::Conflict { .. }),
            "{outcome:?}"
        );
        let outcome = phone
            .put_expecting(scope, kind, &second, revision("1"))
            .await
            .unwrap();
        assert!(matches!(outcome, PutOutcome::Written), "{outcome:?}");
    }
}
