//! The laws over random histories, on SQLite.

use std::sync::Arc;

use kitbag_domain::{Limits, ServerName};
use kitbag_store_sqlite::{Options, SqliteStore};

kitbag_testkit::law_suite!(|limits: Limits| async move { open_fresh(limits) });

/// Returns a store in a temporary directory of its own, which goes with it.
fn open_fresh(limits: Limits) -> Arc<SqliteStore> {
    let server_name = ServerName::parse("localhost").expect("the name is well-formed");
    let options = Options {
        limits,
        ..Options::new(server_name, 1)
    };
    let store = SqliteStore::ephemeral(options).expect("a temporary directory can be made");
    Arc::new(store)
}
