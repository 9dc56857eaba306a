use kitbag_domain::Clock as _;
use serde_json::{Value, json};

use super::{Lab, V1, over_each_store};
use crate::support::{Call, PASSWORD};

fn names(page: &Value) -> Vec<&str> {
    let users = page["users"].as_array().unwrap().iter();
    users
        .map(|user| user["user_id"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn all_accounts_are_listed_page_by_page() {
    over_each_store(
        |_| {},
        async |lab| {
            for number in 0..5 {
                lab.server.user(&format!("carol{number}")).await;
            }
            let all = lab.get("/users").await;
            assert_eq!(names(&all).len(), 7);
            assert_eq!(all["next_batch"], Value::Null);
            let mut pages = Vec::new();
            let mut from = String::new();
            loop {
                let page = lab.get(&format!("/users?limit=3{from}")).await;
                pages.extend(names(&page).into_iter().map(str::to_owned));
                match page["next_batch"].as_str() {
                    Some(next) => from = format!("&from={next}"),
                    None => break,
                }
            }
            assert_eq!(pages, names(&all));
            let behind = lab.get("/users?from=@alice:localhost&limit=1").await;
            assert_eq!(names(&behind), ["@bob:localhost"]);
            let beyond = lab.get("/users?limit=100000").await;
            assert_eq!(
                names(&beyond).len(),
                7,
                "a limit beyond the largest is that"
            );
        },
    )
    .await;
}

#[tokio::test]
async fn an_account_is_told_with_what_it_takes() {
    over_each_store(
        |_| {},
        async |lab| {
            lab.tell(&lab.alice, "app.test", "{\"a\":1}").await;
            let page = lab.get("/users").await;
            let bytes = "{\"a\":1}".len() + "app.test".len() + "PHONE".len();
            let created = page["users"][0]["created_ts"].clone();
            assert!(created.is_u64());
            let alice = json!({
                "user_id": "@alice:localhost", "created_ts": created,
                "devices": 2, "entries": 1, "bytes": bytes,
            });
            assert_eq!(page["users"][0], alice);
            let auth = json!({"auth": lab.bob.password_auth(PASSWORD)});
            let path = "/_matrix/client/v3/account/deactivate";
            let end = Call::post(path, auth.to_string()).by(&lab.bob);
            lab.send(end).await.assert_ok();
            let page = lab.get("/users").await;
            let now = lab.server.clock.now_ms();
            let bob = json!({
                "user_id": "@bob:localhost", "created_ts": created, "deactivated_ts": now,
                "devices": 0, "entries": 0, "bytes": 0,
            });
            assert_eq!(page["users"][1], bob);
        },
    )
    .await;
}

#[tokio::test]
async fn wrong_pages_are_400() {
    let lab = Lab::new().await;
    for query in ["limit=0", "limit=x", "limit=-1", "from=alice", "from="] {
        let call = Call::get(format!("{V1}/users?{query}")).admin();
        let row = lab.send(call).await.row();
        assert_eq!(row, (400, "M_INVALID_PARAM".to_owned()), "{query}");
    }
}
