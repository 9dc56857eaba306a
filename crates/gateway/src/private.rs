//! The private listener of the gateway: `GET /health` and `GET /metrics`, for who runs it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::header::{ALLOW, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use axum::response::Response;
use kitbag_http::shared::{
    Denial, GatewayError, Listener, Metrics, OPENMETRICS, drop_body, finish, json_response,
    share_body,
};
use kitbag_http::{ListenerSettings, Service};
use serde_json::json;
use tokio::{task, time};

use crate::gateway::{Connected, Gateway};
use crate::homeserver::said_of;
use crate::metrics::GatewayStats;
use crate::versions::VERSIONS_BYTES_MAX;

const HEALTH: &str = "/health";
const METRICS: &str = "/metrics";
/// The route of a request that is on no route.
const UNKNOWN_ROUTE: &str = "unknown";

/// What the homeserver is asked to see whether it is there: every one answers it, and to anybody.
const PROBED: &str = "/_matrix/client/versions";

/// How long it may take: below what programs wait that ask for `/health`.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);

/// Writes a page of metrics out of the figures; may block.
pub type RenderGatewayMetrics = Arc<dyn Fn(GatewayStats) -> String + Send + Sync>;

/// What the private listener serves.
#[derive(Clone)]
pub struct Private {
    gateway: Gateway,
    render_metrics: RenderGatewayMetrics,
}

/// What the homeserver showed when it was asked whether it is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// It answered.
    Answered {
        /// The status of the answer; 200 where all is well.
        status: u16,
        /// How long it took.
        took: Duration,
    },
    /// It did not.
    Unreachable {
        /// Why: a reason that docs/monitoring.md lists.
        reason: &'static str,
        /// What happened, in words.
        text: String,
    },
}

impl Gateway {
    /// Asks the homeserver for the versions that it speaks, which needs no account.
    pub async fn probe(&self) -> Probe {
        let started = Instant::now();
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = http::Uri::from_static(PROBED);
        let answer = self.upstream().ask(request, VERSIONS_BYTES_MAX);
        match time::timeout(PROBE_TIMEOUT, answer).await {
            Ok(Ok(told)) => Probe::Answered {
                status: told.status().as_u16(),
                took: started.elapsed(),
            },
            Ok(Err(error)) => unreachable(error),
            Err(_elapsed) => unreachable(GatewayError::UpstreamTimeout),
        }
    }
}

fn unreachable(error: GatewayError) -> Probe {
    let text = said_of(&error);
    let reason = Denial::from(error).reason();
    Probe::Unreachable { reason, text }
}

impl Private {
    /// Returns the private listener of a gateway.
    #[must_use]
    pub fn new(gateway: Gateway, render_metrics: RenderGatewayMetrics) -> Self {
        Self {
            gateway,
            render_metrics,
        }
    }

    fn counts(&self) -> &Metrics {
        self.gateway.http_metrics()
    }

    /// Without the headers of CORS: no page that the operator opens in a browser is to read it.
    async fn handle(self, mut request: Request<Body>) -> Response {
        let started = Instant::now();
        let id = self.gateway.request_ids().next();
        let unread = share_body(&mut request);
        let (method, path) = (request.method(), request.uri().path());
        let route = match path {
            HEALTH | METRICS => path,
            _ => UNKNOWN_ROUTE,
        };
        let counted_at = self.counts().route(route.to_owned());
        let counting = counted_at.begin(method);
        let is_head = *method == Method::HEAD;
        let answer = match path {
            HEALTH | METRICS if !is_head && *method != Method::GET => {
                Err(Denial::method_not_allowed())
            }
            HEALTH => Ok(self.health().await),
            METRICS => self.metrics().await,
            _ => Err(Denial::unknown_endpoint()),
        };
        unread.drain().await;
        let mut response = answer.unwrap_or_else(|denial| {
            self.counts().deny(&denial);
            let mut response = denial.render(id, "");
            if response.status() == StatusCode::METHOD_NOT_ALLOWED {
                let allowed = HeaderValue::from_static("GET,HEAD");
                response.headers_mut().insert(ALLOW, allowed);
            }
            response
        });
        if is_head {
            drop_body(&mut response);
        }
        finish(&mut response, id, false);
        counting.answered(response.status());
        counting.took(u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX));
        response
    }

    /// 200 where the homeserver serves clients, else 503: without it the gateway serves nobody.
    async fn health(&self) -> Response {
        let probe = self.gateway.probe().await;
        let (status, body) = match probe {
            Probe::Answered { status, took } => {
                let upstream = json!({ "status": status, "took_ms": took.as_millis() });
                match status {
                    200 => (StatusCode::OK, json!({ "upstream": upstream })),
                    _ => unwell("the homeserver answers, but not as it should", &upstream),
                }
            }
            Probe::Unreachable { reason, .. } => unwell(
                "the homeserver does not answer",
                &json!({ "reason": reason }),
            ),
        };
        json_response(status, body.to_string().into())
    }

    /// Returns the page, of which one is written at a time: it reads `/proc`.
    async fn metrics(&self) -> Result<Response, Denial> {
        let turn = self.counts().turn().await;
        let this = self.clone();
        // The turn goes along: where the client leaves, the page is written all the same.
        let page = task::spawn_blocking(move || {
            let page = (this.render_metrics)(this.gateway.stats());
            drop(turn);
            page
        });
        let page = page.await.map_err(|_panic| Denial::panicked())?;
        let mut response = Response::new(Body::from(page));
        let openmetrics = HeaderValue::from_static(OPENMETRICS);
        response.headers_mut().insert(CONTENT_TYPE, openmetrics);
        Ok(response)
    }
}

impl Service for Private {
    const HEAD_BYTES_MAX: usize = 8 * 1024;

    type Connected = Connected;

    fn listener(&self) -> ListenerSettings {
        self.gateway.settings().listener
    }

    fn apart(&self) -> Self {
        self.clone()
    }

    fn connected(&self) -> Connected {
        Connected::begin(&self.gateway, Listener::Private)
    }

    fn answer(
        &self,
        _peer: IpAddr,
        request: Request<Body>,
    ) -> impl Future<Output = Response> + Send {
        self.clone().handle(request)
    }

    fn refuse(&self, denial: Denial) -> Response {
        let id = self.gateway.request_ids().next();
        self.counts().deny(&denial);
        let mut response = denial.render(id, "");
        finish(&mut response, id, false);
        response
    }
}

/// In the form of every error, with what was seen of the homeserver.
fn unwell(error: &str, upstream: &serde_json::Value) -> (StatusCode, serde_json::Value) {
    let body = json!({ "errcode": "M_UNKNOWN", "error": error, "upstream": upstream });
    (StatusCode::SERVICE_UNAVAILABLE, body)
}
