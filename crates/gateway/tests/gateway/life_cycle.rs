//! The lives of devices: their account data end with them.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kitbag_client::{Account, Client, Login, Method, Request, Scope};
use kitbag_domain::Limits;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{Asked, Scripted, json, whole};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::support::{Lab, PASSWORD, gateway, gateway_at};
use crate::toy::{self, Stored, count, entry};

const KIND: &str = "org.example.a";
const SOON: Duration = Duration::from_secs(20);

/// Logs in through the gateway, or past it.
async fn login(client: &Client, user: &str, device: &str) -> Account {
    let login = Login {
        device_id: Some(device),
        ..Login::password(user, PASSWORD)
    };
    client.login(&login).await.unwrap()
}

async fn put(account: &Account) {
    let device = account.session().device_id.clone();
    let content = json!({"of": device});
    let scope = Scope::Device(&device);
    account.put(scope, KIND, &content).await.unwrap();
}

async fn has(account: &Account, device: &str) -> bool {
    let stored = account.get(Scope::Device(device), KIND).await.unwrap();
    stored.is_some()
}

/// Returns what is said of an entry that cannot be read.
async fn why_not(account: &Account, device: &str) -> String {
    let user = account.session().user_id.replace('@', "%40");
    let user = user.replace(':', "%3A");
    let path = format!("/_matrix/client/v3/user/{user}/devices/{device}/account_data/{KIND}");
    let read = account.send(Request::new(Method::GET, path)).await.unwrap();
    let told: Value = read.json().unwrap();
    told["error"].as_str().unwrap().to_owned()
}

/// Tells what the homeserver has under the type of an entry.
async fn kept(lab: &Lab, account: &Account, device: &str) -> Option<Value> {
    let beside = lab.beside().with_session(account.session().clone());
    let kind = format!("org.matrix.msc4331.device_account_data.{device}.{KIND}");
    beside.get(Scope::Global, &kind).await.unwrap()
}

fn tombstone() -> Option<Value> {
    Some(json!({"org.matrix.msc4331.deleted": true}))
}

/// A homeserver with a gateway, and a user with three devices that have an entry each.
async fn three() -> (Lab, [Account; 3], String) {
    let lab = Lab::start().await;
    let phone = lab.user("PHONE").await;
    let user = phone.session().user_id.clone();
    let laptop = login(&lab.client(), &user, "LAPTOP").await;
    let tablet = login(&lab.client(), &user, "TABLET").await;
    let all = [phone, laptop, tablet];
    for account in &all {
        put(account).await;
    }
    (lab, all, user)
}

/// Sends a request that needs the password; the first answer is a challenge.
async fn with_password(account: &Account, request: Request, body: &Value) -> (Value, u16) {
    let challenge = account.send(request.clone().json(body)).await.unwrap();
    assert_eq!(challenge.status, 401);
    let state: Value = challenge.json().unwrap();
    let mut body = body.clone();
    body["auth"] = json!({
        "type": "m.login.password",
        "identifier": {"type": "m.id.user", "user": account.session().user_id},
        "password": PASSWORD,
        "session": state["session"],
    });
    let response = account.send(request.json(&body)).await.unwrap();
    (state, response.status)
}

fn post(path: &str) -> Request {
    Request::new(Method::POST, format!("/_matrix/client/v3/{path}"))
}

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
async fn a_deletion_empties_when_it_is_done_and_not_when_it_is_challenged() {
    let (lab, [phone, laptop, _], user) = three().await;
    let request = Request::new(Method::DELETE, "/_matrix/client/r0/devices/LAPTOP");
    let challenge = phone.send(request.clone().json(&json!({}))).await.unwrap();
    assert_eq!(challenge.status, 401);
    assert!(has(&laptop, "LAPTOP").await);
    let (_, status) = with_password(&phone, request, &json!({})).await;
    assert_eq!(status, 200);
    assert_eq!(kept(&lab, &phone, "LAPTOP").await, tombstone());
    assert!(has(&phone, "PHONE").await);
    let again = login(&lab.beside(), &user, "LAPTOP").await;
    assert!(
        !has(
            &lab.client().with_session(again.session().clone()),
            "LAPTOP"
        )
        .await
    );
}

