//! Argon2id, off the async threads and bounded in parallel.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use argon2::{Algorithm, Argon2, Params, Version};
use thiserror::Error;
use tokio::sync::Semaphore;
use tokio::task;

use crate::random::Random;

/// Checks that may wait for a turn: each takes some 20 ms of a core and 19 MiB while it runs.
const WAITING_MAX: usize = 256;
/// Random bytes of a salt, as RFC 9106 recommends.
const SALT_BYTES: usize = 16;

/// Hashes and checks passwords with Argon2id (19 MiB, two passes: the OWASP parameters).
#[derive(Clone)]
pub struct Passwords {
    turns: Arc<Semaphore>,
    waiting: Arc<AtomicUsize>,
    random: Arc<dyn Random>,
    params: Params,
    /// Checked where there is no account, so that the time does not tell.
    decoy: Arc<str>,
}

/// Why a password was not hashed or checked.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum PasswordError {
    /// The password is empty.
    #[error("the password must not be empty")]
    Empty,
    /// A hash could not be computed or read.
    #[error("hashing failed: {0}")]
    Hash(String),
    /// Too many are waiting already.
    #[error("too many password checks are waiting")]
    Overloaded,
}

impl Passwords {
    /// Returns a hasher that runs at most `parallel` checks at once.
    /// # Errors
    /// [`PasswordError::Hash`] where Argon2 itself does not work.
    pub fn new(parallel: usize, random: Arc<dyn Random>) -> Result<Self, PasswordError> {
        Self::with_params(parallel, random, Params::DEFAULT)
    }

    /// As [`Passwords::new`] with the cheapest hashes that Argon2 has, for tests that compute
    /// thousands of them; never for a server.
    /// # Errors
    /// [`PasswordError::Hash`] where Argon2 itself does not work.
    #[doc(hidden)]
    pub fn cheap_for_tests(random: Arc<dyn Random>) -> Result<Self, PasswordError> {
        let params = Params::new(Params::MIN_M_COST, 1, 1, None);
        let params = params.map_err(|error| PasswordError::Hash(error.to_string()))?;
        Self::with_params(1, random, params)
    }

    fn with_params(
        parallel: usize,
        random: Arc<dyn Random>,
        params: Params,
    ) -> Result<Self, PasswordError> {
        let decoy = decoy(&*random, &params)?.into();
        let turns = Arc::new(Semaphore::new(parallel.min(Semaphore::MAX_PERMITS)));
        Ok(Self {
            turns,
            waiting: Arc::default(),
            random,
            params,
            decoy,
        })
    }

    /// Returns the hash of a new password in PHC form.
    /// # Errors
    /// [`PasswordError`].
    pub async fn hash(&self, password: &str) -> Result<String, PasswordError> {
        if password.is_empty() {
            return Err(PasswordError::Empty);
        }
        let mut salt = [0; SALT_BYTES];
        self.random.fill(&mut salt);
        let (password, params) = (password.to_owned(), self.params.clone());
        self.in_turn(move || hash(password.as_bytes(), &salt, params))
            .await
    }

    /// Tells whether `password` is the one of `hash`; with no hash it takes as long and is false.
    /// # Errors
    /// [`PasswordError`].
    pub async fn verify(&self, hash: Option<&str>, password: &str) -> Result<bool, PasswordError> {
        let exists = hash.is_some();
        let hash = hash.map_or_else(|| Arc::clone(&self.decoy), Arc::from);
        let password = password.to_owned();
        let matches = self.in_turn(move || {
            let hash = PasswordHash::new(&hash).map_err(|e| PasswordError::Hash(e.to_string()))?;
            Ok(Argon2::default()
                .verify_password(password.as_bytes(), &hash)
                .is_ok())
        });
        Ok(matches.await? && exists)
    }

    /// Returns how many wait for a turn.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed) as u64
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let waiting = Waiting::enter(&self.waiting)?;
        let turns = Arc::clone(&self.turns);
        let turn = turns
            .acquire_owned()
            .await
            .expect("the semaphore is never closed");
        drop(waiting);
        // The turn goes along: where the client leaves, the thread is busy all the same.
        let result = task::spawn_blocking(move || {
            let result = work();
            drop(turn);
            result
        });
        result
            .await
            .map_err(|error| PasswordError::Hash(error.to_string()))?
    }
}

