//! What an operator can set about the client-server API; the defaults are what `Default` says.

use std::fmt;
use std::num::NonZeroUsize;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::admin::AdminSettings;

/// All settings of the API.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The address that clients are told in `.well-known/matrix/client`; none answers 404.
    pub public_base_url: Option<String>,
    /// The page that a full account is pointed to (`info_uri` of `M_USER_LIMIT_EXCEEDED`).
    pub limits_info_uri: Option<String>,
    /// Proxies whose `X-Forwarded-For` is believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Whether the server listens on loopback addresses alone.
    pub is_loopback_only: bool,
    /// Who may use the admin API.
    pub admin: AdminSettings,
    /// Who may register.
    pub registration: RegistrationSettings,
    /// How often logins, registrations and password checks may be tried.
    pub rate_limits: RateLimitSettings,
    /// Proposals that are not in the specification.
    pub features: Features,
    /// What old software needs.
    pub compat: CompatSettings,
    /// Bounds of the listener.
    pub listener: ListenerSettings,
    /// Bounds of sessions.
    pub sessions: SessionSettings,
    /// Bounds of /sync.
    pub sync: SyncSettings,
    /// What is remembered.
    pub cache: CacheSettings,
}

/// What of the table `cache` is the API's.
#[derive(Clone, Copy, Debug)]
pub struct CacheSettings {
    /// Bytes of answers to initial syncs that are remembered; 0 for none.
    pub answers_bytes_max: u64,
    /// Bytes of push rules, as they are served to users who changed some, that are remembered; 0
    /// for none.
    pub push_rules_bytes_max: u64,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self {
            answers_bytes_max: 16 * 1024 * 1024, // some hundred accounts with 200 entries
            push_rules_bytes_max: 8 * 1024 * 1024, // a thousand accounts with 20 rules
        }
    }
}

/// The table `sessions`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionSettings {
    /// How long an access token lives where the client can refresh it.
    pub access_token_lifetime_ms: u64,
}

impl Default for SessionSettings {
    fn default() -> Self {
        Self {
            access_token_lifetime_ms: 5 * 60 * 1_000,
        } // as on Synapse
    }
}

/// The table `sync`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct SyncSettings {
    /// The longest time that a sync waits.
    pub timeout_ms_max: u64,
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            timeout_ms_max: 5 * 60 * 1_000,
        }
    }
}

/// Switches of proposals that are not in the specification.
#[derive(Clone, Copy, Debug, Default)]
pub struct Features {
    /// Deletion of account data.
    pub msc3391: Msc3391Settings,
    /// Device account data.
    pub msc4331: Msc4331Settings,
}

/// The table `registration`; `Debug` does not show the tokens.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RegistrationSettings {
    /// Who may register.
    pub mode: RegistrationMode,
    /// Secrets, any of which lets a client register where a token is needed.
    pub tokens: Vec<String>,
}

impl fmt::Debug for RegistrationSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tokens = self.tokens.len();
        f.debug_struct("RegistrationSettings")
            .field("mode", &self.mode)
            .field("tokens", &format_args!("{tokens} of them"))
            .finish()
    }
}

/// Who may register.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RegistrationMode {
    /// Everybody on this machine; a token is needed as soon as others could reach the server.
    #[default]
    Auto,
    /// Nobody; accounts are made with `kitbag user add`.
    Closed,
    /// Everybody.
    Open,
    /// Whoever knows a token.
    Token,
}

/// The table `rate_limits`: each a number of tries at once, and how many come back in a minute.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct RateLimitSettings {
    /// Whether there are any.
    pub enabled: bool,
    /// Wrong admin tokens at once, by address.
    pub admin_burst: u32,
    /// Wrong admin tokens a minute.
    pub admin_per_minute: u32,
    /// Explanations of events at once, by account: where the rules are many, one takes seconds.
    pub explanation_burst: u32,
    /// Explanations of events a minute.
    pub explanation_per_minute: u32,
    /// Logins and password checks at once, by address; an account has five times as many.
    pub login_burst: u32,
    /// Logins and password checks a minute.
    pub login_per_minute: u32,
    /// Refreshes of tokens at once, by address.
    pub refresh_burst: u32,
    /// Refreshes of tokens a minute.
    pub refresh_per_minute: u32,
    /// Requests to register at once, by address; a client makes one or two for an account.
    pub registration_burst: u32,
    /// Requests to register a minute.
    pub registration_per_minute: u32,
}

impl Default for RateLimitSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            admin_burst: 20,
            admin_per_minute: 20,
            explanation_burst: 60,
            explanation_per_minute: 60,
            login_burst: 20,
            login_per_minute: 20,
            refresh_burst: 300,
            refresh_per_minute: 300,
            registration_burst: 20,
            registration_per_minute: 10,
        }
    }
}

/// The table `msc3391`: deletion of account data.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Msc3391Settings {
    /// Whether DELETE is offered under the unstable prefix.
    pub enabled: bool,
    /// Whether `PUT {}` deletes in global and room scope, and the feature is advertised.
    pub put_empty_deletes: bool,
}

impl Default for Msc3391Settings {
    fn default() -> Self {
        Self {
            enabled: true,
            put_empty_deletes: false,
        }
    }
}

impl Msc3391Settings {
    /// Tells whether `PUT {}` deletes: clients are told of both or of none.
    pub(crate) fn empty_deletes(self) -> bool {
        self.enabled && self.put_empty_deletes
    }
}

/// The table `msc4331`: device account data.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Msc4331Settings {
    /// Whether the stable path is served beside the unstable one.
    pub stable_path: bool,
    /// Whether /sync tells of it.
    pub in_sync: bool,
    /// Whether device objects carry it.
    pub in_devices: bool,
}

impl Default for Msc4331Settings {
    fn default() -> Self {
        Self {
            stable_path: true,
            in_sync: true,
            in_devices: true,
        }
    }
}

/// The table `compat`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompatSettings {
    /// Whether the default push rules that look for names in the body of messages are there, which
    /// v1.17 of the spec removed; versions from that one on are not advertised then.
    pub legacy_mention_rules: bool,
    /// Whether the access token is taken from the query too (removed from the spec in v1.20).
    pub query_access_token: bool,
}

/// The table `listener`: bounds of connections.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenerSettings {
    /// Connections at once; further ones wait to be accepted.
    pub connections_max: NonZeroUsize,
    /// How long a client may take to send the head of a request, idle time included; it is looked
    /// after now and then, so that a connection can last half as long again.
    pub header_timeout_ms: u64,
    /// How long a client may take to send a body.
    pub body_timeout_ms: u64,
    /// How long a client may take nothing of an answer before it is cut off.
    pub write_timeout_ms: u64,
    /// How long requests under way may take once the server stops.
    pub shutdown_timeout_ms: u64,
}

impl Default for ListenerSettings {
    fn default() -> Self {
        Self {
            connections_max: NonZeroUsize::new(16_384).expect("the number is not zero"),
            header_timeout_ms: 60_000,
            body_timeout_ms: 30_000,
            write_timeout_ms: 30_000,
            shutdown_timeout_ms: 10_000,
        }
    }
}
