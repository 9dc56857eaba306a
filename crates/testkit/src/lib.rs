//! Test helpers of Kitbag: the suite that every store passes, the generator of histories, the oracle.
//!
//! A store calls both suites from its integration tests. What the closure returns next to the store
//! (a temporary directory, say) lives as long as the store is used:
//!
//! ```
//! use std::sync::Arc;
//!
//! use kitbag_domain::{Limits, MemoryStore};
//!
//! kitbag_testkit::store_suite!(|limits: Limits| async move {
//!     let directory = "what must be kept";
//!     (Arc::new(MemoryStore::new(limits, 1)), directory)
//! });
//! # fn main() {}
//! ```
//!
//! The closure returns an `Arc<impl Store>`, or a pair of one and of what must be kept alive. Give
//! each suite a file of its own under `tests/`; the calling crate needs `tokio` with `macros` and
//! `rt-multi-thread`.
//!
//! | Environment | Effect on `law_suite!` and on other random tests |
//! |---|---|
//! | nothing | the short form: some seconds, always the same seeds |
//! | `KITBAG_TEST_LONG=1` | the long form: many seeds |
//! | `KITBAG_TEST_SEED=n` | that seed alone, which a failure prints |
//!
//! A seed fixes what the callers of a concurrent history do, not how they meet: to see a failure
//! again it may have to be run some times.
#![warn(missing_docs)]
#![expect(
    clippy::unwrap_used,
    reason = "test code that clippy does not know as such: a failed unwrap is a failed test"
)]

mod abandon;
mod actor;
pub mod clock;
pub mod dice;
pub mod disk;
pub mod driver;
mod fixture;
pub mod gate;
pub mod history;
pub mod hooked;
pub mod linear;
pub mod log;
mod macros;
pub mod ops;
pub mod oracle;
pub mod outside;
pub mod pausing;
pub mod rules;
pub mod scripted;
pub mod settings;
#[doc(hidden)]
pub mod suite;

pub use actor::{
    Actor, content, device_id, device_key, event_type, fresh_hash, fresh_tokens, global, room_key,
    user_id,
};
pub use fixture::{Fixture, Opener};
