//! A homeserver that fails at times to empty what the gateway has it empty, or does it late, and to
//! say what it did.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::http::{Method, Request, StatusCode};
use axum::response::Response;
use futures_util::stream;
use kitbag_client::{Client, Login, Scope};
use kitbag_domain::Clock as _;
use kitbag_http::shared::Denial;
use kitbag_http::{Edge, ListenerSettings, Service};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::dice::Dice;
use percent_encoding::percent_decode_str;
use serde_json::Value;
use tokio::time;

use crate::support::PASSWORD;
use crate::toy::TOMBSTONE;

/// In a hundred requests that it may fail at.
const FAULTS: usize = 25;

/// What ends devices.
const ENDS: [&str; 4] = [
    "/logout",
    "/logout/all",
    "/delete_devices",
    "/account/password",
];

/// In a hundred ends that take long.
const SLOW: usize = 20;

/// How late it does what it did not answer to.
const LATE_MS: u64 = 10_000;

/// Whether it fails, and when.
#[derive(Debug)]
pub(super) struct Faults {
    pub(super) is_on: AtomicBool,
    /// How long some ends take.
    pub(super) slow: Option<Duration>,
    pub(super) dice: Mutex<Dice>,
    pub(super) clock: Arc<TestClock>,
    /// The homeserver itself, and whose entries these are.
    pub(super) behind: OnceLock<(Client, String)>,
    late: tokio::sync::Mutex<Vec<Late>>,
    /// Tombstones that were written late.
    pub(super) landed: AtomicUsize,
    /// Requests that it failed at.
    pub(super) struck: AtomicUsize,
    /// Listings of entries or devices that failed.
    pub(super) unlisted: AtomicUsize,
}

/// A tombstone that was not answered, and may still be written.
#[derive(Debug)]
struct Late {
    kind: String,
    sent_ms: u64,
}

impl Faults {
    pub(super) fn new(
        is_on: bool,
        slow: Option<Duration>,
        dice: Dice,
        clock: Arc<TestClock>,
    ) -> Self {
        Self {
            is_on: AtomicBool::new(is_on),
            slow,
            dice: Mutex::new(dice),
            clock,
            behind: OnceLock::new(),
            late: tokio::sync::Mutex::default(),
            landed: AtomicUsize::new(0),
            struck: AtomicUsize::new(0),
            unlisted: AtomicUsize::new(0),
        }
    }
}

#[derive(Clone)]
pub(super) struct Failing {
    pub(super) edge: Edge,
    pub(super) faults: Arc<Faults>,
}

impl Failing {
    /// Writes one of the tombstones that nobody waits for any more.
    pub(super) async fn land(&self) {
        let mut late = self.faults.late.lock().await;
        if !late.is_empty() {
            let at = self.faults.dice.lock().unwrap().below(late.len());
            self.write(late.swap_remove(at)).await;
        }
    }

    /// Lets time pass, before which that is written which then would be too late.
    pub(super) async fn advance(&self, by_ms: u64) {
        let mut late = self.faults.late.lock().await;
        let until_ms = self.faults.clock.now_ms() + by_ms;
        for one in std::mem::take(&mut *late) {
            match one.sent_ms + LATE_MS > until_ms {
                true => late.push(one),
                false => self.write(one).await,
            }
        }
        self.faults.clock.advance(by_ms);
    }

    /// The homeserver took it for what it is long ago: so its session may have ended since.
    async fn write(&self, late: Late) {
        let (client, user) = self.faults.behind.get().unwrap();
        let login = Login {
            device_id: Some("LATE"),
            ..Login::password(user, PASSWORD)
        };
        let Ok(session) = client.login(&login).await else {
            // The password is being set anew.
            return;
        };
        let content: Value = serde_json::from_str(TOMBSTONE).unwrap();
        let written = session.put(Scope::Global, &late.kind, &content).await;
        let landed = &self.faults.landed;
        landed.fetch_add(usize::from(written.is_ok()), Ordering::SeqCst);
    }

    /// Some ends take longer than the gateway keeps others of the user waiting for them.
    async fn take_time(&self, is_end: bool) {
        if let Some(slow) = self.faults.slow
            && is_end
        {
            let is_slow = self.faults.dice.lock().unwrap().chance(SLOW);
            if is_slow {
                time::sleep(slow).await;
            }
        }
    }

    /// Tells whether a request is one of those that it may fail at: what the gateway asks to empty
    /// something, and what ends devices.
    fn may_fail(&self, request: &Request<Body>) -> bool {
        let path = request.uri().path();
        let is_it = match *request.method() {
            Method::GET => path.ends_with("/sync") || path.ends_with("/devices"),
            Method::PUT => {
                let bytes = request.body().size_hint().exact();
                path.contains("device_account_data.") && bytes == Some(TOMBSTONE.len() as u64)
            }
            Method::DELETE => path.contains("/devices/"),
            Method::POST => ENDS.iter().any(|end| path.ends_with(end)),
            _ => false,
        };
        is_it && self.faults.is_on.load(Ordering::SeqCst)
    }
}

impl Service for Failing {
    const HEAD_BYTES_MAX: usize = Edge::HEAD_BYTES_MAX;

    type Connected = <Edge as Service>::Connected;

    fn listener(&self) -> ListenerSettings {
        self.edge.listener()
    }

    fn apart(&self) -> Self {
        Self {
            edge: self.edge.apart(),
            faults: Arc::clone(&self.faults),
        }
    }

    fn connected(&self) -> Self::Connected {
        self.edge.connected()
    }

    fn refuse(&self, denial: Denial) -> Response {
        self.edge.refuse(denial)
    }

    async fn answer(&self, peer: IpAddr, request: Request<Body>) -> Response {
        let (fails, is_done) = match self.may_fail(&request) {
            true => {
                let mut dice = self.faults.dice.lock().unwrap();
                (dice.chance(FAULTS), dice.chance(50))
            }
            false => (false, true),
        };
        let struck = &self.faults.struck;
        struck.fetch_add(fails.into(), Ordering::SeqCst);
        let is_unlisted = fails && *request.method() == Method::GET;
        let unlisted = &self.faults.unlisted;
        unlisted.fetch_add(usize::from(is_unlisted), Ordering::SeqCst);
        let is_end = matches!(*request.method(), Method::DELETE | Method::POST);
        self.take_time(is_end && self.may_fail(&request)).await;
        match (fails, is_done) {
            (false, _) => self.edge.answer(peer, request).await,
            // Refused, and nothing is done. An end that fails so may be done all the same.
            (true, false) if !is_end => {
                let mut response = Response::new(Body::from("{\"errcode\":\"M_UNKNOWN\"}"));
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
                response
            }
            (true, _) => {
                let is_late = self.faults.dice.lock().unwrap().chance(80);
                if is_late && *request.method() == Method::PUT {
                    let kind = request.uri().path().rsplit('/').next().unwrap();
                    let kind = percent_decode_str(kind).decode_utf8().unwrap().into();
                    let mut late = self.faults.late.lock().await;
                    let sent_ms = self.faults.clock.now_ms();
                    late.push(Late { kind, sent_ms });
                } else {
                    drop(self.edge.answer(peer, request).await);
                }
                // The connection ends within the answer.
                let cut = io::Error::from(io::ErrorKind::ConnectionReset);
                let cut = stream::iter([Err::<&str, _>(cut)]);
                Response::new(Body::from_stream(cut))
            }
        }
    }
}
