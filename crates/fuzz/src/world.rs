//! A server in this process, with accounts that inputs know.

use std::cell::RefCell;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Uri};
use http_body_util::BodyExt as _;
use kitbag_domain::{
    AccountStore as _, Clock, DeviceId, Limits, Login, MemoryStore, NewAccount, Seen, ServerName,
    SessionTokens, Token, TokenKind, UnixMs, UserId,
};
use kitbag_http::{Edge, Parts, Passwords, Random, Settings};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

/// The time, which stands still: 2001-09-09.
const NOW_MS: UnixMs = 1_000_000_000_000;
/// The password of `@alice:localhost`. That of `@bob:localhost` is in no input.
const PASSWORD: &str = "wordpass";

/// The secrets of the accounts that every world begins with.
pub(crate) struct Secrets {
    /// The access token of `@alice:localhost` on `PHONE`.
    pub(crate) alice: String,
    /// The refresh token of the same device.
    pub(crate) refresh: String,
    /// The access token of `@alice:localhost` on `TABLET`.
    pub(crate) tablet: String,
    /// The access token of `@bob:localhost` on `LAPTOP`.
    pub(crate) bob: String,
    hashes: [String; 2],
}

/// Returns the secrets, which are the same in every world.
pub(crate) fn secrets() -> &'static Secrets {
    static SECRETS: LazyLock<Secrets> = LazyLock::new(|| {
        let text = |kind, user, number| token(kind, user, number).reveal().to_owned();
        let hash = |password| block_on(PASSWORDS.hash(password)).unwrap();
        Secrets {
            alice: text(TokenKind::Access, "alice", 1),
            refresh: text(TokenKind::Refresh, "alice", 2),
            tablet: text(TokenKind::Access, "alice", 3),
            bob: text(TokenKind::Access, "bob", 4),
            hashes: [hash(PASSWORD), hash("one that no input has")],
        }
    });
    &SECRETS
}

/// One for all worlds.
static PASSWORDS: LazyLock<Passwords> =
    LazyLock::new(|| Passwords::cheap_for_tests(Arc::new(Counting::default())).unwrap());

/// The API over a store in memory.
pub(crate) struct World {
    edge: Edge,
    peer: IpAddr,
    _stop: watch::Sender<bool>,
}

/// An answer, read to its end.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl World {
    /// Starts a server; `settings` and `limits` are what an operator could have set.
    pub(crate) fn new(settings: Settings, limits: Limits, peer: IpAddr) -> Self {
        let store = MemoryStore::new(limits.clone(), 7);
        let secrets = secrets();
        let [alice_hash, bob_hash] = &secrets.hashes;
        let mut phone = login("PHONE", alice_hash, &token(TokenKind::Access, "alice", 1));
        phone.tokens.refresh = Some(token(TokenKind::Refresh, "alice", 2).hash());
        let tablet = login("TABLET", alice_hash, &token(TokenKind::Access, "alice", 3));
        let laptop = login("LAPTOP", bob_hash, &token(TokenKind::Access, "bob", 4));
        block_on(async {
            let alice = account("alice", alice_hash);
            store.register(alice, Some(phone)).await.unwrap();
            // Where the limits allow one device only, there is one.
            drop(store.login(&user("alice"), tablet).await);
            let bob = account("bob", bob_hash);
            store.register(bob, Some(laptop)).await.unwrap();
        });
        let (stop, stopping) = watch::channel(false);
        let edge = Edge::new(Parts {
            store: Arc::new(store),
            clock: Arc::new(Still),
            random: Arc::new(Counting::default()),
            limits: Arc::new(limits),
            server_name: server_name(),
            passwords: PASSWORDS.clone(),
            settings,
            render_metrics: Arc::new(|_| String::new()),
            stopping,
        });
        Self {
            edge,
            peer,
            _stop: stop,
        }
    }

    /// Sends a request, waits for its answer and for what goes on behind it.
    pub(crate) fn send(&self, method: &Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Reply {
        let mut request = Request::new(body.into());
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        block_on(async {
            let response = self.edge.answer(self.peer, request).await;
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            tokio::task::yield_now().await;
            Reply {
                status: parts.status.as_u16(),
                headers: parts.headers,
                body,
            }
        })
    }

    /// Sends a request of `@alice:localhost` on `PHONE`.
    pub(crate) fn send_as_alice(&self, method: &Method, path: &str, body: &str) -> Reply {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", secrets().alice);
        headers.insert("authorization", bearer.parse().unwrap());
        let body = Bytes::copy_from_slice(body.as_bytes());
        self.send(method, path.parse().unwrap(), headers, body)
    }
}

/// The address that requests come from, unless a target says otherwise.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Runs a future on this thread; a time that is waited for is over at once.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: RefCell<Runtime> = RefCell::new(
            Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime without sockets needs nothing of the system"),
        );
    }
    RUNTIME.with_borrow(|runtime| runtime.block_on(future))
}

fn account(localpart: &str, password_hash: &str) -> NewAccount {
    NewAccount {
        user: user(localpart),
        password_hash: password_hash.to_owned(),
        at: NOW_MS,
    }
}

fn login(device: &str, verified_hash: &str, access: &Token) -> Login {
    Login {
        verified_hash: verified_hash.to_owned(),
        device: DeviceId::parse(device).unwrap(),
        display_name: None,
        tokens: SessionTokens {
            access: access.hash(),
            access_expires_at: None,
            refresh: None,
        },
        seen: Seen {
            at: NOW_MS,
            ..Seen::default()
        },
    }
}

fn token(kind: TokenKind, localpart: &str, number: u8) -> Token {
    Token::new(kind, user(localpart), [number; 32])
}

fn user(localpart: &str) -> UserId {
    UserId::from_parts(localpart, &server_name()).unwrap()
}

fn server_name() -> ServerName {
    ServerName::parse("localhost").unwrap()
}

struct Still;

impl Clock for Still {
    fn now_ms(&self) -> UnixMs {
        NOW_MS
    }
}

/// The same numbers in every world, so that an input always does the same.
#[derive(Default)]
struct Counting(AtomicU64);

impl Random for Counting {
    fn fill(&self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(4) {
            let number = self.0.fetch_add(1, Ordering::Relaxed).to_le_bytes();
            let hash = crc32fast::hash(&number).to_le_bytes();
            chunk.copy_from_slice(&hash[..chunk.len()]);
        }
    }
}
