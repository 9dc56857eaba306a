//! Empties the entries of devices that ended past the gateway, for all users of a homeserver that
//! has Synapse's admin API: entries of devices that nobody asks for stay otherwise.
//!
//! It is done from outside, beside running gateways. Who has such entries is logged in by the
//! administrator, without a device, for as long as it takes.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use bytes::Bytes;
use kitbag_domain::{Clock, UserId};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use serde_json::value::RawValue;
use thiserror::Error;

use crate::devices::Ids;
use crate::homeserver::HomeserverError;
use crate::mapped::{self, segment};
use crate::settings::UpstreamSettings;
use crate::upstream::{Upstream, UpstreamSetupError};

/// Users of a page.
const PAGE_USERS: u64 = 100;

/// Bytes of an answer: all account data of a user, as large as homeservers let it become.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

/// How long a login for emptying lasts, should the logout behind it fail.
const LOGIN_MS: u64 = 10 * 60 * 1_000;

/// What a sweep came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Swept {
    /// Users that were looked at.
    pub users: u64,
    /// Entries of devices that are there.
    pub living_entries: u64,
    /// Entries of devices that are gone, which were emptied, or would have been.
    pub emptied_entries: u64,
    /// Entries of devices that are gone, of users who are locked: nobody can empty them, or read
    /// them, before that ends.
    pub locked_entries: u64,
    /// Users at whom something failed: their entries may still be there.
    pub failed_users: u64,
}

/// Something to tell of while a sweep goes on.
#[derive(Debug)]
pub enum SweepEvent<'a> {
    /// Entries of a user were emptied, or would have been.
    Emptied {
        /// Whose.
        user: &'a str,
        /// How many.
        entries: u64,
    },
    /// A user could not be looked at, or emptied.
    Failed {
        /// Who.
        user: &'a str,
        /// Why.
        error: &'a SweepError,
    },
}

/// Why there is no sweep, or not of a user.
#[derive(Debug, Error)]
pub enum SweepError {
    /// The way to the homeserver could not be made ready.
    #[error(transparent)]
    Setup(#[from] UpstreamSetupError),
    /// No answer.
    #[error("the homeserver cannot be asked: {0}")]
    Upstream(HomeserverError),
    /// The homeserver has no such API.
    #[error(
        "the homeserver has no admin API of Synapse at {path}: a sweep needs it; entries of devices \
         that are gone read as none all the same, and are emptied when somebody asks for them"
    )]
    NoAdminApi {
        /// What was asked for.
        path: String,
    },
    /// Nobody can be logged in as a user, who alone can write their account data.
    #[error(
        "nobody can be logged in as a user at {path}, as with the Matrix Authentication Service: \
         entries of devices that are gone read as none all the same, and are emptied when somebody \
         asks for them"
    )]
    NoLoginAsUser {
        /// What was asked for.
        path: String,
    },
    /// The token is not that of an administrator.
    #[error("the homeserver does not take the token for that of an administrator ({status})")]
    NotAdmin {
        /// What it says.
        status: u16,
    },
    /// Another answer than one that can be used.
    #[error("the homeserver answered {status} at {path}")]
    Refused {
        /// What was asked for.
        path: String,
        /// What it says.
        status: u16,
    },
    /// The token cannot be sent.
    #[error("the token has characters that no token has")]
    BadToken,
    /// The list of users does not end.
    #[error("the homeserver tells the same page of users again and again")]
    Endless,
    /// An answer that cannot be read.
    #[error("the answer of the homeserver at {path} cannot be read")]
    Unreadable {
        /// What was asked for.
        path: String,
    },
}

