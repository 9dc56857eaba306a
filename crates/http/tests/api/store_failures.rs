//! A store that fails, at every call that an endpoint makes: always a 5xx, and nothing leaks.

use std::collections::BTreeSet;

use kitbag_domain::StoreError;

use crate::endpoints::{every_call, refresh_call};
use crate::support::{Call, Reply, Server, poll_once};

/// What a driver could say about itself; clients must not see it.
const INSIDE: &str = "disk /dev/canary is on fire";

fn errors() -> [(StoreError, u16); 4] {
    let inside = INSIDE.to_owned();
    [
        (StoreError::Corrupt(inside.clone()), 500),
        (StoreError::OutcomeUnknown(inside.clone()), 503),
        (StoreError::Overloaded, 503),
        (StoreError::Unavailable(inside), 503),
    ]
}

/// Returns a fresh server and the call of this number, `None` behind the last one.
async fn fresh(number: usize) -> Option<(Server, Call)> {
    let server = Server::start();
    let alice = server.user("alice").await;
    server.device(&alice.user, "TABLET").await;
    let filter = server
        .send(Call::post(format!("{}/filter", alice.base()), "{}").by(&alice))
        .await;
    let filter = filter.json()["filter_id"].as_str().unwrap().to_owned();
    let mut calls = every_call(&alice, &filter);
    calls.push(refresh_call(&server, &alice).await);
    server.store.take_calls();
    let call = calls.into_iter().nth(number)?;
    Some((server, call))
}

#[track_caller]
fn assert_tells_nothing(reply: &Reply, status: u16, context: &str) {
    assert_eq!(reply.row(), (status, "M_UNKNOWN".to_owned()), "{context}");
    let expected = format!(
        "{{\"errcode\":\"M_UNKNOWN\",\"error\":\"internal error, request {}\"}}",
        reply.request_id()
    );
    assert_eq!(reply.text(), expected, "{context}");
    for (name, value) in &reply.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        assert!(!value.contains("canary"), "{context}: {name}: {value}");
    }
}

#[tokio::test]
async fn a_failing_store_is_a_5xx_without_a_word_about_the_inside() {
    let mut failed = BTreeSet::new();
    let mut number = 0;
    while let Some((server, call)) = fresh(number).await {
        let reply = server.send(call).await;
        assert!(
            matches!(reply.status, 200 | 404 | 405),
            "call {number} works on a healthy store: {reply:?}"
        );
        let methods = server.store.take_calls();
        for (at, method) in methods.iter().enumerate() {
            for (error, status) in errors() {
                let (server, call) = fresh(number).await.unwrap();
                let context = format!("{} {} at {method}: {error:?}", call.method, call.path);
                server.store.fail_after(at, error);
                let answer = server.send(call).await;
                assert_tells_nothing(&answer, status, &context);
                assert_eq!(server.store.take_calls(), methods[..=at], "{context}");
            }
        }
        failed.extend(methods);
        number += 1;
    }
    let expected = [
        "account",
        "accounts",
        "add_filter",
        "apply",
        "changes",
        "deactivate",
        "describe",
        "device",
        "device_changes",
        "device_entries",
        "devices_with_entries",
        "filter",
        "get",
        "get_in_session",
        "list",
        "live",
        "login",
        "profile",
        "refresh",
        "register",
        "remove_devices",
        "rename_device",
        "session",
        "set_password",
        "set_profile",
        "update",
    ];
    assert_eq!(
        failed,
        BTreeSet::from(expected),
        "all methods were failed but `touch`, and `devices` of servers without MSC4331 in devices"
    );
}

#[tokio::test(start_paused = true)]
async fn a_store_that_fails_under_a_waiting_sync_is_a_5xx() {
    for failing_call in [0, 1] {
        let server = Server::start();
        let alice = server.user("alice").await;
        let first = server
            .send(Call::get("/_matrix/client/v3/sync").by(&alice))
            .await;
        let since = first.json()["next_batch"].as_str().unwrap().to_owned();
        let path = format!("/_matrix/client/v3/sync?since={since}&timeout=30000");
        let mut waiting = Box::pin(server.send(Call::get(path).by(&alice)));
        assert!(poll_once(&mut waiting).is_pending());
        let put = Call::put(alice.global("app.test"), "{}").by(&alice);
        assert_eq!(server.send(put).await.status, 200);
        // First it looks whether the session lives, then it reads what changed.
        server
            .store
            .fail_after(failing_call, StoreError::Unavailable(INSIDE.to_owned()));
        let reply = waiting.await;
        assert_tells_nothing(&reply, 503, "a waiting sync");
        assert_eq!(server.store.take_calls().len(), failing_call + 1);
    }
}
