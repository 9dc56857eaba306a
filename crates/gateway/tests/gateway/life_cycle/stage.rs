//! A homeserver that has troubles, a gateway before it, and what a client does there.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use http::Response;
use kitbag_client::{Method, Request};
use kitbag_domain::Limits;
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::scripted::{Asked, Scripted, ScriptedBody, json, reset, whole};
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::SOON;
use crate::support::{Running, gateway_at, send, until};
use crate::toy::{self, Stored, TOMBSTONE, count, entry};

/// How long the gateway waits for what it asks, where a test lets it wait in vain.
pub(super) const BRIEF_MS: u64 = 400;

/// What a homeserver does out of the ordinary, at requests by their method and a part of the path.
#[derive(Clone)]
pub(super) enum Trouble {
    /// It waits for a permit, and does not answer where there are none any more.
    Holds(Arc<Semaphore>),
    /// It does what it was asked for, and answers this.
    Does(u16),
    /// It answers this.
    Says(u16),
    /// It, or somebody before it, answers this.
    Tells(u16, &'static str),
}

#[derive(Default)]
pub(super) struct State {
    living: Mutex<BTreeSet<String>>,
    stored: Stored,
    trouble: Mutex<HashMap<(Method, &'static str), Trouble>>,
    /// Requests that were told that their session is none.
    pub(super) refused: AtomicUsize,
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
            Some(Trouble::Tells(status, body)) => whole(status, body),
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
pub(super) struct Stage {
    pub(super) state: Arc<State>,
    pub(super) upstream: Scripted,
    pub(super) gateway: Running,
    pub(super) clock: Arc<TestClock>,
}

impl Stage {
    /// Starts it, with an entry of PHONE.
    pub(super) async fn start(ask_timeout_ms: u64) -> Self {
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

    pub(super) fn trouble(&self, method: Method, part: &'static str, trouble: Trouble) {
        let mut troubles = self.state.trouble.lock().unwrap();
        troubles.insert((method, part), trouble);
    }

    pub(super) fn holds(&self, method: Method, part: &'static str) -> Arc<Semaphore> {
        let permits = Arc::new(Semaphore::new(0));
        self.trouble(method, part, Trouble::Holds(Arc::clone(&permits)));
        permits
    }

    pub(super) fn is_well(&self) {
        self.state.trouble.lock().unwrap().clear();
    }

    /// A device begins past the gateway.
    pub(super) fn begins(&self, device: &str) {
        self.state.living.lock().unwrap().insert(device.to_owned());
    }

    /// A device ends past the gateway.
    pub(super) fn ends(&self, device: &str) {
        self.state.living.lock().unwrap().remove(device);
    }

    pub(super) fn send(&self, request: Request) -> JoinHandle<u16> {
        send(&self.gateway, request)
    }

    pub(super) async fn status(&self, request: Request) -> u16 {
        timeout(SOON, self.send(request)).await.unwrap().unwrap()
    }

    pub(super) async fn write(&self, device: &str) -> u16 {
        let write = entry(Method::PUT, device, "", &format!("alice.{device}"));
        self.status(write.body("{\"a\":1}")).await
    }

    pub(super) async fn read(&self, by: &str) -> u16 {
        let read = entry(Method::GET, "PHONE", "", &format!("alice.{by}"));
        self.status(read).await
    }

    /// Waits until the homeserver was asked for something so many times.
    pub(super) async fn asked(&self, part: &str, times: usize) {
        until(|| count(&self.upstream, part) >= times).await;
    }

    /// Waits until the homeserver was asked so many times for all devices.
    pub(super) async fn asked_for_all_devices(&self, times: usize) {
        let is_it = |asked: &&Asked| asked.target.ends_with("/devices");
        until(|| self.upstream.asked().iter().filter(is_it).count() >= times).await;
    }

    pub(super) fn tombstones(&self) -> usize {
        self.tombstones_of("")
    }

    /// Returns how many were sent to a device, or to all.
    pub(super) fn tombstones_of(&self, device: &str) -> usize {
        let asked = self.upstream.asked();
        let are = asked.iter().filter(|asked| {
            let is_tombstone = asked.body == TOMBSTONE;
            asked.method == Method::PUT && is_tombstone && asked.target.contains(device)
        });
        are.count()
    }

    /// Waits until so many were sent.
    pub(super) async fn emptied(&self, times: usize) {
        until(|| self.tombstones() >= times).await;
    }
}

pub(super) fn delete(by: &str) -> Request {
    let delete = Request::new(Method::DELETE, "/_matrix/client/v3/devices/PHONE");
    delete.token(&format!("alice.{by}"))
}

pub(super) fn post(path: &str) -> Request {
    super::post(path).token("alice.PHONE")
}
