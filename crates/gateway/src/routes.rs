//! What the gateway handles, one line an endpoint; everything else goes through.

#[cfg(test)]
mod snippets;

use std::pin::Pin;
use std::sync::Arc;

use axum::http::Method;
use kitbag_http::shared::{Metrics, RouteMetrics, Router, VARIABLES_MAX};

use crate::account_data;
use crate::answer::Answer;
use crate::call::Call;
use crate::device_data;
use crate::device_objects;
use crate::gateway::Gateway;
use crate::life;
use crate::settings::Settings;
use crate::versions;

/// An endpoint at work.
pub(crate) type Answering<'a> = Pin<Box<dyn Future<Output = Answer> + Send + 'a>>;

/// An endpoint.
pub(crate) type Handler = for<'a> fn(&'a Gateway, Call) -> Answering<'a>;

/// What stands behind one path. Other methods go through, or are refused where the homeserver knows
/// no such path.
#[derive(Clone, Copy, Default)]
pub(crate) struct Methods {
    get: Option<Handler>,
    post: Option<Handler>,
    put: Option<Handler>,
    delete: Option<Handler>,
    is_own: bool,
}

impl Methods {
    fn get(self, handler: Handler) -> Self {
        let get = Some(handler);
        Self { get, ..self }
    }

    fn post(self, handler: Handler) -> Self {
        let post = Some(handler);
        Self { post, ..self }
    }

    fn put(self, handler: Handler) -> Self {
        let put = Some(handler);
        Self { put, ..self }
    }

    fn delete(self, handler: Handler) -> Self {
        let delete = Some(handler);
        Self { delete, ..self }
    }

    /// The homeserver has no such path.
    fn own(self) -> Self {
        let is_own = true;
        Self { is_own, ..self }
    }

    /// Returns the endpoint of a method; that of `GET` answers `HEAD` too.
    pub(crate) fn handler(&self, method: &Method) -> Option<Handler> {
        match *method {
            Method::GET | Method::HEAD => self.get,
            Method::POST => self.post,
            Method::PUT => self.put,
            Method::DELETE => self.delete,
            _ => None,
        }
    }
}

/// Makes a handler of an `async fn`.
macro_rules! handler {
    ($function:path) => {
        |gateway, call| Box::pin($function(gateway, call))
    };
}

/// One path that the gateway handles.
pub(crate) struct Route {
    pub(crate) names: [&'static str; VARIABLES_MAX],
    pub(crate) methods: Methods,
    pub(crate) metrics: Arc<RouteMetrics>,
}

impl Route {
    /// Tells whether the homeserver has no such path.
    pub(crate) fn is_own(&self) -> bool {
        self.methods.is_own
    }
}

type Row = (&'static str, fn(Methods) -> Methods);

/// Where homeservers serve the client-server API: Synapse has most of it below each of these.
const CLIENT_PREFIXES: &[&str] = &[
    "/_matrix/client/v3",
    "/_matrix/client/r0",
    "/_matrix/client/v1",
    "/_matrix/client/unstable",
    "/_matrix/client/api/v1",
    "/_matrix/client/unstable/org.matrix.msc3391",
];

/// What homeservers have too.
#[rustfmt::skip] // a table is read by its columns
const CLIENT: &[Row] = &[
    ("/user/{user}/account_data/{type}",              |m| m.get(handler!(account_data::read)).put(handler!(account_data::write)).delete(handler!(account_data::write))),
    ("/user/{user}/rooms/{room}/account_data/{type}", |m| m.put(handler!(account_data::write)).delete(handler!(account_data::write))),
    ("/account/password",                             |m| m.post(handler!(life::password))),
    ("/delete_devices",                               |m| m.post(handler!(life::delete_devices))),
    ("/login",                                        |m| m.post(handler!(life::login))),
    ("/logout",                                       |m| m.post(handler!(life::logout))),
    ("/logout/all",                                   |m| m.post(handler!(life::logout_all))),
    ("/register",                                     |m| m.post(handler!(life::login))),
    ("/user/{user}/rooms/{room}/tags/{tag}",          |m| m.put(handler!(account_data::tag)).delete(handler!(account_data::tag))),
];

/// A device's end.
const DEVICE: &[Row] = &[("/devices/{device}", |m| {
    m.delete(handler!(life::delete_device))
})];

/// The same where devices are told with their account data.
#[rustfmt::skip]
const DEVICE_OBJECTS: &[Row] = &[
    ("/devices",          |m| m.get(handler!(device_objects::list))),
    ("/devices/{device}", |m| m.get(handler!(device_objects::one)).delete(handler!(life::delete_device))),
];

/// What is below no prefix.
const VERSIONS: &[Row] = &[("/_matrix/client/versions", |m| {
    m.get(handler!(versions::get))
})];

/// Where device account data is served, as by Kitbag alone.
const DEVICE_PREFIXES: &[&str] = &["/_matrix/client/v3", "/_matrix/client/r0"];

/// Device account data at the path of the proposal, which no homeserver has.
const DEVICE_DATA: &[Row] = &[(
    "/user/{user}/devices/{device}/net.zemos.account_data/{type}",
    device_entry,
)];

/// The same at the stable path, which can be switched off as the proposal is not merged.
const STABLE_DEVICE_DATA: &[Row] = &[(
    "/user/{user}/devices/{device}/account_data/{type}",
    device_entry,
)];

/// Deletion (MSC3391) of what the gateway adds.
const DELETION_PREFIXES: &[&str] = &["/_matrix/client/unstable/org.matrix.msc3391"];
#[rustfmt::skip]
const DELETION: &[Row] = &[
    ("/user/{user}/devices/{device}/account_data/{type}",           |m| m.own().delete(handler!(device_data::delete))),
    ("/user/{user}/devices/{device}/net.zemos.account_data/{type}", |m| m.own().delete(handler!(device_data::delete))),
];

fn device_entry(methods: Methods) -> Methods {
    let methods = methods.own().get(handler!(device_data::get));
    let methods = methods.put(handler!(device_data::put));
    methods.delete(handler!(device_data::delete_where_there_is_none))
}

/// Returns the router of what the settings switch on.
pub(crate) fn router(settings: &Settings, metrics: &Metrics) -> Router<Route> {
    let router = add(Router::default(), &[""], VERSIONS, metrics);
    let router = add(router, CLIENT_PREFIXES, CLIENT, metrics);
    let mut router = add(router, DEVICE_PREFIXES, DEVICE_DATA, metrics);
    if settings.msc4331.in_devices {
        router = add(router, CLIENT_PREFIXES, DEVICE_OBJECTS, metrics);
    } else {
        router = add(router, CLIENT_PREFIXES, DEVICE, metrics);
    }
    if settings.msc4331.stable_path {
        router = add(router, DEVICE_PREFIXES, STABLE_DEVICE_DATA, metrics);
    }
    add(router, DELETION_PREFIXES, DELETION, metrics)
}

/// Adds routes below each of the prefixes, which are counted as one: that of the first.
fn add(
    router: Router<Route>,
    prefixes: &[&'static str],
    rows: &[Row],
    metrics: &Metrics,
) -> Router<Route> {
    let each = prefixes
        .iter()
        .flat_map(|prefix| rows.iter().map(move |row| (prefix, row)));
    each.fold(router, |router, (prefix, (path, methods))| {
        let metrics = metrics.route(format!("{}{path}", prefixes[0]));
        router.add(prefix, path, |names| Route {
            names,
            methods: methods(Methods::default()),
            metrics,
        })
    })
}
