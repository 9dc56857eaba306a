//! What the edge does for every endpoint alike.

use crate::support::{Call, Server};

const C3: &str = "/_matrix/client/v3";

/// Its connection lives, and the answer tells nothing of the inside.
#[tokio::test]
async fn a_handler_that_panics_is_a_500() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let get = Call::get(alice.global("app.test")).by(&alice);
    server
        .store
        .before("get_in_session", |_| panic!("a word of the inside"));
    let reply = server.send(get.clone()).await;
    reply.assert_is(500, "M_UNKNOWN");
    assert!(!reply.text().contains("inside"), "{reply:?}");
    server.send(get).await.assert_is(404, "M_NOT_FOUND");
}

#[tokio::test]
async fn json_that_is_no_account_data_has_a_limit_of_its_own() {
    let server = Server::start();
    let alice = server.user("alice").await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(64 * 1024));
    for call in [
        Call::post(format!("{C3}/login"), large.clone()),
        Call::post(format!("{C3}/delete_devices"), large.clone()).by(&alice),
        Call::post(format!("{C3}/user/{}/filter", alice.user), large).by(&alice),
    ] {
        let path = call.path.clone();
        let reply = server.send(call).await;
        assert_eq!(reply.status, 413, "{path}: {reply:?}");
    }
}
