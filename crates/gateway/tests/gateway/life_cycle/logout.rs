//! Logouts.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use kitbag_client::{Client, Method, Request};
use kitbag_domain::Limits;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::Scripted;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{SOON, got, has, homeserver, kept, login, post, three, tombstone};
use crate::support::{gateway, gateway_at};
use crate::toy::{TOMBSTONE, count, entry};

#[tokio::test]
async fn a_logout_empties_the_entries_of_its_device_alone() {
    let (lab, [phone, laptop, _], user) = three().await;
    phone.logout().await.unwrap();
    assert_eq!(kept(&lab, &laptop, "PHONE").await, tombstone());
    assert!(!has(&laptop, "PHONE").await);
    assert!(has(&laptop, "LAPTOP").await);
    let again = login(&lab.beside(), &user, "PHONE").await;
    assert!(!has(&lab.client().with_session(again.session().clone()), "PHONE").await);
}

#[tokio::test]
async fn a_logout_of_all_empties_the_entries_of_all() {
    let (lab, [phone, ..], user) = three().await;
    phone.logout_all().await.unwrap();
    let again = login(&lab.beside(), &user, "LAPTOP").await;
    for device in ["PHONE", "LAPTOP", "TABLET"] {
        assert_eq!(kept(&lab, &again, device).await, tombstone(), "{device}");
    }
}

