//! Who a request is from: the homeserver is asked, with the request's own credentials.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{Method, StatusCode};
use bytes::Bytes;
use kitbag_domain::{DeviceId, UserId};
use kitbag_http::shared::GatewayError;
use serde::Deserialize;

use crate::answer::Failure;
use crate::credentials::{Credentials, Fingerprint};
use crate::recent::{Asking, Recent, Remembered};
use crate::upstream::{RETRY_AFTER, Told, Upstream};

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

/// Bytes of what the homeserver says of an identity.
const WHOAMI_BYTES_MAX: usize = 64 * 1024;

/// Whose a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) user: UserId,
    /// `None` for a token without a device, as application services have.
    pub(crate) device: Option<DeviceId>,
}

#[derive(Deserialize)]
struct Whoami {
    user_id: String,
    device_id: Option<String>,
}

/// The identities that the homeserver told of.
pub(crate) struct Identities {
    recent: Recent<Fingerprint, Arc<Identity>>,
    /// Who is being asked about, so that many requests of one session are one question.
    flights: Mutex<HashMap<Fingerprint, Arc<Flight>>>,
}

/// A question under way. Who comes later waits for the lock, and finds the answer; where the one who
/// asked went away, the next one asks.
struct Flight {
    /// Those who asked and wait, counted under the lock of the map.
    joined: AtomicUsize,
    asking: Asking,
    told: tokio::sync::Mutex<Option<Result<Arc<Identity>, Refusal>>>,
}

/// Why there is no identity; all who waited are told the same.
#[derive(Clone)]
enum Refusal {
    Failed(GatewayError),
    Relayed(Told),
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Failed(error) => error.into(),
            Refusal::Relayed(told) => Self::Relayed(Box::new(told.into_response())),
        }
    }
}

impl Identities {
    pub(crate) fn new(remembered: Remembered) -> Self {
        Self {
            recent: Recent::new(remembered),
            flights: Mutex::default(),
        }
    }

    /// Returns whose a request is, asked for now: what the homeserver answers to a token that it does
    /// not take is the client's answer.
    pub(crate) async fn fresh(
        &self,
        upstream: &Upstream,
        credentials: &Credentials,
    ) -> Result<Arc<Identity>, Failure> {
        let asking = self.recent.asking();
        let asked = ask(upstream, credentials).await;
        let whose = credentials.fingerprint();
        match &asked {
            Ok(identity) => self.recent.keep(whose, Arc::clone(identity), asking),
            Err(Refusal::Relayed(told)) if told.status() == StatusCode::UNAUTHORIZED => {
                self.forget(whose);
            }
            Err(_) => {}
        }
        Ok(asked?)
    }

    /// Returns whose a request is as it was told last, if it ever was, however long ago: for the end of
    /// a session that the homeserver does not tell about any more. A token never changes its owner.
    pub(crate) fn last(&self, credentials: &Credentials) -> Option<Arc<Identity>> {
        self.recent.last(&credentials.fingerprint())
    }

