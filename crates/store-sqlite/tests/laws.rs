//! The laws over random histories, on SQLite.

use std::sync::Arc;

use kitbag_domain::{Limits, ServerName};
use kitbag_store_sqlite::limit::{CACHE_BYTES_MAX, CACHE_SHARDS};
use kitbag_store_sqlite::{Options, SqliteStore};

kitbag_testkit::law_suite!(|limits: Limits| async move { open_fresh(limits, CACHE_BYTES_MAX) });

mod evicting {
    use std::sync::Mutex;

    use kitbag_testkit::{Opener, suite};

    use super::*;

    /// A value or two for each of the cache's shards.
    const BYTES: u64 = CACHE_SHARDS as u64 * 1024;

    /// What the caches of a test's stores did: look-ups that they answered, and evictions.
    type Counts = Arc<Mutex<(u64, u64)>>;

    /// Counts what the cache of one store did, when the store has been used.
    struct Counting(Arc<SqliteStore>, Counts);

    impl Drop for Counting {
        fn drop(&mut self) {
            let stats = self.0.stats();
            let mut counts = self.1.lock().expect("nobody panics while they count");
            counts.0 += stats.cache_hits;
            counts.1 += stats.cache_evictions;
        }
    }

    /// Runs a law, and sees that its histories were told from memory and threw values out of it.
    async fn run(law: impl AsyncFnOnce(Opener)) {
        let counts = Counts::default();
        let of_stores = Arc::clone(&counts);
        let opener = Opener::new(move |limits: Limits| {
            let counts = Arc::clone(&of_stores);
            async move {
                let store = open_fresh(limits, BYTES);
                (Arc::clone(&store), Counting(store, counts))
            }
        });
        law(opener).await;
        let (hits, evictions) = *counts.lock().expect("nobody panics while they count");
        assert!(hits > 0 && evictions > 0, "{hits} and {evictions}");
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sequential_histories_are_those_of_the_model() {
        run(suite::laws::sequential_histories_are_those_of_the_model).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn concurrent_histories_obey_the_laws() {
        run(suite::laws::concurrent_histories_obey_the_laws).await;
    }
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
