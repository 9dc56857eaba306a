//! Push rules of Matrix: which event notifies whom, and how users change that.
//!
//! Stored are a user's changes alone; the specification's defaults with these laid over are what
//! is served, `{"global":{"override":[…],"content":[…],"room":[…],"sender":[…],"underride":[…]}}`.
//! That very text is shown by every API and is what evaluation reads: so nothing can be shown that
//! is not evaluated.
//!
//! ```
//! use kitbag_push::{Changes, Defaults, Edit, Kind, Limits, NewRule, Place, RuleId};
//!
//! let limits = Limits::default();
//! let body = r#"{"actions": ["notify"], "pattern": "cake"}"#;
//! let edit = Edit::Put {
//!     id: RuleId::parse("sweets", &limits)?,
//!     rule: NewRule::parse(Kind::Content, body, &limits)?,
//!     place: Place::default(),
//! };
//! let changes = Changes::default().apply(&Defaults::spec(), edit, &limits)?;
//! assert_eq!(Changes::parse(&changes.to_json())?, changes);
//!
//! let served = kitbag_push::served(&changes, &Defaults::spec(), "@alice:example.org");
//! let rule = kitbag_push::find_rule(&served, Kind::Content, "sweets").expect("it was put");
//! assert!(rule.is_enabled && rule.actions == r#"["notify"]"#);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The crate is pure: bytes and `&str` come in, plain data goes out. It knows no HTTP, no store, no
//! clock and no runtime, so a homeserver or a client can use it alone.
#![warn(missing_docs)]

mod action;
mod changes;
mod condition;
mod context;
mod defaults;
mod edit;
mod event;
mod explain;
mod fact;
mod json;
mod kind;
pub mod limits;
mod path;
mod pattern;
mod read;
mod rule;
mod rule_id;
mod ruleset;
mod served;

pub use action::{Action, highlights, notifies, sound};
pub use changes::{Changes, ChangesError};
pub use context::{MemberContext, NOTIFICATION_LEVEL_DEFAULT, RoomContext};
pub use defaults::Defaults;
pub use edit::{Edit, EditError, Place};
pub use event::{EventError, FlatEvent};
pub use explain::{
    ConditionExplanation, Explanation, Outcome, RuleExplanation, RuleName, SEEN_CHARS_MAX,
    SEEN_ELEMENTS_MAX, explain,
};
pub use kind::Kind;
pub use limits::Limits;
pub use pattern::Pattern;
pub use rule::{Actions, NewRule, RuleError, parse_enabled};
pub use rule_id::{RuleId, RuleIdError};
pub use ruleset::{Rule, Ruleset, evaluate_all};
pub use served::{ServedRule, find_rule, find_rules, find_ruleset, served};

/// The examples of the README are tested as those of the documentation are.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
