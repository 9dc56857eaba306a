//! One endpoint, or one family of endpoints on the same thing, a file.

pub(crate) mod account;
pub(crate) mod account_data;
pub(crate) mod capabilities;
pub(crate) mod devices;
pub(crate) mod explain;
pub(crate) mod filters;
pub(crate) mod health;
pub(crate) mod login;
pub(crate) mod logout;
pub(crate) mod metrics;
pub(crate) mod profile;
pub(crate) mod push_rules;
pub(crate) mod register;
pub(crate) mod sync;
pub(crate) mod unsupported;
pub(crate) mod versions;
pub(crate) mod well_known;
