use serde_json::{Value, json};

use super::{DEVICE_DATA, Lab, check_shape, event, events, global, next_batch};
use crate::support::Call;

#[tokio::test]
async fn an_initial_sync_has_the_rules_and_everything_live() {
    let lab = Lab::new().await;
    let alice = &lab.alice;
    lab.put(alice, &alice.global("a"), "{ \"n\": 1.50 }").await;
    lab.put(alice, &alice.global("b"), "{}").await;
    lab.delete(alice, &alice.global("b")).await;
    let reply = lab.server.send(lab.sync("")).await;
    check_shape(&reply);
    let told = global(&reply.json());
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].0, "m.push_rules");
    assert_eq!(told[1], event("a", json!({"n": 1.5})));
    assert!(
        reply.text().contains("{ \"n\": 1.50 }"),
        "verbatim: {}",
        reply.text()
    );
}

#[tokio::test]
async fn full_state_tells_everything_and_the_deletions_since() {
    let lab = Lab::new().await;
    let alice = &lab.alice;
    for event_type in ["kept", "deleted", "remade"] {
        lab.put(alice, &alice.global(event_type), "{\"n\":1}").await;
    }
    let since = lab.now().await;
    for event_type in ["deleted", "remade"] {
        lab.delete(alice, &alice.global(event_type)).await;
    }
    lab.put(alice, &alice.global("remade"), "{\"n\":2}").await;
    let full = lab.told(&format!("since={since}&full_state=true")).await;
    let mut told = global(&full);
    told.retain(|(event_type, _)| event_type != "m.push_rules");
    told.sort_by(|(a, _), (b, _)| a.cmp(b));
    let expected = [
        event("deleted", json!({})),
        event("kept", json!({"n": 1})),
        event("remade", json!({"n": 2})),
    ];
    assert_eq!(told, expected);
    let next = next_batch(&full);
    assert_eq!(global(&lab.told(&format!("since={next}")).await), []);
    let afresh = lab.told("full_state=true").await;
    assert!(
        global(&afresh)
            .iter()
            .all(|(event_type, _)| event_type != "deleted")
    );
}

#[tokio::test(start_paused = true)]
async fn new_default_rules_are_announced_once() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let newer = lab
        .server
        .restart_with(|setup| setup.settings.compat.legacy_mention_rules = true);
    let started = tokio::time::Instant::now();
    let query = format!("since={since}&timeout=30000");
    let told = newer.send(lab.sync(&query)).await.assert_ok();
    assert_eq!(started.elapsed().as_millis(), 0, "it is news");
    let rules = Call::get("/_matrix/client/v3/pushrules/").by(&lab.alice);
    let rules = newer.send(rules).await.json();
    assert_eq!(rules["global"]["content"][0]["pattern"], "alice");
    assert_eq!(global(&told), [event("m.push_rules", rules)]);
    let next = next_batch(&told);
    let again = newer
        .send(lab.sync(&format!("since={next}")))
        .await
        .assert_ok();
    assert_eq!(global(&again), []);
}

#[tokio::test]
async fn new_default_rules_are_not_announced_to_a_filter_without_them() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let newer = lab
        .server
        .restart_with(|setup| setup.settings.compat.legacy_mention_rules = true);
    let filter = "filter=%7B%22account_data%22:%7B%22types%22:%5B%22a%22%5D%7D%7D";
    let told = newer
        .send(lab.sync(&format!("since={since}&{filter}")))
        .await
        .assert_ok();
    assert_eq!(global(&told), []);
}

#[tokio::test]
async fn device_data_have_a_place_of_their_own_where_there_are_any() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let incremental = format!("since={since}");
    assert_eq!(lab.told("").await.get(DEVICE_DATA), None);
    let path = lab.alice.device_data("TABLET", "app.test");
    lab.put(&lab.tablet, &path, "{\"n\":1}").await;
    for query in ["", &incremental] {
        let told = lab.told(query).await;
        let tablet = &told[DEVICE_DATA]["TABLET"];
        assert_eq!(
            events(tablet),
            [event("app.test", json!({"n": 1}))],
            "{query}"
        );
        assert_eq!(told[DEVICE_DATA].as_object().unwrap().len(), 1, "{query}");
        let in_global = global(&told)
            .iter()
            .any(|(event_type, _)| event_type == "app.test");
        assert!(!in_global, "never among the account's");
    }
    lab.delete(&lab.tablet, &path).await;
    assert_eq!(lab.told("").await.get(DEVICE_DATA), None);
    let tablet = &lab.told(&incremental).await[DEVICE_DATA]["TABLET"];
    assert_eq!(events(tablet), [event("app.test", json!({}))]);
    let none = "filter=%7B%22account_data%22:%7B%22types%22:%5B%5D%7D%7D";
    let filtered = lab.told(&format!("{incremental}&{none}")).await;
    assert_eq!(filtered.get(DEVICE_DATA), None, "subject to the filter");
}

