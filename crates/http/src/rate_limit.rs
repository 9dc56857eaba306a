//! How often logins, registrations, password checks and explanations may be tried.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use governor::clock::Clock as GovernorClock;
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};
use kitbag_domain::{Clock, UserId};

use crate::settings::RateLimitSettings;

/// How many times as often as from one address an account's password may be tried, so that nobody
/// can lock an account from one place.
const ACCOUNT_FACTOR: u32 = 5;
/// After how many checks the keys that are full again are dropped: it looks at all of them.
const SWEEP_CHECKS: u64 = 1_024;
/// The longest time in which a burst comes back, a century: governor counts in nanoseconds, of which
/// 64 bits hold 584 years, and multiplies without looking.
const BURST_RETURNS_MAX: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);
/// Addresses that are remembered for having tried too many wrong admin tokens. Beyond it a further
/// one is told so too, but its next try is looked at.
const BARRED_MAX: usize = 16_384;
/// Bits of an IPv6 address that one subscriber has; the others they can choose freely.
const IPV6_SUBSCRIBER_BITS: u32 = 64;

/// What is counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Key {
    Account(UserId),
    Address(IpAddr),
}

impl Key {
    fn address(address: IpAddr) -> Self {
        Self::Address(match address.to_canonical() {
            IpAddr::V6(v6) => {
                let network = u128::MAX << (u128::BITS - IPV6_SUBSCRIBER_BITS);
                Ipv6Addr::from_bits(v6.to_bits() & network).into()
            }
            v4 => v4,
        })
    }
}

type Limiter = RateLimiter<Key, DashMapStateStore<Key>, WallClock, NoOpMiddleware<Duration>>;

/// The limits in force.
pub(crate) struct RateLimits {
    admin: Option<Limiter>,
    /// Whose admin tokens are not looked at, and until when.
    barred: Mutex<HashMap<Key, Duration>>,
    explanation: Option<Limiter>,
    login: Option<Limiter>,
    account: Option<Limiter>,
    refresh: Option<Limiter>,
    registration: Option<Limiter>,
    clock: WallClock,
    checks: AtomicU64,
}

/// Too many tries; the next one is allowed after so long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RateLimited {
    /// How long to wait.
    pub(crate) retry_after: Duration,
}

impl RateLimits {
    pub(crate) fn new(settings: RateLimitSettings, clock: Arc<dyn Clock>) -> Self {
        let clock = WallClock(clock);
        let limiter = |per_minute, burst: u32| {
            let per_minute = NonZeroU32::new(per_minute).filter(|_| settings.enabled)?;
            let quota = Quota::per_minute(per_minute);
            let burst_max = BURST_RETURNS_MAX.as_nanos() / quota.replenish_interval().as_nanos();
            let burst = burst.min(u32::try_from(burst_max).unwrap_or(u32::MAX));
            let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
            let quota = quota.allow_burst(burst);
            Some(Limiter::new(
                quota,
                DashMapStateStore::default(),
                clock.clone(),
            ))
        };
        let times = |number: u32| number.saturating_mul(ACCOUNT_FACTOR);
        Self {
            admin: limiter(settings.admin_per_minute, settings.admin_burst),
            barred: Mutex::default(),
            explanation: limiter(settings.explanation_per_minute, settings.explanation_burst),
            login: limiter(settings.login_per_minute, settings.login_burst),
            account: limiter(
                times(settings.login_per_minute),
                times(settings.login_burst),
            ),
            refresh: limiter(settings.refresh_per_minute, settings.refresh_burst),
            registration: limiter(
                settings.registration_per_minute,
                settings.registration_burst,
            ),
            clock,
            checks: AtomicU64::new(0),
        }
    }

    /// Tells whether an admin token from `address` is looked at, which counts nothing.
    pub(crate) fn admin(&self, address: IpAddr) -> Result<(), RateLimited> {
        let until = self.barred().get(&Key::address(address)).copied();
        let retry_after = until.and_then(|until| until.checked_sub(self.clock.now()));
        match retry_after.filter(|wait| !wait.is_zero()) {
            Some(retry_after) => Err(RateLimited { retry_after }),
            None => Ok(()),
        }
    }

    /// Counts a wrong admin token from `address`; where it is one too many, the right one is not
    /// looked at for a while either, or a guess would be told from its refusal.
    pub(crate) fn wrong_admin_token(&self, address: IpAddr) -> Result<(), RateLimited> {
        let key = Key::address(address);
        let checked = self.check(self.admin.as_ref(), &key);
        if let Err(limited) = &checked {
            let now = self.clock.now();
            let mut barred = self.barred();
            if barred.len() >= BARRED_MAX {
                barred.retain(|_, until| *until > now);
            }
            if barred.len() < BARRED_MAX {
                barred.insert(key, now + limited.retry_after);
            }
        }
        checked
    }

    fn barred(&self) -> MutexGuard<'_, HashMap<Key, Duration>> {
        self.barred.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts an event that `account` wants to be explained.
    pub(crate) fn explanation(&self, account: &UserId) -> Result<(), RateLimited> {
        self.check(self.explanation.as_ref(), &Key::Account(account.clone()))
    }

    /// Counts a check of `account`'s password asked for from `address`.
    pub(crate) fn login(&self, address: IpAddr, account: &UserId) -> Result<(), RateLimited> {
        self.check(self.login.as_ref(), &Key::address(address))?;
        self.check(self.account.as_ref(), &Key::Account(account.clone()))
    }

