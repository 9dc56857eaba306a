//! Races brought about on purpose: writers are stopped at the steps of a commit, readers between a
//! snapshot and its use, and what must fall into that moment happens then.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

mod cache;
mod callers;
mod compare;
mod device_life;
mod ground;
mod horizon;
mod ledger;
mod steps;
