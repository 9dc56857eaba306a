use kitbag_domain::{
    Allowance, Clock as _, Content, EntryStore as _, EventType, Expectation, Guard, Key, Limits,
    Op, Quota, Scope, Write, Writer, limit,
};
use serde_json::{Value, json};

use super::{Lab, V1, over_each_store};
use crate::support::{Call, PASSWORD, Reply};

const ALICE: &str = "/users/@alice:localhost";

/// Paths of an entry in each scope, below a user.
const PLACES: [&str; 3] = [
    "/account_data/app.test",
    "/rooms/!r:x/account_data/app.test",
    "/devices/PHONE/account_data/app.test",
];

impl Lab {
    async fn admin(&self, method: &str, path: &str, body: &str) -> Reply {
        let call = Call::new(method, format!("{V1}{path}")).admin();
        self.send(call.body(body.to_owned())).await
    }
}

#[tokio::test]
async fn what_one_side_puts_the_other_gets_byte_for_byte() {
    over_each_store(
        |_| {},
        async |lab| {
            for place in PLACES {
                let own = format!("{}{place}", lab.alice.base());
                let (first, second) = ("{\"a\":  1.0}", " {\"b\":[ ], \"b\":2} ");
                let put = Call::put(&own, first).by(&lab.alice);
                lab.send(put).await.assert_ok();
                let path = format!("{ALICE}{place}");
                assert_eq!(lab.admin("GET", &path, "").await.text(), first);
                assert_eq!(lab.admin("PUT", &path, second).await.text(), "{}");
                assert_eq!(lab.admin("GET", &path, "").await.text(), second.trim());
                let got = lab.send(Call::get(&own).by(&lab.alice)).await;
                assert_eq!(got.text(), second.trim(), "{place}");
                assert_eq!(lab.admin("DELETE", &path, "").await.text(), "{}");
                lab.admin("GET", &path, "")
                    .await
                    .assert_is(404, "M_NOT_FOUND");
                lab.send(Call::get(&own).by(&lab.alice))
                    .await
                    .assert_is(404, "M_NOT_FOUND");
                let again = lab.admin("DELETE", &path, "").await;
                assert_eq!(again.text(), "{}", "of what is not there too");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn an_empty_object_is_a_value_whatever_clients_may_mean_by_it() {
    let lab = Lab::with(|setup| setup.settings.features.msc3391.put_empty_deletes = true).await;
    let path = format!("{ALICE}/account_data/app.test");
    lab.admin("PUT", &path, "{}").await.assert_ok();
    assert_eq!(lab.admin("GET", &path, "").await.text(), "{}");
}

#[tokio::test]
async fn an_operators_write_wakes_the_users_sync() {
    let lab = Lab::new().await;
    let sync = |query: String| Call::get(format!("/_matrix/client/v3/sync{query}")).by(&lab.alice);
    let since = lab.send(sync(String::new())).await.assert_ok();
    let since = since["next_batch"].as_str().unwrap();
    let mut waiting = Box::pin(lab.send(sync(format!("?since={since}&timeout=30000"))));
    assert!(crate::support::poll_once(&mut waiting).is_pending());
    let path = format!("{ALICE}/account_data/app.test");
    lab.admin("PUT", &path, "{\"a\":1}").await.assert_ok();
    let told = waiting.await.assert_ok();
    assert_eq!(
        told["account_data"]["events"][0]["content"],
        json!({"a": 1})
    );
}

#[tokio::test]
async fn entries_are_listed_by_scope_with_their_writers_and_without_contents() {
    over_each_store(
        |_| {},
        async |lab| {
            let agent = "Element X";
            let put = Call::put(lab.alice.global("m.direct"), "{\"canary\":1}").by(&lab.alice);
            lab.send(put.header("user-agent", agent)).await.assert_ok();
            let room = Call::put(lab.alice.room("!r:x", "m.tag"), "{}").by(&lab.tablet);
            lab.send(room.header("user-agent", agent)).await.assert_ok();
            lab.tell(&lab.tablet, "app.test", "{}").await;
            let path = format!("{ALICE}/devices/PHONE/account_data/app.test");
            lab.admin("PUT", &path, "{}").await.assert_ok();
            let now = lab.server.clock.now_ms();
            let row = |scope: &str, event_type: &str, size_bytes: usize, writer: Value| {
                json!({
                    "scope": scope, "type": event_type, "size_bytes": size_bytes, "written_ts": now,
                    "writer": writer,
                })
            };
            let by =
                |device: &str| json!({"kind": "device", "device_id": device, "user_agent": agent});
            let global = row("global", "m.direct", 12 + 8, by("PHONE"));
            let mut room = row("room", "m.tag", 2 + 5 + 4, by("TABLET"));
            room["room_id"] = "!r:x".into();
            let mut phone = row("device", "app.test", 2 + 8 + 5, json!({"kind": "admin"}));
            phone["device_id"] = "PHONE".into();
            let writer = json!({"kind": "device", "device_id": "TABLET"});
            let mut tablet = row("device", "app.test", 2 + 8 + 6, writer);
            tablet["device_id"] = "TABLET".into();
            let rows = [
                ("", vec![&global, &room, &phone, &tablet]),
                ("?scope=global", vec![&global]),
                ("?scope=rooms", vec![&room]),
                ("?scope=devices", vec![&phone, &tablet]),
                ("?room_id=!r:x", vec![&room]),
                ("?room_id=!r:x&scope=rooms", vec![&room]),
                ("?room_id=!s:x", vec![]),
                ("?device_id=TABLET", vec![&tablet]),
                ("?device_id=TABLET&scope=devices", vec![&tablet]),
            ];
            for (query, expected) in rows {
                let told = lab.get(&format!("{ALICE}/account_data{query}")).await;
                assert_eq!(told, json!({"entries": expected}), "{query}");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn push_rules_are_those_that_the_user_gets_and_nobodys_to_write() {
    over_each_store(
        |_| {},
        async |lab| {
            let path = format!("{ALICE}/account_data/m.push_rules");
            let told = lab.admin("GET", &path, "").await;
            let own = lab.send(Call::get(lab.alice.global("m.push_rules")).by(&lab.alice));
            assert_eq!(told.text(), own.await.text());
            for (place, method) in PLACES.into_iter().zip(["PUT", "DELETE", "PUT"]) {
                let path = format!("{ALICE}{}", place.replace("app.test", "m.fully_read"));
                let reply = lab.admin(method, &path, "{}").await;
                reply.assert_is(405, "M_BAD_JSON");
            }
            for method in ["PUT", "DELETE"] {
                let reply = lab.admin(method, &path, "{}").await;
                reply.assert_is(405, "M_BAD_JSON");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn limits_quota_and_expectations_hold_for_the_operator_too() {
    let small = Limits {
        content_bytes_max: 200,
        device_content_bytes_max: 100,
        quota: Quota {
            bytes_max: 300,
            reserve_bytes: 0,
            ..Quota::default()
        },
        ..Limits::default()
    };
    over_each_store(
        |setup| setup.limits = small.clone(),
        async |lab| {
            let global = format!("{ALICE}{}", PLACES[0]);
            let device = format!("{ALICE}{}", PLACES[2]);
            let content = |bytes: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(bytes - 8));
            lab.admin("PUT", &device, &content(101))
                .await
                .assert_is(413, "M_TOO_LARGE");
            lab.admin("PUT", &device, &content(100)).await.assert_ok();
            lab.admin("PUT", &global, &content(201))
                .await
                .assert_is(413, "M_TOO_LARGE");
            lab.admin("PUT", &global, &content(200))
                .await
                .assert_is(403, "M_USER_LIMIT_EXCEEDED");
            for (body, row) in [
                ("{", "M_NOT_JSON"),
                ("", "M_NOT_JSON"),
                ("[]", "M_BAD_JSON"),
            ] {
                lab.admin("PUT", &global, body).await.assert_is(400, row);
            }
            let first = "{\"m.revision_id\":\"1\",\"com.beeper.revision_id\":\"1\"}";
            let expect = format!("{global}?expect_revision_id=");
            lab.admin("PUT", &expect, first).await.assert_ok();
            let conflict = lab.admin("PUT", &expect, "{\"m.revision_id\":\"2\"}").await;
            conflict.assert_is(409, "M_REVISION_ID_MISMATCH");
            assert_eq!(
                conflict.json()["current_content"],
                serde_json::from_str::<Value>(first).unwrap()
            );
            let expect = format!("{global}?com.beeper.expect_revision_id=7");
            let conflict = lab.admin("PUT", &expect, "{}").await;
            conflict.assert_is(409, "COM.BEEPER.REVISION_ID_MISMATCH");
            let expect = format!("{global}?expect_revision_id=1");
            lab.admin("PUT", &expect, "{}").await.assert_ok();
            let ignored = format!("{ALICE}/account_data/m.ignored_user_list");
            let own = "{\"ignored_users\":{\"@alice:localhost\":{}}}";
            lab.admin("PUT", &ignored, own)
                .await
                .assert_is(400, "M_INVALID_PARAM");
        },
    )
    .await;
}

#[tokio::test]
async fn a_list_is_whole_however_long_and_reads_no_contents() {
    let lab = Lab::new().await;
    let count = limit::DESCRIPTIONS_AT_ONCE_MAX + 3;
    let put = |number| {
        let event_type = EventType::parse(format!("app.{number:05}")).unwrap();
        let content = Content::parse("{}".into(), &Limits::default()).unwrap();
        let key = Key::new(Scope::Global, event_type);
        Op::Put(key, content, Expectation::default())
    };
    let write = Write {
        guard: Guard::Account,
        writer: Writer::Admin,
        at: 1,
        allowance: Allowance::Ordinary,
    };
    let memory = lab.server.store.memory();
    let puts = memory.apply(&lab.alice.user, write, (0..count).map(put).collect());
    puts.await.unwrap();
    lab.server.store.take_calls();
    let list = lab.get(&format!("{ALICE}/account_data")).await;
    let types = list["entries"].as_array().unwrap().iter();
    let types: Vec<&str> = types.map(|row| row["type"].as_str().unwrap()).collect();
    let expected: Vec<String> = (0..count)
        .map(|number| format!("app.{number:05}"))
        .collect();
    assert_eq!(types, expected);
    let calls = lab.server.store.take_calls();
    assert_eq!(calls, ["account", "describe", "describe"]);
}

#[tokio::test]
async fn of_who_is_not_there_nothing_is() {
    over_each_store(
        |_| {},
        async |lab| {
            let auth = json!({"auth": lab.bob.password_auth(PASSWORD)});
            let path = "/_matrix/client/v3/account/deactivate";
            let end = Call::post(path, auth.to_string()).by(&lab.bob);
            lab.send(end).await.assert_ok();
            let mut paths = vec!["/users/@alice:localhost/account_data?device_id=GONE".to_owned()];
            for user in [
                "@bob:localhost",
                "@nobody:localhost",
                "@alice:elsewhere.example",
            ] {
                paths.push(format!("/users/{user}/account_data"));
                let places = PLACES.map(|place| format!("/users/{user}{place}"));
                paths.extend(places);
                paths.push(format!("/users/{user}/account_data/m.push_rules"));
            }
            for event_type in ["app.test", "m.push_rules"] {
                paths.push(format!("{ALICE}/devices/GONE/account_data/{event_type}"));
            }
            for path in paths {
                let methods: &[&str] = match path.contains("account_data/") {
                    true => &["GET", "PUT", "DELETE"],
                    false => &["GET"],
                };
                for method in methods {
                    let reply = lab.admin(method, &path, "{}").await;
                    assert_eq!(
                        reply.row(),
                        (404, "M_NOT_FOUND".to_owned()),
                        "{method} {path}"
                    );
                }
            }
        },
    )
    .await;
}

#[tokio::test]
async fn wrong_lists_are_400() {
    let lab = Lab::new().await;
    for query in [
        "scope=account",
        "room_id=r",
        "room_id=!r:x&device_id=PHONE",
        "scope=global&room_id=!r:x",
        "scope=devices&room_id=!r:x",
        "scope=rooms&device_id=PHONE",
    ] {
        let path = format!("{ALICE}/account_data?{query}");
        let row = lab.admin("GET", &path, "").await.row();
        assert_eq!(row, (400, "M_INVALID_PARAM".to_owned()), "{query}");
    }
    let reply = lab.admin("GET", "/users/alice/account_data", "").await;
    reply.assert_is(400, "M_INVALID_PARAM");
}
