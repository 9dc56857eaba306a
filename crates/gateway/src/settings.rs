//! What an operator can set about the gateway; the defaults are what `Default` says.

use std::path::PathBuf;

use ipnet::IpNet;
use kitbag_http::ListenerSettings;
use serde::{Deserialize, Serialize};

use crate::upstream::UpstreamAddress;

/// All settings of the gateway.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The page that a full account is pointed to (`info_uri` of `M_USER_LIMIT_EXCEEDED`).
    pub limits_info_uri: Option<String>,
    /// Proxies before the gateway whose `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Bounds of the listener.
    pub listener: ListenerSettings,
    /// How the homeserver is asked.
    pub upstream: UpstreamSettings,
    /// What is protected, and how.
    pub protect: ProtectSettings,
    /// Device account data.
    pub msc4331: DeviceDataSettings,
    /// Compare-and-swap.
    pub msc4547: CompareSettings,
    /// How often account data may be written.
    pub writes: WriteRateSettings,
}

/// The table `upstream`.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct UpstreamSettings {
    /// Where the homeserver is; there is no gateway without.
    pub url: Option<UpstreamAddress>,
    /// Certificates in PEM that are believed beside those of the system, for `https` alone.
    pub ca_file: Option<PathBuf>,
    /// How long it may take to connect.
    pub connect_timeout_ms: u64,
    /// How long the head of an answer may take, and each further part of it: beyond the longest
    /// poll of any client.
    pub response_timeout_ms: u64,
    /// How long an answer may take that the gateway asks for by itself, such as `whoami`.
    pub ask_timeout_ms: u64,
    /// How long an unused connection is kept.
    pub idle_timeout_ms: u64,
    /// Unused connections that are kept.
    pub idle_connections_max: usize,
    /// How long an identity or a device that the homeserver told of counts for reads; writes ask
    /// each time. 0 to ask each time for reads too, at most 5 seconds.
    pub remember_ms: u64,
}

impl Default for UpstreamSettings {
    fn default() -> Self {
        Self {
            url: None,
            ca_file: None,
            connect_timeout_ms: 5_000,
            response_timeout_ms: 10 * 60 * 1_000,
            ask_timeout_ms: 30_000,
            idle_timeout_ms: 30_000,
            idle_connections_max: 1_024,
            remember_ms: 5_000,
        }
    }
}

/// The table `protect`.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct ProtectSettings {
    /// What becomes of writes of `m.push_rules` through account data.
    pub push_rules: Protection,
}

/// What becomes of a write of a protected type.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Protection {
    /// It is refused (405 `M_BAD_JSON`).
    #[default]
    Enforce,
    /// It is counted, and goes to the homeserver as it came.
    Observe,
}

/// The table `msc4331`: device account data.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeviceDataSettings {
    /// Whether the stable path is served beside the unstable one.
    pub stable_path: bool,
    /// Whether device objects carry it: each `GET /devices` is then one sync upstream more.
    pub in_devices: bool,
}

impl Default for DeviceDataSettings {
    fn default() -> Self {
        Self {
            stable_path: true,
            in_devices: false,
        }
    }
}

/// The table `msc4547`: compare-and-swap.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct CompareSettings {
    /// Whether expectations are looked at: they hold among the writes through this gateway alone.
    pub enabled: bool,
    /// How long an entry is not written after a write whose outcome is not known.
    pub fence_ms: u64,
}

impl Default for CompareSettings {
    fn default() -> Self {
        Self {
            enabled: false,
            fence_ms: 30_000,
        }
    }
}

/// The table `writes`: writes of account data by one session, which is an access token, whomever it
/// acts as. Each counts by its size.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct WriteRateSettings {
    /// Whether there is a limit.
    pub enabled: bool,
    /// Writes at once.
    pub burst: u32,
    /// Writes that come back in a minute; 0 is no limit.
    pub per_minute: u32,
}

impl Default for WriteRateSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            burst: 300,
            per_minute: 120,
        }
    }
}
