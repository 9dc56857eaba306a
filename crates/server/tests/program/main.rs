//! The program itself: started, spoken to over HTTP and by its command line, and ended.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests: what fails in them is a failed test"
)]

mod admin_api;
mod backup;
mod check;
mod configuration;
mod damage;
mod data;
mod devices;
mod doctor;
mod gateway;
mod help;
mod kills;
mod life;
mod logs;
#[cfg(target_os = "linux")]
mod memory;
mod metrics;
mod push;
mod serve;
mod support;
mod user;
