//! Push rules of Matrix: which event notifies whom, and how users change that.
//!
//! Stored are a user's changes alone; the specification's defaults with these laid over are what
//! is served, `{"global":{"override":[…],"content":[…],"room":[…],"sender":[…],"underride":[…]}}`.
//! That very text is shown by every API and is what evaluation reads: so nothing can be shown that
//! is not evaluated.
//!
//! The crate is pure: bytes and `&str` come in, plain data goes out. It knows no HTTP, no store, no
//! clock and no runtime, so a homeserver or a client can use it alone.
#![warn(missing_docs)]

mod kind;
pub mod limits;

pub use kind::Kind;
pub use limits::Limits;
