//! Global account data in /sync.

use std::time::{Duration, Instant};

use kitbag_client::{Method, Request, SyncParams, path};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::expect::{Failure, Outcome, check, check_eq};
use crate::lab::Lab;
use crate::poll::{HEAD_START, LONG_POLL, SILENT_POLL, WAKE_UP, not_woken_by, woken_by};
use crate::scenario::{Feature, Scenario};
use crate::sync::Sync;

const SYNC: &str = "CS API, Syncing; SPEC 8.1";
const TYPE: &str = "org.example.a";

#[expect(clippy::too_many_lines, reason = "a list, not a procedure")]
pub(super) fn scenarios() -> Vec<Scenario> {
    vec![
        Scenario::new(
            "sync/initial_sync_has_all_entries",
            SYNC,
            "each entry once as type and content, m.push_rules among them",
            initial,
        ),
        Scenario::new(
            "sync/incremental_sync_has_a_change_once",
            SYNC,
            "only what changed, with the latest content, and not again in the next sync",
            incremental,
        ),
        Scenario::new(
            "sync/every_change_along_a_chain_is_delivered",
            "DESIGN, law 2",
            "a chain of syncs beside concurrent writers ends with the last content of each type",
            chain,
        ),
        Scenario::new(
            "sync/replayed_token_delivers_again",
            "SPEC 8.1; DESIGN, law 2",
            "the same token again gives the same content or a newer one",
            replay,
        ),
        Scenario::new(
            "sync/equal_put_is_echoed",
            "DESIGN, law 11",
            "a PUT of what is already there is delivered again",
            echo,
        ),
        Scenario::new(
            "sync/put_of_empty_object_is_echoed",
            "D3; DESIGN, law 11",
            "a PUT of {}, also where nothing was, is delivered; SDKs wait for it",
            echo_of_empty,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "sync/waiting_sync_is_woken_by_own_device",
            "SPEC 8.1; DESIGN, law 3",
            "a long poll returns with the change that the same device makes",
            wakes_own,
        ),
        Scenario::new(
            "sync/waiting_syncs_of_all_devices_are_woken",
            "SPEC 8.1; DESIGN, law 3",
            "two devices that wait both return with the change of one",
            wakes_all,
        ),
        Scenario::new(
            "sync/change_before_the_wait_is_delivered_at_once",
            "DESIGN, law 3",
            "a long poll from an older token does not wait",
            no_wait,
        ),
        Scenario::new(
            "sync/other_users_changes_do_not_wake",
            "DESIGN, laws 3 and 5",
            "a long poll stays while another user writes",
            other_user,
        ),
        Scenario::new(
            "sync/refused_put_does_not_wake",
            "DESIGN, law 3",
            "a long poll stays while a broken body is refused",
            refused_put,
        ),
        Scenario::new(
            "sync/timeout_0_returns_at_once",
            SYNC,
            "also with nothing new, as does a request without the parameter",
            timeout_0,
        ),
        Scenario::new(
            "sync/timeout_is_kept",
            SYNC,
            "with nothing new the answer comes when the time is over, with a usable token",
            timeout_is_kept,
        ),
        Scenario::new(
            "sync/full_state_sends_everything_at_once",
            "D25; DESIGN, law 2",
            "full_state=true with a token has all entries and does not wait",
            full_state,
        ),
        Scenario::new(
            "sync/garbage_token_is_400",
            "CS API, Syncing; DESIGN",
            "a since that is no token is 400",
            |lab| garbage_token(lab, None),
        ),
        Scenario::new(
            "sync/garbage_token_is_invalid_param",
            "DESIGN",
            "a since that is no token is 400 M_INVALID_PARAM",
            |lab| garbage_token(lab, Some("M_INVALID_PARAM")),
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "sync/token_of_another_user_leaks_nothing",
            "DESIGN, law 5",
            "another user's token gives one's own data, or a 400",
            foreign_token,
        ),
        Scenario::new(
            "sync/garbage_timeout_is_400",
            "CS API, Syncing",
            "a timeout that is no number is a 400",
            garbage_timeout,
        ),
        Scenario::new(
            "sync/fields_that_sdks_read_are_present",
            "CS API, Syncing; D24; issue 2",
            "next_batch, account_data, key counts and unused fallback key types",
            present_fields,
        ),
        Scenario::new(
            "sync/no_or_unknown_token_is_401",
            "CS API, Syncing",
            "401 M_MISSING_TOKEN or M_UNKNOWN_TOKEN, also with a long time-out, at once",
            tokens,
        ),
        Scenario::new(
            "sync/content_is_verbatim",
            "DESIGN, law 8",
            "the bytes of the content are in the body of the sync as they were put",
            verbatim,
        )
        .needs(Feature::Kitbag),
        Scenario::new(
            "sync/room_change_wakes",
            "SPEC 8.1; DESIGN, law 3",
            "room account data of a joined room ends the wait, in the room's section",
            room_wakes,
        )
        .needs(Feature::Rooms),
    ]
}

