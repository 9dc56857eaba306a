//! What handlers take out of a request, in the order of checks: token, user, IDs, body.

mod auth;
mod body;
mod client;
mod path;
mod query;

pub(crate) use auth::Authenticated;
pub(crate) use body::{JsonBody, OptionalJsonBody, read_body};
pub(crate) use client::Client;
pub(crate) use path::{OwnPath, PathParams, ReadTarget, Target};
pub(crate) use query::MatrixQuery;
