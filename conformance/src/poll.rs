//! Syncs that wait while something happens, or nothing.

use std::time::{Duration, Instant};

use kitbag_client::SyncParams;

use crate::actor::Actor;
use crate::expect::{Failure, Outcome, check};
use crate::sync::Sync;

/// How long a long poll that must be woken may last: far longer than any wake-up takes.
pub(crate) const LONG_POLL: Duration = Duration::from_secs(10);

/// How soon a waiting sync must return after the change: far below the long poll.
pub(crate) const WAKE_UP: Duration = Duration::from_secs(5);

/// How long a wait lasts in which nothing must happen.
pub(crate) const SILENT_POLL: Duration = Duration::from_millis(600);

/// When the change comes: long enough for the waiting request to have arrived.
pub(crate) const HEAD_START: Duration = Duration::from_millis(200);

/// The first sync with account data, of one that waits while `action` happens.
///
/// Other things that end a wait (presence, where a server has it) are skipped over.
pub(crate) async fn woken_by(
    actor: &Actor,
    filter: Option<&str>,
    action: impl Future<Output = Outcome>,
) -> Outcome<Sync> {
    let since = actor.settled().await?;
    let waiting = async {
        let mut since = since;
        loop {
            let start = Instant::now();
            let params = SyncParams {
                since: Some(&since),
                timeout: LONG_POLL,
                filter,
                full_state: false,
            };
            let sync = actor.sync(params).await?;
            if !sync.is_quiet() || start.elapsed() >= LONG_POLL {
                return Ok::<_, Failure>((sync, Instant::now()));
            }
            since = sync.next_batch;
        }
    };
    let acting = async {
        tokio::time::sleep(HEAD_START).await;
        action.await?;
        Ok(Instant::now())
    };
    let ((sync, returned), acted) = tokio::try_join!(waiting, acting)?;
    let took = returned.saturating_duration_since(acted);
    check(
        took < WAKE_UP,
        format!("the waiting sync to return within {} s", WAKE_UP.as_secs()),
        format!("{} ms", took.as_millis()),
    )?;
    Ok(sync)
}

/// Fails if a sync that waits while `action` happens returns early, or with account data.
pub(crate) async fn not_woken_by(
    actor: &Actor,
    filter: Option<&str>,
    action: impl Future<Output = Outcome>,
) -> Outcome {
    let since = actor.settled().await?;
    let waiting = async {
        let mut since = since;
        loop {
            let start = Instant::now();
            let params = SyncParams {
                since: Some(&since),
                timeout: SILENT_POLL,
                filter,
                full_state: false,
            };
            let sync = actor.sync(params).await?;
            if !sync.is_quiet() {
                return Err(sync.failure("a sync without account data"));
            }
            if start.elapsed() >= SILENT_POLL - HEAD_START / 2 {
                return Ok(());
            }
            if sync.body["presence"]["events"]
                .as_array()
                .is_none_or(Vec::is_empty)
            {
                return Err(sync.failure("a sync that waits until its time is over"));
            }
            since = sync.next_batch;
        }
    };
    let acting = async {
        tokio::time::sleep(HEAD_START).await;
        action.await
    };
    tokio::try_join!(waiting, acting)?;
    Ok(())
}
