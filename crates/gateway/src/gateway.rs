//! The gateway as one function from a request to an answer.

use std::net::IpAddr;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::{Body, HttpBody as _};
use axum::http::{Method, Request, StatusCode, Uri};
use axum::response::Response;
use futures_util::FutureExt as _;
use kitbag_domain::{Clock, Limits, UserId};
use kitbag_http::shared::{
    Denial, GatewayError, INFO_URI, Listener, Metrics, RequestId, RequestIds, RouteMetrics, Router,
    Unread, Variables, drop_body, finish, is_unfinished, share_body,
};
use kitbag_http::{ListenerSettings, Random, Service};
use thiserror::Error;
use tracing::{Instrument as _, debug, debug_span};

use crate::answer::{Answer, Failure};
use crate::call::{Call, Head};
use crate::compare::Compare;
use crate::credentials::Shown;
use crate::devices::Devices;
use crate::entries::{ENTRY_EXTRA_BYTES, LISTING_BYTES_MAX, TOLD_BYTES_OF_ONE, types_max};
use crate::excesses::Excesses;
use crate::guard;
use crate::headers;
use crate::identity::Identities;
use crate::listing::Listings;
use crate::memory::Memory;
use crate::metrics::{self, Asked, GatewayMetrics, GatewayStats};
use crate::observed::Observed;
use crate::owed::Owed;
use crate::pass::pass;
use crate::recent::{Forgotten, Remembered};
use crate::routes::{self, Handler, Route};
use crate::settings::Settings;
use crate::tails;
use crate::turns::Turns;
use crate::upstream::{Upstream, UpstreamSetupError};
use crate::works::Works;
use crate::write_rates::WriteRates;

/// The route of what goes through.
const PASS_ROUTE: &str = "pass";

/// The route of syncs that go through: they may wait for long.
const SYNC_ROUTE: &str = "sync";

/// What the gateway is made of; everything comes in from outside.
pub struct Parts {
    /// What the operator set.
    pub settings: Settings,
    /// The limits of entries.
    pub limits: Limits,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub random: Arc<dyn Random>,
}

/// Why a gateway cannot be put together.
#[derive(Debug, Error)]
pub enum SetupError {
    /// The entries of one device may be more than the gateway reads to empty them.
    #[error(
        "`limits.device_entries_max` is {entries_max} and `limits.device_content_bytes_max` is \
         {content_bytes_max}: so a device can keep more than the {listed_bytes_max} bytes that the \
         gateway reads to empty it, with each byte told as {TOLD_BYTES_OF_ONE} and \
         {ENTRY_EXTRA_BYTES} beside each content; lower one of them"
    )]
    DeviceTooLarge {
        /// Entries of a device.
        entries_max: u64,
        /// Bytes of one content.
        content_bytes_max: u64,
        /// Bytes that are read.
        listed_bytes_max: u64,
    },
    /// The way to the homeserver cannot be made ready.
    #[error(transparent)]
    Upstream(#[from] UpstreamSetupError),
}

/// Where a request goes.
enum Way<'a> {
    Endpoint(Handler, &'a Route, Variables),
    /// The path could mean another one.
    Nowhere,
    /// The path is the gateway's, the method is none of it.
    OwnPath,
    /// To the homeserver.
    Through,
}

/// The gateway, shared by all requests.
#[derive(Clone)]
pub struct Gateway(Arc<Handle>);

/// What the requests of one connection share: on one count of holders for all, the cores would wait
/// for each other.
struct Handle {
    inner: Arc<Inner>,
    upstream: Upstream,
}

