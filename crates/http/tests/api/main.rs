//! The whole API over a store in memory, with a clock that tests set and faults that they order.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: what fails in them is a failed test"
)]

mod account;
mod account_data;
mod admin;
mod at_once;
mod edge;
mod endpoints;
mod errors;
mod explain;
mod full_disk;
mod listener;
mod login;
mod logs;
mod metrics;
mod push_rules;
mod races;
mod register;
mod sessions;
mod store_failures;
mod support;
mod sync;
mod uia;
