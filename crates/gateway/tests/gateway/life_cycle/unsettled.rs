//! Ends whose outcome is not known yet, or whose entries are still to be emptied.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::Response;
use kitbag_client::{Client, Method, Request};
use kitbag_domain::Limits;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, json, reset, whole};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::SOON;
use crate::support::{Running, gateway_at};
use crate::toy::{self, Stored, count, entry};

/// How long the gateway waits for what it asks, where a test lets it wait in vain.
const BRIEF_MS: u64 = 400;

/// What a homeserver does out of the ordinary, at requests by their method and a part of the path.
#[derive(Clone)]
enum Trouble {
    /// It waits for a permit, and does not answer where there are none any more.
    Holds(Arc<Semaphore>),
    /// It does what it was asked for, and answers this.
    Does(u16),
    /// It answers this.
    Says(u16),
    /// It does not take the credentials, and says why.
    Refuses(&'static str),
}

#[derive(Default)]
struct State {
    living: Mutex<BTreeSet<String>>,
    stored: Stored,
    trouble: Mutex<HashMap<(Method, &'static str), Trouble>>,
    /// Requests that were told that their session is none.
    refused: AtomicUsize,
}

impl State {
    fn answer(&self, asked: &Asked) -> Response<ScriptedBody> {
        let path = asked.target.split('?').next().unwrap();
        let path = path.trim_start_matches("/_matrix/client/v3/");
        let own = asked.headers.get("authorization");
        let own = own.map_or("", |own| own.to_str().unwrap());
        let own = own.trim_start_matches("Bearer alice.");
        let mut living = self.living.lock().unwrap();
        let is_login = matches!(path, "login" | "register");
        if !is_login && !living.contains(own) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return toy::error(401, "M_UNKNOWN_TOKEN");
        }
        match (asked.method.as_str(), path, path.strip_prefix("devices/")) {
            ("POST", "login", _) => {
                living.insert("PHONE".to_owned());
                let token = "alice.PHONE";
                let session = json!({"user_id": "@alice:x", "access_token": token});
                json(200, &session)
            }
            ("POST", "logout", _) => {
                living.remove(own);
                json(200, &json!({}))
            }
            ("POST", "account/password" | "delete_devices", _) => {
                // Whose devices ended has logged in again.
                json(200, &json!({}))
            }
            ("POST", "logout/all", _) => {
                living.clear();
                json(200, &json!({}))
            }
            ("DELETE", _, Some(device)) => {
                living.remove(device);
                json(200, &json!({}))
            }
            ("GET", "devices", _) => {
                let devices = living.iter().map(|id| json!({"device_id": id}));
                json(200, &json!({"devices": devices.collect::<Vec<_>>()}))
            }
            ("GET", _, Some(device)) if !living.contains(device) => toy::error(404, "M_NOT_FOUND"),
            _ => toy::answer(asked, &self.stored),
        }
    }

    async fn act(&self, asked: Asked) -> Response<ScriptedBody> {
        let trouble = {
            let trouble = self.trouble.lock().unwrap();
            let of_it = trouble.iter().find(|((method, part), _)| {
                *method == asked.method && asked.target.split('?').next().unwrap().contains(part)
            });
            of_it.map(|(_, trouble)| trouble.clone())
        };
        match trouble {
            Some(Trouble::Says(status)) => toy::error(status, "M_UNKNOWN_TOKEN"),
            Some(Trouble::Refuses(why)) => whole(401, why),
            Some(Trouble::Does(status)) => {
                drop(self.answer(&asked));
                toy::error(status, "M_UNKNOWN")
            }
            Some(Trouble::Holds(permits)) => match permits.acquire().await {
                Ok(permit) => {
                    permit.forget();
                    self.answer(&asked)
                }
                Err(_closed) => reset(),
            },
            None => self.answer(&asked),
        }
    }
}

/// A homeserver with devices PHONE and LAPTOP of alice, and a gateway before it.
struct Stage {
    state: Arc<State>,
    upstream: Scripted,
    gateway: Running,
    clock: Arc<TestClock>,
}

impl Stage {
    /// Starts it, with an entry of PHONE.
    async fn start(ask_timeout_ms: u64) -> Self {
        let state = Arc::<State>::default();
        let devices = ["PHONE", "LAPTOP"].map(str::to_owned);
        state.living.lock().unwrap().extend(devices);
        let acting = Arc::clone(&state);
        let upstream = Scripted::start(move |asked| {
            let acting = Arc::clone(&acting);
            async move { acting.act(asked).await }
        });
        let upstream = upstream.await;
        let (url, clock) = (upstream.url(), Arc::<TestClock>::default());
        let gateway = gateway_at(&url, Arc::clone(&clock), Limits::default(), |settings| {
            settings.upstream.ask_timeout_ms = ask_timeout_ms;
        });
        let gateway = gateway.await;
        let stage = Self {
            state,
            upstream,
            gateway,
            clock,
        };
        assert_eq!(stage.write("PHONE").await, 200);
        stage
    }

