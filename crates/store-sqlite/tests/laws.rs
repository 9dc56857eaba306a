//! The laws over random histories, on SQLite.

use std::sync::Arc;

use kitbag_domain::{Limits, ServerName};
use kitbag_store_sqlite::limit::{CACHE_BYTES_MAX, CACHE_SHARDS};
use kitbag_store_sqlite::{Options, SqliteStore};

kitbag_testkit::law_suite!(|limits: Limits| async move { open_fresh(limits, CACHE_BYTES_MAX) });

mod evicting {
    use super::*;

    /// A value or two for each of the cache's shards.
    const BYTES: u64 = CACHE_SHARDS as u64 * 1024;

    kitbag_testkit::law_suite!(|limits: Limits| async move { open_fresh(limits, BYTES) });
}

mod uncached {
    use super::*;

    kitbag_testkit::law_suite!(|limits: Limits| async move { open_fresh(limits, 0) });
}

/// Returns a store in a temporary directory of its own, which goes with it.
fn open_fresh(limits: Limits, cache_bytes_max: u64) -> Arc<SqliteStore> {
    let server_name = ServerName::parse("localhost").expect("the name is well-formed");
    let options = Options {
        limits,
        cache_bytes_max,
        ..Options::new(server_name, 1)
    };
    let store = SqliteStore::ephemeral(options).expect("a temporary directory can be made");
    Arc::new(store)
}
