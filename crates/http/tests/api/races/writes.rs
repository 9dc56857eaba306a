//! A write that has its permit against the end of its device, over memory.

use serde_json::json;

use super::{Lab, answered, endings, go_on, login_call, session_of};
use crate::support::{Call, Reply, fed_body, poll_once};

const UNSTABLE: &str = "/unstable/org.matrix.msc3391/";

/// Writes by the phone: to its own entry and to the account's, puts and deletions.
fn writes(lab: &Lab) -> Vec<Call> {
    let (own, global) = (
        lab.alice.device_data("PHONE", "app.test"),
        lab.alice.global("app.test"),
    );
    let mut writes = Vec::new();
    for path in [own, global] {
        writes.push(Call::put(&path, "{\"n\":1}").by(&lab.alice));
        writes.push(Call::delete(path.replace("/v3/", UNSTABLE)).by(&lab.alice));
    }
    writes
}

/// The device is gone when the write comes to the store: it is told so, and nothing is written.
#[tokio::test(start_paused = true)]
async fn a_write_with_its_permit_does_not_outlive_its_device() {
    let lab = Lab::new().await;
    let (endings_count, writes_count) = (endings(&lab).len(), writes(&lab).len());
    for ending in 0..endings_count {
        for number in 0..writes_count {
            let lab = Lab::new().await;
            lab.put(&lab.alice, &lab.alice.global("app.test"), "{\"n\":0}")
                .await;
            let ending = endings(&lab).remove(ending);
            let write = writes(&lab).remove(number);
            let context = format!("{} {} at {}", write.method, write.path, ending.path);
            let is_deletion = write.method == "DELETE";
            let mut stop = lab.pausing.stop_before("apply");
            let mut begun = lab.begin(write);
            assert!(stop.is_reached(), "{context}");
            let (lives, ends_account) = (
                ending.path.ends_with("/login"),
                ending.path.ends_with("/deactivate"),
            );
            assert_eq!(lab.send(ending).await.status, 200, "{context}");
            let reply = answered(go_on(stop, &mut begun));
            let stored = lab.server.entries(&lab.tablet).await;
            if lives {
                assert_eq!(reply.status, 200, "{context}");
                continue;
            }
            reply.assert_is(401, "M_UNKNOWN_TOKEN");
            assert_eq!(reply.json()["soft_logout"], false, "{context}");
            let texts: Vec<_> = stored
                .iter()
                .map(|(_, content)| content.as_ref().unwrap().as_str())
                .collect();
            let expected: &[&str] = if ends_account { &[] } else { &["{\"n\":0}"] };
            assert_eq!(texts, expected, "{context} {is_deletion}");
        }
    }
}

/// The write came first, and its answer is still on the way when the device goes.
#[tokio::test(start_paused = true)]
async fn a_write_before_the_end_of_its_device_is_done_and_then_gone() {
    let lab = Lab::new().await;
    for number in 0..endings(&lab).len() {
        let lab = Lab::new().await;
        let since = lab.now().await;
        let ending = endings(&lab).remove(number);
        let context = ending.path.clone();
        let path = lab.alice.device_data("PHONE", "app.test");
        let mut stop = lab.pausing.stop_after("apply");
        let mut begun = lab.begin(Call::put(&path, "{\"n\":1}").by(&lab.alice));
        assert!(stop.is_reached(), "{context}");
        let seen = Call::get(&path).by(&lab.tablet);
        assert_eq!(lab.send(seen.clone()).await.status, 200, "{context}");
        assert_eq!(lab.send(ending).await.status, 200, "{context}");
        let reply = answered(go_on(stop, &mut begun));
        assert_eq!(reply.status, 200, "{context}: it was done");
        let seen = lab.send(seen).await;
        if context.ends_with("/deactivate") || context.ends_with("/all") {
            seen.assert_is(401, "M_UNKNOWN_TOKEN");
            assert_eq!(lab.server.entries(&lab.tablet).await, [], "{context}");
            continue;
        }
        let is_kept = context.ends_with("/login");
        assert_eq!(seen.status, if is_kept { 200 } else { 404 }, "{context}");
        let (told, _) = lab.told(&lab.tablet, &since).await;
        let told = &told["org.matrix.msc4331.device_account_data"]["PHONE"]["events"][0];
        let expected = if is_kept { json!({"n": 1}) } else { json!({}) };
        assert_eq!(told["content"], expected, "{context}: siblings are told");
    }
}

/// The device goes and comes back while its write is stopped: the write is that of the old one.
#[tokio::test(start_paused = true)]
async fn a_late_write_does_not_land_in_a_later_device_of_the_same_id() {
    let lab = Lab::new().await;
    let path = lab.alice.device_data("PHONE", "app.test");
    let mut stop = lab.pausing.stop_before("apply");
    let mut begun = lab.begin(Call::put(&path, "{\"n\":1}").by(&lab.alice));
    assert!(stop.is_reached());
    let logout = Call::post("/_matrix/client/v3/logout", "").by(&lab.alice);
    assert_eq!(lab.send(logout).await.status, 200);
    let login = lab.send(login_call("PHONE")).await.assert_ok();
    let newcomer = session_of(&lab.alice, "PHONE", &login);
    let reply = answered(go_on(stop, &mut begun));
    reply.assert_is(401, "M_UNKNOWN_TOKEN");
    let get = Call::get(&path).by(&newcomer);
    lab.send(get.clone()).await.assert_is(404, "M_NOT_FOUND");
    lab.put(&newcomer, &path, "{\"n\":2}").await;
    assert_eq!(lab.send(get).await.text(), "{\"n\":2}");
}

/// Also where the body is what it waits for: what was true when the permit was given is not asked.
#[tokio::test(start_paused = true)]
async fn a_device_may_go_while_the_body_of_its_write_is_read() {
    let lab = Lab::new().await;
    let path = lab.alice.device_data("PHONE", "app.test");
    let call = Call::put(&path, "").by(&lab.alice);
    let (body, feeder) = fed_body();
    let edge = lab.server.edge.clone();
    let mut answer = Box::pin(edge.answer(call.peer, call.request_with(body)));
    feeder.send("{\"n\"").unwrap();
    assert!(poll_once(&mut answer).is_pending());
    let logout = Call::post("/_matrix/client/v3/logout", "").by(&lab.alice);
    assert_eq!(lab.send(logout).await.status, 200);
    feeder.send(":1}").unwrap();
    drop(feeder);
    let reply = Reply::read(answer.await).await;
    reply.assert_is(401, "M_UNKNOWN_TOKEN");
    assert_eq!(lab.server.entries(&lab.tablet).await, []);
}
