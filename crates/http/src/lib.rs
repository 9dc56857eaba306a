//! The Matrix client-server API of Kitbag.
//!
//! `routes.rs` is the route table, one line an endpoint; each endpoint is a file of its own in
//! `endpoints`. `error.rs` is the one place where a failure becomes a status and an errcode.
//! [`serve()`] runs the whole on a listener. The crate knows the traits of `kitbag-domain` and no
//! store; it holds no account data.

pub mod admin;
pub mod shared;

mod answers;
mod codings;
mod dispatch;
mod edge;
mod endpoints;
mod error;
mod extract;
mod failures;
mod filter;
mod headers;
mod json;
mod linger;
mod metrics;
mod passwords;
mod patience;
mod progress;
mod push_rules;
mod random;
mod rate_limit;
mod request_id;
mod routes;
mod serve;
mod settings;
mod state;
mod stop;
mod stripes;
mod sync;
mod tokens;
mod uia;

pub use admin::{ADMIN_TOKEN_CHARACTERS_MIN, AdminSettings, AdminToken};
pub use edge::{Connected, Edge};
pub use metrics::{RefusalStats, RenderMetrics, RequestStats, RouteStats, Stats};
pub use passwords::{PasswordError, Passwords};
pub use push_rules::SpecRules;
pub use random::Random;
pub use request_id::REQUEST_ID_HEADER;
pub use serve::{Service, serve};
pub use settings::{
    CacheSettings, CompatSettings, Features, ListenerSettings, Msc3391Settings, Msc4331Settings,
    RateLimitSettings, RegistrationMode, RegistrationSettings, SessionSettings, Settings,
    SyncSettings,
};
pub use state::Parts;
