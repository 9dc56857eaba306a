//! The gateway before a homeserver, over real connections.
#![expect(
    clippy::unwrap_used,
    reason = "a failed unwrap in a test's helper is a failed test"
)]

mod authorization;
mod causes;
mod compare;
mod device_data;
mod device_objects;
mod faults;
mod fences;
mod guard;
mod headers;
mod identity;
mod interleavings;
mod life_cycle;
mod limits;
mod listings;
mod log;
mod pass;
mod protect;
mod question_faults;
mod requests;
mod stats;
mod stop;
mod support;
mod sweep;
mod tls;
mod toy;
mod versions;
mod wire;
