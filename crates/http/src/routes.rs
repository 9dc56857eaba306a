//! The route table: one line an endpoint.

use crate::admin;
use crate::dispatch::{self, Methods, delete, get, post};
use crate::endpoints::push_rules::misplaced;
use crate::endpoints::{
    account, account_data, capabilities, devices, explain, filters, health, login, logout, metrics,
    profile, push_rules, register, sync, unsupported, versions, well_known,
};
use crate::metrics::Metrics;
use crate::settings::Settings;

type Route = (&'static str, fn() -> Methods);
type Router = dispatch::Router<dispatch::Route>;

/// Where the endpoints of [`CLIENT`] are served: r0 answers as v3.
const CLIENT_PREFIXES: [&str; 2] = ["/_matrix/client/v3", "/_matrix/client/r0"];

/// The client-server API.
#[rustfmt::skip] // a table is read by its columns
const CLIENT: &[Route] = &[
    ("/account/deactivate",                       || post(account::deactivate)),
    ("/account/password",                         || post(account::change_password)),
    ("/account/whoami",                           || get(account::whoami)),
    ("/capabilities",                             || get(capabilities::get)),
    ("/delete_devices",                           || post(devices::delete_many)),
    ("/devices",                                  || get(devices::list)),
    ("/devices/{device}",                         || get(devices::get).put(devices::rename).delete(devices::delete)),
    ("/joined_rooms",                             || get(unsupported::joined_rooms)),
    ("/login",                                    || get(login::flows).post(login::login)),
    ("/logout",                                   || post(logout::logout)),
    ("/logout/all",                               || post(logout::logout_all)),
    ("/presence/{user}/status",                   || get(unsupported::presence).put(unsupported::set_presence)),
    ("/profile/{user}",                           || get(profile::get)),
    ("/profile/{user}/{field}",                   || get(profile::get_field).put(profile::set_field)),
    ("/pushers",                                  || get(unsupported::pushers)),
    ("/pushrules/",                               || get(push_rules::get_all).put(misplaced).delete(misplaced)),
    ("/pushrules/global/",                        || get(push_rules::get_scope).put(misplaced).delete(misplaced)),
    ("/pushrules/global/{kind}/",                 || get(push_rules::get_kind).put(misplaced).delete(misplaced)),
    ("/pushrules/global/{kind}/{rule}",           || get(push_rules::get).put(push_rules::put).delete(push_rules::delete)),
    ("/pushrules/global/{kind}/{rule}/actions",   || get(push_rules::get_actions).put(push_rules::put_actions)),
    ("/pushrules/global/{kind}/{rule}/enabled",   || get(push_rules::get_enabled).put(push_rules::put_enabled)),
    ("/refresh",                                  || post(login::refresh)),
    ("/register",                                 || post(register::register)),
    ("/register/available",                       || get(register::available)),
    ("/room_keys/version",                        || get(unsupported::key_backup)),
    ("/sync",                                     || get(sync::Sync)),
    ("/thirdparty/protocols",                     || get(unsupported::third_party_protocols)),
    ("/user/{user}/account_data/{type}",          || account_data::entry()),
    ("/user/{user}/devices/{device}/net.zemos.account_data/{type}", || account_data::entry()),
    ("/user/{user}/filter",                       || post(filters::create)),
    ("/user/{user}/filter/{filter}",              || get(filters::get)),
    ("/user/{user}/rooms/{room}/account_data/{type}", || account_data::entry()),
    ("/voip/turnServer",                          || get(unsupported::turn_server)),
];

/// The stable path of MSC4331, which can be switched off as the proposal is not merged.
const DEVICE_DATA: &[Route] = &[("/user/{user}/devices/{device}/account_data/{type}", || {
    account_data::entry()
})];

/// Deletion of account data (MSC3391), below `/_matrix/client/unstable/org.matrix.msc3391`.
#[rustfmt::skip]
const DELETION: &[Route] = &[
    ("/user/{user}/account_data/{type}",                  || delete(account_data::delete)),
    ("/user/{user}/devices/{device}/account_data/{type}", || delete(account_data::delete)),
    ("/user/{user}/devices/{device}/net.zemos.account_data/{type}", || delete(account_data::delete)),
    ("/user/{user}/rooms/{room}/account_data/{type}",     || delete(account_data::delete)),
];

/// What looks like a path of push rules and is none: another scope or attribute, no slash at the end.
#[rustfmt::skip]
const MISPLACED_PUSH_RULES: &[Route] = &[
    ("/pushrules/{scope}",                                || get(misplaced).put(misplaced).delete(misplaced)),
    ("/pushrules/{scope}/",                               || get(misplaced).put(misplaced).delete(misplaced)),
    ("/pushrules/{scope}/{kind}",                         || get(misplaced).put(misplaced).delete(misplaced)),
    ("/pushrules/{scope}/{kind}/",                        || get(misplaced).put(misplaced).delete(misplaced)),
    ("/pushrules/{scope}/{kind}/{rule}",                  || get(misplaced).put(misplaced).delete(misplaced)),
    ("/pushrules/{scope}/{kind}/{rule}/{attribute}",      || get(misplaced).put(misplaced).delete(misplaced)),
];

/// Paths that stand alone.
#[rustfmt::skip]
const ROOT: &[Route] = &[
    ("/.well-known/matrix/client",                        || get(well_known::client)),
    ("/_kitbag/client/v1/pushrules/explain",              || post(explain::post)),
    ("/_matrix/client/v1/register/m.login.registration_token/validity", || get(register::token_validity)),
    ("/_matrix/client/versions",                          || get(versions::get)),
    ("/health",                                           || get(health::get)),
];

/// The private listener, which operators alone can reach.
#[rustfmt::skip]
const PRIVATE: &[Route] = &[
    ("/health",                                           || get(health::get)),
    ("/metrics",                                          || get(metrics::get)),
];

/// The admin API: on the private listener, where a token is configured, and behind its guard.
#[rustfmt::skip]
const ADMIN: &[Route] = &[
    ("/_kitbag/admin/v1/changes",                         || get(admin::changes)),
    ("/_kitbag/admin/v1/device_account_data",             || get(admin::device_data)),
    ("/_kitbag/admin/v1/device_account_data/lacking",     || get(admin::lacking)),
    ("/_kitbag/admin/v1/device_account_data/summary",     || get(admin::summary)),
    ("/_kitbag/admin/v1/users",                           || get(admin::users)),
    ("/_kitbag/admin/v1/users/{user}/account_data",       || get(admin::entries)),
    ("/_kitbag/admin/v1/users/{user}/account_data/{type}", || admin::entry()),
    ("/_kitbag/admin/v1/users/{user}/devices/{device}/account_data/{type}", || admin::entry()),
    ("/_kitbag/admin/v1/users/{user}/rooms/{room}/account_data/{type}", || admin::entry()),
    ("/_synapse/admin/v1/users/{user}/accountdata",       || get(admin::synapse_account_data)),
];

/// What of the admin API needs no token.
const ADMIN_OPEN: &[Route] = &[("/_kitbag/admin/v1/openapi.json", || get(admin::openapi))];

/// Returns the router of the private listener.
pub(crate) fn private(settings: &Settings, metrics: &Metrics) -> Router {
    let router = add(Router::default(), "", PRIVATE, metrics);
    if !settings.admin.is_enabled() {
        return router;
    }
    let router = ADMIN.iter().fold(router, |router, (path, methods)| {
        let metrics = metrics.route((*path).to_owned());
        router.route("", path, methods().each(admin::guarded), metrics)
    });
    add(router, "", ADMIN_OPEN, metrics)
}

/// Returns the router of all public endpoints that the settings switch on.
pub(crate) fn public(settings: &Settings, metrics: &Metrics) -> Router {
    let Settings { features, .. } = settings;
    let mut router = Router::default();
    for prefix in CLIENT_PREFIXES {
        router = add(router, prefix, CLIENT, metrics);
        router = add(router, prefix, MISPLACED_PUSH_RULES, metrics);
        if features.msc4331.stable_path {
            router = add(router, prefix, DEVICE_DATA, metrics);
        }
    }
    router = add(
        router,
        "/_matrix/client/unstable/org.matrix.msc3391",
        DELETION,
        metrics,
    );
    add(router, "", ROOT, metrics)
}

fn add(router: Router, prefix: &'static str, routes: &[Route], metrics: &Metrics) -> Router {
    // Counted as one: r0 is another name of v3.
    let is_client = CLIENT_PREFIXES.contains(&prefix);
    let counted_below = if is_client {
        CLIENT_PREFIXES[0]
    } else {
        prefix
    };
    routes.iter().fold(router, |router, (path, methods)| {
        let metrics = metrics.route(format!("{counted_below}{path}"));
        router.route(prefix, path, methods(), metrics)
    })
}
