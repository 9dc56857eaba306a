//! A small typed HTTP client for the parts of the Matrix client-server API that Kitbag serves.
//!
//! Three layers, each built on the one before:
//!
//! - [`Client::send`] takes a [`Request`] and returns the [`Response`] as it came, whatever its
//!   status. Tests of the protocol use this one.
//! - [`Client`] has the endpoints that need no session: versions, register, login.
//! - [`Account`] is a client together with a [`Session`] and has the rest.
//!
//! ```no_run
//! # async fn example() -> Result<(), kitbag_client::Error> {
//! use kitbag_client::{Client, Login, Scope};
//!
//! let client = Client::new("http://127.0.0.1:8008")?;
//! let account = client.login(&Login::password("alice", "correct horse")).await?;
//! let content = serde_json::json!({"theme": "dark"});
//! account.put(Scope::Global, "org.example.settings", &content).await?;
//! let stored = account.get(Scope::Global, "org.example.settings").await?;
//! assert_eq!(stored, Some(content));
//! # Ok(())
//! # }
//! ```
//!
//! Only plain `http` is spoken: the client is for a server on the same machine or network.

#![warn(missing_docs)]

mod account;
mod client;
mod error;
pub mod path;
mod request;
mod response;
mod types;

pub use account::{Account, PutOutcome, Revision};
pub use client::{CONNECT_TIMEOUT, Client, REQUEST_TIMEOUT, RESPONSE_BYTES_MAX};
pub use error::Error;
pub use path::{Naming, Scope};
pub use request::Request;
pub use response::Response;
pub use types::{
    AccountDataEvent, Device, EventBatch, Login, Register, RoomUpdate, Rooms, Session, SyncParams,
    SyncResponse, Versions, Whoami,
};

pub use bytes::Bytes;
pub use http::Method;