/// Counts who waits for a turn, also where the waiting is given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn enter(waiting: &'a AtomicUsize) -> Result<Self, PasswordError> {
        let entered = Self(waiting);
        if waiting.fetch_add(1, Ordering::Relaxed) >= WAITING_MAX {
            return Err(PasswordError::Overloaded);
        }
        Ok(entered)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn hash(password: &[u8], salt: &[u8], params: Params) -> Result<String, PasswordError> {
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password_with_salt(password, salt);
    hash.map(|hash| hash.to_string())
        .map_err(|error| PasswordError::Hash(error.to_string()))
}

/// Returns a hash that no known password has, and that takes as long to check as those of accounts.
///
/// Drawn, not computed: the 19 MiB of the computation would stay with a server that idles.
fn decoy(random: &dyn Random, params: &Params) -> Result<String, PasswordError> {
    let (mut salt, mut output) = ([0; SALT_BYTES], [0; Params::DEFAULT_OUTPUT_LEN]);
    random.fill(&mut salt);
    random.fill(&mut output);
    let params = ParamsString::try_from(params);
    let decoy = PasswordHash {
        algorithm: Algorithm::Argon2id.ident(),
        version: Some(Version::V0x13.into()),
        params: params.map_err(|error| PasswordError::Hash(error.to_string()))?,
        salt: Some(Salt::new(&salt).expect("a salt may have so many bytes")),
        hash: Some(Output::new(&output).expect("an output may have so many bytes")),
    };
    Ok(decoy.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Counting;

    impl Random for Counting {
        fn fill(&self, bytes: &mut [u8]) {
            bytes.fill(5);
        }
    }

    #[tokio::test]
    async fn tells_the_right_password_from_others() {
        let passwords = Passwords::new(2, Arc::new(Counting)).unwrap();
        let hash = passwords.hash("wordpass").await.unwrap();
        assert!(
            hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"),
            "{hash}"
        );
        assert_eq!(passwords.verify(Some(&hash), "wordpass").await, Ok(true));
        assert_eq!(passwords.verify(Some(&hash), "wordpas").await, Ok(false));
        let garbage = passwords.verify(Some("garbage"), "x").await;
        assert!(matches!(garbage, Err(PasswordError::Hash(_))));
    }

    #[test]
    fn the_decoy_takes_the_work_of_a_hash_and_has_no_password() {
        for passwords in [
            Passwords::new(1, Arc::new(Counting)).unwrap(),
            Passwords::cheap_for_tests(Arc::new(Counting)).unwrap(),
        ] {
            let real = hash(b"wordpass", &[5; SALT_BYTES], passwords.params).unwrap();
            let real = PasswordHash::new(&real).unwrap();
            let decoy = PasswordHash::new(&passwords.decoy).unwrap();
            let cost = |hash: &PasswordHash| {
                let (salt, output) = (hash.salt.unwrap(), hash.hash.unwrap());
                let lengths = (salt.len(), output.len());
                (hash.algorithm, hash.version, hash.params.clone(), lengths)
            };
            assert_eq!(cost(&decoy), cost(&real));
            // Not another error: it was computed, and then compared.
            let refused = Argon2::default().verify_password(b"", &decoy);
            assert_eq!(refused, Err(argon2::password_hash::Error::PasswordInvalid));
        }
    }

    #[tokio::test]
    async fn an_unknown_account_is_checked_against_the_decoy() {
        let mut passwords = Passwords::cheap_for_tests(Arc::new(Counting)).unwrap();
        assert_eq!(passwords.verify(None, "x").await, Ok(false));
        passwords.decoy = "garbage".into();
        let checked = passwords.verify(None, "x").await;
        assert!(
            matches!(checked, Err(PasswordError::Hash(_))),
            "{checked:?}"
        );
    }

    #[tokio::test]
    async fn too_many_waiting_are_refused_at_once() {
        let passwords = Passwords::new(1, Arc::new(Counting)).unwrap();
        passwords.waiting.store(WAITING_MAX, Ordering::Relaxed);
        assert_eq!(
            passwords.verify(None, "x").await,
            Err(PasswordError::Overloaded)
        );
        assert_eq!(passwords.waiting.load(Ordering::Relaxed), WAITING_MAX);
    }

    /// The test's runtime has one thread.
    #[tokio::test]
    async fn hashing_keeps_off_the_threads_of_the_runtime() {
        let passwords = Passwords::new(1, Arc::new(Counting)).unwrap();
        let hashing = passwords.in_turn(|| Ok(std::thread::current().id()));
        assert_ne!(hashing.await, Ok(std::thread::current().id()));
    }
}
