//! The admin API: what an operator's programs read and write, on the private listener alone.
//!
//! docs/admin-api.md is its documentation. Each endpoint has the guard of `guard.rs` before it, which
//! the route table puts there; the order of checks is path, method, token, IDs, user, device, policy,
//! body.

mod changes;
mod device_data;
mod entries;
mod guard;
mod openapi;
mod page;
mod rows;
mod synapse;
mod tokens;
mod users;

pub(crate) use changes::changes;
pub(crate) use device_data::{lacking, list as device_data, summary};
pub(crate) use entries::{entry, list as entries};
pub(crate) use guard::guarded;
pub(crate) use openapi::openapi;
pub(crate) use synapse::account_data as synapse_account_data;
pub(crate) use users::list as users;

pub use rows::{
    ChangeRow, ChangesPage, DeviceEntriesPage, DeviceEntryRow, DeviceRow, DevicesPage, EntriesPage,
    EntryRow, ScopeKind, StoredJson, Summary, SummaryValue, UserRow, UsersPage, WriterKind,
    WriterRow,
};
pub use tokens::{ADMIN_TOKEN_CHARACTERS_MIN, AdminSettings, AdminToken};