#[tokio::test]
async fn many_devices_are_deleted_at_once() {
    let (lab, [phone, ..], _) = three().await;
    let body = json!({"devices": ["LAPTOP", "TABLET", "NONE", ""]});
    let (_, status) = with_password(&phone, post("delete_devices"), &body).await;
    assert_eq!(status, 200);
    assert_eq!(kept(&lab, &phone, "LAPTOP").await, tombstone());
    assert_eq!(kept(&lab, &phone, "TABLET").await, tombstone());
    assert!(has(&phone, "PHONE").await);
}

#[tokio::test]
async fn a_new_password_empties_the_other_devices_unless_they_stay() {
    let (lab, [phone, laptop, _], _) = three().await;
    let body = json!({"new_password": PASSWORD, "logout_devices": false});
    let (_, status) = with_password(&phone, post("account/password"), &body).await;
    assert_eq!(status, 200);
    assert!(has(&laptop, "LAPTOP").await);
    let body = json!({"new_password": PASSWORD});
    let (_, status) = with_password(&phone, post("account/password"), &body).await;
    assert_eq!(status, 200);
    assert_eq!(kept(&lab, &phone, "LAPTOP").await, tombstone());
    assert_eq!(kept(&lab, &phone, "TABLET").await, tombstone());
    assert!(has(&phone, "PHONE").await);
}

#[tokio::test]
async fn a_login_with_the_same_id_keeps_the_entries() {
    let (lab, [_, laptop, _], user) = three().await;
    let again = login(&lab.client(), &user, "PHONE").await;
    assert!(has(&again, "PHONE").await);
    assert!(has(&laptop, "PHONE").await);
}

#[tokio::test]
async fn a_device_that_deleted_itself_is_emptied_by_the_next_session_of_its_user() {
    let (lab, [phone, laptop, _], user) = three().await;
    phone.delete_device("PHONE", PASSWORD).await.unwrap();
    // Its credentials died with it, so that its entry is still there, and told to nobody.
    assert_eq!(
        kept(&lab, &laptop, "PHONE").await,
        Some(json!({"of": "PHONE"}))
    );
    assert!(!has(&laptop, "PHONE").await);
    assert_eq!(kept(&lab, &laptop, "PHONE").await, tombstone());
    let again = login(&lab.beside(), &user, "PHONE").await;
    // And what it writes now is its own.
    let again = lab.client().with_session(again.session().clone());
    put(&again).await;
    assert!(has(&laptop, "PHONE").await);
}

/// What its ID has is of the device that ended, as it was not written through the gateway since.
#[tokio::test]
async fn a_device_that_deleted_itself_and_began_anew_past_the_gateway_starts_empty() {
    let (lab, [phone, ..], user) = three().await;
    phone.delete_device("PHONE", PASSWORD).await.unwrap();
    let again = login(&lab.beside(), &user, "PHONE").await;
    let again = lab.client().with_session(again.session().clone());
    assert!(!has(&again, "PHONE").await);
    assert_eq!(kept(&lab, &again, "PHONE").await, tombstone());
    put(&again).await;
    assert!(has(&again, "PHONE").await);
}

#[tokio::test]
async fn a_device_that_deleted_itself_starts_empty_also_after_days() {
    let (lab, [phone, ..], user) = three().await;
    phone.delete_device("PHONE", PASSWORD).await.unwrap();
    lab.clock.advance(30 * 24 * 60 * 60 * 1_000);
    let again = login(&lab.client(), &user, "PHONE").await;
    assert_eq!(kept(&lab, &again, "PHONE").await, tombstone());
}

#[tokio::test]
async fn a_device_that_deleted_itself_and_logs_in_again_starts_empty() {
    let (lab, [phone, ..], user) = three().await;
    phone.delete_device("PHONE", PASSWORD).await.unwrap();
    let again = login(&lab.client(), &user, "PHONE").await;
    assert_eq!(kept(&lab, &again, "PHONE").await, tombstone());
    assert!(has(&again, "LAPTOP").await);
}

#[tokio::test]
async fn entries_of_a_device_that_was_removed_past_the_gateway_are_emptied_when_they_are_read() {
    let (lab, [phone, laptop, _], user) = three().await;
    let beside = lab.beside().with_session(phone.session().clone());
    beside.logout().await.unwrap();
    assert!(!has(&laptop, "PHONE").await);
    assert_eq!(kept(&lab, &laptop, "PHONE").await, tombstone());
    login(&lab.beside(), &user, "PHONE").await;
    assert!(!has(&laptop, "PHONE").await);
    // The same again: that it was empty once is not taken for granted.
    let again = login(&lab.client(), &user, "PHONE").await;
    put(&again).await;
    let beside = lab.beside().with_session(again.session().clone());
    beside.logout().await.unwrap();
    lab.clock.advance(5_000);
    assert!(!has(&laptop, "PHONE").await);
    assert_eq!(kept(&lab, &laptop, "PHONE").await, tombstone());
}