    /// Returns whose a request is, as it was told a short time ago at most.
    pub(crate) async fn recent(
        &self,
        upstream: &Upstream,
        credentials: &Credentials,
    ) -> Result<Arc<Identity>, Failure> {
        if !self.recent.is_on() {
            return self.fresh(upstream, credentials).await;
        }
        let whose = credentials.fingerprint();
        let counts = |known: &Arc<Identity>, asking| self.counts(asking, whose, known);
        if let Some(known) = self.recent.get(&whose, counts) {
            return Ok(known);
        }
        let flight = self.join(whose);
        let mut told = flight.of.told.lock().await;
        if told.is_none() {
            let asked = ask(upstream, credentials).await;
            if let Ok(identity) = &asked {
                let asking = flight.of.asking;
                self.recent.keep(whose, Arc::clone(identity), asking);
            }
            *told = Some(asked);
        }
        let shared = told.clone().expect("it was told, now or before");
        drop(told);
        match shared {
            Ok(known) if self.counts(flight.of.asking, whose, &known) => Ok(known),
            // The session or the device ended meanwhile.
            Ok(_) => self.fresh(upstream, credentials).await,
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// Forgets whose these credentials are: the homeserver refused them.
    pub(crate) fn forget(&self, whose: Fingerprint) {
        self.recent.forget(&whose);
    }

    fn counts(&self, asking: Asking, whose: Fingerprint, known: &Identity) -> bool {
        self.recent.counts(asking, &whose) && self.recent.counts(asking, &known.user)
    }

    fn join(&self, whose: Fingerprint) -> Joined<'_> {
        let mut flights = self.lock_flights();
        // One from before a forgetting is left to those who wait for it already.
        let old = flights.get(&whose);
        let old = old.filter(|flight| self.recent.counts(flight.asking, &whose));
        let flight = old.map(Arc::clone).unwrap_or_else(|| {
            Arc::new(Flight {
                joined: AtomicUsize::new(0),
                asking: self.recent.asking(),
                told: tokio::sync::Mutex::default(),
            })
        });
        flight.joined.fetch_add(1, Ordering::Relaxed);
        flights.insert(whose, Arc::clone(&flight));
        Joined {
            identities: self,
            whose,
            of: flight,
        }
    }

    fn lock_flights(&self) -> MutexGuard<'_, HashMap<Fingerprint, Arc<Flight>>> {
        let flights = self.flights.lock();
        flights.unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait for one answer; the last takes the question out of the map.
struct Joined<'a> {
    identities: &'a Identities,
    whose: Fingerprint,
    of: Arc<Flight>,
}

impl Drop for Joined<'_> {
    fn drop(&mut self) {
        let mut flights = self.identities.lock_flights();
        let known = flights.get(&self.whose);
        let is_known = known.is_some_and(|known| Arc::ptr_eq(known, &self.of));
        let is_last = self.of.joined.fetch_sub(1, Ordering::Relaxed) == 1;
        // Nobody joins a question that is answered: a failure is for those who waited.
        let is_told = || self.of.told.try_lock().is_ok_and(|told| told.is_some());
        if is_known && (is_last || is_told()) {
            flights.remove(&self.whose);
        }
    }
}

