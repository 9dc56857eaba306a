//! `POST /account/password`, `POST /account/deactivate`.

use serde_json::{Value, json};

use crate::support::{Call, PASSWORD, Reply, Server, Session};

const C3: &str = "/_matrix/client/v3";

struct Lab {
    server: Server,
    phone: Session,
    tablet: Session,
}

impl Lab {
    async fn new() -> Self {
        let server = Server::start();
        let phone = server.user("alice").await;
        let tablet = server.device(&phone.user, "TABLET").await;
        let lab = Self {
            server,
            phone,
            tablet,
        };
        for session in [&lab.phone, &lab.tablet] {
            let path = session.device_data(session.device.as_str(), "app.test");
            let put = Call::put(path, "{\"n\":1}").by(session);
            assert_eq!(lab.server.send(put).await.status, 200);
        }
        let put = Call::put(lab.phone.global("app.test"), "{\"n\":2}").by(&lab.phone);
        assert_eq!(lab.server.send(put).await.status, 200);
        lab
    }

    async fn post(&self, path: &str, body: Value) -> Reply {
        let call = Call::post(format!("{C3}{path}"), body.to_string());
        self.server.send(call.by(&self.phone)).await
    }

    async fn status(&self, session: &Session) -> u16 {
        let call = Call::get(format!("{C3}/account/whoami")).by(session);
        self.server.send(call).await.status
    }

    async fn login(&self, password: &str) -> Reply {
        let body = json!({"type": "m.login.password", "user": "alice", "password": password});
        self.server
            .send(Call::post(format!("{C3}/login"), body.to_string()))
            .await
    }
}

#[tokio::test]
async fn a_new_password_logs_the_other_devices_out() {
    let lab = Lab::new().await;
    let body = json!({"auth": lab.phone.password_auth(PASSWORD), "new_password": "new"});
    assert_eq!(
        lab.post("/account/password", body).await.assert_ok(),
        json!({})
    );
    assert_eq!(lab.status(&lab.phone).await, 200);
    assert_eq!(lab.status(&lab.tablet).await, 401);
    let entries = lab.server.entries(&lab.phone).await;
    let kept: Vec<String> = entries.iter().map(|(key, _)| format!("{key:?}")).collect();
    assert_eq!(kept, ["Global/app.test", "Device(\"PHONE\")/app.test"]);
    lab.login(PASSWORD).await.assert_is(403, "M_FORBIDDEN");
    assert_eq!(lab.login("new").await.status, 200);
}

#[tokio::test]
async fn a_new_password_can_leave_the_other_devices() {
    let lab = Lab::new().await;
    let mut body = json!({"auth": lab.phone.password_auth(PASSWORD), "new_password": "new"});
    body["logout_devices"] = false.into();
    assert_eq!(lab.post("/account/password", body).await.status, 200);
    assert_eq!(lab.status(&lab.tablet).await, 200);
    assert_eq!(lab.server.entries(&lab.phone).await.len(), 3);
}

#[tokio::test]
async fn without_the_password_nothing_changes() {
    let lab = Lab::new().await;
    let wrong = lab.phone.password_auth("wrong");
    let right = lab.phone.password_auth(PASSWORD);
    for (path, body, status) in [
        ("/account/password", json!({"new_password": "new"}), 401),
        (
            "/account/password",
            json!({"new_password": "new", "auth": wrong}),
            401,
        ),
        ("/account/password", json!({"auth": right}), 400),
        ("/account/deactivate", json!({}), 401),
        ("/account/deactivate", json!({"auth": wrong}), 401),
        ("/account/deactivate", json!([]), 400),
    ] {
        let reply = lab.post(path, body.clone()).await;
        assert_eq!(reply.status, status, "{path} {body}");
    }
    for path in ["/account/password", "/account/deactivate"] {
        let call = Call::post(format!("{C3}{path}"), json!({"auth": right}).to_string());
        lab.server
            .send(call)
            .await
            .assert_is(401, "M_MISSING_TOKEN");
    }
    assert_eq!(lab.status(&lab.tablet).await, 200);
    assert_eq!(lab.server.entries(&lab.phone).await.len(), 3);
    assert_eq!(lab.login(PASSWORD).await.status, 200);
}

#[tokio::test]
async fn a_deactivated_account_is_erased_and_stays_taken() {
    let lab = Lab::new().await;
    let body = json!({"auth": lab.phone.password_auth(PASSWORD)});
    let answer = lab.post("/account/deactivate", body).await.assert_ok();
    assert_eq!(answer, json!({"id_server_unbind_result": "no-support"}));
    for session in [&lab.phone, &lab.tablet] {
        assert_eq!(lab.status(session).await, 401);
    }
    assert!(lab.server.entries(&lab.phone).await.is_empty());
    lab.login(PASSWORD)
        .await
        .assert_is(403, "M_USER_DEACTIVATED");
    let profile = Call::get(format!("{C3}/profile/@alice:localhost"));
    lab.server.send(profile).await.assert_is(404, "M_NOT_FOUND");
    let available = Call::get(format!("{C3}/register/available?username=alice"));
    lab.server
        .send(available)
        .await
        .assert_is(400, "M_USER_IN_USE");
}
