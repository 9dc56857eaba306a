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
use memchr::memchr;

use crate::error::ApiError;
use crate::metrics::RouteMetrics;
use crate::state::{App, Call};

/// The most variable segments a route has.
pub const VARIABLES_MAX: usize = 4;

/// An answer under way.
pub(crate) type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

pub(crate) type Endpoint = Box<dyn Fn(Request<Body>, Call) -> Answering + Send + Sync>;

/// Answers a `GET` from memory. `None` says nothing: the endpoint is asked then.
///
/// What a request takes beside its answer is to box a future and to move the request there and back,
/// so most `GET`s of an entry go without.
pub(crate) type AtOnce = fn(&App, &Request<Body>, Named<'_, '_>) -> Option<Response>;

/// The names of a path's variable segments with these, in their order.
pub(crate) type Named<'n, 'a> = &'n mut (dyn Iterator<Item = (&'static str, &'a str)> + 'n);

/// What stands behind one path: an endpoint for each method. That of `GET` answers `HEAD` too.
#[derive(Default)]
pub(crate) struct Methods {
    get: Option<Endpoint>,
    put: Option<Endpoint>,
    post: Option<Endpoint>,
    delete: Option<Endpoint>,
    at_once: Option<AtOnce>,
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

    /// Asks this first for what the endpoint of `GET` would answer.
    pub(crate) fn at_once(self, at_once: AtOnce) -> Self {
        let at_once = Some(at_once);
        Self { at_once, ..self }
    }

    /// Puts something around each endpoint.
    pub(crate) fn each(self, around: impl Fn(Endpoint) -> Endpoint) -> Self {
        Self {
            get: self.get.map(&around),
            put: self.put.map(&around),
            post: self.post.map(&around),
            delete: self.delete.map(&around),
            // It would go past what is put around.
            at_once: None,
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
    /// The names in braces, in their order.
    names: [&'static str; VARIABLES_MAX],
    methods: Methods,
    allowed: HeaderValue,
    metrics: Arc<RouteMetrics>,
}

impl Route {
    /// Returns where its requests are counted.
    pub(crate) fn metrics(&self) -> &RouteMetrics {
        &self.metrics
    }

    /// Answers a request whose answer is in memory, if that can be seen without waiting.
    pub(crate) fn answer_at_once(
        &self,
        request: &Request<Body>,
        variables: &Variables,
        app: &App,
    ) -> Option<Response> {
        let at_once = self.methods.at_once?;
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return None;
        }
        let mut named = self
            .names
            .into_iter()
            .zip(variables.of(request.uri().path()));
        at_once(app, request, &mut named)
    }

    /// Starts the endpoint of the request's method; without one it is a 405.
    pub(crate) fn call(
        &self,
        request: Request<Body>,
        variables: Variables,
        app: App,
        peer: IpAddr,
    ) -> Answering {
        if let Some(endpoint) = self.methods.endpoint(request.method()) {
            let call = Call {
                app,
                peer,
                template: self.template,
                names: self.names,
                variables,
            };
            return endpoint(request, call);
        }
        let mut response = ApiError::MethodNotAllowed.into_response();
        response.headers_mut().insert(ALLOW, self.allowed.clone());
        Box::pin(ready(response))
    }
}

/// Where in a path the segments stand that the template has in braces, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    starts_and_ends: [(usize, usize); VARIABLES_MAX],
    count: usize,
}

impl Variables {
    /// Returns the segments of `path`, the one that was searched for.
    pub fn of<'a>(&self, path: &'a str) -> impl Iterator<Item = &'a str> {
        let places = self.starts_and_ends.into_iter().take(self.count);
        places.map(|(start, end)| &path[start..end])
    }
}

/// All routes, as a tree of the segments of their paths.
///
/// The raw path is split, so that an encoded `/` is a part of a segment. A segment in braces stands
/// for any that is not empty; one that is written out is preferred.
pub struct Router<R> {
    /// Segments that are written out, apart from what is below them: a look-up reads these alone.
    written: Vec<&'static str>,
    below: Vec<Self>,
    any: Option<Box<Self>>,
    route: Option<R>,
}

impl<R> Default for Router<R> {
    fn default() -> Self {
        Self {
            written: Vec::new(),
            below: Vec::new(),
            any: None,
            route: None,
        }
    }
}

