//! Law 6 over a connection, which keeps the session of its token: it learns of the end in time.

use std::sync::Arc;

use kitbag_domain::Store;
use kitbag_store_sqlite::Step;
use serde_json::{Value, json};

use super::{C3, login_call, session_of};
use crate::support::{Call, PASSWORD, Reply, STEPS, Server, Session, SteppingStore};

/// Two connections to one store.
struct Lab {
    keeping: Server,
    other: Server,
    alice: Session,
    tablet: Session,
    refresh_token: Value,
    // Behind the servers, which close it.
    stepping: SteppingStore,
}

impl Lab {
    async fn new() -> Self {
        let stepping = SteppingStore::new();
        let server = || {
            let store: Arc<dyn Store> = stepping.store.clone();
            Server::with(|setup| setup.store = Some(store))
        };
        let (keeping, other) = (server(), server());
        let alice = keeping.user("alice").await;
        let login = other.send(login_call("TABLET")).await.assert_ok();
        let tablet = session_of(&alice, "TABLET", &login);
        let lab = Self {
            keeping,
            other,
            alice,
            tablet,
            refresh_token: login["refresh_token"].clone(),
            stepping,
        };
        lab.keep().await;
        lab
    }

    /// Reads the session, finds it in memory, and finds it kept.
    async fn keep(&self) {
        for _ in 0..3 {
            assert_eq!(self.ask().await.status, 200);
        }
    }

    async fn ask(&self) -> Reply {
        let whoami = Call::get(format!("{C3}/account/whoami"));
        self.keeping.send(whoami.by(&self.tablet)).await
    }

    /// Returns a call that ends the session.
    async fn ending(&self, way: &str) -> Call {
        match way {
            "logout" => Call::post(format!("{C3}/logout"), "").by(&self.tablet),
            "password" => {
                let auth = self.alice.password_auth(PASSWORD);
                let body = json!({"auth": auth, "new_password": "x"}).to_string();
                Call::post(format!("{C3}/account/password"), body).by(&self.alice)
            }
            "login" => login_call("TABLET"),
            // Old tokens end when a new one is used.
            "refresh" => {
                let body = json!({"refresh_token": self.refresh_token}).to_string();
                let refresh = Call::post(format!("{C3}/refresh"), body);
                let renewed = self.other.send(refresh).await.assert_ok();
                self.keep().await;
                let renewed = session_of(&self.alice, "TABLET", &renewed);
                Call::get(format!("{C3}/account/whoami")).by(&renewed)
            }
            other => panic!("{other} ends nothing"),
        }
    }
}

#[tokio::test]
async fn a_kept_session_is_over_when_anybody_can_know() {
    for way in ["logout", "password", "login", "refresh"] {
        for step in STEPS {
            let lab = Lab::new().await;
            let ending = lab.ending(way).await;
            let mut stop = lab.stepping.stop_at(step);
            let mut ended = Box::pin(lab.other.send(ending));
            tokio::select! {
                reply = &mut ended => panic!("{way}: nothing was written: {reply:?}"),
                () = stop.reached() => {}
            }
            let meanwhile = lab.ask().await.status;
            let expected = if step == Step::BeforeCommit { 200 } else { 401 };
            assert_eq!(meanwhile, expected, "{way} {step:?}");
            stop.go_on();
            assert_eq!(ended.await.status, 200, "{way}");
            let refused = lab.ask().await;
            refused.assert_is(401, "M_UNKNOWN_TOKEN");
        }
    }
}

#[tokio::test]
async fn a_kept_session_ends_with_its_time() {
    let lab = Lab::new().await;
    assert_eq!(lab.ask().await.status, 200);
    lab.keeping.clock.advance(5 * 60 * 1_000);
    let refused = lab.ask().await;
    refused.assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(refused.json()["soft_logout"], true);
}