    fn trouble(&self, method: Method, part: &'static str, trouble: Trouble) {
        let mut troubles = self.state.trouble.lock().unwrap();
        troubles.insert((method, part), trouble);
    }

    fn holds(&self, method: Method, part: &'static str) -> Arc<Semaphore> {
        let permits = Arc::new(Semaphore::new(0));
        self.trouble(method, part, Trouble::Holds(Arc::clone(&permits)));
        permits
    }

    fn is_well(&self) {
        self.state.trouble.lock().unwrap().clear();
    }

    /// A device begins past the gateway.
    fn begins(&self, device: &str) {
        self.state.living.lock().unwrap().insert(device.to_owned());
    }

    /// A device ends past the gateway.
    fn ends(&self, device: &str) {
        self.state.living.lock().unwrap().remove(device);
    }

    fn send(&self, request: Request) -> JoinHandle<u16> {
        let client = Client::new(&self.gateway.url).unwrap();
        tokio::spawn(async move { client.send(request).await.unwrap().status })
    }

    async fn status(&self, request: Request) -> u16 {
        timeout(SOON, self.send(request)).await.unwrap().unwrap()
    }

    async fn write(&self, device: &str) -> u16 {
        let write = entry(Method::PUT, device, "", &format!("alice.{device}"));
        self.status(write.body("{\"a\":1}")).await
    }

    async fn read(&self, by: &str) -> u16 {
        let read = entry(Method::GET, "PHONE", "", &format!("alice.{by}"));
        self.status(read).await
    }

