use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};

use argon2::password_hash::PasswordHasher as _;
use argon2::{Algorithm, Argon2, Params, Version};
use kitbag_domain::Selector;
use kitbag_domain::{
    Content, DeviceId, Key, Limits, Login, NewAccount, Seen, ServerName, SessionTokens, Store,
    Token, TokenKind, UserId,
};
use kitbag_http::{AdminToken, Edge, Parts, Passwords, Random, RenderMetrics, Settings};
use kitbag_store_sqlite::{Durability, Options, SqliteStore};
use kitbag_testkit::clock::TestClock;
use kitbag_testkit::dice::Dice;
use tokio::sync::watch;

use super::{Call, FailingStore, Reply, log};

/// The password of every account that [`Server::user`] makes.
pub(crate) const PASSWORD: &str = "wordpass";
/// The admin token that all tests use, under the name `ops`.
pub(crate) const ADMIN_TOKEN: &str = "adm-canary-0123456789abcdef";

static HASH: LazyLock<String> = LazyLock::new(|| {
    // The cheapest parameters that Argon2 has: a hash names its own.
    let params = Params::new(Params::MIN_M_COST, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password_with_salt(PASSWORD.as_bytes(), &[7; 16]);
    hash.unwrap().to_string()
});

/// All servers share one, so that no more than two compute at once.
static PASSWORDS: LazyLock<Passwords> =
    LazyLock::new(|| Passwords::new(2, Arc::new(SeededRandom::new(1))).unwrap());

/// Returns the hash of [`PASSWORD`], which is quick to check.
pub(crate) fn password_hash() -> String {
    HASH.clone()
}

struct SeededRandom(Mutex<Dice>);

impl SeededRandom {
    fn new(seed: u64) -> Self {
        Self(Mutex::new(Dice::new(seed)))
    }
}

impl Random for SeededRandom {
    fn fill(&self, bytes: &mut [u8]) {
        let mut dice = self.0.lock().unwrap();
        for chunk in bytes.chunks_mut(8) {
            let drawn = dice.draw().to_le_bytes();
            chunk.copy_from_slice(&drawn[..chunk.len()]);
        }
    }
}

/// The epoch of [`sqlite`].
pub(crate) const EPOCH: u64 = 0xe90c;

/// Returns the real store, with nothing in it.
pub(crate) fn sqlite(limits: Limits) -> Arc<dyn Store> {
    let mut options = Options::new(ServerName::parse("localhost").unwrap(), EPOCH);
    options.limits = limits;
    options.durability = Durability::None;
    Arc::new(SqliteStore::ephemeral(options).unwrap())
}

/// What a server is made of, to be changed before it starts.
pub(crate) struct Setup {
    pub(crate) settings: Settings,
    pub(crate) limits: Limits,
    pub(crate) passwords: Passwords,
    pub(crate) render_metrics: RenderMetrics,
    /// What is served, and where users are made, instead of [`Server::store`].
    pub(crate) store: Option<Arc<dyn Store>>,
}

impl Default for Setup {
    fn default() -> Self {
        let mut settings = Settings {
            is_loopback_only: true,
            public_base_url: Some("http://kitbag.test".to_owned()),
            ..Settings::default()
        };
        settings.rate_limits.enabled = false;
        let token = AdminToken::parse(ADMIN_TOKEN).unwrap();
        settings.admin.tokens.insert("ops".to_owned(), token);
        Self {
            settings,
            limits: Limits::default(),
            passwords: PASSWORDS.clone(),
            render_metrics: Arc::new(|stats| format!("{stats:?}")),
            store: None,
        }
    }
}

/// The API over a store in memory, or over that of the setup.
pub(crate) struct Server {
    pub(crate) edge: Edge,
    /// What the private listener serves.
    pub(crate) private: Edge,
    pub(crate) store: Arc<FailingStore>,
    other: Option<Arc<dyn Store>>,
    pub(crate) clock: Arc<TestClock>,
    pub(crate) stop: watch::Sender<bool>,
    secrets: AtomicU64,
}

/// A user's device that is logged in.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) user: UserId,
    pub(crate) device: DeviceId,
    pub(crate) token: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup);
        let store = Arc::new(FailingStore::new(setup.limits.clone()));
        Self::build(setup, store, Arc::default())
    }

    /// Starts another server over the same store and clock.
    pub(crate) fn restart_with(&self, change: impl FnOnce(&mut Setup)) -> Self {
        let mut setup = Setup::default();
        change(&mut setup);
        let server = Self::build(setup, Arc::clone(&self.store), Arc::clone(&self.clock));
        let secrets = self.secrets.load(Ordering::Relaxed);
        server.secrets.store(secrets, Ordering::Relaxed);
        server
    }

    fn build(setup: Setup, store: Arc<FailingStore>, clock: Arc<TestClock>) -> Self {
        log::watch();
        let (stop, stopping) = watch::channel(false);
        let edge = Edge::new(Parts {
            store: setup.store.clone().unwrap_or_else(|| store.store()),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(2)),
            limits: Arc::new(setup.limits),
            server_name: ServerName::parse("localhost").unwrap(),
            passwords: setup.passwords,
            settings: setup.settings,
            render_metrics: setup.render_metrics,
            stopping,
        });
        Self {
            private: edge.private(),
            edge,
            store,
            other: setup.store,
            clock,
            stop,
            secrets: AtomicU64::new(1),
        }
    }

    /// Sends a request to the listener that serves its path.
    pub(crate) async fn send(&self, call: Call) -> Reply {
        let is_private = ["/_kitbag/admin/", "/_synapse/"];
        let is_private = is_private.iter().any(|path| call.path.starts_with(path));
        let edge = if is_private {
            &self.private
        } else {
            &self.edge
        };
        let reply = self.send_to(edge, call).await;
        let has_cors = reply.headers.contains_key("access-control-allow-origin");
        assert_eq!(has_cors, !is_private, "{reply:?}");
        reply
    }

    pub(crate) async fn send_to(&self, edge: &Edge, call: Call) -> Reply {
        let peer = call.peer;
        let response = edge.answer(peer, call.request()).await;
        Reply::read(response).await
    }

    /// Sends a request, and lets what goes on behind its answer have its turn on this one thread.
    pub(crate) async fn send_and_settle(&self, call: Call) -> Reply {
        let reply = self.send(call).await;
        tokio::task::yield_now().await;
        reply
    }

    /// Registers a user with the device `PHONE`.
    pub(crate) async fn user(&self, localpart: &str) -> Session {
        let server_name = ServerName::parse("localhost").unwrap();
        let user = UserId::from_parts(localpart, &server_name).unwrap();
        let (login, session) = self.new_session(&user, "PHONE");
        let account = NewAccount {
            user,
            password_hash: password_hash(),
            at: TestClock::START_MS,
        };
        let registered = self.backing().register(account, Some(login));
        registered.await.unwrap();
        session
    }

    /// Logs a device of an existing user in.
    pub(crate) async fn device(&self, user: &UserId, device: &str) -> Session {
        let (login, session) = self.new_session(user, device);
        self.backing().login(user, login).await.unwrap();
        session
    }

    fn backing(&self) -> &dyn Store {
        match &self.other {
            Some(store) => &**store,
            None => self.store.memory(),
        }
    }

    /// Returns a session that the store does not know, and the login that would make it known.
    pub(crate) fn new_session(&self, user: &UserId, device: &str) -> (Login, Session) {
        let mut secret = [0; 32];
        let number = self.secrets.fetch_add(1, Ordering::Relaxed);
        secret[..8].copy_from_slice(&number.to_le_bytes());
        let token = Token::new(TokenKind::Access, user.clone(), secret);
        let device = DeviceId::parse(device).unwrap();
        let login = Login {
            verified_hash: password_hash(),
            device: device.clone(),
            display_name: None,
            tokens: SessionTokens {
                access: token.hash(),
                access_expires_at: None,
                refresh: None,
            },
            seen: Seen {
                at: TestClock::START_MS,
                ..Seen::default()
            },
        };
        let session = Session {
            user: user.clone(),
            device,
            token: token.reveal().to_owned(),
        };
        (login, session)
    }

    /// Returns everything that a user has stored.
    pub(crate) async fn entries(&self, session: &Session) -> Vec<(Key, Option<Content>)> {
        let entries = self.backing().list(&session.user, Selector::All);
        let entries = entries.await.unwrap().into_iter();
        entries.map(|entry| (entry.key, entry.content)).collect()
    }
}

impl Session {
    pub(crate) fn global(&self, event_type: &str) -> String {
        format!("{}/account_data/{event_type}", self.base())
    }

    pub(crate) fn room(&self, room: &str, event_type: &str) -> String {
        format!("{}/rooms/{room}/account_data/{event_type}", self.base())
    }

    pub(crate) fn device_data(&self, device: &str, event_type: &str) -> String {
        format!("{}/devices/{device}/account_data/{event_type}", self.base())
    }

    pub(crate) fn base(&self) -> String {
        format!("/_matrix/client/v3/user/{}", self.user)
    }

    /// Returns the member `auth` that shows the user's password.
    pub(crate) fn password_auth(&self, password: &str) -> serde_json::Value {
        serde_json::json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.user.as_str()},
            "password": password,
        })
    }
}
