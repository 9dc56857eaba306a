//! Account data of Matrix users: what an entry is, who may write it, and what a store must promise.
//!
//! Everything that a Matrix account carries with it is an [`Entry`]: `(user, scope, type) ->
//! content`, the scope being the account itself, a room, or (MSC4331) a device. The service
//! [`AccountData`] is the door to them, [`WritePolicy`] the one place that says who may write, and
//! the traits [`EntryStore`], [`AccountStore`] and [`DeviceDataStore`] what lies below. [`MemoryStore`] implements them
//! for tests.
//!
//! The crate reads no clock, no environment and no randomness, and knows neither HTTP nor a
//! database: bytes and `&str` come in, plain data goes out.
//!
//! ```
//! use kitbag_domain::{Content, EventType, Key, Limits, Scope, WritePolicy};
//!
//! let key = Key::new(Scope::Global, EventType::parse("m.push_rules")?);
//! assert_eq!(WritePolicy::of(&key), WritePolicy::ServerManaged);
//!
//! // Content is kept byte for byte, without the white space around it.
//! let content = Content::parse(" {\"a\": 1.0} ".into(), &Limits::default())?;
//! assert_eq!(content.as_str(), "{\"a\": 1.0}");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![warn(missing_docs)]

mod clock;
mod content;
mod entry;
mod feed_token;
mod hex;
mod histogram;
mod id;
mod ignored_users;
mod json;
mod limits;
mod local_notifications;
mod memory;
mod pointer;
mod policy;
mod push_rules;
mod revision;
mod scope;
mod service;
mod store;
mod sync_token;
mod token;
mod token_text;
mod wakeups;
mod write;

pub use clock::{Clock, UnixMs};
pub use content::{Content, ContentError};
pub use entry::{Entry, EntryDescription, Incarnation, Position, Writer, entry_size_bytes};
pub use feed_token::{FeedToken, FeedTokenError};
pub use histogram::{Histogram, Spread};
pub use id::{
    DeviceId, EventType, IdError, LocalpartError, RoomId, ServerName, UserId, UserNameError,
    validate_localpart,
};
pub use limits::{Limits, Quota, QuotaExceeded, Usage, limit};
pub use local_notifications::local_notification_keys;
pub use memory::MemoryStore;
pub use pointer::{Pointer, PointerError};
pub use policy::{PUSH_RULES, SERVER_MANAGED, WritePolicy};
pub use push_rules::PushRules;
pub use revision::{Expectation, RevisionNames, conflicts};
pub use scope::{Key, Scope, Selector};
pub use service::{
    AccountData, DescribeError, Descriptions, DeviceValue, GetError, InitialSnapshot,
    LackingDevice, Operator, OperatorWriteError, PermitError, PushRulesWriteError, ReadError,
    Reader, Requester, Snapshot, Tally, Unreadable, WriteError, WritePermit,
};
pub use store::{
    Account, AccountStore, Applied, ApplyError, BoxFuture, Change, Changes, Device, DeviceChange,
    DeviceChanges, DeviceDataStore, DeviceEntry, DevicePlace, DeviceSelection, DeviceWithEntries,
    EntryStore, FeedPosition, FilterError, Guard, KeptSession, Live, LiveEntry, Login, LoginError,
    NewAccount, Op, Profile, ProfileField, RefreshError, Refusal, RegisterError, ScopeRef, Seen,
    Session, SessionAndEntry, SessionChanges, SessionTokens, Store, StoreError, StoreInfo,
    UpdateFn, Write,
};
pub use sync_token::{SyncToken, SyncTokenError};
pub use token::{Token, TokenError, TokenHash, TokenKind};
pub use wakeups::{DeviceSubscription, DeviceWakeups, Subscription, Wakeups};
pub use write::{Allowance, Before, Decision, decide};
