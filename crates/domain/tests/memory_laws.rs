//! The laws hold over random histories on the store in memory.

use std::sync::Arc;

use kitbag_domain::{Limits, MemoryStore};

kitbag_testkit::law_suite!(|limits: Limits| async move { Arc::new(MemoryStore::new(limits, 1)) });
