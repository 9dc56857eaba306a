use std::time::Duration;

use kitbag_domain::{FeedPosition, FeedToken, Limits};
use kitbag_testkit::gate::in_time;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{Lab, V1, over_each_store, over_each_store_with_large_contents};
use crate::support::EPOCH;
use crate::support::{Call, PASSWORD, poll_once};

const LONG: &str = "&timeout=30000";

impl Lab {
    async fn changes(&self, query: &str) -> Value {
        self.get(&format!("/changes?{query}")).await
    }

    /// Returns the `since` behind everything so far.
    async fn now(&self) -> String {
        let mut page = self.changes("").await;
        while page["has_more"] == true {
            page = self.changes(&format!("since={}", token(&page))).await;
        }
        format!("since={}", token(&page))
    }

    /// Returns what all pages tell, from the `since` of the query on.
    async fn all_changes(&self, query: &str, limit: usize) -> Vec<String> {
        let mut page = self.changes(&format!("{query}&limit={limit}")).await;
        let mut all = told(&page);
        while page["has_more"] == true {
            assert!(told(&page).len() <= limit, "{limit}");
            let since = token(&page);
            let filter = query.split_once('&').map_or("", |(_, filter)| filter);
            let query = format!("since={since}&limit={limit}&{filter}");
            page = self.changes(&query).await;
            all.extend(told(&page));
        }
        all
    }

    fn waiting(&self, query: &str) -> Call {
        Call::get(format!("{V1}/changes?{query}{LONG}")).admin()
    }
}

fn token(page: &Value) -> String {
    page["next_batch"].as_str().unwrap().to_owned()
}

/// Returns what a page tells, in short.
fn told(page: &Value) -> Vec<String> {
    let changes = page["changes"].as_array().unwrap().iter();
    let short = |change: &Value| {
        let text = |name: &str| change[name].as_str().unwrap().to_owned();
        let user = text("user_id");
        if change["account_ended"] == true {
            return format!("{user} ended");
        }
        let what = if change["deleted"] == true {
            "gone".to_owned()
        } else {
            change["content"].to_string()
        };
        format!("{user} {} {} {what}", text("device_id"), text("type"))
    };
    changes.map(short).collect()
}

#[tokio::test]
async fn what_changes_is_told_once_and_in_order() {
    over_each_store(
        |_| {},
        async |lab| {
            let first = lab.changes("").await;
            assert_eq!(first["starts_anew"], true, "also where there is nothing");
            assert_eq!(told(&first), [""; 0]);
            let since = format!("since={}", token(&first));
            lab.tell(&lab.alice, "app.test", "{\"n\":1}").await;
            lab.tell(&lab.bob, "app.test", "{\"n\":2}").await;
            lab.tell(&lab.alice, "app.test", "{\"n\":3}").await;
            lab.delete(&lab.bob, "app.test").await;
            let global = Call::put(lab.alice.global("app.test"), "{}").by(&lab.alice);
            lab.send(global).await.assert_ok();
            let page = lab.changes(&since).await;
            let expected = [
                "@alice:localhost PHONE app.test {\"n\":3}",
                "@bob:localhost PHONE app.test gone",
            ];
            assert_eq!(told(&page), expected);
            assert_eq!(
                (&page["starts_anew"], &page["has_more"]),
                (&json!(false), &json!(false))
            );
            assert!(page["changes"][0]["written_ts"].is_u64());
            let next = lab.changes(&format!("since={}", token(&page))).await;
            assert_eq!(told(&next), [""; 0]);
            assert_eq!(told(&lab.changes(&since).await), expected, "asked again");
            let anew = lab.changes("").await;
            assert_eq!(told(&anew)[0], expected[0]);
            assert_eq!(anew["starts_anew"], true);
        },
    )
    .await;
}

#[tokio::test]
async fn contents_are_told_as_they_were_put() {
    over_each_store(
        |_| {},
        async |lab| {
            let since = lab.now().await;
            lab.tell(&lab.alice, "app.test", "{\"n\":  1.0}").await;
            let call = Call::get(format!("{V1}/changes?{since}")).admin();
            let reply = lab.send(call).await;
            assert!(
                reply.text().contains("\"content\":{\"n\":  1.0},"),
                "{}",
                reply.text()
            );
        },
    )
    .await;
}

