//! The admin API, over memory and over SQLite.

mod authorization;
mod changes;
mod device_data;
mod entries;
mod openapi;
mod order;
mod synapse;
mod users;

use kitbag_domain::Limits;
use serde_json::Value;

use crate::support::{Call, Reply, Server, Session, Setup, sqlite};

const V1: &str = "/_kitbag/admin/v1";

/// A server with Alice on two devices and Bob on one.
struct Lab {
    server: Server,
    alice: Session,
    tablet: Session,
    bob: Session,
}

impl Lab {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let server = Server::with(change);
        let alice = server.user("alice").await;
        let tablet = server.device(&alice.user, "TABLET").await;
        let bob = server.user("bob").await;
        Self {
            server,
            alice,
            tablet,
            bob,
        }
    }

    async fn send(&self, call: Call) -> Reply {
        self.server.send(call).await
    }

    /// Asks as the operator.
    async fn get(&self, path: &str) -> Value {
        self.send(Call::get(format!("{V1}{path}")).admin())
            .await
            .assert_ok()
    }

    /// Puts an entry of the session's own device.
    async fn tell(&self, session: &Session, event_type: &str, body: &str) {
        let path = session.device_data(session.device.as_str(), event_type);
        let put = Call::put(path, body.to_owned()).by(session);
        self.send(put).await.assert_ok();
    }

    async fn delete(&self, session: &Session, event_type: &str) {
        let path = session.device_data(session.device.as_str(), event_type);
        let path = path.replace("v3", "unstable/org.matrix.msc3391");
        self.send(Call::delete(path).by(session)).await.assert_ok();
    }
}

/// Runs a test over each store, where each device has an entry of 2 MiB: two of them fill a page.
async fn over_each_store_with_large_contents(test: impl AsyncFn(Lab)) {
    let limits = Limits {
        device_content_bytes_max: 3 * 1024 * 1024,
        content_bytes_max: 3 * 1024 * 1024,
        ..Limits::default()
    };
    over_each_store(
        |setup| setup.limits = limits.clone(),
        async |lab| {
            let content = format!("{{\"a\":\"{}\"}}", "x".repeat(2 * 1024 * 1024));
            for session in [&lab.alice, &lab.tablet, &lab.bob] {
                lab.tell(session, "app.test", &content).await;
            }
            test(lab).await;
        },
    )
    .await;
}

/// Runs a test over each store.
async fn over_each_store(change: impl Fn(&mut Setup), test: impl AsyncFn(Lab)) {
    test(Lab::with(&change).await).await;
    let lab = Lab::with(|setup| {
        change(setup);
        setup.store = Some(sqlite(setup.limits.clone()));
    });
    test(lab.await).await;
}
