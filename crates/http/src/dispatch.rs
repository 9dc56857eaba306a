//! From a request to its endpoint: what a route is made of, and the look-up among all of them.
//!
//! Handlers and extractors are axum's, the router is not: docs/adr/0009.

use std::future::ready;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use axum::body::Body;
use axum::handler::Handler;
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method, Request};
use axum::response::{IntoResponse as _, Response};

use crate::error::ApiError;
use crate::metrics::RouteMetrics;
use crate::state::{App, Call};

/// An answer under way.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

pub(crate) type Endpoint = Box<dyn Fn(Request<Body>, Call) -> Answering + Send + Sync>;

/// What stands behind one path: an endpoint for each method. That of `GET` answers `HEAD` too.
#[derive(Default)]
pub(crate) struct Methods {
    get: Option<Endpoint>,
    put: Option<Endpoint>,
    post: Option<Endpoint>,
    delete: Option<Endpoint>,
}

/// An `async fn` that takes extractors.
///
/// Every such function returns its future in a box, which is what is kept of it.
pub(crate) trait IntoEndpoint<T> {
    fn into_endpoint(self) -> Endpoint;
}

impl<T, H: Handler<T, Call, Future = Answering>> IntoEndpoint<T> for H {
    fn into_endpoint(self) -> Endpoint {
        Box::new(move |request, call| self.clone().call(request, call))
    }
}

pub(crate) fn get<T>(handler: impl IntoEndpoint<T>) -> Methods {
    Methods::default().get(handler)
}

pub(crate) fn post<T>(handler: impl IntoEndpoint<T>) -> Methods {
    Methods::default().post(handler)
}

pub(crate) fn delete<T>(handler: impl IntoEndpoint<T>) -> Methods {
    Methods::default().delete(handler)
}

impl Methods {
    pub(crate) fn get<T>(self, handler: impl IntoEndpoint<T>) -> Self {
        let get = Some(handler.into_endpoint());
        Self { get, ..self }
    }

    pub(crate) fn put<T>(self, handler: impl IntoEndpoint<T>) -> Self {
        let put = Some(handler.into_endpoint());
        Self { put, ..self }
    }

    pub(crate) fn post<T>(self, handler: impl IntoEndpoint<T>) -> Self {
        let post = Some(handler.into_endpoint());
        Self { post, ..self }
    }

    pub(crate) fn delete<T>(self, handler: impl IntoEndpoint<T>) -> Self {
        let delete = Some(handler.into_endpoint());
        Self { delete, ..self }
    }

    /// Puts something around each endpoint.
    pub(crate) fn each(self, around: impl Fn(Endpoint) -> Endpoint) -> Self {
        Self {
            get: self.get.map(&around),
            put: self.put.map(&around),
            post: self.post.map(&around),
            delete: self.delete.map(&around),
        }
    }

    fn endpoint(&self, method: &Method) -> Option<&Endpoint> {
        match *method {
            Method::GET | Method::HEAD => self.get.as_ref(),
            Method::PUT => self.put.as_ref(),
            Method::POST => self.post.as_ref(),
            Method::DELETE => self.delete.as_ref(),
            _ => None,
        }
    }

    /// Returns the value of `Allow`.
    fn allowed(&self) -> HeaderValue {
        let names = [
            ("GET,HEAD", &self.get),
            ("PUT", &self.put),
            ("POST", &self.post),
            ("DELETE", &self.delete),
        ];
        let names = names.into_iter().filter(|(_, endpoint)| endpoint.is_some());
        let names: Vec<&str> = names.map(|(name, _)| name).collect();
        HeaderValue::try_from(names.join(",")).expect("names of methods are plain letters")
    }
}

/// One path and what stands behind it.
pub(crate) struct Route {
    /// The path as the table writes it: with names in braces, below whatever prefix.
    template: &'static str,
    methods: Methods,
    allowed: HeaderValue,
    metrics: Arc<RouteMetrics>,
}

impl Route {
    /// Returns where its requests are counted.
    pub(crate) fn metrics(&self) -> &RouteMetrics {
        &self.metrics
    }

