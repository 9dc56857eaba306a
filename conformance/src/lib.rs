//! Black-box scenarios for account data, run over the wire against any Matrix homeserver.
//!
//! [`scenarios::all`] is the one list. [`run`] runs what a [`Selection`] keeps of it and returns a
//! [`Report`], which prints as a table or as JSON. Every scenario registers users of its own, so
//! they run side by side and leave nothing that another could trip over. The server under test
//! should have its rate limits off or high.

mod actor;
mod canary;
mod device_data;
mod expect;
mod lab;
mod poll;
mod report;
mod rules;
mod runner;
mod scenario;
pub mod scenarios;
mod sync;

pub use canary::{CANARY_DEFAULT, Canary};
pub use device_data::DeviceData;
pub use expect::Failure;
pub use lab::Lab;
pub use report::{Report, Row};
pub use runner::{Options, PARALLEL_DEFAULT, SCENARIO_TIMEOUT, run};
pub use scenario::{Feature, Scenario, Selection};
