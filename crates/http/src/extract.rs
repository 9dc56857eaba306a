//! What handlers take out of a request, in the order of checks: token, user, IDs, body.

mod auth;
mod body;
mod client;
mod path;
mod query;

pub(crate) use auth::Authenticated;
pub use body::read_body_within;
pub(crate) use body::{JsonBody, OptionalJsonBody, read_body};
pub(crate) use client::Client;
pub use client::{X_FORWARDED_FOR, client_address, user_agent};
pub use path::PathParams;
pub(crate) use path::{OwnPath, Stored, Target};
pub(crate) use query::MatrixQuery;