    /// Starts the endpoint of the request's method; without one it is a 405.
    pub(crate) fn call(&self, request: Request<Body>, app: App, peer: IpAddr) -> Answering {
        let template = self.template;
        if let Some(endpoint) = self.methods.endpoint(request.method()) {
            let call = Call {
                app,
                peer,
                template,
            };
            return endpoint(request, call);
        }
        let mut response = ApiError::MethodNotAllowed.into_response();
        response.headers_mut().insert(ALLOW, self.allowed.clone());
        Box::pin(ready(response))
    }
}

/// All routes, as a tree of the segments of their paths.
///
/// The raw path is split, so that an encoded `/` is a part of a segment. A segment in braces stands
/// for any that is not empty; one that is written out is preferred.
#[derive(Default)]
pub(crate) struct Router {
    written: Vec<(&'static str, Router)>,
    any: Option<Box<Router>>,
    route: Option<Route>,
}

impl Router {
    /// Adds a route below `prefix`.
    pub(crate) fn route(
        mut self,
        prefix: &'static str,
        template: &'static str,
        methods: Methods,
        metrics: Arc<RouteMetrics>,
    ) -> Self {
        let mut place = &mut self;
        for segment in prefix.split('/').skip(1).chain(template.split('/').skip(1)) {
            place = place.child(segment);
        }
        place.route = Some(Route {
            template,
            allowed: methods.allowed(),
            methods,
            metrics,
        });
        self
    }

    /// Returns the route of a path, which begins with `/`.
    pub(crate) fn find(&self, path: &str) -> Option<&Route> {
        self.find_below(path.strip_prefix('/')?)
    }

    fn find_below(&self, rest: &str) -> Option<&Route> {
        let (segment, rest) = match rest.split_once('/') {
            Some((segment, rest)) => (segment, Some(rest)),
            None => (rest, None),
        };
        let written = self.written.iter().find(|(name, _)| *name == segment);
        let written = written.map(|(_, place)| place);
        let any = self.any.as_deref().filter(|_| !segment.is_empty());
        let mut places = written.into_iter().chain(any);
        places.find_map(|place| match rest {
            Some(rest) => place.find_below(rest),
            None => place.route.as_ref(),
        })
    }

    fn child(&mut self, segment: &'static str) -> &mut Self {
        if segment.starts_with('{') {
            return self.any.get_or_insert_default();
        }
        let known = self.written.iter().position(|(name, _)| *name == segment);
        let place = known.unwrap_or_else(|| {
            self.written.push((segment, Self::default()));
            self.written.len() - 1
        });
        &mut self.written[place].1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn router() -> Router {
        let metrics = Metrics::default().unknown;
        let add = |router: Router, template| {
            router.route("/base", template, Methods::default(), Arc::clone(&metrics))
        };
        let templates = [
            "/user/{user}/filter",
            "/user/{user}/filter/{filter}",
            "/user/me/filter",
            "/rules/",
            "/{a}/{b}",
        ];
        templates.into_iter().fold(Router::default(), add)
    }

    #[test]
    fn a_path_is_found_segment_by_segment() {
        let rows = [
            ("/base/user/@a:x/filter", Some("/user/{user}/filter")),
            ("/base/user/a%2Fb/filter", Some("/user/{user}/filter")),
            (
                "/base/user/x/filter/0",
                Some("/user/{user}/filter/{filter}"),
            ),
            ("/base/user/me/filter", Some("/user/me/filter")),
            // What is written out leads nowhere here, so the other way is tried.
            (
                "/base/user/me/filter/0",
                Some("/user/{user}/filter/{filter}"),
            ),
            ("/base/rules/", Some("/rules/")),
            ("/base/user/x", Some("/{a}/{b}")),
            ("/base/user//filter", None),
            ("/base/user/x/filter/", None),
            ("/base/user/x/Filter", None),
            ("/base/us%65r/x/filter", None),
            ("/base/rules", None),
            ("/base/rules//", None),
            ("/base//x", None),
            ("//base/rules/", None),
            ("/base", None),
            ("/", None),
            ("", None),
            ("*", None),
        ];
        let router = router();
        for (path, template) in rows {
            assert_eq!(
                router.find(path).map(|route| route.template),
                template,
                "{path}"
            );
        }
    }

    #[test]
    fn allowed_methods_are_those_with_an_endpoint() {
        async fn nothing() {}
        let methods = get(nothing).put(nothing).delete(nothing);
        assert_eq!(methods.allowed(), "GET,HEAD,PUT,DELETE");
        assert_eq!(post(nothing).allowed(), "POST");
    }
}
