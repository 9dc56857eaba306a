//! The edge: what happens to every request before the route table, and to every answer after it.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ALLOW,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tower::ServiceExt as _;
use tracing::{Instrument as _, debug};

use crate::error::{ApiError, Unrendered};
use crate::extract::Peer;
use crate::linger;
use crate::routes;
use crate::state::{App, Parts};

/// The header that carries the request's ID in every answer.
pub const REQUEST_ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");

/// What says what `M_USER_LIMIT_EXCEEDED` is, where the operator names no page of their own.
const INFO_URI: &str = "https://spec.matrix.org/v1.18/client-server-api/#common-error-codes";

/// The whole API of one listener as one function from a request to an answer.
#[derive(Clone)]
pub struct Edge {
    app: App,
    router: Router,
    /// Tells processes apart in the IDs of requests.
    run: Arc<str>,
    requests: Arc<AtomicU64>,
}

impl Edge {
    /// Puts the public API together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let app = App::new(parts);
        let run = app.random.id(6).into();
        Self {
            router: routes::public(app.clone()),
            app,
            run,
            requests: Arc::default(),
        }
    }

    /// Returns what the private listener serves, over the same parts.
    #[must_use]
    pub fn private(&self) -> Self {
        Self {
            router: routes::private(self.app.clone()),
            ..self.clone()
        }
    }

    pub(crate) fn app(&self) -> &App {
        &self.app
    }

    /// Answers one request that came from `peer`.
    ///
    /// A preflight of CORS is answered here, without looking at anything.
    pub async fn answer(self, peer: IpAddr, mut request: Request<Body>) -> Response {
        let number = self.requests.fetch_add(1, Ordering::Relaxed);
        let request_id = format!("{}-{number}", self.run);
        if request.method() == Method::OPTIONS {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            finish(&mut response, &request_id);
            return response;
        }
        // A listener of both families shows an IPv4 peer as an IPv6 address.
        request.extensions_mut().insert(Peer(peer.to_canonical()));
        // The path only: a query can hold a token, and paths hold no secrets.
        let (method, path) = (request.method(), request.uri().path());
        let span = tracing::debug_span!("request", id = %request_id, %method, path);
        self.answer_in_span(request, request_id)
            .instrument(span)
            .await
    }

    async fn answer_in_span(self, request: Request<Body>, request_id: String) -> Response {
        let started = Instant::now();
        let (request, unread) = linger::share_body(request);
        // What a handler holds is dropped with it, so nothing half-done is looked at again.
        let answered = AssertUnwindSafe(self.router.oneshot(request)).catch_unwind();
        let mut response = match answered.await {
            Ok(Ok(response)) => response,
            Err(_panic) => ApiError::Panicked.into_response(),
        };
        unread.drain().await;
        if let Some(Unrendered(error)) = response.extensions_mut().remove() {
            if error.row().0.is_server_error() {
                let now = self.app.clock.now_ms();
                self.app.failures.log(&error, &request_id, now);
            }
            let allowed_methods = response.headers_mut().remove(ALLOW);
            response = error.render(&request_id, self.app.info_uri());
            if let Some(methods) = allowed_methods {
                response.headers_mut().insert(ALLOW, methods);
            }
        }
        finish(&mut response, &request_id);
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        debug!(status = response.status().as_u16(), duration_us, "answered");
        response
    }
}

impl App {
    /// Returns the page that a full account is pointed to, which the errcode must name.
    fn info_uri(&self) -> &str {
        let configured = self.settings.limits_info_uri.as_deref();
        let base_url = self.settings.public_base_url.as_deref();
        configured.or(base_url).unwrap_or(INFO_URI)
    }
}

/// Puts the headers on that every answer carries [spec, "Web Browser Clients"].
fn finish(response: &mut Response, request_id: &str) {
    const ALLOWED_METHODS: &str = "GET, HEAD, POST, PUT, DELETE, OPTIONS";
    const ALLOWED_HEADERS: &str = "X-Requested-With, Content-Type, Authorization, Date";
    let headers: &mut HeaderMap = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static(ALLOWED_METHODS),
    );
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static(ALLOWED_HEADERS),
    );
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("Retry-After, X-Request-Id"),
    );
    let request_id = HeaderValue::from_str(request_id).expect("IDs are made of letters and digits");
    headers.insert(REQUEST_ID_HEADER, request_id);
}
