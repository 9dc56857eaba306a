//! The route table: one line an endpoint.

use axum::Router;
use axum::routing::{MethodRouter, delete, get, post};

use crate::endpoints::{
    account, account_data, capabilities, devices, filters, health, login, logout, profile,
    push_rules, register, sync, unsupported, versions, well_known,
};
use crate::error::ApiError;
use crate::settings::Settings;
use crate::state::App;

type Route = (&'static str, fn() -> MethodRouter<App>);

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
    ("/pushrules/",                               || get(push_rules::get)),
    ("/pushrules/global/",                        || get(push_rules::get_global)),
    ("/refresh",                                  || post(login::refresh)),
    ("/register",                                 || post(register::register)),
    ("/register/available",                       || get(register::available)),
    ("/room_keys/version",                        || get(unsupported::key_backup)),
    ("/sync",                                     || get(sync::sync)),
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

/// Paths that stand alone.
#[rustfmt::skip]
const ROOT: &[Route] = &[
    ("/.well-known/matrix/client",                        || get(well_known::client)),
    ("/_matrix/client/v1/register/m.login.registration_token/validity", || get(register::token_validity)),
    ("/_matrix/client/versions",                          || get(versions::get)),
    ("/health",                                           || get(health::get)),
];

/// The private listener, which operators alone can reach.
#[rustfmt::skip]
const PRIVATE: &[Route] = &[
    ("/health",                                           || get(health::get)),
];

/// Returns the router of the private listener.
pub(crate) fn private(app: App) -> Router {
    finish(add(Router::new(), "", PRIVATE), app)
}

/// Returns the router of all public endpoints that the settings switch on.
pub(crate) fn public(app: App) -> Router {
    let Settings { features, .. } = &app.settings;
    let mut router = Router::new();
    for prefix in CLIENT_PREFIXES {
        router = add(router, prefix, CLIENT);
        if features.msc4331.stable_path {
            router = add(router, prefix, DEVICE_DATA);
        }
    }
    router = add(
        router,
        "/_matrix/client/unstable/org.matrix.msc3391",
        DELETION,
    );
    finish(add(router, "", ROOT), app)
}

/// Adds what is the same behind every table: what is not in it.
fn finish(router: Router<App>, app: App) -> Router {
    router
        .fallback(|| async { ApiError::Unrecognized })
        .method_not_allowed_fallback(|| async { ApiError::MethodNotAllowed })
        .with_state(app)
}

fn add(router: Router<App>, prefix: &str, routes: &[Route]) -> Router<App> {
    routes.iter().fold(router, |router, (path, methods)| {
        router.route(&format!("{prefix}{path}"), methods())
    })
}