    /// Counts a try to refresh tokens from `address`: each may be a write.
    pub(crate) fn refresh(&self, address: IpAddr) -> Result<(), RateLimited> {
        self.check(self.refresh.as_ref(), &Key::address(address))
    }

    /// Counts a registration from `address`.
    pub(crate) fn registration(&self, address: IpAddr) -> Result<(), RateLimited> {
        self.check(self.registration.as_ref(), &Key::address(address))
    }

    fn check(&self, limiter: Option<&Limiter>, key: &Key) -> Result<(), RateLimited> {
        let Some(limiter) = limiter else {
            return Ok(());
        };
        let checks = self.checks.fetch_add(1, Ordering::Relaxed);
        if checks.is_multiple_of(SWEEP_CHECKS) {
            limiter.retain_recent();
        }
        limiter.check_key(key).map_err(|not_until| RateLimited {
            retry_after: not_until.wait_time_from(self.clock.now()),
        })
    }
}

/// Our clock for governor: the time since the epoch.
#[derive(Clone)]
struct WallClock(Arc<dyn Clock>);

impl GovernorClock for WallClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        Duration::from_millis(self.0.now_ms())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Set(AtomicU64);

    impl Clock for Set {
        fn now_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn counts_by_address_and_by_account() {
        let clock = Arc::new(Set(AtomicU64::new(1_000_000)));
        let settings = RateLimitSettings {
            login_burst: 2,
            login_per_minute: 1,
            ..RateLimitSettings::default()
        };
        let limits = RateLimits::new(settings, clock.clone());
        let address = |last: u8| IpAddr::from([127, 0, 0, last]);
        let alice = UserId::parse("@alice:x").unwrap();
        let bob = UserId::parse("@bob:x").unwrap();
        assert!(limits.login(address(1), &alice).is_ok());
        assert!(limits.login(address(1), &alice).is_ok());
        let limited = limits.login(address(1), &bob).unwrap_err();
        assert!(limited.retry_after > Duration::from_secs(50), "{limited:?}");
        assert!(
            limits.login(address(2), &alice).is_ok(),
            "one place does not lock an account"
        );
        let tries = (3..40)
            .filter(|last| limits.login(address(*last), &alice).is_ok())
            .count();
        assert_eq!(tries, 7, "many places together are counted");
        assert!(limits.login(address(40), &bob).is_ok());
        clock.0.fetch_add(61_000, Ordering::Relaxed);
        assert!(limits.login(address(1), &alice).is_ok());
    }

    #[test]
    fn who_tried_too_many_admin_tokens_is_not_listened_to() {
        let clock = Arc::new(Set(AtomicU64::new(1_000_000)));
        let settings = RateLimitSettings {
            admin_burst: 2,
            admin_per_minute: 1,
            ..RateLimitSettings::default()
        };
        let limits = RateLimits::new(settings, clock.clone());
        let (guesser, other) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..2 {
            assert!(limits.wrong_admin_token(guesser).is_ok());
            assert!(limits.admin(guesser).is_ok(), "the next one is looked at");
        }
        assert!(limits.wrong_admin_token(guesser).is_err());
        let limited = limits.admin(guesser).unwrap_err();
        assert!(limited.retry_after > Duration::from_secs(50), "{limited:?}");
        assert!(limits.admin(other).is_ok(), "each address for itself");
        clock.0.fetch_add(61_000, Ordering::Relaxed);
        assert!(limits.admin(guesser).is_ok());
        assert!(limits.wrong_admin_token(guesser).is_ok());
        assert!(limits.wrong_admin_token(guesser).is_err());
        assert!(limits.admin(guesser).is_err(), "again");
    }

    #[test]
    fn any_numbers_make_a_limit() {
        for (login_burst, login_per_minute) in [(u32::MAX, 1), (u32::MAX, u32::MAX), (0, 1)] {
            let settings = RateLimitSettings {
                login_burst,
                login_per_minute,
                ..RateLimitSettings::default()
            };
            let clock = Arc::new(Set(AtomicU64::new(1_700_000_000_000)));
            let limits = RateLimits::new(settings, clock);
            let alice = UserId::parse("@alice:x").unwrap();
            let mut tries = (0..100).map(|_| limits.login([127, 0, 0, 1].into(), &alice));
            let allowed = tries.by_ref().take_while(Result::is_ok).count();
            let burst = usize::try_from(login_burst.clamp(1, 100)).unwrap();
            assert_eq!(allowed, burst, "{settings:?}");
        }
    }

    #[test]
    fn can_be_switched_off() {
        let clock = Arc::new(Set(AtomicU64::new(0)));
        let settings = RateLimitSettings {
            enabled: false,
            ..RateLimitSettings::default()
        };
        let limits = RateLimits::new(settings, clock);
        for _ in 0..1_000 {
            assert!(limits.registration([127, 0, 0, 1].into()).is_ok());
        }
    }

    #[test]
    fn a_subscriber_is_one_address() {
        let key = |address: &str| Key::address(address.parse().unwrap());
        assert_eq!(key("2001:db8::1"), key("2001:db8::ffff:1"));
        assert_ne!(key("2001:db8::1"), key("2001:db8:0:1::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }
}
