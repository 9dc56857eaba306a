//! How many accounts there are, and how near they are to their quota.
//!
//! Counted in the background, once a minute, a page of accounts at a time: a scrape must not wait for
//! it, and nobody else must wait for a reader. The figures are told without the accounts' names.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use kitbag_domain::{Clock, Quota, StoreError, UnixMs, Usage};
use kitbag_store_sqlite::{AccountUsage, SqliteStore};
use tokio::time;
use tracing::debug;

use super::Metrics;

/// Between the ends of a survey and the beginning of the next one.
const PAUSE: Duration = Duration::from_secs(60);
/// Accounts that are read at once: some 5 ms of a reader.
const PAGE: usize = 10_000;
/// Between two pages: a million accounts take a hundred seconds, and half a percent of a core.
const PAGE_PAUSE: Duration = Duration::from_secs(1);

/// The shares of a quota that are told, in percent and as the label has them.
pub(super) const SHARES: [(u64, &str); 4] = [(50, "0.5"), (75, "0.75"), (90, "0.9"), (100, "1")];

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Survey {
    /// Accounts that are in use.
    pub(super) active: u64,
    /// Accounts that were ended.
    pub(super) deactivated: u64,
    /// What all of them have stored.
    pub(super) usage: Usage,
    /// Accounts that use at least each of [`SHARES`].
    pub(super) near: [u64; SHARES.len()],
    /// When the counting ended.
    pub(super) at: UnixMs,
}

impl Metrics {
    /// Counts accounts once a minute, for ever.
    pub(crate) async fn survey(self: Arc<Self>, clock: Arc<dyn Clock>) {
        loop {
            match count(&self.store, &self.limits.quota, PAGE, PAGE_PAUSE).await {
                Ok(mut survey) => {
                    survey.at = clock.now_ms();
                    let surveyed = self.surveyed.lock();
                    *surveyed.unwrap_or_else(PoisonError::into_inner) = Some(survey);
                }
                // The last figures stay, with their time.
                Err(error) => debug!(%error, "the accounts were not counted"),
            }
            time::sleep(PAUSE).await;
        }
    }
}

async fn count(
    store: &SqliteStore,
    quota: &Quota,
    page: usize,
    pause: Duration,
) -> Result<Survey, StoreError> {
    let mut survey = Survey::default();
    let mut after = 0;
    loop {
        let accounts = store.account_usages(after, page).await?;
        for account in &accounts {
            survey.add(account, quota);
        }
        match accounts.last() {
            Some(last) if accounts.len() == page => after = last.row,
            _ => return Ok(survey),
        }
        time::sleep(pause).await;
    }
}

impl Survey {
    fn add(&mut self, account: &AccountUsage, quota: &Quota) {
        let AccountUsage {
            usage,
            is_deactivated,
            ..
        } = account;
        if *is_deactivated {
            self.deactivated += 1;
        } else {
            self.active += 1;
        }
        self.usage.entries += usage.entries;
        self.usage.bytes += usage.bytes;
        for ((percent, _), near) in SHARES.into_iter().zip(&mut self.near) {
            let is_near = uses(usage.entries, percent, quota.entries_max)
                || uses(usage.bytes, percent, quota.bytes_max);
            *near += u64::from(is_near);
        }
    }
}

/// Tells whether `used` is at least `percent` of `max`.
fn uses(used: u64, percent: u64, max: u64) -> bool {
    u128::from(used) * 100 >= u128::from(max) * u128::from(percent)
}

#[cfg(test)]
mod tests {
    use kitbag_domain::{
        AccountStore as _, Allowance, Content, EntryStore as _, EventType, Expectation, Guard, Key,
        Limits, NewAccount, Op, Scope, ServerName, UserId, Write, Writer,
    };
    use kitbag_store_sqlite::Options;

    use super::*;

    const WRITE: Write = Write {
        guard: Guard::Account,
        writer: Writer::Server,
        at: 0,
        allowance: Allowance::Ordinary,
    };

    async fn add(store: &SqliteStore, name: &str, entries: usize) -> UserId {
        let user = UserId::parse(format!("@{name}:localhost")).unwrap();
        let account = NewAccount {
            user: user.clone(),
            password_hash: String::new(),
            at: 0,
        };
        store.register(account, None).await.unwrap();
        for number in 0..entries {
            let event_type = EventType::parse(format!("type{number}")).unwrap();
            let content = Content::parse("{}".to_owned().into(), &Limits::default()).unwrap();
            let key = Key::new(Scope::Global, event_type);
            let op = Op::Put(key, content, Expectation::default());
            store.apply(&user, WRITE, vec![op]).await.unwrap();
        }
        user
    }

    #[tokio::test]
    async fn accounts_are_counted_once_each_over_all_pages() {
        let options = Options::new(ServerName::parse("localhost").unwrap(), 1);
        let store = SqliteStore::ephemeral(options).unwrap();
        for (name, entries) in [("a", 0), ("b", 1), ("c", 2), ("d", 3), ("e", 4)] {
            add(&store, name, entries).await;
        }
        let gone = add(&store, "f", 4).await;
        store.deactivate(&gone, WRITE).await.unwrap();
        let quota = Quota {
            entries_max: 4,
            ..Quota::default()
        };
        for page in [1, 2, 3, 6, 100] {
            let survey = count(&store, &quota, page, Duration::ZERO).await.unwrap();
            assert_eq!((survey.active, survey.deactivated), (5, 1), "{page}");
            assert_eq!(survey.usage.entries, 10, "{page}");
            assert_eq!(survey.near, [3, 2, 1, 1], "{page}");
        }
    }

    #[test]
    fn the_nearer_of_entries_and_bytes_counts_and_a_share_includes_its_bound() {
        let quota = Quota {
            entries_max: 1_000,
            bytes_max: 200,
            ..Quota::default()
        };
        for (bytes, near) in [(99, [0, 0, 0, 0]), (100, [1, 0, 0, 0]), (200, [1, 1, 1, 1])] {
            let mut survey = Survey::default();
            let account = AccountUsage {
                row: 1,
                usage: Usage { entries: 1, bytes },
                is_deactivated: false,
            };
            survey.add(&account, &quota);
            assert_eq!(survey.near, near, "{bytes}");
        }
    }
}