#[tokio::test]
async fn pages_of_changes_go_on_where_the_last_ended() {
    over_each_store(
        |_| {},
        async |lab| {
            let since = lab.now().await;
            for number in 0..7 {
                let event_type = format!("app.{number}");
                lab.tell(&lab.alice, &event_type, "{}").await;
            }
            for limit in [1, 2, 3, 7, 8] {
                let all = lab.all_changes(&since, limit).await;
                let expected: Vec<_> = (0..7)
                    .map(|number| format!("@alice:localhost PHONE app.{number} {{}}"))
                    .collect();
                assert_eq!(all, expected, "{limit}");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn pages_of_one_type_are_full_and_take_few_reads() {
    over_each_store(
        |_| {},
        async |lab| {
            let since = lab.now().await;
            for number in 0..50 {
                let other = format!("app.{number}");
                lab.tell(&lab.alice, &other, "{}").await;
            }
            for session in [&lab.alice, &lab.tablet] {
                lab.tell(session, "app.test", "{}").await;
                lab.tell(session, "app.other", "{}").await;
            }
            let expected = [
                "@alice:localhost PHONE app.test {}",
                "@alice:localhost TABLET app.test {}",
            ];
            let query = format!("{since}&type=app.test");
            for limit in [1, 2, 3] {
                lab.server.store.take_calls();
                assert_eq!(lab.all_changes(&query, limit).await, expected, "{limit}");
                let calls = lab.server.store.take_calls();
                let reads = calls.iter().filter(|call| **call == "device_changes");
                let reads = reads.count();
                assert!(reads <= 4, "{reads} with {limit}");
            }
        },
    )
    .await;
}

#[tokio::test]
async fn the_end_of_a_device_and_of_an_account_are_told() {
    over_each_store(
        |_| {},
        async |lab| {
            lab.tell(&lab.tablet, "app.test", "{}").await;
            lab.tell(&lab.bob, "app.test", "{}").await;
            let since = lab.now().await;
            let logout = Call::post("/_matrix/client/v3/logout", "").by(&lab.tablet);
            lab.send(logout).await.assert_ok();
            let auth = json!({"auth": lab.bob.password_auth(PASSWORD)});
            let path = "/_matrix/client/v3/account/deactivate";
            let end = Call::post(path, auth.to_string()).by(&lab.bob);
            lab.send(end).await.assert_ok();
            let expected = [
                "@alice:localhost TABLET app.test gone",
                "@bob:localhost ended",
            ];
            assert_eq!(told(&lab.changes(&since).await), expected);
            let filtered = lab.changes(&format!("{since}&type=app.other")).await;
            assert_eq!(
                told(&filtered),
                expected[1..],
                "an account's end is that of every type"
            );
        },
    )
    .await;
}

#[tokio::test]
async fn a_token_of_elsewhere_starts_anew() {
    over_each_store(
        |_| {},
        async |lab| {
            lab.tell(&lab.alice, "app.test", "{}").await;
            let since: FeedToken = lab.now().await["since=".len()..].parse().unwrap();
            assert_eq!(since.epoch, EPOCH);
            let largest = FeedPosition {
                number: i64::MAX.unsigned_abs(),
                floor: i64::MAX.unsigned_abs(),
            };
            for foreign in [
                FeedToken { epoch: 1, ..since },
                FeedToken {
                    position: largest,
                    ..since
                },
            ] {
                let page = lab.changes(&format!("since={foreign}{LONG}")).await;
                assert_eq!(page["starts_anew"], true, "{foreign}");
                assert_eq!(told(&page), ["@alice:localhost PHONE app.test {}"]);
            }
        },
    )
    .await;
}

#[tokio::test]
async fn who_missed_a_collected_deletion_starts_anew() {
    let few = Limits {
        tombstones_max: 1,
        ..Limits::default()
    };
    over_each_store(
        |setup| setup.limits = few.clone(),
        async |lab| {
            lab.tell(&lab.alice, "app.kept", "{}").await;
            for event_type in ["app.a", "app.b"] {
                lab.tell(&lab.alice, event_type, "{}").await;
            }
            let since = lab.now().await;
            for event_type in ["app.a", "app.b"] {
                lab.delete(&lab.alice, event_type).await;
            }
            let page = lab.changes(&since).await;
            assert_eq!(page["starts_anew"], true);
            assert_eq!(told(&page)[0], "@alice:localhost PHONE app.kept {}");
            let since = format!("since={}", token(&page));
            assert_eq!(
                lab.changes(&since).await["starts_anew"],
                false,
                "and only once"
            );
        },
    )
    .await;
}

#[tokio::test]
async fn a_change_ends_the_wait() {
    over_each_store(
        |_| {},
        async |lab| {
            let since = lab.now().await;
            let waiting = in_time("a page", lab.send(lab.waiting(&since)));
            let telling = lab.tell(&lab.alice, "app.test", "{}");
            let (page, ()) = tokio::join!(waiting, telling);
            let page = page.assert_ok();
            assert_eq!(told(&page), ["@alice:localhost PHONE app.test {}"]);
        },
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn with_nothing_to_tell_the_wait_takes_its_time() {
    let lab = Lab::with(|setup| setup.settings.sync.timeout_ms_max = 60_000).await;
    let since = lab.now().await;
    for (timeout, waited_ms) in [
        ("", 0),
        ("&timeout=0", 0),
        (LONG, 30_000),
        ("&timeout=99999999", 60_000),
    ] {
        let started = Instant::now();
        let page = lab.changes(&format!("{since}{timeout}")).await;
        assert_eq!(
            started.elapsed(),
            Duration::from_millis(waited_ms),
            "{timeout}"
        );
        assert_eq!(told(&page), [""; 0]);
        assert_eq!(format!("since={}", token(&page)), since, "the same place");
    }
    let started = Instant::now();
    lab.changes(&LONG[1..]).await;
    assert!(started.elapsed().is_zero(), "the beginning is told at once");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_another_type_does_not_end_the_wait_and_is_passed_over() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let started = Instant::now();
    let mut waiting = Box::pin(lab.send(lab.waiting(&format!("{since}&type=app.test"))));
    assert!(poll_once(&mut waiting).is_pending());
    lab.server.store.take_calls();
    for _ in 0..3 {
        lab.tell(&lab.alice, "app.other", "{}").await;
        let global = Call::put(lab.alice.global("app.test"), "{}").by(&lab.alice);
        lab.send(global).await.assert_ok();
        assert!(poll_once(&mut waiting).is_pending());
    }
    let calls = lab.server.store.take_calls();
    let reads = calls
        .iter()
        .filter(|call| **call == "device_changes")
        .count();
    assert_eq!(reads, 3, "woken by device data alone");
    let page = waiting.await.assert_ok();
    assert_eq!(started.elapsed().as_millis(), 30_000);
    assert_eq!(told(&page), [""; 0]);
    let passed = format!("since={}", token(&page));
    assert_ne!(passed, since, "it goes on behind what it passed over");
    let number = |since: &str| {
        let token: FeedToken = since["since=".len()..].parse().unwrap();
        token.position.number
    };
    assert_eq!(number(&passed), number(&lab.now().await));
}

#[tokio::test(start_paused = true)]
async fn a_stop_of_the_server_ends_the_wait_with_an_empty_page() {
    let lab = Lab::new().await;
    let since = lab.now().await;
    let started = Instant::now();
    let mut waiting = Box::pin(lab.send(lab.waiting(&since)));
    assert!(poll_once(&mut waiting).is_pending());
    lab.server.stop.send_replace(true);
    let page = waiting.await.assert_ok();
    assert_eq!(told(&page), [""; 0]);
    assert!(started.elapsed().is_zero());
}

#[tokio::test]
async fn a_page_of_changes_ends_before_its_contents_are_too_many_bytes() {
    over_each_store_with_large_contents(async |lab| {
        let page = lab.changes("").await;
        assert_eq!((told(&page).len(), &page["has_more"]), (2, &json!(true)));
        let page = lab.changes(&format!("since={}", token(&page))).await;
        assert_eq!((told(&page).len(), &page["has_more"]), (1, &json!(false)));
    })
    .await;
}

#[tokio::test]
async fn wrong_questions_about_changes_are_400() {
    let lab = Lab::new().await;
    let sync = Call::get("/_matrix/client/v3/sync").by(&lab.alice);
    let sync = lab.send(sync).await.assert_ok();
    let sync = format!("since={}", token(&sync));
    for query in [
        "since=",
        "since=x",
        &sync,
        "limit=0",
        "limit=x",
        "timeout=-1",
        "type=",
    ] {
        let call = Call::get(format!("{V1}/changes?{query}")).admin();
        assert_eq!(
            lab.send(call).await.row(),
            (400, "M_INVALID_PARAM".to_owned()),
            "{query}"
        );
    }
}
