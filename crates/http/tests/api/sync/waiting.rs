use std::task::Poll;
use std::time::Duration;

use kitbag_domain::{AccountStore as _, Allowance, Guard, Write, Writer};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Lab, check_shape, event, global, next_batch};
use crate::support::{Call, PASSWORD, Reply, poll_once};

const LONG: &str = "timeout=30000";

#[track_caller]
fn done<T>(poll: Poll<T>) -> T {
    match poll {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it still waits"),
    }
}

#[tokio::test(start_paused = true)]
async fn with_nothing_to_tell_it_waits_for_its_time_and_answers_in_the_same_shape() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let started = Instant::now();
    let quick = lab.server.send(lab.sync(&format!("since={since}"))).await;
    assert_eq!(started.elapsed(), Duration::ZERO, "no timeout is none");
    let slow = lab
        .server
        .send(lab.sync(&format!("since={since}&{LONG}")))
        .await;
    assert_eq!(started.elapsed().as_millis(), 30_000);
    assert_eq!(check_shape(&quick), check_shape(&slow));
    assert_eq!(quick.text(), slow.text(), "also the same token");
    assert_eq!(next_batch(&slow.json()), since);
}

#[tokio::test(start_paused = true)]
async fn an_initial_sync_does_not_wait() {
    let lab = Lab::new().await;
    let started = Instant::now();
    let filter = "filter=%7B%22account_data%22%3A%7B%22types%22%3A%5B%5D%7D%7D";
    for query in [LONG.to_owned(), format!("{LONG}&{filter}")] {
        check_shape(&lab.server.send(lab.sync(&query)).await);
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn its_time_is_capped() {
    let lab = Lab::with(|setup| setup.settings.sync.timeout_ms_max = 1_000).await;
    let since = lab.now().await;
    for timeout in [1_001, u64::MAX] {
        let started = Instant::now();
        lab.told(&format!("since={since}&timeout={timeout}")).await;
        assert_eq!(started.elapsed().as_millis(), 1_000, "{timeout}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_change_ends_the_waiting_of_all_devices() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let query = format!("since={since}&{LONG}");
    let mut own = Box::pin(lab.server.send(lab.sync(&query)));
    let mut others = Box::pin(lab.server.send(lab.sync(&query).by(&lab.tablet)));
    assert!(poll_once(&mut own).is_pending());
    assert!(poll_once(&mut others).is_pending());
    lab.put(&lab.alice, &lab.alice.global("app.test"), "{\"n\":1}")
        .await;
    let started = Instant::now();
    for waiting in [&mut own, &mut others] {
        let reply = done(poll_once(waiting));
        assert_eq!(
            global(&reply.assert_ok()),
            [event("app.test", json!({"n": 1}))]
        );
        assert_ne!(next_batch(&reply.json()), since);
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_change_that_the_filter_drops_does_not_end_it_but_is_passed() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let filter = "filter=%7B%22account_data%22:%7B%22not_types%22:%5B%22app.%2A%22%5D%7D%7D";
    let query = format!("since={since}&{filter}&{LONG}");
    let mut waiting = Box::pin(lab.server.send(lab.sync(&query)));
    assert!(poll_once(&mut waiting).is_pending());
    for n in ["{\"n\":1}", "{\"n\":2}"] {
        lab.put(&lab.alice, &lab.alice.global("app.test"), n).await;
        assert!(poll_once(&mut waiting).is_pending(), "{n}");
    }
    let reply = waiting.await.assert_ok();
    assert_eq!(global(&reply), []);
    let next = next_batch(&reply);
    assert_ne!(next, since, "what was dropped is behind the client");
    assert_eq!(global(&lab.told(&format!("since={next}")).await), []);

    let mut waiting = Box::pin(lab.server.send(lab.sync(&query)));
    assert!(poll_once(&mut waiting).is_pending());
    lab.put(&lab.alice, &lab.alice.global("m.direct"), "{}")
        .await;
    let reply = done(poll_once(&mut waiting)).assert_ok();
    assert_eq!(global(&reply), [event("m.direct", json!({}))]);
}

#[tokio::test(start_paused = true)]
async fn room_entries_of_rooms_out_of_view_do_not_end_it() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let mut waiting = Box::pin(lab.server.send(lab.sync(&format!("since={since}&{LONG}"))));
    assert!(poll_once(&mut waiting).is_pending());
    lab.put(&lab.alice, &lab.alice.room("!r", "m.tag"), "{}")
        .await;
    assert!(poll_once(&mut waiting).is_pending());
}

/// Law 3: it is not even woken.
#[tokio::test(start_paused = true)]
async fn changes_of_others_do_not_wake_it() {
    let lab = Lab::new().await;
    let bob = lab.server.user("bob").await;
    let since = lab.now().await;
    let mut waiting = Box::pin(lab.server.send(lab.sync(&format!("since={since}&{LONG}"))));
    assert!(poll_once(&mut waiting).is_pending());
    lab.put(&bob, &bob.global("app.test"), "{\"n\":1}").await;
    lab.server.store.take_calls();
    assert!(poll_once(&mut waiting).is_pending());
    assert!(lab.server.store.take_calls().is_empty(), "it did not look");
}

#[tokio::test(start_paused = true)]
async fn when_the_server_stops_it_answers_at_once() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let query = format!("since={since}&{LONG}");
    let mut waiting = Box::pin(lab.server.send(lab.sync(&query)));
    assert!(poll_once(&mut waiting).is_pending());
    lab.server.stop.send_replace(true);
    check_shape(&done(poll_once(&mut waiting)));
    let started = Instant::now();
    check_shape(&lab.server.send(lab.sync(&query)).await);
    assert_eq!(started.elapsed(), Duration::ZERO, "new ones too");
}

#[tokio::test(start_paused = true)]
async fn full_state_answers_at_once() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let started = Instant::now();
    let query = format!("since={since}&full_state=true&{LONG}");
    assert_eq!(global(&lab.told(&query).await)[0].0, "m.push_rules");
    assert_eq!(started.elapsed(), Duration::ZERO);
}

/// Ways in which the session of a waiting sync can end.
fn endings(lab: &Lab) -> Vec<Call> {
    let c3 = "/_matrix/client/v3";
    let auth = lab.tablet.password_auth(PASSWORD);
    let body = json!({"auth": auth, "new_password": "x"}).to_string();
    let delete = json!({"auth": auth, "devices": ["PHONE"]}).to_string();
    let login = json!({
        "type": "m.login.password", "user": "alice", "password": PASSWORD, "device_id": "PHONE",
    });
    vec![
        Call::post(format!("{c3}/logout"), "").by(&lab.alice),
        Call::post(format!("{c3}/logout/all"), "").by(&lab.tablet),
        Call::post(format!("{c3}/account/password"), body.clone()).by(&lab.tablet),
        Call::post(format!("{c3}/account/deactivate"), body).by(&lab.tablet),
        Call::post(format!("{c3}/delete_devices"), delete.clone()).by(&lab.tablet),
        Call::delete(format!("{c3}/devices/PHONE"))
            .body(delete)
            .by(&lab.tablet),
        Call::post(format!("{c3}/login"), login.to_string()),
    ]
}

#[tokio::test(start_paused = true)]
async fn it_ends_with_its_session() {
    let count = endings(&Lab::new().await).len();
    for number in 0..count {
        let lab = Lab::new().await;
        let call = endings(&lab).remove(number);
        let context = format!("{} {}", call.method, call.path);
        let since = lab.now().await;
        let mut waiting = Box::pin(lab.server.send(lab.sync(&format!("since={since}&{LONG}"))));
        assert!(poll_once(&mut waiting).is_pending(), "{context}");
        assert_eq!(lab.server.send(call).await.status, 200, "{context}");
        let reply: Reply = done(poll_once(&mut waiting));
        if context.ends_with("/login") {
            // The device lives: its owner is to ask again, with the new token.
            assert_eq!(reply.assert_ok()["account_data"]["events"], json!([]));
            continue;
        }
        reply.assert_is(401, "M_UNKNOWN_TOKEN");
        assert_eq!(reply.json()["soft_logout"], false, "{context}");
    }
}

/// A removed device of the same user is no reason to end, unless there is something to tell.
#[tokio::test(start_paused = true)]
async fn it_outlives_the_sessions_of_others() {
    for with_entry in [false, true] {
        let lab = Lab::new().await;
        if with_entry {
            let path = lab.alice.device_data("TABLET", "app.test");
            lab.put(&lab.tablet, &path, "{\"n\":1}").await;
        }
        let since = lab.now().await;
        let mut waiting = Box::pin(lab.server.send(lab.sync(&format!("since={since}&{LONG}"))));
        assert!(poll_once(&mut waiting).is_pending());
        let logout = Call::post("/_matrix/client/v3/logout", "").by(&lab.tablet);
        assert_eq!(lab.server.send(logout).await.status, 200);
        let polled = poll_once(&mut waiting);
        assert_eq!(polled.is_ready(), with_entry);
        if let Poll::Ready(reply) = polled {
            let tombstones = &reply.assert_ok()[super::DEVICE_DATA]["TABLET"];
            assert_eq!(super::events(tombstones), [event("app.test", json!({}))]);
        }
    }
}

/// The change falls between the reading and the waiting, which is why it subscribes first.
#[tokio::test(start_paused = true)]
async fn a_change_right_before_the_waiting_is_not_lost() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let user = lab.alice.user.clone();
    lab.server.store.before("changes", move |store| {
        let write = Write {
            guard: Guard::Account,
            writer: Writer::Server,
            at: 0,
            allowance: Allowance::Ordinary,
        };
        let name = Some("OTHER".to_owned()).map(|name| vec![kitbag_domain::DeviceId::parse(name)]);
        let devices = name.into_iter().flatten().map(Result::unwrap).collect();
        let selection = kitbag_domain::DeviceSelection::These(devices);
        crate::support::ready(store.remove_devices(&user, write, selection)).unwrap();
    });
    lab.server.store.take_calls();
    let mut waiting = Box::pin(lab.server.send(lab.sync(&format!("since={since}&{LONG}"))));
    assert!(poll_once(&mut waiting).is_pending());
    assert!(
        lab.server
            .store
            .take_calls()
            .iter()
            .filter(|call| **call == "changes")
            .count()
            >= 2,
        "it looked again"
    );
}

/// A client that refreshes its tokens is not logged out by the sync that began with the old one.
#[tokio::test(start_paused = true)]
async fn it_outlives_a_refresh() {
    let lab = Lab::new().await;
    let login = json!({
        "type": "m.login.password", "user": "alice", "password": PASSWORD, "refresh_token": true,
        "device_id": "FRESH",
    });
    let c3 = "/_matrix/client/v3";
    let old = Call::post(format!("{c3}/login"), login.to_string());
    let old = lab.server.send(old).await.assert_ok();
    let bearer = |tokens: &Value| format!("Bearer {}", tokens["access_token"].as_str().unwrap());
    let since = lab.now().await;
    let path = format!("{c3}/sync?since={since}&{LONG}");
    let sync = Call::get(path).header("authorization", bearer(&old));
    let mut waiting = Box::pin(lab.server.send(sync));
    assert!(poll_once(&mut waiting).is_pending());
    let refresh = json!({"refresh_token": old["refresh_token"]}).to_string();
    let new = Call::post(format!("{c3}/refresh"), refresh);
    let new = lab.server.send(new).await.assert_ok();
    let put = Call::put(lab.alice.global("org.example.a"), "{}");
    let put = put.header("authorization", bearer(&new));
    assert_eq!(lab.server.send(put).await.status, 200);
    let reply: Reply = done(poll_once(&mut waiting));
    let told = reply.assert_ok();
    assert_eq!(told["next_batch"], since, "the old token sees nothing more");
}