async fn initial(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let entries = [
        ("org.example.a", json!({"n": 1})),
        ("org.example.b", json!({"list": [1, null, "x"]})),
        ("m.direct", json!({"@a:example.org": ["!r:example.org"]})),
    ];
    for (kind, content) in &entries {
        user.set(&user.global(kind), &json!({"old": true})).await?;
        user.set(&user.global(kind), content).await?;
    }
    let sync = user.initial_sync().await?;
    for (kind, content) in &entries {
        sync.expect_global(kind, content)?;
    }
    check_eq(
        &sync.global("m.push_rules").len(),
        &1,
        "number of m.push_rules",
    )?;
    let events = sync.body["account_data"]["events"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    for event in events {
        let keys: Vec<_> = event
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key)
            .collect();
        check(
            keys == ["content", "type"],
            "just type and content",
            event.to_string(),
        )?;
    }
    Ok(())
}

async fn incremental(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global("org.example.old"), &json!({}))
        .await?;
    let since = user.settled().await?;
    user.set(&user.global(TYPE), &json!({"n": 1})).await?;
    user.set(&user.global(TYPE), &json!({"n": 2})).await?;
    let sync = user.sync_since(&since).await?;
    sync.expect_global(TYPE, &json!({"n": 2}))?;
    check_eq(
        &sync.global_types(),
        &vec![TYPE.to_owned()],
        "types in sync",
    )?;
    user.sync_since(&sync.next_batch)
        .await?
        .expect_no_global(TYPE)
}

const CHAIN_TYPES: usize = 8;
const CHAIN_WRITES: usize = 6;