#[tokio::test(start_paused = true)]
async fn device_data_are_not_told_where_that_is_switched_off() {
    let lab = Lab::with(|setup| setup.settings.features.msc4331.in_sync = false).await;
    let since = lab.now().await;
    let started = tokio::time::Instant::now();
    let path = lab.alice.device_data("PHONE", "app.test");
    lab.put(&lab.alice, &path, "{\"n\":1}").await;
    assert_eq!(lab.told("").await.get(DEVICE_DATA), None);
    let told = lab.told(&format!("since={since}&timeout=30000")).await;
    assert_eq!(told.get(DEVICE_DATA), None);
    assert_eq!(started.elapsed().as_millis(), 30_000, "nothing to tell");
    let get = Call::get(&path).by(&lab.alice);
    assert_eq!(lab.server.send(get).await.text(), "{\"n\":1}");
}

#[tokio::test]
async fn device_objects_carry_their_data_unless_switched_off() {
    for in_devices in [true, false] {
        let lab = Lab::with(|setup| setup.settings.features.msc4331.in_devices = in_devices).await;
        let path = lab.alice.device_data("PHONE", "app.test");
        lab.put(&lab.alice, &path, "{\"n\":1}").await;
        let c3 = "/_matrix/client/v3";
        let get = |path: &str| Call::get(format!("{c3}{path}")).by(&lab.tablet);
        let one = lab.server.send(get("/devices/PHONE")).await.assert_ok();
        let all = lab.server.send(get("/devices")).await.assert_ok();
        let own = json!({"events": [{"type": "app.test", "content": {"n": 1}}]});
        let expected = if in_devices { own } else { Value::Null };
        assert_eq!(one["account_data"], expected);
        assert_eq!(all["devices"][0]["account_data"], expected);
        assert_eq!(all["devices"][1]["device_id"], "TABLET");
        assert_eq!(all["devices"][1].get("account_data"), None, "it has none");
    }
}

#[tokio::test]
async fn the_stable_path_of_device_data_can_be_switched_off() {
    let lab = Lab::with(|setup| setup.settings.features.msc4331.stable_path = false).await;
    let stable = lab.alice.device_data("PHONE", "app.test");
    let unstable = stable.replace("/account_data/", "/net.zemos.account_data/");
    lab.put(&lab.alice, &unstable, "{\"n\":1}").await;
    for call in [
        Call::get(&stable),
        Call::put(&stable, "{}"),
        Call::delete(&stable),
    ] {
        let reply = lab.server.send(call.by(&lab.alice)).await;
        reply.assert_is(404, "M_UNRECOGNIZED");
    }
    let protected = unstable.replace("app.test", "m.push_rules");
    let put = Call::put(protected, "{}").by(&lab.alice);
    lab.server.send(put).await.assert_is(405, "M_BAD_JSON");
}

/// A token of somebody else, or of another time, is as good as none.
#[tokio::test]
async fn foreign_tokens_are_answered_as_an_initial_sync() {
    let lab = Lab::new().await;
    let bob = lab.server.user("bob").await;
    lab.put(&lab.alice, &lab.alice.global("a"), "{\"n\":1}")
        .await;
    for n in 0..5 {
        lab.put(&bob, &bob.global(&format!("b{n}")), "{}").await;
    }
    let sync = Call::get("/_matrix/client/v3/sync").by(&bob);
    let foreign = next_batch(&lab.server.send(sync).await.assert_ok());
    let told = lab.told(&format!("since={foreign}")).await;
    let types: Vec<String> = global(&told)
        .into_iter()
        .map(|(event_type, _)| event_type)
        .collect();
    assert_eq!(
        types,
        ["m.push_rules", "a"],
        "all of alice's, nothing of bob's"
    );
}
