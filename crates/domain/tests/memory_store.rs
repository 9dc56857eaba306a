//! The store in memory keeps what every store promises.

use std::sync::Arc;

use kitbag_domain::{Limits, MemoryStore};

kitbag_testkit::store_suite!(|limits: Limits| async move { Arc::new(MemoryStore::new(limits, 1)) });
