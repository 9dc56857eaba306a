//! What the gateway has in common with the API: each decision stands in one place.
//!
//! The errcode table, the checks of a path in their order, the bounds of a body, the address of a
//! client, request IDs and counts. Nothing here knows a store.

pub use crate::codings::has_unknown_coding;
pub use crate::dispatch::{Router, VARIABLES_MAX, Variables};
pub use crate::edge::{INFO_URI, drop_body};
pub use crate::endpoints::account_data::expectation;
pub use crate::endpoints::metrics::OPENMETRICS;
pub use crate::error::{Denial, GatewayError};
pub use crate::extract::{
    PathParams, X_FORWARDED_FOR, client_address, read_body_within, user_agent,
};
pub use crate::headers::{finish, is_unfinished};
pub use crate::json::{EmptyObject, json_response};
pub use crate::linger::{Unread, share_body};
pub use crate::metrics::{Counting, Gauge, Listener, Metrics, RouteMetrics};
pub use crate::request_id::{RequestId, RequestIds};
pub use crate::stripes::{STRIPES, Stripes};
