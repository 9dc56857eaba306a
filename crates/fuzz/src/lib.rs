//! The fuzz targets: each takes any bytes, hands them to the code that meets a stranger's bytes,
//! and panics where that breaks a promise.
//!
//! libFuzzer runs them from `fuzz/`, and the test `replay` runs the committed inputs and mutations
//! of them through the very same functions. An input that means nothing to a target is passed over.
#![warn(missing_docs)]
#![expect(
    clippy::unwrap_used,
    reason = "test code that clippy does not know as such: a failed unwrap is a finding"
)]

mod config;
mod feed_token;
mod filter;
mod id;
mod json_depth;
mod naive_json;
mod naive_push;
mod pointer;
mod push_changes;
mod push_evaluation;
mod push_pattern;
mod push_rule;
mod request;
mod revision;
mod sync_token;
mod token;
mod world;

pub use config::config;
pub use feed_token::feed_token;
pub use filter::filter;
pub use id::id;
pub use json_depth::json_depth;
pub use pointer::pointer;
pub use push_changes::push_changes;
pub use push_evaluation::{push_condition, push_evaluation};
pub use push_pattern::push_pattern;
pub use push_rule::push_rule;
pub use request::request;
pub use revision::revision;
pub use sync_token::sync_token;
pub use token::token;

/// Something to be fuzzed.
pub type Target = fn(&[u8]);

/// Every target by its name, which is that of its corpus, its dictionary and its program.
pub const TARGETS: [(&str, Target); 15] = [
    ("config", config),
    ("feed_token", feed_token),
    ("filter", filter),
    ("id", id),
    ("json_depth", json_depth),
    ("pointer", pointer),
    ("push_changes", push_changes),
    ("push_condition", push_condition),
    ("push_evaluation", push_evaluation),
    ("push_pattern", push_pattern),
    ("push_rule", push_rule),
    ("request", request),
    ("revision", revision),
    ("sync_token", sync_token),
    ("token", token),
];