/// The one documented exception: nothing tells the gateway that it is another device.
#[tokio::test]
async fn a_device_removed_past_the_gateway_and_made_anew_reads_the_entries_of_the_one_before() {
    for is_anew_beside in [true, false] {
        let (lab, [phone, laptop, _], user) = three().await;
        let beside = lab.beside().with_session(phone.session().clone());
        beside.logout().await.unwrap();
        // A login tells nothing of whether there was such a device before.
        let anew = if is_anew_beside {
            lab.beside()
        } else {
            lab.client()
        };
        login(&anew, &user, "PHONE").await;
        assert!(has(&laptop, "PHONE").await, "{is_anew_beside}");
    }
}

#[tokio::test]
async fn what_is_removed_past_the_gateway_can_be_read_for_five_seconds() {
    let (lab, [phone, laptop, _], _) = three().await;
    assert!(has(&laptop, "PHONE").await);
    let beside = lab.beside().with_session(phone.session().clone());
    beside.logout().await.unwrap();
    lab.clock.advance(4_999);
    assert!(has(&laptop, "PHONE").await);
    lab.clock.advance(1);
    assert!(!has(&laptop, "PHONE").await);
}

#[tokio::test]
async fn what_ends_through_the_gateway_ends_at_once_for_those_who_read_it_a_moment_ago() {
    let (lab, [phone, laptop, tablet], user) = three().await;
    for reader in [&laptop, &tablet] {
        assert!(has(reader, "PHONE").await);
    }
    phone.logout().await.unwrap();
    assert_eq!(
        why_not(&laptop, "PHONE").await,
        "the user has no such device"
    );
    tablet.logout().await.unwrap();
    let refused = tablet.get(Scope::Device("PHONE"), KIND).await;
    assert_eq!(refused.unwrap_err().errcode(), Some("M_UNKNOWN_TOKEN"));
    let desktop = login(&lab.client(), &user, "DESKTOP").await;
    put(&desktop).await;
    assert!(has(&laptop, "DESKTOP").await && has(&desktop, "LAPTOP").await);
    laptop.delete_device("DESKTOP", PASSWORD).await.unwrap();
    assert_eq!(
        why_not(&laptop, "DESKTOP").await,
        "the user has no such device"
    );
    let refused = desktop.get(Scope::Device("LAPTOP"), KIND).await;
    assert_eq!(refused.unwrap_err().errcode(), Some("M_UNKNOWN_TOKEN"));
}

/// A toy whose syncs fail while `is_broken`, that ends sessions, and that holds answers to writes
/// up where there are `permits`.
async fn homeserver(is_broken: &Arc<AtomicBool>, permits: Option<&Arc<Semaphore>>) -> Scripted {
    let (stored, is_broken) = (Stored::default(), Arc::clone(is_broken));
    let is_gone = AtomicBool::new(false);
    let permits = permits.cloned();
    let answer = move |asked: &Asked| {
        let path = asked.target.as_str();
        if is_broken.load(Ordering::SeqCst) && path.contains("/sync") {
            toy::error(500, "M_UNKNOWN")
        } else if path.ends_with("/login") {
            is_gone.store(false, Ordering::SeqCst);
            let session = json!({
                "user_id": "@alice:x",
                "access_token": "alice.PHONE",
                "device_id": "PHONE",
            });
            json(200, &session)
        } else if path.contains("/logout") || asked.method == Method::DELETE {
            is_gone.store(true, Ordering::SeqCst);
            json(200, &json!({}))
        } else if path.ends_with("/devices") && is_gone.load(Ordering::SeqCst) {
            json(200, &json!({"devices": [{"device_id": "LAPTOP"}]}))
        } else {
            toy::answer(asked, &stored)
        }
    };
    let answer = Arc::new(answer);
    Scripted::start(move |asked| {
        let is_write = asked.method == Method::PUT;
        let permits = permits.clone().filter(|_| is_write);
        let answer = Arc::clone(&answer);
        async move {
            if let Some(permits) = permits {
                permits.acquire().await.unwrap().forget();
            }
            // Not before: what nobody waits for any more is not done.
            answer(&asked)
        }
    })
    .await
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
        let expected = "{\"org.matrix.msc4331.deleted\": true}";
        assert_eq!(emptied.unwrap().body, expected);
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
    // Else a read would not try either.
    clock.advance(30_000);
    let before = count(&upstream, "/sync");
    assert_eq!(status(read()).await, 404);
    assert_eq!(count(&upstream, "/sync"), before, "the login emptied it");
}

