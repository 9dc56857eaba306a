//! Races brought about on purpose: requests are stopped between two calls of the store, or at a
//! step of a commit, and what must fall into that moment happens then.

mod accounts;
mod commits;
mod following;
mod kept;
mod remembered;
mod turns;
mod waiting;
mod writes;

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use kitbag_domain::{Limits, MemoryStore, Store};
use kitbag_testkit::gate::{Stop, in_time};
use kitbag_testkit::pausing::PausingStore;
use serde_json::{Value, json};

use crate::support::{Call, PASSWORD, Reply, Server, Session, poll_once};

const C3: &str = "/_matrix/client/v3";

/// A server whose requests can be stopped before and after each call of the store.
struct Lab {
    server: Server,
    pausing: Arc<PausingStore>,
    alice: Session,
    tablet: Session,
}

impl Lab {
    async fn new() -> Self {
        Self::over(Arc::new(MemoryStore::new(Limits::default(), 1))).await
    }

    async fn over(store: Arc<dyn Store>) -> Self {
        Self::paused(PausingStore::over(store)).await
    }

    async fn paused(pausing: PausingStore) -> Self {
        Self::limited(pausing, Limits::default()).await
    }

    /// Has these limits in the server too, beside those of the store.
    async fn limited(pausing: PausingStore, limits: Limits) -> Self {
        let pausing = Arc::new(pausing);
        let served: Arc<dyn Store> = pausing.clone();
        let server = Server::with(|setup| {
            setup.store = Some(served);
            setup.limits = limits;
        });
        let alice = server.user("alice").await;
        let tablet = server.device(&alice.user, "TABLET").await;
        Self {
            server,
            pausing,
            alice,
            tablet,
        }
    }

    async fn send(&self, call: Call) -> Reply {
        self.server.send(call).await
    }

    fn sync(&self, query: &str) -> Call {
        Call::get(format!("{C3}/sync?{query}")).by(&self.alice)
    }

    /// Returns the token behind everything so far.
    async fn now(&self) -> String {
        self.send(self.sync("")).await.assert_ok()["next_batch"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// Returns types and contents that changed behind `since`, and the next token.
    async fn told(&self, by: &Session, since: &str) -> (Value, String) {
        let call = self.sync(&format!("since={since}")).by(by);
        let told = self.send(call).await.assert_ok();
        let next = told["next_batch"].as_str().unwrap().to_owned();
        (told, next)
    }

    async fn put(&self, by: &Session, path: &str, body: &'static str) {
        let reply = self.send(Call::put(path, body).by(by)).await;
        assert_eq!(reply.status, 200, "{reply:?}");
    }

    fn start(&self, call: Call) -> Begun<'_> {
        Box::pin(in_time("an answer", self.server.send(call)))
    }

    /// Starts a request; over memory it runs until it waits or stands at a gate.
    fn begin<'a>(&'a self, call: Call) -> Begun<'a> {
        let mut begun: Begun<'a> = Box::pin(self.server.send(call));
        assert!(poll_once(&mut begun).is_pending(), "it waits");
        begun
    }
}

/// Drives a request until it, or what it set off, stands at a gate.
async fn until(stop: &mut Stop, request: &mut Begun<'_>) {
    tokio::select! {
        reply = request => panic!("it is answered already: {reply:?}"),
        () = stop.reached() => {}
    }
}

/// A request that is under way.
type Begun<'a> = Pin<Box<dyn Future<Output = Reply> + 'a>>;

/// Lets a stopped request go on, over memory: to its answer, or to where it waits.
fn go_on(stop: Stop, begun: &mut Begun<'_>) -> Poll<Reply> {
    stop.go_on();
    poll_once(begun)
}

#[track_caller]
fn answered(poll: Poll<Reply>) -> Reply {
    match poll {
        Poll::Ready(reply) => reply,
        Poll::Pending => panic!("it still waits"),
    }
}

/// Returns the types and contents of the account's events in an answer.
fn events(told: &Value) -> Vec<(String, Value)> {
    let events = told["account_data"]["events"].as_array().unwrap().iter();
    let pair = |event: &Value| {
        let event_type = event["type"].as_str().unwrap().to_owned();
        (event_type, event["content"].clone())
    };
    events.map(pair).collect()
}

fn event(event_type: &str, number: u64) -> (String, Value) {
    (event_type.to_owned(), json!({"n": number}))
}

/// Ways in which the device `PHONE` ends, and one that only looks like it.
fn endings(lab: &Lab) -> Vec<Call> {
    let auth = lab.tablet.password_auth(PASSWORD);
    let body = json!({"auth": auth, "new_password": "x"}).to_string();
    let delete = json!({"auth": auth, "devices": ["PHONE"]}).to_string();
    vec![
        Call::post(format!("{C3}/logout"), "").by(&lab.alice),
        Call::post(format!("{C3}/logout/all"), "").by(&lab.alice),
        Call::post(format!("{C3}/account/password"), body.clone()).by(&lab.tablet),
        Call::post(format!("{C3}/account/deactivate"), body).by(&lab.tablet),
        Call::post(format!("{C3}/delete_devices"), delete.clone()).by(&lab.tablet),
        Call::delete(format!("{C3}/devices/PHONE"))
            .body(delete)
            .by(&lab.tablet),
        login_call("PHONE"),
    ]
}

fn login_call(device: &str) -> Call {
    let body = json!({
        "type": "m.login.password", "user": "alice", "password": PASSWORD, "device_id": device,
        "refresh_token": true,
    });
    Call::post(format!("{C3}/login"), body.to_string())
}

/// Returns the device as one that logged in just now.
fn session_of(user: &Session, device: &str, login: &Value) -> Session {
    Session {
        user: user.user.clone(),
        device: kitbag_testkit::device_id(device),
        token: login["access_token"].as_str().unwrap().to_owned(),
    }
}