#[tokio::test]
async fn a_logout_goes_on_where_nothing_can_be_emptied_and_that_is_done_later() {
    let is_broken = Arc::<AtomicBool>::default();
    let upstream = homeserver(&is_broken, None).await;
    let clock = Arc::<TestClock>::default();
    let (url, limits) = (upstream.url(), Limits::default());
    let gateway = gateway_at(&url, Arc::clone(&clock), limits, |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let status = async |request| client.send(request).await.unwrap().status;
    let write = || entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    let other = || entry(Method::PUT, "LAPTOP", "", "alice.LAPTOP").body("{\"a\":1}");
    let read = || entry(Method::GET, "PHONE", "", "alice.LAPTOP");
    for path in ["logout", "logout/all"] {
        assert_eq!(status(write()).await, 200);
        assert_eq!(status(read()).await, 200);
        is_broken.store(true, Ordering::SeqCst);
        assert_eq!(status(post(path).token("alice.PHONE")).await, 200);
        // It is not written over what is to be emptied, and reads as none.
        assert_eq!(status(write()).await, 500);
        let before = count(&upstream, "/sync");
        assert_eq!(status(write()).await, 503);
        assert_eq!(status(read()).await, 404);
        assert_eq!(count(&upstream, "/sync"), before, "not again so soon");
        is_broken.store(false, Ordering::SeqCst);
        clock.advance(30_000);
        assert_eq!(status(read()).await, 404);
        let emptied = upstream.asked();
        let emptied = emptied.iter().rfind(|asked| asked.method == Method::PUT);
        assert_eq!(emptied.unwrap().body, TOMBSTONE);
    }
    assert_eq!(status(post("login")).await, 200);
    assert_eq!(status(other()).await, 200);
    assert_eq!(status(write()).await, 200);
    is_broken.store(true, Ordering::SeqCst);
    assert_eq!(status(post("logout").token("alice.PHONE")).await, 200);
    // What is owed of one device does not shut the others out.
    assert_eq!(status(other()).await, 200);
    assert_eq!(status(write()).await, 503);
    // Also where a login could not do it, it is not taken for what the new one wrote.
    assert_eq!(status(post("login")).await, 200);
    clock.advance(30_000);
    assert_eq!(status(read()).await, 404);
    is_broken.store(false, Ordering::SeqCst);
    assert_eq!(status(post("login")).await, 200);
    // Longer than the pause behind any number of failures: else a read would not try either.
    clock.advance(5 * 60 * 1_000);
    let before = count(&upstream, "/sync");
    assert_eq!(status(read()).await, 404);
    assert_eq!(count(&upstream, "/sync"), before, "the login emptied it");
}

#[tokio::test]
async fn a_logout_waits_for_a_write_under_way_also_where_its_client_went_away() {
    let permits = Arc::new(Semaphore::new(0));
    let upstream = homeserver(&Arc::default(), Some(&permits)).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    let url = gateway.url.clone();
    let write = tokio::spawn(async move { Client::new(&url).unwrap().send(write).await });
    got(&upstream, &Method::PUT, 1).await;
    write.abort();
    assert!(write.await.is_err());
    let syncs = count(&upstream, "/sync");
    let logout = post("logout").token("alice.PHONE");
    let mut logout = Box::pin(client.send(logout));
    // Long enough for what must not happen, were it not for the turn.
    let early = timeout(Duration::from_millis(300), &mut logout).await;
    assert!(early.is_err());
    assert_eq!(count(&upstream, "/sync"), syncs);
    permits.add_permits(2);
    assert_eq!(timeout(SOON, logout).await.unwrap().unwrap().status, 200);
    let asked = upstream.asked();
    let writes = asked.iter().filter(|asked| asked.method == Method::PUT);
    assert_eq!(writes.count(), 2, "the write, then the tombstone");
}

/// Synapse answers the same initial sync of a device out of memory for two minutes.
#[tokio::test]
async fn no_two_listings_ask_the_same() {
    let upstream = homeserver(&Arc::default(), None).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for _ in 0..3 {
        let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{}");
        assert_eq!(client.send(write).await.unwrap().status, 200);
        let logout = post("logout").token("alice.PHONE");
        assert_eq!(client.send(logout).await.unwrap().status, 200);
    }
    let asked = upstream.asked();
    let listings = asked.iter().map(|asked| asked.target.as_str());
    let listings: Vec<&str> = listings.filter(|path| path.contains("/sync")).collect();
    let different: HashSet<&str> = listings.iter().copied().collect();
    assert_eq!((listings.len(), different.len()), (6, 6));
}

#[tokio::test]
async fn where_a_homeserver_ignores_filters_only_entries_of_the_device_are_emptied() {
    let upstream = homeserver(&Arc::default(), None).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for device in ["PHONE", "LAPTOP"] {
        let token = format!("alice.{device}");
        let write = entry(Method::PUT, device, "", &token).body("{\"a\":1}");
        assert_eq!(client.send(write).await.unwrap().status, 200);
    }
    let direct = "/_matrix/client/v3/user/%40alice%3Ax/account_data/m.direct";
    let direct = Request::new(Method::PUT, direct)
        .token("alice.PHONE")
        .body("{}");
    assert_eq!(client.send(direct).await.unwrap().status, 200);
    let writes = |upstream: &Scripted| {
        let asked = upstream.asked();
        let writes = asked
            .into_iter()
            .filter(|asked| asked.method == Method::PUT);
        writes.map(|asked| asked.target).collect::<Vec<_>>()
    };
    let before = writes(&upstream).len();
    let logout = post("logout").token("alice.PHONE");
    assert_eq!(client.send(logout).await.unwrap().status, 200);
    let emptied = writes(&upstream).split_off(before);
    assert_eq!(emptied.len(), 1);
    assert!(
        emptied[0].ends_with("device_account_data.PHONE.org.example.a"),
        "{emptied:?}"
    );
}

/// As some clients and bots send it; the log is watched for it too.
#[tokio::test]
async fn a_session_whose_token_is_in_the_query_ends_as_any_other() {
    let upstream = homeserver(&Arc::default(), None).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let path = "/_matrix/client/v3/user/%40alice%3Ax/devices/PHONE/account_data/org.example.a";
    let send = async |method, path: &str| {
        let request = Request::new(method, format!("{path}?access_token=alice.PHONE"));
        client.send(request.body("{\"a\":1}")).await.unwrap()
    };
    assert_eq!(send(Method::PUT, path).await.status, 200);
    assert_eq!(send(Method::GET, path).await.body, "{\"a\":1}");
    let logout = send(Method::POST, "/_matrix/client/v3/logout").await;
    assert_eq!(logout.status, 200);
    let asked = upstream.asked();
    let emptied = asked.iter().rfind(|asked| asked.method == Method::PUT);
    assert_eq!(emptied.unwrap().body, TOMBSTONE);
    // It goes on the way it came.
    for asked in asked {
        assert!(asked.target.contains("access_token="), "{}", asked.target);
        assert!(!asked.headers.contains_key("authorization"));
    }
}
