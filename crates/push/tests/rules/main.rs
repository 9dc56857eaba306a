//! The rules half of the crate from outside.
#![expect(
    clippy::unwrap_used,
    reason = "clippy does not know the helpers of a test as tests"
)]

mod account;
mod defaults;
mod edits;
mod evaluated;
mod model;
mod refusals;
mod stored;
