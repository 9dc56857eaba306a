//! Faults of the disk, at every call of a load: what was acknowledged stays, what was refused is not
//! there, and the store serves again by itself.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends where something is not as it should be"
)]

mod every_call;
mod load;
mod model;
mod storm;
