//! Compare-and-swap (MSC4547) over a homeserver that has none, by the way of all writes of an entry
//! through this gateway: they take turns, also those that expect nothing. So nothing lands between a
//! look at the stored revision and the write that it allowed.
//!
//! What goes past the gateway takes no turn, which is why this is off by default. No two entries wait
//! for each other, still less two users.
//!
//! A write whose outcome is not known could land behind a later one. So its entry is fenced: for a
//! while it is not written.

use std::collections::{HashMap, VecDeque};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use axum::http::header::ACCEPT_ENCODING;
use bytes::Bytes;
use futures_util::FutureExt as _;
use kitbag_domain::{Content, ContentError, Expectation, Limits, UserId, WriteError, conflicts};
use kitbag_http::shared::GatewayError;
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedMutexGuard;
use tokio::time::{self, Instant};

use crate::answer::{Failure, broken, may_come_late};
use crate::aside::aside;
use crate::entries::WRITTEN_BYTES_MAX;
use crate::metrics::GatewayMetrics;
use crate::settings::CompareSettings;
use crate::turns::Waiting;
use crate::upstream::{Told, Upstream};

/// Bytes of a stored content that is read for its revision: what Synapse takes, and some more.
const STORED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Who writes one entry at a time, or waits to: a few devices, each with some tries.
const WRITERS_MAX: usize = 64;

/// Entries that are fenced at a time; beyond it the oldest fence falls.
const FENCES_MAX: usize = 16_384;

/// What a writer is told to wait where too many do already.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An entry, by the hash of all its names: however long these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EntryId([u8; 32]);

impl EntryId {
    /// Without a room and a device it is one of the account.
    pub(crate) fn new(
        user: &UserId,
        room: Option<&str>,
        device: Option<&str>,
        event_type: &str,
    ) -> Self {
        let mut hash = Sha256::new();
        for name in [Some(user.as_str()), room, device, Some(event_type)] {
            // Their lengths keep names apart; none is as long as that.
            hash.update(name.map_or(usize::MAX, str::len).to_le_bytes());
            hash.update(name.unwrap_or_default());
        }
        Self(hash.finalize().into())
    }
}

/// The turns and the fences of all entries.
pub(crate) struct Compare {
    /// `None` where it is switched off.
    shared: Option<Arc<Shared>>,
}

struct Shared {
    fence: Duration,
    wait: Duration,
    metrics: Arc<GatewayMetrics>,
    entries: Mutex<Entries>,
}

#[derive(Default)]
struct Entries {
    /// Those that somebody writes, or waits to.
    writers: HashMap<EntryId, Writers>,
    /// Until when others are not written, whatever becomes of the time of day.
    fences: HashMap<EntryId, Instant>,
    /// The same in the order in which they were set, which is that of their ends.
    fences_in_order: VecDeque<(Instant, EntryId)>,
}

#[derive(Default)]
struct Writers {
    count: usize,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// The turn to write an entry, until it is dropped; nothing at all where none is needed.
pub(crate) struct Turn(Option<Held>);

struct Held {
    // Dropped in this order: what is held, then the place in the map.
    _guard: OwnedMutexGuard<()>,
    place: Place,
}

/// Keeps an entry in the map.
struct Place {
    shared: Arc<Shared>,
    entry: EntryId,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A write that may have gone out. Dropped before its outcome is known, it fences its entry.
struct Sent(Option<Held>);

impl Compare {
    /// `wait` bounds how long a turn is waited for: those before wait for the homeserver.
    pub(crate) fn new(
        settings: CompareSettings,
        wait: Duration,
        metrics: Arc<GatewayMetrics>,
    ) -> Self {
        let shared = || Shared {
            fence: Duration::from_millis(settings.fence_ms),
            wait,
            metrics,
            entries: Mutex::default(),
        };
        Self {
            shared: settings.enabled.then(|| Arc::new(shared())),
        }
    }

    pub(crate) fn is_enabled(&self) -> bool {
        self.shared.is_some()
    }

