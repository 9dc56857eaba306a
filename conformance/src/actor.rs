//! One logged-in device of one user, as scenarios use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kitbag_client::{Account, Bytes, Method, Naming, Request, Scope, SyncParams, path};
use serde_json::{Value, json};

use crate::canary::Canary;
use crate::device_data::DeviceData;
use crate::expect::{Outcome, Reply};
use crate::sync::Sync;

/// A device with shorthands for the requests that scenarios send.
#[derive(Clone, Debug)]
pub(crate) struct Actor {
    account: Account,
    canary: Arc<Canary>,
    device_data: DeviceData,
}

impl Actor {
    pub(crate) fn new(account: Account, canary: Arc<Canary>, device_data: DeviceData) -> Self {
        Self {
            account,
            canary,
            device_data,
        }
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn user_id(&self) -> &str {
        &self.account.session().user_id
    }

    pub(crate) fn device_id(&self) -> &str {
        &self.account.session().device_id
    }

    pub(crate) fn token(&self) -> &str {
        &self.account.session().access_token
    }

    /// The password that the user was made with.
    pub(crate) fn password(&self) -> &str {
        self.canary.password()
    }

    /// The part of the user ID between `@` and the first colon.
    pub(crate) fn localpart(&self) -> &str {
        let bare = self.user_id().trim_start_matches('@');
        bare.split_once(':')
            .map_or(bare, |(localpart, _)| localpart)
    }

    /// The path of a global entry.
    pub(crate) fn global(&self, kind: &str) -> String {
        self.path_of(Scope::Global, kind)
    }

    /// The path of an entry in a room.
    pub(crate) fn room(&self, room_id: &str, kind: &str) -> String {
        self.path_of(Scope::Room(room_id), kind)
    }

    /// The path of an entry of this very device.
    pub(crate) fn own(&self, kind: &str) -> String {
        self.path_of(Scope::Device(self.device_id()), kind)
    }

    pub(crate) fn path_of(&self, scope: Scope<'_>, kind: &str) -> String {
        path::account_data(self.user_id(), scope, Naming::Stable, kind)
    }

    /// The path under the name that MSC4331 has until it is merged.
    pub(crate) fn unstable_path_of(&self, scope: Scope<'_>, kind: &str) -> String {
        path::account_data(self.user_id(), scope, Naming::Unstable, kind)
    }

    /// The path of MSC3391 at which an entry is deleted.
    pub(crate) fn deletion_of(&self, scope: Scope<'_>, kind: &str) -> String {
        path::account_data_deletion(self.user_id(), scope, Naming::Stable, kind)
    }

    pub(crate) async fn send(&self, request: Request) -> Outcome<Reply> {
        let summary = request.summary();
        let response = self.account.send(request).await?;
        self.canary.reply(summary, response)
    }

    pub(crate) async fn get(&self, path: &str) -> Outcome<Reply> {
        self.send(Request::new(Method::GET, path)).await
    }

    pub(crate) async fn put(&self, path: &str, content: &Value) -> Outcome<Reply> {
        self.put_bytes(path, content.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Outcome<Reply> {
        self.send(Request::new(Method::POST, path).json(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Outcome<Reply> {
        self.send(Request::new(Method::DELETE, path)).await
    }

    pub(crate) async fn put_bytes(&self, path: &str, body: impl Into<Bytes>) -> Outcome<Reply> {
        let body = body.into();
        let marked = self.canary.mark(path, &body);
        let is_marked = marked.is_some();
        let request = Request::new(Method::PUT, path)
            .header("content-type", "application/json")
            .body(marked.unwrap_or(body));
        let reply = self.send(request).await?;
        if is_marked && reply.response.is_success() {
            self.canary.note_stored();
        }
        Ok(reply)
    }

    /// Stores an entry, which must succeed.
    pub(crate) async fn set(&self, path: &str, content: &Value) -> Outcome {
        self.put(path, content).await?.expect_json(&json!({}))
    }

    /// Reads what must be a 200.
    pub(crate) async fn read(&self, path: &str) -> Outcome<Value> {
        self.get(path).await?.ok()
    }

    /// Deletes an entry by MSC3391, which must succeed.
    pub(crate) async fn remove(&self, scope: Scope<'_>, kind: &str) -> Outcome {
        self.delete(&self.deletion_of(scope, kind))
            .await?
            .expect_json(&json!({}))
    }

    /// The `auth` of this user's password for a challenge.
    pub(crate) fn auth(&self, challenge: &Value, password: &str) -> Value {
        json!({
            "type": "m.login.password",
            "identifier": {"type": "m.id.user", "user": self.user_id()},
            "password": password,
            "session": challenge["session"],
        })
    }

    /// Sends a request that needs UIA, first without and then with the user's password.
    pub(crate) async fn with_uia(
        &self,
        method: Method,
        path: &str,
        mut body: Value,
    ) -> Outcome<Reply> {
        let request = Request::new(method, path);
        let first = self.send(request.clone().json(&body)).await?;
        if first.status() != 401 {
            return Ok(first);
        }
        body["auth"] = self.auth(&first.expect_challenge()?, self.password());
        self.send(request.json(&body)).await
    }

    /// Removes a device of this user.
    pub(crate) async fn delete_device(&self, device_id: &str) -> Outcome {
        let path = path::device(device_id);
        self.with_uia(Method::DELETE, &path, json!({}))
            .await?
            .expect_json(&json!({}))
    }

    /// Creates a room that this user is in.
    pub(crate) async fn create_room(&self) -> Outcome<String> {
        let path = format!("{}/createRoom", path::V3);
        let room = self
            .post(&path, &json!({"preset": "private_chat"}))
            .await?
            .ok()?;
        Ok(room["room_id"].as_str().unwrap_or_default().to_owned())
    }

    /// A sync from the start, which returns at once.
    ///
    /// Each asks with another time-out, which means nothing here: some servers answer a repeated
    /// request from a cache for minutes, and scenarios want to see what is now.
    pub(crate) async fn initial_sync(&self) -> Outcome<Sync> {
        static REQUESTS: AtomicU64 = AtomicU64::new(0);
        let timeout = Duration::from_millis(REQUESTS.fetch_add(1, Ordering::Relaxed) % 10_000);
        self.sync(SyncParams {
            timeout,
            ..SyncParams::default()
        })
        .await
    }

    /// A sync that returns at once, from a token.
    pub(crate) async fn sync_since(&self, since: &str) -> Outcome<Sync> {
        self.sync(SyncParams {
            since: Some(since),
            ..SyncParams::default()
        })
        .await
    }

    pub(crate) async fn sync(&self, params: SyncParams<'_>) -> Outcome<Sync> {
        let request = Request::new(Method::GET, params.path()).timeout(
            params
                .timeout
                .saturating_add(kitbag_client::REQUEST_TIMEOUT),
        );
        let mut sync = Sync::of(&self.send(request).await?)?;
        self.device_data.normalize(&mut sync.body);
        Ok(sync)
    }

    /// The token of a state in which nothing more is coming by itself.
    ///
    /// Servers may touch account data shortly after registration, or hand out a token before
    /// everything of a fresh login is in it; so this syncs until a round brings nothing.
    pub(crate) async fn settled(&self) -> Outcome<String> {
        let mut token = self.initial_sync().await?.next_batch;
        for _ in 0..SETTLE_ROUNDS_MAX {
            let next = self.sync_since(&token).await?;
            if next.is_quiet() {
                return Ok(next.next_batch);
            }
            token = next.next_batch;
        }
        Ok(token)
    }
}

/// More rounds than any server was seen to need (two).
const SETTLE_ROUNDS_MAX: usize = 5;