/// Looks at all users of a homeserver and empties entries of devices that are gone; with
/// `is_dry_run` it only tells of them.
///
/// # Errors
/// Where the homeserver or its admin API cannot be used. What goes wrong with one user is told to
/// `progress` and counted.
pub async fn sweep(
    settings: UpstreamSettings,
    admin_token: &str,
    clock: &dyn Clock,
    is_dry_run: bool,
    progress: &mut (dyn FnMut(SweepEvent<'_>) + Send),
) -> Result<Swept, SweepError> {
    let sweep = Sweep {
        upstream: Upstream::new(settings, Arc::default())?,
        token: bearer(admin_token)?,
        clock,
        is_dry_run,
    };
    let own = sweep.own_user().await?;
    let mut swept = Swept::default();
    let mut seen = HashSet::new();
    let mut from = Some("0".to_owned());
    while let Some(start) = from {
        let page = sweep.page(&start).await?;
        for user in page.users {
            let before = swept.emptied_entries;
            let done = sweep.user(&user, &own, &mut swept).await;
            let (user, entries) = (user.name.as_str(), swept.emptied_entries - before);
            swept.users += 1;
            if entries > 0 {
                progress(SweepEvent::Emptied { user, entries });
            }
            if let Err(error) = &done {
                swept.failed_users += 1;
                progress(SweepEvent::Failed { user, error });
            }
        }
        seen.insert(start);
        from = page.next_token;
        if from.as_ref().is_some_and(|next| seen.contains(next)) {
            return Err(SweepError::Endless);
        }
    }
    Ok(swept)
}

#[derive(Deserialize)]
struct Page {
    users: Vec<User>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
struct User {
    name: String,
    #[serde(default)]
    locked: bool,
}

struct Sweep<'a> {
    upstream: Upstream,
    token: HeaderValue,
    clock: &'a dyn Clock,
    is_dry_run: bool,
}

impl Sweep<'_> {
    /// Returns the administrator's own ID, which cannot be logged in as.
    async fn own_user(&self) -> Result<String, SweepError> {
        #[derive(Deserialize)]
        struct Whoami {
            user_id: String,
        }
        let path = "/_matrix/client/v3/account/whoami";
        let told = self.ask(Method::GET, path, &self.token, None).await?;
        let Whoami { user_id } = match told {
            Answered::Done(body) => read(path, &body)?,
            Answered::Refused(status @ (401 | 403)) => return Err(SweepError::NotAdmin { status }),
            Answered::Refused(status) => return refused(path, status),
        };
        Ok(user_id)
    }

    async fn page(&self, from: &str) -> Result<Page, SweepError> {
        let path = "/_synapse/admin/v2/users";
        // Who is locked is left out unless asked for. Guests have no account data, and with the Matrix
        // Authentication Service there is no list with them.
        let from = segment(from);
        let target = format!("{path}?from={from}&limit={PAGE_USERS}&guests=false&locked=true");
        match self.ask(Method::GET, &target, &self.token, None).await? {
            Answered::Done(body) => read(path, &body),
            Answered::Refused(404 | 405) => Err(SweepError::NoAdminApi {
                path: path.to_owned(),
            }),
            Answered::Refused(status @ (401 | 403)) => Err(SweepError::NotAdmin { status }),
            Answered::Refused(status) => refused(path, status),
        }
    }

    /// Empties what is to be emptied of a user.
    async fn user(&self, user: &User, own: &str, swept: &mut Swept) -> Result<(), SweepError> {
        let User { name, locked } = user;
        let mut entries = self.entries(name).await?;
        if entries.is_empty() {
            return Ok(());
        }
        // Asked for behind the entries: what is written now is of a device that is in the list.
        let living = self.devices(name).await?;
        let all = entries.len() as u64;
        entries.retain(|(device, _)| !living.contains(device));
        let gone = entries.len() as u64;
        swept.living_entries += all - gone;
        if *locked {
            swept.locked_entries += gone;
        } else if self.is_dry_run {
            swept.emptied_entries += gone;
        } else if gone > 0 {
            self.empty(name, own, entries, swept).await?;
        }
        Ok(())
    }

    /// Returns the entries that are not deleted: of which device, and the type upstream.
    async fn entries(&self, name: &str) -> Result<Vec<(String, String)>, SweepError> {
        #[derive(Deserialize)]
        struct Told {
            account_data: AccountData,
        }
        #[derive(Deserialize)]
        struct AccountData {
            #[serde(default)]
            global: BTreeMap<String, Box<RawValue>>,
        }
        let path = format!("/_synapse/admin/v1/users/{}/accountdata", segment(name));
        let Told { account_data } = self.get(&path).await?;
        let entries = account_data
            .global
            .into_iter()
            .filter_map(|(kind, content)| {
                let (device, _) = mapped::device_and_type(&kind)?;
                let is_there = !mapped::is_tombstone(content.get().as_bytes());
                is_there.then(|| (device.as_str().to_owned(), kind))
            });
        Ok(entries.collect())
    }

    async fn devices(&self, name: &str) -> Result<Ids, SweepError> {
        #[derive(Deserialize)]
        struct Told {
            devices: Vec<Device>,
        }
        #[derive(Deserialize)]
        struct Device {
            device_id: String,
        }
        let path = format!("/_synapse/admin/v2/users/{}/devices", segment(name));
        let Told { devices } = self.get(&path).await?;
        Ok(devices.into_iter().map(|device| device.device_id).collect())
    }

    async fn empty(
        &self,
        name: &str,
        own: &str,
        entries: Vec<(String, String)>,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        let unreadable = || SweepError::Unreadable {
            path: "/_synapse/admin/v2/users".to_owned(),
        };
        let user = UserId::parse(name).map_err(|_| unreadable())?;
        if name == own {
            return self
                .write_tombstones(&user, &self.token, entries, swept)
                .await;
        }
        let token = self.log_in(name).await?;
        let emptied = self.write_tombstones(&user, &token, entries, swept).await;
        emptied.and(self.log_out(&token).await)
    }

    async fn log_out(&self, token: &HeaderValue) -> Result<(), SweepError> {
        let (path, body) = ("/_matrix/client/v3/logout", Bytes::from_static(b"{}"));
        self.write(Method::POST, path, token, body).await
    }

    async fn log_in(&self, name: &str) -> Result<HeaderValue, SweepError> {
        #[derive(Deserialize)]
        struct LoggedIn {
            access_token: String,
        }
        let path = format!("/_synapse/admin/v1/users/{}/login", segment(name));
        let until_ms = self.clock.now_ms().saturating_add(LOGIN_MS);
        let body = json!({"valid_until_ms": until_ms}).to_string();
        let told = self.ask(Method::POST, &path, &self.token, Some(body.into()));
        let LoggedIn { access_token } = match told.await? {
            Answered::Done(body) => read(&path, &body)?,
            Answered::Refused(404 | 405) => return Err(SweepError::NoLoginAsUser { path }),
            Answered::Refused(status) => return refused(&path, status),
        };
        bearer(&access_token)
    }

    async fn write_tombstones(
        &self,
        user: &UserId,
        token: &HeaderValue,
        entries: Vec<(String, String)>,
        swept: &mut Swept,
    ) -> Result<(), SweepError> {
        for (device, kind) in entries {
            // Asked for again: one that has logged in with that ID meanwhile may have written.
            if self.devices(user.as_str()).await?.contains(&device) {
                swept.living_entries += 1;
                continue;
            }
            let path = mapped::account_data_path(user, &kind);
            let tombstone = mapped::tombstone().into_bytes();
            self.write(Method::PUT, &path, token, tombstone).await?;
            swept.emptied_entries += 1;
        }
        Ok(())
    }

    /// Sends what is answered with an object: else somebody in between answered, and nothing says
    /// that it is done.
    async fn write(
        &self,
        method: Method,
        path: &str,
        token: &HeaderValue,
        body: Bytes,
    ) -> Result<(), SweepError> {
        #[derive(Deserialize)]
        struct Written {}
        match self.ask(method, path, token, Some(body)).await? {
            Answered::Done(body) => {
                let Written {} = read(path, &body)?;
                Ok(())
            }
            Answered::Refused(status) => refused(path, status),
        }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, SweepError> {
        match self.ask(Method::GET, path, &self.token, None).await? {
            Answered::Done(body) => read(path, &body),
            Answered::Refused(status) => refused(path, status),
        }
    }

    async fn ask(
        &self,
        method: Method,
        target: &str,
        token: &HeaderValue,
        body: Option<Bytes>,
    ) -> Result<Answered, SweepError> {
        let mut request = Request::new(Body::from(body.unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = target.parse().expect("an encoded path is a valid target");
        let headers = request.headers_mut();
        headers.insert(AUTHORIZATION, token.clone());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let told = self.upstream.ask(request, ANSWER_BYTES_MAX).await;
        let told = told.map_err(|error| SweepError::Upstream(error.into()))?;
        match told.status() {
            StatusCode::OK => Ok(Answered::Done(told.body().clone())),
            status => Ok(Answered::Refused(status.as_u16())),
        }
    }
}

/// What the homeserver answered.
enum Answered {
    /// 200, and this.
    Done(Bytes),
    Refused(u16),
}

fn read<T: DeserializeOwned>(path: &str, body: &[u8]) -> Result<T, SweepError> {
    // All that is read is an object; members that may be missing are not taken out of an array.
    let is_object = body.trim_ascii_start().starts_with(b"{");
    let read = is_object.then(|| serde_json::from_slice(body).ok());
    read.flatten().ok_or_else(|| SweepError::Unreadable {
        path: path.to_owned(),
    })
}

fn refused<T>(path: &str, status: u16) -> Result<T, SweepError> {
    let path = path.to_owned();
    Err(SweepError::Refused { path, status })
}

fn bearer(token: &str) -> Result<HeaderValue, SweepError> {
    let value = HeaderValue::try_from(format!("Bearer {token}"));
    let mut value = value.map_err(|_| SweepError::BadToken)?;
    value.set_sensitive(true);
    Ok(value)
}