async fn ask(upstream: &Upstream, credentials: &Credentials) -> Result<Arc<Identity>, Refusal> {
    let request = credentials.request(Method::GET, WHOAMI, Bytes::new());
    let request = request.map_err(Refusal::Failed)?;
    let told = upstream.ask(request, WHOAMI_BYTES_MAX).await;
    let told = told.map_err(|error| match error {
        GatewayError::UpstreamTimeout => GatewayError::AskerUnknown {
            retry_after: RETRY_AFTER,
        },
        error => error,
    });
    let told = told.map_err(Refusal::Failed)?;
    let strange = || Refusal::Failed(told.strange());
    match told.status() {
        StatusCode::OK => {}
        _ if told.is_refusal() => return Err(Refusal::Relayed(told)),
        _ => return Err(strange()),
    }
    let Whoami { user_id, device_id } = told.read().ok_or_else(strange)?;
    Ok(Arc::new(Identity {
        user: UserId::parse(user_id).map_err(|_| strange())?,
        // A device whose ID is out of bounds has no entries, so it counts as none.
        device: device_id.and_then(|device| DeviceId::parse(device).ok()),
    }))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use futures_util::FutureExt as _;
    use futures_util::future::join_all;
    use kitbag_testkit::clock::TestClock;
    use kitbag_testkit::scripted::{Scripted, json};
    use serde_json::json;
    use tokio::sync::Semaphore;

    use super::*;
    use crate::metrics::Memory;
    use crate::settings::UpstreamSettings;

    /// A homeserver whose answers wait for permits.
    async fn homeserver(status: u16, permits: &Arc<Semaphore>) -> (Scripted, Upstream) {
        let permits = Arc::clone(permits);
        let scripted = Scripted::start(move |_| {
            let permits = Arc::clone(&permits);
            async move {
                permits.acquire().await.unwrap().forget();
                json(
                    status,
                    &json!({"user_id": "@alice:x", "device_id": "PHONE"}),
                )
            }
        });
        let scripted = scripted.await;
        let url = Some(scripted.url().parse().unwrap());
        let settings = UpstreamSettings {
            url,
            ..UpstreamSettings::default()
        };
        (scripted, Upstream::new(settings, Arc::default()).unwrap())
    }

    fn identities() -> Identities {
        Identities::new(Remembered {
            what: Memory::Identities,
            forgotten: Arc::default(),
            clock: Arc::new(TestClock::default()),
            remember_ms: 5_000,
            metrics: Arc::default(),
        })
    }

    fn credentials(token: &str) -> Credentials {
        let request = Request::builder().header("authorization", format!("Bearer {token}"));
        let (parts, _) = request.body(Body::empty()).unwrap().into_parts();
        Credentials::of(&parts)
    }

    #[tokio::test]
    async fn those_who_ask_at_once_are_one_question_and_hear_the_same_answer() {
        for status in [200, 401] {
            let permits = Arc::new(Semaphore::new(0));
            let (scripted, upstream) = homeserver(status, &permits).await;
            let (identities, token) = (identities(), credentials("a"));
            let all = join_all((0..20).map(|_| identities.recent(&upstream, &token)));
            let mut all = Box::pin(all);
            // All of them ask, or wait, before there is an answer.
            assert!((&mut all).now_or_never().is_none());
            permits.add_permits(20);
            for told in all.await {
                assert_eq!(told.is_ok(), status == 200);
            }
            assert_eq!(scripted.asked().len(), 1, "{status}");
            assert!(identities.lock_flights().is_empty());
        }
    }

    #[tokio::test]
    async fn where_the_one_who_asked_goes_away_the_next_asks() {
        let permits = Arc::new(Semaphore::new(0));
        let (_scripted, upstream) = homeserver(200, &permits).await;
        let (identities, token) = (identities(), credentials("a"));
        let mut first = Box::pin(identities.recent(&upstream, &token));
        let mut second = Box::pin(identities.recent(&upstream, &token));
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        permits.add_permits(2);
        assert_eq!(second.await.unwrap().user.as_str(), "@alice:x");
        assert!(identities.lock_flights().is_empty());
    }

    #[tokio::test]
    async fn who_asked_before_a_session_ended_does_not_hear_that_it_is_there() {
        let permits = Arc::new(Semaphore::new(0));
        let (scripted, upstream) = homeserver(200, &permits).await;
        let (identities, token) = (identities(), credentials("a"));
        let mut read = Box::pin(identities.recent(&upstream, &token));
        assert!((&mut read).now_or_never().is_none());
        identities
            .recent
            .forget(&UserId::parse("@alice:x").unwrap());
        permits.add_permits(2);
        read.await.unwrap();
        assert_eq!(scripted.asked().len(), 2);
    }

    #[tokio::test]
    async fn who_is_refused_when_asked_for_a_write_is_not_remembered_for_reads() {
        let count = Arc::new(AtomicUsize::new(0));
        let (told, token) = (Arc::clone(&count), credentials("a"));
        let scripted = Scripted::start(move |_| {
            // As it is known, then refused for a moment.
            let status = [200, 401, 200][told.fetch_add(1, Ordering::Relaxed)];
            async move { json(status, &json!({"user_id": "@alice:x"})) }
        });
        let scripted = scripted.await;
        let settings = UpstreamSettings {
            url: Some(scripted.url().parse().unwrap()),
            ..UpstreamSettings::default()
        };
        let upstream = Upstream::new(settings, Arc::default()).unwrap();
        let identities = identities();
        identities.recent(&upstream, &token).await.unwrap();
        identities.recent(&upstream, &token).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 1);
        assert!(identities.fresh(&upstream, &token).await.is_err());
        identities.recent(&upstream, &token).await.unwrap();
        assert_eq!(count.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn credentials_are_told_apart_by_token_and_by_whom_they_act_as() {
        let of = |token: &str, query: &str| {
            let request = Request::builder().uri(format!("/path?x=1{query}"));
            let request = request.header("authorization", token);
            let (parts, ()) = request.body(()).unwrap().into_parts();
            Credentials::of(&parts).fingerprint()
        };
        let all = [
            of("Bearer a", ""),
            of("Bearer b", ""),
            of("Bearer a", "&user_id=@a:x"),
            of("Bearer a", "&user_id=@a:x&device_id=A"),
            of("Bearer a", "&access_token=b"),
        ];
        let different: std::collections::HashSet<_> = all.iter().collect();
        assert_eq!(different.len(), all.len());
        assert!(of("Bearer a", "") == of("Bearer a", "&since=s1"));
    }
}