#[tokio::test]
async fn what_is_still_to_be_emptied_is_not_told_with_the_device_either() {
    let is_broken = Arc::<AtomicBool>::default();
    let upstream = homeserver(&is_broken, None).await;
    let gateway = gateway(&upstream.url(), |set| set.msc4331.in_devices = true).await;
    let client = Client::new(&gateway.url).unwrap();
    let told = async || {
        let request = Request::new(Method::GET, "/_matrix/client/v3/devices/PHONE");
        let request = request.token("alice.LAPTOP");
        client.send(request).await.unwrap().json::<Value>().unwrap()
    };
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    client.send(write).await.unwrap();
    assert!(told().await["account_data"].is_object());
    is_broken.store(true, Ordering::SeqCst);
    let logout = post("logout").token("alice.PHONE");
    assert_eq!(client.send(logout).await.unwrap().status, 200);
    is_broken.store(false, Ordering::SeqCst);
    assert_eq!(told().await, json!({"device_id": "PHONE"}));
}

#[tokio::test]
async fn a_404_that_does_not_say_that_nothing_is_there_is_no_answer() {
    let (stored, lost) = (Stored::default(), Arc::<Mutex<Option<(_, _)>>>::default());
    let losing = Arc::clone(&lost);
    let upstream = Scripted::start(move |asked| {
        let answer = match *losing.lock().unwrap() {
            Some((part, body)) if asked.target.contains(part) => whole(404, body),
            _ => toy::answer(&asked, &stored),
        };
        async move { answer }
    });
    let upstream = upstream.await;
    let nothing = |set: &mut kitbag_gateway::Settings| set.upstream.remember_ms = 0;
    let gateway = gateway(&upstream.url(), nothing).await;
    let client = Client::new(&gateway.url).unwrap();
    let status = async |request| client.send(request).await.unwrap().status;
    let write = || entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    let read = || entry(Method::GET, "PHONE", "", "alice.LAPTOP");
    assert_eq!(status(write()).await, 200);
    let written = || {
        let asked = upstream.asked();
        asked
            .iter()
            .filter(|asked| asked.method == Method::PUT)
            .count()
    };
    for part in ["/devices/", "/account_data/"] {
        for body in ["<html>", "{}", "{\"errcode\":\"M_UNRECOGNIZED\"}"] {
            *lost.lock().unwrap() = Some((part, body));
            assert_eq!(status(read()).await, 502, "{part} {body}");
            assert_eq!(status(write()).await, 502, "{part} {body}");
        }
    }
    assert_eq!(written(), 1, "nothing was emptied or written over");
    *lost.lock().unwrap() = Some(("/devices/", "{\"errcode\":\"M_NOT_FOUND\"}"));
    assert_eq!(status(read()).await, 404);
    assert_eq!(written(), 2, "it was emptied");
}

