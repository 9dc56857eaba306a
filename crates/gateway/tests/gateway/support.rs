//! A homeserver, a gateway before it, and clients of both.
//!
//! The homeserver is Kitbag's own, which has all that the gateway needs of one; what no homeserver
//! does on purpose is scripted (`kitbag_testkit::scripted`). Both listen on ports of their own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kitbag_client::{Account, Client, Register, Request, Response};
use kitbag_domain::{Limits, MemoryStore, ServerName};
use kitbag_gateway::{Gateway, Settings, SetupError};
use kitbag_http::{Edge, Passwords, Random, RegistrationMode, Service};
use kitbag_testkit::clock::TestClock;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::log;

/// The password of every account.
pub(crate) const PASSWORD: &str = "wordpass";

/// What can only take so long where something hangs.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// Not random at all, but never the same twice: secrets of tests need no more.
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            // Multiplied, so that all bytes of a number differ from those of the next.
            let number = self.0.fetch_add(1, Ordering::Relaxed);
            let drawn = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

/// A server on a port of its own, until it is dropped.
pub(crate) struct Running {
    pub(crate) url: String,
    stop: watch::Sender<bool>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

/// Serves on a free port.
pub(crate) async fn serve(
    service: impl Service,
    stop: watch::Sender<bool>,
    stopping: watch::Receiver<bool>,
) -> Running {
    log::watch();
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(kitbag_http::serve(listener, service, stopping));
    Running { url, stop }
}

/// Starts a homeserver with nobody in it.
pub(crate) async fn homeserver() -> Running {
    let (edge, stop, stopping) = homeserver_edge();
    serve(edge, stop, stopping).await
}

/// Makes such a homeserver, which does not listen yet.
pub(crate) fn homeserver_edge() -> (Edge, watch::Sender<bool>, watch::Receiver<bool>) {
    let (stop, stopping) = watch::channel(false);
    let mut settings = kitbag_http::Settings::default();
    settings.registration.mode = RegistrationMode::Open;
    settings.rate_limits.enabled = false;
    let limits = Limits::default();
    let edge = Edge::new(kitbag_http::Parts {
        store: Arc::new(MemoryStore::new(limits.clone(), 1)),
        clock: Arc::new(TestClock::default()),
        random: Arc::new(Counting(AtomicU64::new(1))),
        limits: Arc::new(limits),
        server_name: ServerName::parse("localhost").unwrap(),
        passwords: Passwords::new(2, Arc::new(Counting(AtomicU64::new(1)))).unwrap(),
        settings,
        render_metrics: Arc::new(|stats| format!("{stats:?}")),
        stopping: stopping.clone(),
    });
    (edge, stop, stopping)
}

/// Starts a gateway before the homeserver at `upstream`, with what `change` makes of the settings.
pub(crate) async fn gateway(upstream: &str, change: impl FnOnce(&mut Settings)) -> Running {
    gateway_at(upstream, Arc::default(), Limits::default(), change).await
}

/// As [`gateway`], at a time and with limits of the test's own.
pub(crate) async fn gateway_at(
    upstream: &str,
    clock: Arc<TestClock>,
    limits: Limits,
    change: impl FnOnce(&mut Settings),
) -> Running {
    let (stop, stopping) = watch::channel(false);
    let gateway = set_up_at(upstream, clock, limits, change);
    serve(gateway.unwrap(), stop, stopping).await
}

/// Puts a gateway together that does not run yet.
pub(crate) fn set_up(
    upstream: &str,
    change: impl FnOnce(&mut Settings),
) -> Result<Gateway, SetupError> {
    set_up_at(upstream, Arc::default(), Limits::default(), change)
}

/// As [`set_up`], at a time and with limits of the test's own.
pub(crate) fn set_up_at(
    upstream: &str,
    clock: Arc<TestClock>,
    limits: Limits,
    change: impl FnOnce(&mut Settings),
) -> Result<Gateway, SetupError> {
    let mut settings = Settings::default();
    settings.upstream.url = Some(upstream.parse().unwrap());
    change(&mut settings);
    Gateway::new(kitbag_gateway::Parts {
        settings,
        limits,
        clock,
        random: Arc::new(Counting(AtomicU64::new(1))),
    })
}

/// A homeserver with a gateway before it.
pub(crate) struct Lab {
    pub(crate) homeserver: Running,
    pub(crate) gateway: Running,
    /// That of the gateway.
    pub(crate) clock: Arc<TestClock>,
    names: AtomicU64,
    _between: Option<Running>,
}

impl Lab {
    /// Of a homeserver, a gateway whose clock this is, and what runs between the two.
    pub(crate) fn of(
        homeserver: Running,
        between: Option<Running>,
        gateway: Running,
        clock: Arc<TestClock>,
    ) -> Self {
        Self {
            homeserver,
            gateway,
            clock,
            names: AtomicU64::new(1),
            _between: between,
        }
    }

    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::limited(Limits::default(), change).await
    }

    /// As [`Lab::with`], with limits of the gateway's own.
    pub(crate) async fn limited(limits: Limits, change: impl FnOnce(&mut Settings)) -> Self {
        let homeserver = homeserver().await;
        let clock = Arc::<TestClock>::default();
        let gateway = gateway_at(&homeserver.url, Arc::clone(&clock), limits, change).await;
        Self::of(homeserver, None, gateway, clock)
    }

    /// Returns a client that goes through the gateway.
    pub(crate) fn client(&self) -> Client {
        Client::new(&self.gateway.url).unwrap()
    }

    /// Returns a client that goes past the gateway.
    pub(crate) fn beside(&self) -> Client {
        Client::new(&self.homeserver.url).unwrap()
    }

    /// Registers somebody, through the gateway, whose device is `device`.
    pub(crate) async fn user(&self, device: &str) -> Account {
        let name = format!("user{}", self.names.fetch_add(1, Ordering::Relaxed));
        let register = Register {
            username: Some(&name),
            password: Some(PASSWORD),
            device_id: Some(device),
            ..Register::default()
        };
        self.client().register(&register).await.unwrap()
    }
}

/// Sends a request to a gateway, and tells what status it is answered with.
pub(crate) fn send(gateway: &Running, request: Request) -> JoinHandle<u16> {
    let client = Client::new(&gateway.url).unwrap();
    tokio::spawn(async move { client.send(request).await.unwrap().status })
}

/// Waits until something is so.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let becomes_so = async {
        while !is_so() {
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, becomes_so).await.unwrap();
}

/// Returns the status of an answer in JSON, and its errcode; `null` where it has none.
pub(crate) fn told(response: &Response) -> (u16, Value) {
    let body: Value = response.json().unwrap();
    (response.status, body["errcode"].clone())
}