async fn chain(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let mut since = user.settled().await?;
    let mut writers = JoinSet::new();
    for number in 0..CHAIN_TYPES {
        let user = user.clone();
        writers.spawn(async move {
            for write in 1..=CHAIN_WRITES {
                let path = user.global(&format!("org.example.{number}"));
                user.set(&path, &json!({"write": write})).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    let mut last = vec![0; CHAIN_TYPES];
    let mut is_over = false;
    loop {
        let sync = user.sync_since(&since).await?;
        for (number, last) in last.iter_mut().enumerate() {
            take_newer(&sync, &format!("org.example.{number}"), last)?;
        }
        since.clone_from(&sync.next_batch);
        if is_over {
            break;
        }
        is_over = writers.is_empty();
        while let Some(joined) = writers.try_join_next() {
            joined.map_err(|error| Failure::new("writers to end", error.to_string()))??;
        }
    }
    let expected = vec![u64::try_from(CHAIN_WRITES).unwrap_or_default(); CHAIN_TYPES];
    check_eq(&last, &expected, "last delivered writes")
}

/// Takes over what the sync says of a type, which must not be older than what came before.
fn take_newer(sync: &Sync, kind: &str, last: &mut u64) -> Outcome {
    match sync.global(kind).as_slice() {
        [] => Ok(()),
        [only] if only["write"].as_u64().is_some_and(|write| write >= *last) => {
            *last = only["write"].as_u64().unwrap_or_default();
            Ok(())
        }
        _ => Err(sync.failure(format!("{kind} at most once, at write {last} or later"))),
    }
}

async fn replay(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let since = user.settled().await?;
    user.set(&user.global(TYPE), &json!({"n": 1})).await?;
    let first = user.sync_since(&since).await?;
    first.expect_global(TYPE, &json!({"n": 1}))?;
    user.sync_since(&first.next_batch).await?;
    user.sync_since(&since)
        .await?
        .expect_global(TYPE, &json!({"n": 1}))
}

async fn echo(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global(TYPE), &json!({"a": 1})).await?;
    let since = user.settled().await?;
    user.set(&user.global(TYPE), &json!({"a": 1})).await?;
    user.sync_since(&since)
        .await?
        .expect_global(TYPE, &json!({"a": 1}))
}

async fn echo_of_empty(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    for _ in 0..2 {
        let since = user.settled().await?;
        user.set(&user.global(TYPE), &json!({})).await?;
        user.sync_since(&since)
            .await?
            .expect_global(TYPE, &json!({}))?;
    }
    Ok(())
}

async fn wakes_own(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let sync = woken_by(&user, None, user.set(&user.global(TYPE), &json!({"n": 1}))).await?;
    sync.expect_global(TYPE, &json!({"n": 1}))
}

async fn wakes_all(lab: Lab) -> Outcome {
    let first = lab.user().await?;
    let (second, third) = (
        lab.second_device(&first).await?,
        lab.second_device(&first).await?,
    );
    let path = first.global(TYPE);
    let write = async {
        tokio::time::sleep(HEAD_START).await;
        first.set(&path, &json!({"n": 1})).await
    };
    let (second, third) = tokio::try_join!(
        woken_by(&second, None, write),
        woken_by(&third, None, async { Ok(()) })
    )?;
    second.expect_global(TYPE, &json!({"n": 1}))?;
    third.expect_global(TYPE, &json!({"n": 1}))
}

async fn no_wait(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let since = user.settled().await?;
    user.set(&user.global(TYPE), &json!({"n": 1})).await?;
    let start = Instant::now();
    let params = SyncParams {
        since: Some(&since),
        timeout: LONG_POLL,
        ..SyncParams::default()
    };
    user.sync(params)
        .await?
        .expect_global(TYPE, &json!({"n": 1}))?;
    took_less_than(start, WAKE_UP)
}

fn took_less_than(start: Instant, limit: Duration) -> Outcome {
    let took = start.elapsed();
    let expected = format!("an answer within {} ms", limit.as_millis());
    check(took < limit, expected, format!("{} ms", took.as_millis()))
}

async fn other_user(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    let path = alice.global(TYPE);
    not_woken_by(&bob, None, alice.set(&path, &json!({"of": "alice"}))).await
}

async fn refused_put(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = user.global(TYPE);
    let refused = async {
        user.put_bytes(&path, "{")
            .await?
            .expect_error(400, "M_NOT_JSON")
            .map(drop)
    };
    not_woken_by(&user, None, refused).await
}

async fn timeout_0(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let since = user.settled().await?;
    let start = Instant::now();
    user.sync_since(&since).await?.expect_no_global(TYPE)?;
    let path = format!("{}/sync?since={}", path::V3, path::segment(&since));
    user.get(&path).await?.expect_status(200)?;
    user.set(&user.global(TYPE), &json!({"n": 1})).await?;
    user.sync_since(&since)
        .await?
        .expect_global(TYPE, &json!({"n": 1}))?;
    took_less_than(start, WAKE_UP)
}

async fn timeout_is_kept(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    not_woken_by(&user, None, async { Ok(()) }).await?;
    let since = user.settled().await?;
    let params = SyncParams {
        since: Some(&since),
        timeout: SILENT_POLL,
        ..SyncParams::default()
    };
    let start = Instant::now();
    let sync = user.sync(params).await?;
    took_less_than(start, WAKE_UP)?;
    user.set(&user.global(TYPE), &json!({"n": 1})).await?;
    user.sync_since(&sync.next_batch)
        .await?
        .expect_global(TYPE, &json!({"n": 1}))
}

async fn full_state(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    user.set(&user.global(TYPE), &json!({"n": 1})).await?;
    let since = user.settled().await?;
    let start = Instant::now();
    let params = SyncParams {
        since: Some(&since),
        timeout: LONG_POLL,
        full_state: true,
        ..SyncParams::default()
    };
    let sync = user.sync(params).await?;
    took_less_than(start, WAKE_UP)?;
    sync.expect_global(TYPE, &json!({"n": 1}))?;
    check_eq(
        &sync.global("m.push_rules").len(),
        &1,
        "number of m.push_rules",
    )
}

async fn garbage_token(lab: Lab, errcode: Option<&str>) -> Outcome {
    let user = lab.user().await?;
    for since in ["garbage", "%00", "-1", "🦀"] {
        let path = format!("{}/sync?timeout=0&since={}", path::V3, path::segment(since));
        let reply = user.get(&path).await?;
        match errcode {
            Some(errcode) => drop(reply.expect_error(400, errcode)?),
            None => drop(reply.expect_status(400)?),
        }
    }
    Ok(())
}

const FOREIGN_WRITES: usize = 5;

async fn foreign_token(lab: Lab) -> Outcome {
    let (alice, bob) = (lab.user().await?, lab.user().await?);
    let write = json!({"n": 1});
    for _ in 0..FOREIGN_WRITES {
        alice.set(&alice.global("org.example.a"), &write).await?;
    }
    let since = alice.settled().await?;
    alice
        .set(&alice.global("org.example.secret"), &json!({"of": "alice"}))
        .await?;
    bob.set(&bob.global(TYPE), &json!({"of": "bob"})).await?;
    // Where each user has a stream of their own, that change lies before the token, and these last
    // ones behind it.
    for _ in 0..2 * FOREIGN_WRITES {
        bob.set(&bob.global("org.example.b"), &write).await?;
    }
    let params = SyncParams {
        since: Some(&since),
        ..SyncParams::default()
    };
    let reply = bob.get(&params.path()).await?;
    if reply.status() == 400 {
        return Ok(());
    }
    let sync = Sync::of(&reply)?;
    sync.expect_no_global("org.example.secret")?;
    sync.expect_global(TYPE, &json!({"of": "bob"}))
}

async fn garbage_timeout(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let path = format!("{}/sync?timeout=soon", path::V3);
    user.get(&path)
        .await?
        .expect_error_in(400, &["M_INVALID_PARAM", "M_UNKNOWN"])?;
    Ok(())
}

async fn present_fields(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let sync = user.initial_sync().await?;
    let next = user.sync_since(&sync.next_batch).await?;
    for sync in [&sync, &next] {
        let body = &sync.body;
        check(
            body["device_one_time_keys_count"].is_object()
                && body["device_unused_fallback_key_types"].is_array(),
            "device_one_time_keys_count {} and device_unused_fallback_key_types []",
            sync.failure("").got,
        )?;
    }
    let is_array = sync.body["account_data"]["events"].is_array();
    check(
        is_array,
        "account_data.events in an initial sync",
        sync.failure("").got,
    )
}

async fn tokens(lab: Lab) -> Outcome {
    let start = Instant::now();
    let path = format!("{}/sync?timeout=10000", path::V3);
    let request = Request::new(Method::GET, path);
    lab.send(request.clone())
        .await?
        .expect_error(401, "M_MISSING_TOKEN")?;
    lab.send(request.token("nonsense"))
        .await?
        .expect_error(401, "M_UNKNOWN_TOKEN")?;
    took_less_than(start, WAKE_UP)
}

async fn verbatim(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let content = "{ \"z\" : 1.0 ,\n \"a\":1, \"a\": 2 }";
    user.put_bytes(&user.global(TYPE), content)
        .await?
        .expect_json(&json!({}))?;
    let reply = user
        .get(&SyncParams::default().path())
        .await?
        .expect_status(200)?;
    let body = String::from_utf8_lossy(&reply.response.body);
    check(
        body.contains(content),
        format!("the bytes {content}"),
        crate::expect::shorten(&body),
    )
}

async fn room_wakes(lab: Lab) -> Outcome {
    let user = lab.user().await?;
    let room = user.create_room().await?;
    let content: Value = json!({"n": 1});
    let path = user.room(&room, TYPE);
    let sync = woken_by(&user, None, user.set(&path, &content)).await?;
    sync.expect_room(&room, TYPE, &content)?;
    sync.expect_no_global(TYPE)
}