    /// Waits until the homeserver was asked for something so many times.
    async fn asked(&self, part: &str, times: usize) {
        let asked = async {
            while count(&self.upstream, part) < times {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, asked).await.unwrap();
    }

    /// Waits until the homeserver was asked so many times for all devices.
    async fn asked_for_all_devices(&self, times: usize) {
        let asked = async {
            loop {
                let asked = self.upstream.asked();
                let are = asked
                    .iter()
                    .filter(|asked| asked.target.ends_with("/devices"));
                if are.count() >= times {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, asked).await.unwrap();
    }

    fn tombstones(&self) -> usize {
        let asked = self.upstream.asked();
        let are = asked.iter().filter(|asked| {
            asked.method == Method::PUT && asked.body.starts_with(b"{\"org.matrix.msc4331.deleted")
        });
        are.count()
    }
}

fn delete(by: &str) -> Request {
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
    delete.token(&format!("alice.{by}"))
}

fn post(path: &str) -> Request {
    super::post(path).token("alice.PHONE")
}

/// It is refused as by the homeserver itself, and not for what its own end left.
#[tokio::test]
async fn a_write_that_waits_while_its_device_deletes_itself_is_told_that_the_session_ended() {
    let stage = Stage::start(30_000).await;
    let permits = stage.holds(Method::DELETE, "/devices/");
    let (questions, deleted) = (
        count(&stage.upstream, "/whoami"),
        stage.send(delete("PHONE")),
    );
    stage.asked("/whoami", questions + 1).await;
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{}");
    let written = stage.send(write);
    stage.asked("/whoami", questions + 2).await;
    // Its session is known, and it waits for its turn, or soon will.
    permits.add_permits(1);
    let statuses = async { (deleted.await.unwrap(), written.await.unwrap()) };
    assert_eq!(timeout(SOON, statuses).await.unwrap(), (200, 401));
}

#[tokio::test]
async fn a_login_of_somebody_that_takes_long_keeps_nobody_from_a_device_that_began_anew() {
    let stage = Stage::start(30_000).await;
    assert_eq!(stage.status(delete("PHONE")).await, 200);
    stage.holds(Method::POST, "/register");
    let register = stage.send(super::post("register").body("{}"));
    stage.asked("/register", 1).await;
    stage.begins("PHONE");
    assert_eq!(stage.read("PHONE").await, 404);
    assert_eq!(stage.write("PHONE").await, 200);
    register.abort();
}

#[tokio::test]
async fn a_logout_with_a_token_that_is_told_nothing_about_leaves_its_device_empty() {
    for status in [401, 500] {
        let stage = Stage::start(30_000).await;
        stage.trouble(Method::GET, "/whoami", Trouble::Says(status));
        assert_eq!(stage.status(post("logout")).await, 200);
        stage.is_well();
        stage.begins("PHONE");
        assert_eq!(stage.read("PHONE").await, 404, "{status}");
        assert_eq!(stage.tombstones(), 1);
    }
}

#[tokio::test]
async fn what_a_dead_token_is_told_is_no_proof_that_devices_ended() {
    for path in ["logout", "logout/all"] {
        for status in [500, 502, 503] {
            let stage = Stage::start(30_000).await;
            assert_eq!(stage.write("LAPTOP").await, 200);
            stage.ends("PHONE");
            stage.trouble(Method::POST, path, Trouble::Says(status));
            assert_eq!(stage.status(post(path)).await, status);
            let looked = if path == "logout" { 1 } else { 2 };
            stage.asked_for_all_devices(looked).await;
            stage.begins("PHONE");
            // It waits for whoever looks.
            assert_eq!(stage.read("LAPTOP").await, 200, "{path} {status}");
            let own = entry(Method::GET, "LAPTOP", "", "alice.LAPTOP");
            assert_eq!(stage.status(own).await, 200, "{path} {status}");
            assert_eq!(stage.tombstones(), 0);
        }
    }
}

#[tokio::test]
async fn a_session_that_is_to_log_in_again_is_no_proof_that_its_device_ended() {
    for (why, expected) in [
        (
            "{\"errcode\":\"M_UNKNOWN_TOKEN\",\"soft_logout\":true}",
            200,
        ),
        ("{\"errcode\":\"M_USER_LOCKED\",\"soft_logout\":true}", 200),
        ("{\"errcode\":\"M_MISSING_TOKEN\"}", 200),
        ("<html>", 200),
        (
            "{\"errcode\":\"M_UNKNOWN_TOKEN\",\"soft_logout\":false}",
            404,
        ),
    ] {
        let stage = Stage::start(30_000).await;
        stage.trouble(Method::DELETE, "/devices/", Trouble::Says(504));
        stage.trouble(Method::GET, "v3/devices", Trouble::Refuses(why));
        assert_eq!(stage.status(delete("PHONE")).await, 504);
        stage.asked_for_all_devices(1).await;
        stage.is_well();
        assert_eq!(stage.read("PHONE").await, expected, "{why}");
    }
}

#[tokio::test]
async fn nothing_is_deleted_while_the_homeserver_cannot_say_who_asks() {
    let stage = Stage::start(30_000).await;
    for status in [429, 500] {
        stage.trouble(Method::GET, "/whoami", Trouble::Says(status));
        assert_eq!(stage.status(delete("LAPTOP")).await, status);
    }
    let asked = count(&stage.upstream, "/devices/PHONE");
    assert_eq!(asked, 1, "that of the write");
}

#[tokio::test]
async fn a_new_password_ends_the_others_also_where_nobody_can_name_them() {
    let stage = Stage::start(30_000).await;
    assert_eq!(stage.write("LAPTOP").await, 200);
    stage.trouble(Method::GET, "v3/devices", Trouble::Says(500));
    stage.trouble(Method::GET, "/sync", Trouble::Says(500));
    let password = super::post("account/password").token("alice.LAPTOP");
    let password = password.body("{\"new_password\":\"a\"}");
    assert_eq!(stage.status(password).await, 200);
    stage.is_well();
    // It began anew before anything could be emptied.
    assert_eq!(stage.read("PHONE").await, 404);
    assert_eq!(stage.tombstones(), 1);
}

#[tokio::test]
async fn what_a_deletion_without_a_clear_answer_ended_is_emptied_before_anybody_asks() {
    for status in [500, 202, 503] {
        let stage = Stage::start(30_000).await;
        stage.trouble(Method::DELETE, "/devices/", Trouble::Does(status));
        assert_eq!(stage.status(delete("LAPTOP")).await, status);
        let emptied = async {
            while stage.tombstones() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, emptied).await.unwrap();
    }
}

#[tokio::test]
async fn a_device_that_deleted_itself_without_a_clear_answer_starts_empty() {
    let stage = Stage::start(30_000).await;
    stage.trouble(Method::DELETE, "/devices/", Trouble::Does(504));
    assert_eq!(stage.status(delete("PHONE")).await, 504);
    // That its credentials are none any more tells it.
    let refused = async {
        while stage.state.refused.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, refused).await.unwrap();
    stage.begins("PHONE");
    let read = stage.read("PHONE").await;
    assert_eq!((read, stage.tombstones()), (404, 1));
    let stage = Stage::start(30_000).await;
    stage.trouble(Method::DELETE, "/devices/", Trouble::Says(504));
    assert_eq!(stage.status(delete("PHONE")).await, 504);
    // It lives, and keeps what it has.
    stage.clock.advance(30_000);
    assert_eq!(stage.read("LAPTOP").await, 200);
}

#[tokio::test]
async fn a_deletion_whose_turn_does_not_come_empties_nothing_yet() {
    let stage = Stage::start(BRIEF_MS).await;
    let permits = stage.holds(Method::PUT, "/account_data/");
    let write = entry(Method::PUT, "PHONE", "", "alice.PHONE").body("{}");
    let written = stage.send(write);
    stage.asked("PHONE.org.example.a", 4).await;
    // The write may still be done, so that its turn is held for a while.
    assert_eq!(stage.status(delete("LAPTOP")).await, 200);
    assert_eq!(stage.tombstones(), 0, "the write would land behind it");
    assert_eq!(written.await.unwrap(), 504);
    permits.close();
}

#[tokio::test]
async fn while_a_device_is_being_deleted_for_long_others_go_on_and_it_waits() {
    let stage = Stage::start(BRIEF_MS).await;
    let permits = stage.holds(Method::DELETE, "/devices/");
    let deleted = stage.send(delete("LAPTOP"));
    stage.asked("/devices/PHONE", 2).await;
    let others = async {
        // Until the turn is given up.
        while stage.write("LAPTOP").await != 200 {}
    };
    timeout(SOON, others).await.unwrap();
    assert_eq!(stage.read("LAPTOP").await, 503);
    assert_eq!(stage.write("PHONE").await, 503);
    permits.add_permits(1);
    assert_eq!(timeout(SOON, deleted).await.unwrap().unwrap(), 200);
    assert_eq!((stage.read("LAPTOP").await, stage.tombstones()), (404, 1));
}

#[tokio::test]
async fn what_was_emptied_without_an_answer_is_not_written_while_that_may_come_late() {
    let stage = Stage::start(BRIEF_MS).await;
    let permits = stage.holds(Method::PUT, "/account_data/");
    assert_eq!(stage.status(delete("LAPTOP")).await, 200);
    permits.close();
    stage.is_well();
    let login = || super::post("login").body("{}");
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 503);
    assert_eq!(stage.tombstones(), 1);
    stage.clock.advance(10_000);
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 200);
    assert_eq!(stage.tombstones(), 2);
}

#[tokio::test]
async fn what_may_have_ended_before_all_others_did_has() {
    let stage = Stage::start(30_000).await;
    stage.trouble(Method::DELETE, "/devices/", Trouble::Does(504));
    // So that nobody can look what became of it.
    stage.trouble(Method::GET, "v3/devices", Trouble::Says(500));
    assert_eq!(stage.status(delete("LAPTOP")).await, 504);
    stage.is_well();
    stage.trouble(Method::GET, "/sync", Trouble::Says(500));
    let logout = super::post("logout/all").token("alice.LAPTOP");
    assert_eq!(stage.status(logout).await, 200);
    stage.is_well();
    stage.begins("PHONE");
    stage.clock.advance(30_000);
    assert_eq!(stage.read("PHONE").await, 404);
}

/// Sends what ends devices in its last stage, and has PHONE end meanwhile unless it stays.
async fn last_stage(stage: &Stage, path: &'static str, body: &str, is_to_stay: bool) {
    let permits = stage.holds(Method::POST, path);
    let request = super::post(path).token("alice.LAPTOP");
    let told = stage.send(request.body(body.to_owned()));
    stage.asked(path, 1).await;
    if !is_to_stay {
        stage.ends("PHONE");
    }
    permits.add_permits(1);
    assert_eq!(timeout(SOON, told).await.unwrap().unwrap(), 200);
}

/// Synapse knows from the first stage which these are, and whether they are to stay.
#[tokio::test]
async fn a_last_stage_that_has_auth_alone_empties_devices_that_are_gone_and_none_that_lives() {
    for path in ["account/password", "delete_devices"] {
        for body in ["{\"auth\":{}}", "{\"auth\":{},\"logout_devices\":true}"] {
            for (is_to_stay, expected) in [(true, (200, 0)), (false, (404, 1))] {
                let stage = Stage::start(30_000).await;
                last_stage(&stage, path, body, is_to_stay).await;
                let read = stage.read("LAPTOP").await;
                assert_eq!((read, stage.tombstones()), expected, "{path} {body}");
            }
        }
    }
}

#[tokio::test]
async fn of_more_devices_than_can_be_owed_those_are_emptied_that_are_gone() {
    let stage = Stage::start(30_000).await;
    assert_eq!(stage.write("LAPTOP").await, 200);
    let devices = (0..999).map(|number| format!("D{number}"));
    let devices = devices.chain(["PHONE", "LAPTOP"].map(str::to_owned));
    let body = json!({"devices": devices.collect::<Vec<_>>()}).to_string();
    last_stage(&stage, "delete_devices", &body, false).await;
    assert_eq!((stage.read("LAPTOP").await, stage.tombstones()), (404, 1));
}

#[tokio::test]
async fn while_a_password_is_being_set_for_long_its_device_goes_on_and_others_wait() {
    for body in ["{\"auth\":{}}", "{\"new_password\":\"a\"}"] {
        let stage = Stage::start(BRIEF_MS).await;
        let permits = stage.holds(Method::POST, "account/password");
        let password = super::post("account/password").token("alice.LAPTOP");
        let told = stage.send(password.body(body));
        stage.asked("account/password", 1).await;
        let own = async {
            // Until the turn is given up.
            while stage.write("LAPTOP").await != 200 {}
        };
        timeout(SOON, own).await.unwrap();
        assert_eq!(stage.read("LAPTOP").await, 503, "{body}");
        assert_eq!(stage.write("PHONE").await, 503, "{body}");
        permits.add_permits(1);
        assert_eq!(timeout(SOON, told).await.unwrap().unwrap(), 200);
    }
}

#[tokio::test]
async fn one_tombstone_that_may_come_late_counts_whatever_became_of_another() {
    let stage = Stage::start(30_000).await;
    let other = "/_matrix/client/v3/user/%40alice%3Ax/devices/PHONE/account_data/org.example.b";
    let other = Request::new(Method::PUT, other).token("alice.PHONE");
    assert_eq!(stage.status(other.body("{\"a\":1}")).await, 200);
    let broken = Trouble::Says(500);
    stage.trouble(Method::PUT, "PHONE.org.example.a", broken);
    let permits = stage.holds(Method::PUT, "PHONE.org.example.b");
    let deleted = stage.send(delete("LAPTOP"));
    let sent = async {
        while stage.tombstones() < 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, sent).await.unwrap();
    // By then the first has its answer; the other never gets one.
    let whoami = Request::new(Method::GET, "/_matrix/client/v3/account/whoami");
    assert_eq!(stage.status(whoami.token("alice.LAPTOP")).await, 200);
    permits.close();
    assert_eq!(timeout(SOON, deleted).await.unwrap().unwrap(), 200);
    stage.is_well();
    let login = || super::post("login").body("{}");
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 503);
    stage.clock.advance(10_000);
    assert_eq!(stage.status(login()).await, 200);
    assert_eq!(stage.write("PHONE").await, 200);
}

#[tokio::test]
async fn what_ended_for_sure_is_paid_also_where_nobody_can_tell_what_else_did() {
    let stage = Stage::start(30_000).await;
    stage.trouble(Method::GET, "/sync", Trouble::Says(500));
    let logout = super::post("logout/all").token("alice.LAPTOP");
    assert_eq!(stage.status(logout).await, 200);
    stage.is_well();
    stage.trouble(Method::GET, "v3/devices", Trouble::Says(500));
    stage.begins("LAPTOP");
    stage.clock.advance(30_000);
    assert_eq!((stage.write("LAPTOP").await, stage.tombstones()), (500, 1));
    stage.is_well();
    assert_eq!(
        stage.write("LAPTOP").await,
        200,
        "it waits for what is paid"
    );
}
