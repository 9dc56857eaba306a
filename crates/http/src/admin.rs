//! The admin API: what an operator's programs read and write, on the private listener alone.
//!
//! docs/admin-api.md is its documentation.

mod rows;

pub use rows::{
    ChangeRow, ChangesPage, DeviceEntriesPage, DeviceEntryRow, DeviceRow, DevicesPage, EntriesPage,
    EntryRow, ScopeKind, StoredJson, Summary, SummaryValue, UserRow, UsersPage, WriterKind,
    WriterRow,
};
