use serde_json::{Value, json};

use super::{Lab, V1, over_each_store, over_each_store_with_large_contents};
use crate::support::Call;

const BASE: &str = "/device_account_data";

impl Lab {
    /// Returns `user device` of all pages from the first, and how many pages there are.
    async fn pages(&self, list: &str, path: &str) -> (Vec<String>, usize) {
        let (mut all, mut pages) = (Vec::new(), 0);
        let mut from = String::new();
        loop {
            let page = self.get(&format!("{path}{from}")).await;
            all.extend(page[list].as_array().unwrap().iter().map(place));
            pages += 1;
            match page["next_batch"].as_str() {
                Some(next) => from = format!("&from={next}"),
                None => return (all, pages),
            }
        }
    }
}

fn place(row: &Value) -> String {
    let text = |name| row[name].as_str().unwrap();
    format!("{} {}", text("user_id"), text("device_id"))
}

const ALL: [&str; 3] = [
    "@alice:localhost PHONE",
    "@alice:localhost TABLET",
    "@bob:localhost PHONE",
];

#[tokio::test]
async fn all_devices_that_have_a_type_are_told_with_what_they_say() {
    over_each_store(
        |_| {},
        async |lab| {
            let content = "{\"versions\":  [\"11\"]}";
            lab.tell(&lab.tablet, "app.rooms", content).await;
            lab.tell(&lab.bob, "app.rooms", "{}").await;
            lab.tell(&lab.bob, "app.other", "{}").await;
            let name = Call::put(
                "/_matrix/client/v3/devices/TABLET",
                "{\"display_name\":\"Alice's tablet\"}",
            );
            lab.send(name.by(&lab.tablet)).await.assert_ok();
            let call = Call::get(format!("{V1}{BASE}?type=app.rooms")).admin();
            let reply = lab.send(call).await;
            let told = reply.assert_ok();
            assert!(reply.text().contains(content), "verbatim: {}", reply.text());
            let written = told["entries"][0]["written_ts"].clone();
            assert!(written.is_u64());
            let expected = json!({"entries": [
                {
                    "user_id": "@alice:localhost", "device_id": "TABLET",
                    "display_name": "Alice's tablet", "type": "app.rooms",
                    "content": {"versions": ["11"]},
                    "size_bytes": content.len() + "app.rooms".len() + "TABLET".len(),
                    "written_ts": written,
                },
                {
                    "user_id": "@bob:localhost", "device_id": "PHONE", "type": "app.rooms",
                    "content": {}, "size_bytes": 2 + 9 + 5, "written_ts": written,
                },
            ]});
            assert_eq!(told, expected);
            assert_eq!(
                lab.get(&format!("{BASE}?type=app.none")).await,
                json!({"entries": []})
            );
        },
    )
    .await;
}

#[tokio::test]
async fn pages_of_devices_have_each_once() {
    over_each_store(
        |_| {},
        async |lab| {
            for session in [&lab.alice, &lab.tablet, &lab.bob] {
                lab.tell(session, "app.test", "{}").await;
            }
            for (limit, pages) in [(1, 4), (2, 2), (3, 2), (4, 1), (5_000, 1)] {
                for (list, path) in [
                    ("entries", format!("{BASE}?type=app.test&limit={limit}")),
                    (
                        "devices",
                        format!("{BASE}/lacking?type=app.test&pointer=/a&lacks=1&limit={limit}"),
                    ),
                ] {
                    assert_eq!(
                        lab.pages(list, &path).await,
                        (ALL.map(str::to_owned).into(), pages),
                        "{path}"
                    );
                }
            }
        },
    )
    .await;
}

#[tokio::test]
async fn a_page_ends_before_its_contents_are_too_many_bytes() {
    over_each_store_with_large_contents(async |lab| {
        let path = format!("{BASE}?type=app.test");
        assert_eq!(
            lab.pages("entries", &path).await,
            (ALL.map(str::to_owned).into(), 2)
        );
    })
    .await;
}

#[tokio::test]
async fn values_are_counted_and_who_lacks_one_is_named() {
    over_each_store(
        |_| {},
        async |lab| {
            lab.tell(
                &lab.alice,
                "app.rooms",
                "{\"versions\":[\"11\",\"12\"],\"n\":1}",
            )
            .await;
            lab.tell(&lab.tablet, "app.rooms", "{\"versions\":[\"11\"],\"n\":1}")
                .await;
            lab.tell(&lab.bob, "app.rooms", "{\"n\":2}").await;
            // Says nothing of this type, so nobody knows whether it lacks anything.
            let silent = lab.server.device(&lab.bob.user, "SILENT").await;
            lab.tell(&silent, "app.other", "{\"versions\":[]}").await;
            let name = Call::put(
                "/_matrix/client/v3/devices/PHONE",
                "{\"display_name\":\"Bob\"}",
            );
            lab.send(name.by(&lab.bob)).await.assert_ok();
            let told = lab
                .get(&format!("{BASE}/summary?type=app.rooms&pointer=/n"))
                .await;
            let expected = json!({
                "type": "app.rooms", "pointer": "/n", "devices": 3,
                "values": [{"value": 1, "devices": 2}, {"value": 2, "devices": 1}],
                "others": 0, "absent": 0,
            });
            assert_eq!(told, expected);
            let told = lab
                .get(&format!("{BASE}/summary?type=app.rooms&pointer=/versions"))
                .await;
            assert_eq!((&told["absent"], &told["devices"]), (&json!(1), &json!(3)));
            let path = format!("{BASE}/lacking?type=app.rooms&pointer=/versions&lacks=%2212%22");
            let expected = json!({"devices": [
                {"user_id": "@alice:localhost", "device_id": "TABLET"},
                {"user_id": "@bob:localhost", "device_id": "PHONE", "display_name": "Bob"},
            ]});
            assert_eq!(lab.get(&path).await, expected);
        },
    )
    .await;
}

#[tokio::test]
async fn wrong_questions_about_devices_are_400() {
    let lab = Lab::new().await;
    let rows = [
        ("", "M_MISSING_PARAM"),
        ("?type=", "M_INVALID_PARAM"),
        ("?type=a&limit=0", "M_INVALID_PARAM"),
        ("?type=a&from=x", "M_INVALID_PARAM"),
        ("?type=a&from=QGFsaWNlOng", "M_INVALID_PARAM"), // a user without a device
        ("/summary?type=a", "M_MISSING_PARAM"),
        ("/summary?pointer=/a", "M_MISSING_PARAM"),
        ("/summary?type=a&pointer=a", "M_INVALID_PARAM"),
        ("/lacking?type=a&pointer=/a", "M_MISSING_PARAM"),
        ("/lacking?type=a&lacks=1", "M_MISSING_PARAM"),
        ("/lacking?pointer=/a&lacks=1", "M_MISSING_PARAM"),
        ("/lacking?type=a&pointer=/a&lacks=x", "M_INVALID_PARAM"),
        ("/lacking?type=a&pointer=/~2&lacks=1", "M_INVALID_PARAM"),
        (
            "/lacking?type=a&pointer=/a&lacks=1&limit=0",
            "M_INVALID_PARAM",
        ),
        (
            "/lacking?type=a&pointer=/a&lacks=1&from=x",
            "M_INVALID_PARAM",
        ),
    ];
    for (rest, errcode) in rows {
        let call = Call::get(format!("{V1}{BASE}{rest}")).admin();
        assert_eq!(
            lab.send(call).await.row(),
            (400, errcode.to_owned()),
            "{rest}"
        );
    }
}