impl Deref for Handle {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

struct Inner {
    settings: Settings,
    limits: Limits,
    router: Router<Route>,
    forgotten: Arc<Forgotten>,
    identities: Identities,
    devices: Devices,
    device_objects: Memory,
    listings: Listings,
    observed: Observed,
    write_rates: WriteRates,
    excesses: Excesses,
    compare: Compare,
    owed: Owed,
    works: Works,
    turns: Turns,
    additions: Turns,
    passed: Arc<RouteMetrics>,
    synced: Arc<RouteMetrics>,
    /// What every listener counts.
    metrics: Metrics,
    /// What the gateway alone counts.
    own_metrics: Arc<GatewayMetrics>,
    request_ids: RequestIds,
}

impl Gateway {
    /// Puts the gateway together.
    ///
    /// # Errors
    /// Where the limits make a device that could not be emptied, or the way to the homeserver cannot be
    /// made ready; whether it answers is not looked at.
    pub fn new(parts: Parts) -> Result<Self, SetupError> {
        let Parts {
            settings,
            limits,
            clock,
            random,
        } = parts;
        check(&limits)?;
        let forgotten = Arc::<Forgotten>::default();
        let wait = Duration::from_millis(settings.upstream.ask_timeout_ms);
        let metrics = Metrics::of_gateway();
        let own_metrics = Arc::new(GatewayMetrics::default());
        let remembered = |what| Remembered {
            what,
            forgotten: Arc::clone(&forgotten),
            clock: Arc::clone(&clock),
            remember_ms: settings.upstream.remember_ms,
            metrics: Arc::clone(&own_metrics),
        };
        let identities = Identities::new(remembered(metrics::Memory::Identities));
        let devices = Devices::new(remembered(metrics::Memory::Devices));
        let upstream = Upstream::new(settings.upstream.clone(), Arc::clone(&own_metrics))?;
        let inner = Arc::new(Inner {
            router: routes::router(&settings, &metrics),
            identities,
            devices,
            device_objects: Memory::default(),
            listings: Listings::default(),
            forgotten,
            works: Works::new(settings.listener.connections_max.get()),
            owed: Owed::new(Arc::clone(&own_metrics), Arc::clone(&clock)),
            turns: Turns::new(wait, Arc::clone(&own_metrics)),
            additions: Turns::new(wait, Arc::clone(&own_metrics)),
            observed: Observed::new(Arc::clone(&clock)),
            write_rates: WriteRates::new(settings.writes, Arc::clone(&clock)),
            excesses: Excesses::new(clock),
            compare: Compare::new(settings.msc4547, wait, Arc::clone(&own_metrics)),
            passed: metrics.route(PASS_ROUTE.to_owned()),
            synced: metrics.route(SYNC_ROUTE.to_owned()),
            metrics,
            own_metrics,
            settings,
            limits,
            request_ids: RequestIds::new(&*random),
        });
        Ok(Self(Arc::new(Handle { inner, upstream })))
    }

    /// Returns all figures.
    #[must_use]
    pub fn stats(&self) -> GatewayStats {
        GatewayStats {
            breaker_is_open: self.upstream().is_down(),
            ..self.0.own_metrics.read(self.0.metrics.read())
        }
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.0.upstream
    }

    pub(crate) fn identities(&self) -> &Identities {
        &self.0.identities
    }

    pub(crate) fn devices(&self) -> &Devices {
        &self.0.devices
    }

    /// The room for devices with their account data.
    pub(crate) fn device_objects(&self) -> &Memory {
        &self.0.device_objects
    }

    /// The room for entries that are listed to be counted or emptied.
    pub(crate) fn listings(&self) -> &Listings {
        &self.0.listings
    }

    pub(crate) fn write_rates(&self) -> &WriteRates {
        &self.0.write_rates
    }

    /// What the log says of writes beyond a limit.
    pub(crate) fn excesses(&self) -> &Excesses {
        &self.0.excesses
    }

    pub(crate) fn compare(&self) -> &Compare {
        &self.0.compare
    }

    pub(crate) fn observed(&self) -> &Observed {
        &self.0.observed
    }

    /// What is still to be emptied of devices that ended.
    pub(crate) fn owed(&self) -> &Owed {
        &self.0.owed
    }