/// Waits until the homeserver has got so many requests of a method.
async fn got(upstream: &Scripted, method: &Method, times: usize) {
    let got = async {
        loop {
            let asked = upstream.asked();
            if asked.iter().filter(|asked| asked.method == *method).count() >= times {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, got).await.unwrap();
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

#[tokio::test]
async fn a_deletion_is_done_to_its_end_where_the_client_goes_away() {
    // More than are emptied at once.
    const ENTRIES: usize = 9;
    let permits = Arc::new(Semaphore::new(ENTRIES));
    let upstream = homeserver(&Arc::default(), Some(&permits)).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    for number in 0..ENTRIES {
        let path = "/_matrix/client/v3/user/%40alice%3Ax/devices/PHONE/account_data";
        let write = Request::new(Method::PUT, format!("{path}/t{number}")).body("{}");
        let write = client.send(write.token("alice.PHONE")).await;
        assert_eq!(write.unwrap().status, 200);
    }
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
    let delete = delete.token("alice.LAPTOP");
    let url = gateway.url.clone();
    let delete = tokio::spawn(async move { Client::new(&url).unwrap().send(delete).await });
    // The homeserver has deleted it, and the first entries are being emptied.
    got(&upstream, &Method::PUT, 2 * ENTRIES - 1).await;
    delete.abort();
    assert!(delete.await.is_err());
    // Long enough for the gateway to notice who went away.
    let early = got(&upstream, &Method::PUT, 2 * ENTRIES);
    assert!(timeout(Duration::from_millis(300), early).await.is_err());
    permits.add_permits(ENTRIES);
    got(&upstream, &Method::PUT, 2 * ENTRIES).await;
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
async fn a_login_waits_for_the_end_of_a_device_that_is_under_way() {
    let permits = Arc::new(Semaphore::new(1));
    let upstream = homeserver(&Arc::default(), Some(&permits)).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
    assert_eq!(client.send(write).await.unwrap().status, 200);
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
    let delete = delete.token("alice.LAPTOP");
    let url = gateway.url.clone();
    let delete = tokio::spawn(async move { Client::new(&url).unwrap().send(delete).await });
    // The homeserver has deleted it, and its entry is being emptied.
    got(&upstream, &Method::PUT, 2).await;
    let mut login = Box::pin(client.send(post("login")));
    // Long enough for what must not happen, were it not for the turn.
    let early = timeout(Duration::from_millis(300), &mut login).await;
    assert!(early.is_err());
    permits.add_permits(1);
    assert_eq!(timeout(SOON, login).await.unwrap().unwrap().status, 200);
    assert_eq!(
        timeout(SOON, delete)
            .await
            .unwrap()
            .unwrap()
            .unwrap()
            .status,
        200
    );
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

/// A toy that deletes devices without saying so, and takes new passwords.
async fn silent(status: u16) -> Scripted {
    let (stored, is_gone) = (Stored::default(), AtomicBool::new(false));
    let answer = move |asked: &Asked| {
        let path = asked.target.as_str();
        if asked.method == Method::DELETE {
            is_gone.store(true, Ordering::SeqCst);
            toy::error(status, "M_UNKNOWN")
        } else if path.ends_with("/devices") && is_gone.load(Ordering::SeqCst) {
            json(200, &json!({"devices": [{"device_id": "LAPTOP"}]}))
        } else if path.ends_with("/account/password") {
            json(200, &json!({}))
        } else {
            toy::answer(asked, &stored)
        }
    };
    let answer = Arc::new(answer);
    Scripted::start(move |asked| {
        let answer = Arc::clone(&answer);
        async move { answer(&asked) }
    })
    .await
}

#[tokio::test]
async fn a_deletion_whose_answer_is_lost_leaves_a_trace() {
    for told in [500, 503, 504, 520] {
        let upstream = silent(told).await;
        let gateway = gateway(&upstream.url(), |_| {}).await;
        let client = Client::new(&gateway.url).unwrap();
        let status = async |request| client.send(request).await.unwrap().status;
        let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{\"a\":1}");
        assert_eq!(status(write).await, 200);
        let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
        assert_eq!(status(delete.token("alice.LAPTOP")).await, told);
        let read = entry(Method::GET, "PHONE", "", "alice.LAPTOP");
        assert_eq!(status(read).await, 404, "{told}");
    }
}

/// Those that the homeserver tells of afterwards may be new ones of the same ID.
#[tokio::test]
async fn what_a_new_password_ends_is_asked_for_before() {
    let upstream = silent(504).await;
    let gateway = gateway(&upstream.url(), |_| {}).await;
    let client = Client::new(&gateway.url).unwrap();
    let status = async |request| client.send(request).await.unwrap().status;
    for device in ["PHONE", "LAPTOP"] {
        let write = entry(Method::PUT, device, "", &format!("alice.{device}"));
        assert_eq!(status(write.body("{\"a\":1}")).await, 200);
    }
    let password = post("account/password").token("alice.LAPTOP");
    assert_eq!(
        status(password.json(&json!({"new_password": "a"}))).await,
        200
    );
    for (device, expected) in [("PHONE", 404), ("LAPTOP", 200)] {
        let read = entry(Method::GET, device, "", "alice.LAPTOP");
        assert_eq!(status(read).await, expected, "{device}");
    }
}