    /// Waits for the turn to write an entry.
    ///
    /// # Errors
    /// [`GatewayError::WriteFenced`] where the outcome of an earlier write is not known, or too many
    /// are waited for.
    pub(crate) async fn turn(&self, entry: EntryId) -> Result<Turn, GatewayError> {
        let Some(shared) = &self.shared else {
            return Ok(Turn(None));
        };
        let place = Shared::enter(shared, entry)?;
        let mut turn = pin!(Arc::clone(&place.turn).lock_owned());
        let guard = match turn.as_mut().now_or_never() {
            Some(guard) => guard,
            None => {
                let _waiting = Waiting::of(&shared.metrics.turns_waiting);
                let guard = time::timeout(shared.wait, turn).await;
                guard.map_err(|_| busy())?
            }
        };
        // It may have come while this one waited.
        shared.lock().refuse_fenced(&entry, shared)?;
        let _guard = guard;
        Ok(Turn(Some(Held { _guard, place })))
    }
}

impl Turn {
    /// Sends the write and ends the turn. Who drops it amid that fences the entry: so it belongs into
    /// a task of its own, which does not end with its client.
    ///
    /// # Errors
    /// [`GatewayError::OutcomeUnknown`], and what keeps the write from being sent.
    pub(crate) async fn write(
        self,
        upstream: &Upstream,
        mut request: Request<Body>,
    ) -> Result<Told, GatewayError> {
        let Some(held) = self.0 else {
            return upstream.ask(request, WRITTEN_BYTES_MAX).await;
        };
        // The answer is read here: a packed one would look like that of somebody in between.
        request.headers_mut().remove(ACCEPT_ENCODING);
        let unknown = GatewayError::OutcomeUnknown {
            retry_after: held.place.shared.fence,
        };
        let sent = Sent(Some(held));
        let told = upstream.ask(request, WRITTEN_BYTES_MAX).await;
        if let Ok(told) = &told
            && told.is_strange()
        {
            // The log alone has it: the client is told that nobody knows.
            drop(told.strange());
        }
        match told {
            told if may_come_late(&told) => Err(unknown),
            // Where it could not be reached nothing was sent.
            settled => {
                sent.settle();
                settled
            }
        }
    }
}

/// Returns how many bytes of a stored content are read: no fewer than could be written here.
pub(crate) fn stored_bytes_max(limits: &Limits) -> usize {
    let written = limits
        .content_bytes_max
        .max(limits.device_content_bytes_max);
    let written = usize::try_from(written).unwrap_or(usize::MAX);
    STORED_BYTES_MAX.max(written)
}

/// Refuses a write that expects another revision than that of what the homeserver told.
///
/// # Errors
/// 409 with the stored content, and 502 where it cannot be read.
pub(crate) fn judge(stored: Option<Bytes>, expectation: &Expectation) -> Result<(), Failure> {
    let Some(stored) = stored.filter(|_| !expectation.is_empty()) else {
        return Ok(());
    };
    // Whatever the limits were when it was written, or are elsewhere.
    let limits = Limits {
        content_bytes_max: u64::MAX,
        json_depth_max: usize::MAX,
        ..Limits::default()
    };
    let compared = aside(stored.len(), || {
        let stored = Content::parse(stored, &limits)?;
        Ok((conflicts(Some(&stored), expectation), stored))
    });
    match compared {
        Ok((false, _)) => Ok(()),
        Ok((true, current)) => Err(Failure::from(WriteError::Conflict {
            current,
            names: expectation.names(),
        })),
        // It has no revision.
        Err(ContentError::NotObject) => Ok(()),
        Err(_) => Err(broken()),
    }
}

fn busy() -> GatewayError {
    GatewayError::WriteFenced {
        retry_after: RETRY_AFTER,
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(shared: &Arc<Self>, entry: EntryId) -> Result<Place, GatewayError> {
        let mut entries = shared.lock();
        entries.refuse_fenced(&entry, shared)?;
        let writers = entries.writers.entry(entry).or_default();
        if writers.count >= WRITERS_MAX {
            return Err(busy());
        }
        writers.count += 1;
        Ok(Place {
            shared: Arc::clone(shared),
            entry,
            turn: Arc::clone(&writers.turn),
        })
    }

    fn fence(&self, entry: EntryId) {
        let ends_at = Instant::now() + self.fence;
        let mut entries = self.lock();
        if entries.fences.len() >= FENCES_MAX {
            entries.take_oldest_fence(self);
        }
        if entries.fences.insert(entry, ends_at).is_none() {
            self.metrics.fenced();
        }
        entries.fences_in_order.push_back((ends_at, entry));
    }
}

impl Entries {
    fn refuse_fenced(&mut self, entry: &EntryId, shared: &Shared) -> Result<(), GatewayError> {
        let now = Instant::now();
        let is_over = |(ends_at, _): &(Instant, EntryId)| *ends_at <= now;
        while self.fences_in_order.front().is_some_and(is_over) {
            self.take_oldest_fence(shared);
        }
        match self.fences.get(entry) {
            Some(ends_at) => Err(GatewayError::WriteFenced {
                retry_after: ends_at.saturating_duration_since(now),
            }),
            None => Ok(()),
        }
    }

    fn take_oldest_fence(&mut self, shared: &Shared) {
        if let Some((_, entry)) = self.fences_in_order.pop_front()
            && self.fences.remove(&entry).is_some()
        {
            shared.metrics.fences.leave();
        }
    }
}

impl Sent {
    /// The outcome is known.
    fn settle(mut self) {
        drop(self.0.take());
    }
}

impl Drop for Sent {
    fn drop(&mut self) {
        // Before the turn ends: the next writer looks at it then.
        if let Some(held) = &self.0 {
            held.place.shared.fence(held.place.entry);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut entries = self.shared.lock();
        if let Some(writers) = entries.writers.get_mut(&self.entry) {
            writers.count -= 1;
            if writers.count == 0 {
                entries.writers.remove(&self.entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FENCE: Duration = Duration::from_secs(30);

    fn compare() -> Compare {
        let settings = CompareSettings {
            enabled: true,
            fence_ms: 30_000,
        };
        Compare::new(settings, Duration::from_secs(60), Arc::default())
    }

    fn entry(event_type: &str) -> EntryId {
        EntryId::new(&UserId::parse("@a:x").unwrap(), None, None, event_type)
    }

    async fn turn(compare: &Compare, event_type: &str) -> Turn {
        compare.turn(entry(event_type)).await.unwrap()
    }

    fn is_empty(compare: &Compare) -> bool {
        let entries = compare.shared.as_ref().unwrap().lock();
        entries.writers.is_empty()
    }

    fn fence(turn: Turn) {
        drop(Sent(turn.0));
    }

    fn fenced_ms(turn: Result<Turn, GatewayError>) -> Option<u128> {
        match turn {
            Ok(_) => None,
            Err(GatewayError::WriteFenced { retry_after }) => Some(retry_after.as_millis()),
            Err(error) => unreachable!("{error}"),
        }
    }

    #[test]
    fn entries_are_told_apart_by_each_name() {
        let (alice, bob) = (
            UserId::parse("@a:x").unwrap(),
            UserId::parse("@b:x").unwrap(),
        );
        let entries = [
            EntryId::new(&alice, None, None, "a"),
            EntryId::new(&bob, None, None, "a"),
            EntryId::new(&alice, None, None, "b"),
            EntryId::new(&alice, Some("a"), None, "a"),
            EntryId::new(&alice, None, Some("a"), "a"),
            EntryId::new(&alice, Some(""), None, "aa"),
            EntryId::new(&alice, Some("a"), None, ""),
        ];
        for (place, entry) in entries.iter().enumerate() {
            assert_eq!(entries.iter().position(|other| other == entry), Some(place));
        }
    }

    #[tokio::test]
    async fn one_writes_an_entry_at_a_time_and_no_two_entries_wait_for_each_other() {
        let compare = compare();
        let first = turn(&compare, "a").await;
        let mut second = pin!(compare.turn(entry("a")));
        assert!(second.as_mut().now_or_never().is_none());
        drop(turn(&compare, "b").await);
        drop(first);
        drop(second.await.unwrap());
        assert!(is_empty(&compare));
    }

    #[tokio::test]
    async fn who_waits_for_one_entry_is_bounded() {
        let compare = compare();
        let first = turn(&compare, "a").await;
        let waiting: Vec<_> = (1..WRITERS_MAX).map(|_| compare.turn(entry("a"))).collect();
        let mut waiting: Vec<_> = waiting.into_iter().map(Box::pin).collect();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        let one_more = compare.turn(entry("a")).now_or_never();
        assert_eq!(fenced_ms(one_more.expect("told at once")), Some(1_000));
        drop(turn(&compare, "b").await);
        drop(waiting);
        drop(first);
        assert!(is_empty(&compare), "who gave up has no place");
    }

    #[tokio::test(start_paused = true)]
    async fn a_turn_is_waited_for_within_bounds() {
        let compare = compare();
        let first = turn(&compare, "a").await;
        let second = time::timeout(Duration::from_secs(61), compare.turn(entry("a")));
        assert_eq!(fenced_ms(second.await.unwrap()), Some(1_000));
        drop(first);
        drop(turn(&compare, "a").await);
        assert!(is_empty(&compare));
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_is_fenced_for_a_while_also_for_who_waits_already() {
        let compare = compare();
        let first = turn(&compare, "a").await;
        let mut second = pin!(compare.turn(entry("a")));
        assert!(second.as_mut().now_or_never().is_none());
        fence(first);
        assert_eq!(fenced_ms(second.await), Some(30_000));
        time::advance(FENCE - Duration::from_millis(1)).await;
        assert_eq!(fenced_ms(compare.turn(entry("a")).await), Some(1));
        drop(turn(&compare, "b").await);
        time::advance(Duration::from_millis(1)).await;
        drop(turn(&compare, "a").await);
        Sent(turn(&compare, "a").await.0).settle();
        drop(turn(&compare, "a").await);
    }

    #[tokio::test(start_paused = true)]
    async fn fences_are_bounded_and_counted() {
        let compare = compare();
        let shared = compare.shared.as_ref().unwrap();
        for number in 0..=FENCES_MAX {
            fence(turn(&compare, &number.to_string()).await);
        }
        assert_eq!(shared.metrics.fences.read(), FENCES_MAX as u64);
        drop(turn(&compare, "0").await);
        assert!(compare.turn(entry("1")).await.is_err());
        time::advance(FENCE).await;
        drop(turn(&compare, "1").await);
        assert_eq!(shared.metrics.fences.read(), 0);
        assert!(shared.lock().fences_in_order.is_empty());
    }

    #[test]
    fn what_can_be_written_can_be_read() {
        let with = |content_bytes_max, device_content_bytes_max| {
            stored_bytes_max(&Limits {
                content_bytes_max,
                device_content_bytes_max,
                ..Limits::default()
            })
        };
        assert_eq!(with(1, 1), 16 * 1024 * 1024);
        assert_eq!(with(64 * 1024 * 1024, 1), 64 * 1024 * 1024);
        assert_eq!(with(1, 64 * 1024 * 1024), 64 * 1024 * 1024);
    }

    #[test]
    fn what_is_stored_is_judged_by_its_revision() {
        let expected = |id: &str| Expectation {
            stable: Some(id.to_owned()),
            unstable: None,
        };
        let stored = |text: &'static str| Some(Bytes::from_static(text.as_bytes()));
        let revision = stored(r#"{"m.revision_id": "1"}"#);
        assert!(judge(revision.clone(), &expected("1")).is_ok());
        assert!(matches!(
            judge(revision, &expected("2")),
            Err(Failure::Denied(_))
        ));
        for without in [
            None,
            stored("{}"),
            stored("[]"),
            stored(r#"{"m.revision_id": 1}"#),
        ] {
            assert!(judge(without, &expected("2")).is_ok());
        }
        let large = format!(r#"{{"a": "{}"}}"#, "x".repeat(2 * 1024 * 1024));
        assert!(judge(Some(large.into()), &expected("2")).is_ok());
        let deep = format!(
            r#"{{"m.revision_id": "1", "a": {}{}}}"#,
            "[".repeat(5_000),
            "]".repeat(5_000)
        );
        assert!(judge(Some(deep.clone().into()), &expected("1")).is_ok());
        assert!(matches!(
            judge(Some(deep.into()), &expected("2")),
            Err(Failure::Denied(_))
        ));
        // No update is lost because something cannot be read.
        assert!(judge(stored("<html>"), &expected("2")).is_err());
        // Who expects nothing loses none.
        assert!(judge(stored("<html>"), &Expectation::default()).is_ok());
    }
}