impl Router<Route> {
    /// Adds an endpoint below `prefix`.
    pub(crate) fn route(
        self,
        prefix: &'static str,
        template: &'static str,
        methods: Methods,
        metrics: Arc<RouteMetrics>,
    ) -> Self {
        self.add(prefix, template, |names| Route {
            template,
            names,
            allowed: methods.allowed(),
            methods,
            metrics,
        })
    }
}

impl<R> Router<R> {
    /// Adds a route below `prefix`, made of the names of its variable segments.
    #[must_use]
    pub fn add(
        mut self,
        prefix: &'static str,
        template: &'static str,
        route: impl FnOnce([&'static str; VARIABLES_MAX]) -> R,
    ) -> Self {
        let mut place = &mut self;
        let mut names = [""; VARIABLES_MAX];
        let mut unnamed = names.iter_mut();
        for segment in prefix.split('/').skip(1).chain(template.split('/').skip(1)) {
            if let Some(name) = variable(segment) {
                *unnamed.next().expect("no route has more variable segments") = name;
            }
            place = place.child(segment);
        }
        place.route = Some(route(names));
        self
    }

    /// Returns the route of a path, which begins with `/`, and where the variables stand in it.
    #[must_use]
    pub fn find(&self, path: &str) -> Option<(&R, Variables)> {
        let mut variables = Variables::default();
        let start = path.starts_with('/').then_some(1)?;
        let route = self.find_below(path.as_bytes(), start, &mut variables)?;
        Some((route, variables))
    }

    fn find_below(&self, path: &[u8], start: usize, variables: &mut Variables) -> Option<&R> {
        let rest = &path[start..];
        let end = start + memchr(b'/', rest).unwrap_or(rest.len());
        let segment = &path[start..end];
        if let Some(below) = self.written(segment)
            && let Some(route) = below.find_behind(path, end, variables)
        {
            return Some(route);
        }
        let below = self.any.as_deref().filter(|_| !segment.is_empty())?;
        let before = *variables;
        *variables.starts_and_ends.get_mut(before.count)? = (start, end);
        variables.count += 1;
        let route = below.find_behind(path, end, variables);
        if route.is_none() {
            *variables = before;
        }
        route
    }

    fn find_behind(&self, path: &[u8], end: usize, variables: &mut Variables) -> Option<&R> {
        match end == path.len() {
            true => self.route.as_ref(),
            false => self.find_below(path, end + 1, variables),
        }
    }

    fn written(&self, segment: &[u8]) -> Option<&Self> {
        // Most names of the same length already differ in their first letter.
        let is_it = |name: &&str| {
            name.len() == segment.len()
                && name.as_bytes().first() == segment.first()
                && name.as_bytes() == segment
        };
        let place = self.written.iter().position(is_it)?;
        Some(&self.below[place])
    }

    fn child(&mut self, segment: &'static str) -> &mut Self {
        if variable(segment).is_some() {
            return self.any.get_or_insert_default();
        }
        let known = self.written.iter().position(|name| *name == segment);
        let place = known.unwrap_or_else(|| {
            self.written.push(segment);
            self.below.push(Self::default());
            self.written.len() - 1
        });
        &mut self.below[place]
    }
}

/// Returns the name of a variable segment.
fn variable(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Metrics;

    fn router() -> Router<Route> {
        let metrics = Metrics::default().unknown;
        let add = |router: Router<Route>, template| {
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
                router.find(path).map(|(route, _)| route.template),
                template,
                "{path}"
            );
        }
    }

    #[test]
    fn variables_stand_where_the_template_has_them() {
        let rows: [(&str, &[&str], &[&str]); 4] = [
            (
                "/base/user/%40a/filter/0",
                &["user", "filter"],
                &["%40a", "0"],
            ),
            ("/base/rules/", &[], &[]),
            ("/base/user/x", &["a", "b"], &["user", "x"]),
            // The way over the written `me` began too, and left nothing behind.
            ("/base/user/me/filter/7", &["user", "filter"], &["me", "7"]),
        ];
        let router = router();
        for (path, names, segments) in rows {
            let (route, variables) = router.find(path).unwrap();
            assert_eq!(route.names[..names.len()], *names, "{path}");
            let found: Vec<_> = variables.of(path).collect();
            assert_eq!(found, segments, "{path}");
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
