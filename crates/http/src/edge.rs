//! The edge: what happens to every request before the route table, and to every answer after it.

use std::net::IpAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use axum::body::{Body, HttpBody as _};
use axum::http::header::{ALLOW, CONTENT_LENGTH};
use axum::http::{Method, Request, StatusCode};
use axum::response::{IntoResponse as _, Response};
use futures_util::FutureExt as _;
use tracing::{Instrument as _, debug};

use crate::dispatch::{Answering, Route, Router};
use crate::error::{ApiError, Denial, Unrendered};
use crate::headers::finish;
use crate::linger::{self, Unread};
use crate::metrics::{Counting, Gauge, Listener, Waited};
use crate::request_id::RequestId;
use crate::routes;
use crate::serve::Service;
use crate::settings::ListenerSettings;
use crate::state::{App, Parts};

/// What says what `M_USER_LIMIT_EXCEEDED` is, where the operator names no page of their own.
pub const INFO_URI: &str = "https://spec.matrix.org/v1.18/client-server-api/#common-error-codes";

/// The whole API of one listener as one function from a request to an answer.
#[derive(Clone)]
pub struct Edge(Arc<Inner>);

/// What [`Edge`] points to.
struct Inner {
    app: App,
    router: Arc<Router<Route>>,
    listener: Listener,
}

impl Edge {
    /// Puts the public API together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let app = App::new(parts);
        let router = routes::public(&app.settings, &app.metrics).into();
        Self(Arc::new(Inner {
            app,
            router,
            listener: Listener::Public,
        }))
    }

    /// Returns what the private listener serves, over the same parts.
    #[must_use]
    pub fn private(&self) -> Self {
        let app = self.app().clone();
        let router = routes::private(&app.settings, &app.metrics).into();
        Self(Arc::new(Inner {
            app,
            router,
            listener: Listener::Private,
        }))
    }

    fn connections(&self) -> &Gauge {
        self.app().metrics.connections(self.0.listener)
    }

    pub(crate) fn app(&self) -> &App {
        &self.0.app
    }

    /// Answers one request that came from `peer`.
    ///
    /// A preflight of CORS is answered here, without looking at anything. The private listener has
    /// neither that nor the headers: no page that the operator opens in a browser is to read it.
    pub async fn answer(&self, peer: IpAddr, mut request: Request<Body>) -> Response {
        let Inner {
            app,
            router,
            listener,
        } = &*self.0;
        let has_cors = matches!(listener, Listener::Public);
        let request_id = app.request_ids.next();
        if has_cors && request.method() == Method::OPTIONS {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            let preflight = app.metrics.preflight.begin(request.method());
            preflight.answered(response.status());
            finish(&mut response, request_id, has_cors);
            return response;
        }
        // No endpoint wants such a body, and who has one unread is not seen to leave.
        if matches!(*request.method(), Method::GET | Method::HEAD) {
            linger::share_body(&mut request).drain().await;
            *request.body_mut() = Body::empty();
        }
        // The path only: a query can hold a token, and paths hold no secrets.
        let (method, path) = (request.method(), request.uri().path());
        let span = tracing::debug_span!("request", id = %request_id, %method, path);
        let route = router.find(request.uri().path());
        let is_head = *method == Method::HEAD;
        let counted_at = route.map_or(&*app.metrics.unknown, |(route, _)| route.metrics());
        let counting = counted_at.begin(method);
        let unread = linger::share_body(&mut request);
        let started = Instant::now();
        let answering = match route {
            Some((route, variables)) => {
                let at_once = || route.answer_at_once(&request, &variables, app);
                match catch_unwind(AssertUnwindSafe(at_once)) {
                    Ok(Some(response)) => Answer::IsThere(response),
                    // Nothing of it runs yet. From here on it alone holds the request, which is
                    // large. A listener of both families shows an IPv4 peer as an IPv6 address.
                    Ok(None) => Answer::IsUnderWay(route.call(
                        request,
                        variables,
                        app.clone(),
                        peer.to_canonical(),
                    )),
                    Err(_panic) => Answer::IsThere(ApiError::Panicked.into_response()),
                }
            }
            None => Answer::IsThere(ApiError::Unrecognized.into_response()),
        };
        let work = Work {
            answering,
            unread,
            is_head,
            has_cors,
            request_id,
            counting,
            started,
        };
        work.finish(app).instrument(span).await
    }
}

impl Service for Edge {
    /// The largest part of what a waiting sync costs.
    const HEAD_BYTES_MAX: usize = 8 * 1024;

    type Connected = Connected;

    fn listener(&self) -> ListenerSettings {
        self.app().settings.listener
    }

    fn apart(&self) -> Self {
        Self(Arc::new(Inner {
            app: self.0.app.apart(),
            router: Arc::clone(&self.0.router),
            listener: self.0.listener,
        }))
    }

    fn connected(&self) -> Connected {
        self.connections().enter();
        Connected(self.clone())
    }

    fn answer(
        &self,
        peer: IpAddr,
        request: Request<Body>,
    ) -> impl Future<Output = Response> + Send {
        Self::answer(self, peer, request)
    }

    fn refuse(&self, denial: Denial) -> Response {
        let app = self.app();
        let request_id = app.request_ids.next();
        app.metrics.deny(&denial);
        let mut response = denial.render(request_id, app.info_uri());
        let has_cors = matches!(self.0.listener, Listener::Public);
        finish(&mut response, request_id, has_cors);
        response
    }
}

/// A request whose endpoint is known.
struct Work<'a> {
    answering: Answer,
    unread: Unread,
    is_head: bool,
    has_cors: bool,
    request_id: RequestId<'a>,
    counting: Counting<'a>,
    started: Instant,
}

enum Answer {
    IsThere(Response),
    IsUnderWay(Answering),
}

impl Work<'_> {
    async fn finish(self, app: &App) -> Response {
        let Self {
            answering,
            unread,
            is_head,
            has_cors,
            request_id,
            counting,
            started,
        } = self;
        let mut response = match answering {
            Answer::IsThere(response) => response,
            Answer::IsUnderWay(answering) => {
                // What a handler holds is dropped with it, so nothing half-done is looked at again.
                let answered = AssertUnwindSafe(answering).catch_unwind().await;
                answered.unwrap_or_else(|_panic| ApiError::Panicked.into_response())
            }
        };
        if is_head {
            drop_body(&mut response);
        }
        unread.drain().await;
        let waited = response.extensions_mut().remove();
        if let Some(Unrendered(error)) = response.extensions_mut().remove() {
            app.metrics.refuse(&error);
            if error.row().0.is_server_error() {
                let now = app.clock.now_ms();
                app.failures.log(&error, request_id, now);
            }
            let allowed_methods = response.headers_mut().remove(ALLOW);
            response = error.render(request_id, app.info_uri());
            if let Some(methods) = allowed_methods {
                response.headers_mut().insert(ALLOW, methods);
            }
        }
        finish(&mut response, request_id, has_cors);
        let duration_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
        counting.answered(response.status());
        match waited {
            Some(Waited) => app.metrics.syncs.waited(duration_us),
            None => counting.took(duration_us),
        }
        debug!(status = response.status().as_u16(), duration_us, "answered");
        response
    }
}

/// Turns the answer to a `GET` into that to a `HEAD`, which tells the length alone.
pub fn drop_body(response: &mut Response) {
    let length = response.body().size_hint().exact();
    *response.body_mut() = Body::empty();
    if let Some(length) = length {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

/// An open connection, counted until it is dropped.
pub struct Connected(Edge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections().leave();
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