    /// Places for work that goes on where its client leaves.
    pub(crate) fn works(&self) -> &Works {
        &self.0.works
    }

    /// Turns of reads and writes of devices (shared) and of the ends of devices (alone).
    pub(crate) fn turns(&self) -> &Turns {
        &self.0.turns
    }

    /// Turns of writes that add an entry to a device, which count the entries before.
    pub(crate) fn additions(&self) -> &Turns {
        &self.0.additions
    }

    /// Forgets what the homeserver told of a user's sessions and devices: some of them ended.
    pub(crate) fn forget(&self, user: &UserId) {
        self.0.forgotten.forget(user);
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    /// Returns what every listener counts.
    pub(crate) fn http_metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn request_ids(&self) -> &RequestIds {
        &self.0.request_ids
    }

    pub(crate) fn metrics(&self) -> &Arc<GatewayMetrics> {
        &self.0.own_metrics
    }

    /// Answers one request that came from `peer`.
    async fn handle(&self, peer: IpAddr, mut request: Request<Body>) -> Response {
        let inner = &*self.0;
        // A listener of both families shows an IPv4 peer as an IPv6 address.
        let peer = peer.to_canonical();
        let request_id = inner.request_ids.next();
        headers::take_hop_by_hop_off(request.headers_mut());
        headers::tell_where_from(request.headers_mut(), peer, &inner.settings.trusted_proxies);
        let (method, path) = (request.method(), request.uri().path());
        // The path only: a query can hold a token.
        let span = debug_span!("request", id = %request_id, %method, path);
        let found = inner.router.find(path);
        let counted_at = match (found, Asked::by_client(path)) {
            (Some((route, _)), _) => &route.metrics,
            (None, Asked::Sync) => &inner.synced,
            (None, _) => &inner.passed,
        };
        let counting = counted_at.begin(method);
        let started = Instant::now();
        let way = match found {
            _ if method == Method::CONNECT => Way::OwnPath,
            // A host alone is a target for tunnels only.
            _ if is_host_alone(request.uri()) => Way::Nowhere,
            _ if guard::is_ambiguous(method, path, found.is_some()) => Way::Nowhere,
            _ if tails::is_misread(method, path) => Way::Nowhere,
            Some((route, variables)) => match route.methods.handler(method) {
                Some(handler) => Way::Endpoint(handler, route, variables),
                None if route.is_own() => Way::OwnPath,
                None => Way::Through,
            },
            None => Way::Through,
        };
        // By reference from here on: each future around it would hold it anew, and move it.
        let response = pin!(self.go(way, request, request_id));
        let response = response.instrument(span);
        let (response, took_us) = inner.own_metrics.request(started, response).await;
        counting.answered(response.status());
        counting.took(took_us);
        response
    }

    async fn go(&self, way: Way<'_>, mut request: Request<Body>, id: RequestId<'_>) -> Response {
        match way {
            Way::Endpoint(handler, route, variables) => {
                let unread = share_body(&mut request);
                let (parts, body) = request.into_parts();
                let head = Head {
                    parts,
                    names: route.names,
                    variables,
                };
                let call = Call { head, body };
                self.endpoint(handler, call, unread, id).await
            }
            Way::Nowhere => {
                self.refuse(request, id, GatewayError::AmbiguousPath.into())
                    .await
            }
            Way::OwnPath if request.method() == Method::OPTIONS => {
                let mut response = Response::new(Body::empty());
                *response.status_mut() = StatusCode::NO_CONTENT;
                finish(&mut response, id, true);
                response
            }
            Way::OwnPath => self.refuse(request, id, Denial::method_not_allowed()).await,
            Way::Through => match pass(self, request).await {
                Ok(response) => response,
                Err(failure) => self.render(failure, id),
            },
        }
    }

    async fn refuse(
        &self,
        mut request: Request<Body>,
        request_id: RequestId<'_>,
        denial: Denial,
    ) -> Response {
        metrics::for_client(share_body(&mut request).drain()).await;
        self.render(denial.into(), request_id)
    }

    async fn endpoint(
        &self,
        handler: Handler,
        call: Call,
        unread: Unread,
        id: RequestId<'_>,
    ) -> Response {
        let is_head = call.head.parts.method == Method::HEAD;
        let shown = Shown::of(&call.head.parts.headers, &call.head.parts.uri);
        // What a handler holds is dropped with it, so nothing half-done is looked at again.
        let answer: Answer = match AssertUnwindSafe(handler(self, call)).catch_unwind().await {
            Ok(answer) => answer,
            Err(_panic) => Err(Denial::panicked().into()),
        };
        metrics::for_client(unread.drain()).await;
        let mut response = match answer {
            Ok(mut response) => {
                // The gateway's own; those of the homeserver have it.
                if is_unfinished(&response) {
                    finish(&mut response, id, true);
                }
                response
            }
            Err(failure) => self.render(failure, id),
        };
        if response.status() == StatusCode::UNAUTHORIZED {
            // Whichever question it was the answer to, as in `pass`.
            self.identities().forget(shown.fingerprint());
        }
        // What the homeserver answered to a HEAD has no body, and tells the length of it.
        if is_head && !response.body().is_end_stream() {
            drop_body(&mut response);
        }
        response
    }

    /// Builds the answer to a request that is not done; that of the homeserver stays as it is.
    fn render(&self, failure: Failure, request_id: RequestId<'_>) -> Response {
        let denial = match failure {
            Failure::Denied(denial) => denial,
            Failure::Relayed(response) => return *response,
        };
        self.0.metrics.deny(&denial);
        debug!(reason = denial.reason(), "refused");
        let info_uri = self.0.settings.limits_info_uri.as_deref();
        let mut response = denial.render(request_id, info_uri.unwrap_or(INFO_URI));
        finish(&mut response, request_id, true);
        response
    }
}

/// Checks that the entries of a device can be listed, and so emptied.
fn check(limits: &Limits) -> Result<(), SetupError> {
    let entries_max = limits.quota.device_entries_max;
    match entries_max > types_max(limits) {
        true => Err(SetupError::DeviceTooLarge {
            entries_max,
            content_bytes_max: limits.device_content_bytes_max,
            listed_bytes_max: LISTING_BYTES_MAX as u64,
        }),
        false => Ok(()),
    }
}

fn is_host_alone(target: &Uri) -> bool {
    target.scheme().is_none() && target.authority().is_some()
}

impl Service for Gateway {
    /// Requests of other servers and of some clients have long headers, and bodies go in pieces of
    /// this size at most.
    const HEAD_BYTES_MAX: usize = 64 * 1024;

    type Connected = Connected;

    fn listener(&self) -> ListenerSettings {
        self.0.settings.listener
    }

    fn apart(&self) -> Self {
        Self(Arc::new(Handle {
            inner: Arc::clone(&self.0.inner),
            upstream: self.0.upstream.apart(),
        }))
    }

    fn connected(&self) -> Connected {
        Connected::begin(self, Listener::Public)
    }

    fn answer(
        &self,
        peer: IpAddr,
        request: Request<Body>,
    ) -> impl Future<Output = Response> + Send {
        self.handle(peer, request)
    }

    fn refuse(&self, denial: Denial) -> Response {
        self.render(denial.into(), self.0.request_ids.next())
    }
}

/// An open connection, counted until it is dropped.
pub struct Connected {
    gateway: Gateway,
    listener: Listener,
}

impl Connected {
    pub(crate) fn begin(gateway: &Gateway, listener: Listener) -> Self {
        gateway.http_metrics().connections(listener).enter();
        Self {
            gateway: gateway.clone(),
            listener,
        }
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let metrics = self.gateway.http_metrics();
        metrics.connections(self.listener).leave();
    }
}
