//! Settings: defaults, then the TOML file, then the environment, then the command line.

mod bounds;
mod hint;
mod networks;
mod text;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context as _, Result, anyhow, ensure};
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use ipnet::IpNet;
use kitbag_domain::{Limits, Quota, ServerName};
use kitbag_gateway::{
    CompareSettings, DeviceDataSettings, ProtectSettings, Settings as GatewaySettings,
    UpstreamSettings, WriteRateSettings,
};
use kitbag_http::{
    AdminSettings, CacheSettings, CompatSettings, Features, ListenerSettings, Msc3391Settings,
    Msc4331Settings, RateLimitSettings, RegistrationSettings, SessionSettings, Settings, SpecRules,
    SyncSettings,
};
use kitbag_store_sqlite::limit::CACHE_BYTES_MAX;
use serde::{Deserialize, Serialize};
use tokio::runtime::Runtime;

use crate::cli::{ConfigArguments, DoctorArguments, GatewayArguments, ServeArguments};
use crate::logging;
use text::Text;

/// Prefix of environment variables; `__` stands between table and key.
const ENVIRONMENT_PREFIX: &str = "KITBAG_";
/// A variable that names the file, and no setting.
const FILE_VARIABLE: &str = "config";
/// What variables of the test suite begin with.
const TEST_VARIABLES: &str = "test_";

/// Where `kitbag serve` listens by itself: as every homeserver.
const SERVE_LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8008);
/// Where the gateway listens by itself: beside the homeserver.
const GATEWAY_LISTEN: (Ipv4Addr, u16) = (Ipv4Addr::LOCALHOST, 8009);

/// Threads that the gateway has by itself at most: one hands on tens of thousands of requests
/// a second.
const GATEWAY_THREADS_MAX: NonZeroUsize = NonZeroUsize::new(4).expect("the number is not zero");

/// All settings; docs/configuration.md lists them.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) server_name: String,
    pub(crate) listen: SocketAddr,
    pub(crate) private: Option<SocketAddr>,
    pub(crate) data: PathBuf,
    pub(crate) public_base_url: Option<String>,
    #[serde(deserialize_with = "networks::read")]
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) admin: AdminSettings,
    pub(crate) cache: CacheConfig,
    pub(crate) compat: CompatSettings,
    pub(crate) limits: LimitsConfig,
    pub(crate) listener: ListenerSettings,
    pub(crate) log: LogConfig,
    pub(crate) msc3391: Msc3391Settings,
    pub(crate) msc4331: Msc4331Settings,
    pub(crate) msc4547: CompareSettings,
    pub(crate) passwords: PasswordsConfig,
    pub(crate) protect: ProtectSettings,
    pub(crate) rate_limits: RateLimitSettings,
    pub(crate) registration: RegistrationSettings,
    pub(crate) runtime: RuntimeConfig,
    pub(crate) sessions: SessionSettings,
    pub(crate) sync: SyncSettings,
    pub(crate) upstream: UpstreamSettings,
    pub(crate) writes: WriteRateSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_name: "localhost".to_owned(),
            listen: SERVE_LISTEN.into(),
            private: None,
            data: "./kitbag-data".into(),
            public_base_url: None,
            trusted_proxies: Vec::new(),
            admin: AdminSettings::default(),
            cache: CacheConfig::default(),
            compat: CompatSettings::default(),
            limits: LimitsConfig::default(),
            listener: ListenerSettings::default(),
            log: LogConfig::default(),
            msc3391: Msc3391Settings::default(),
            msc4331: Msc4331Settings::default(),
            msc4547: CompareSettings::default(),
            passwords: PasswordsConfig::default(),
            protect: ProtectSettings::default(),
            rate_limits: RateLimitSettings::default(),
            registration: RegistrationSettings::default(),
            runtime: RuntimeConfig::default(),
            sessions: SessionSettings::default(),
            sync: SyncSettings::default(),
            upstream: UpstreamSettings::default(),
            writes: WriteRateSettings::default(),
        }
    }
}

/// The table `cache`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct CacheConfig {
    /// Bytes of entries and sessions that are kept in memory.
    pub(crate) bytes_max: u64,
    /// Bytes of answers to initial syncs that are kept in memory.
    answers_bytes_max: u64,
    /// Bytes of push rules that are kept in memory.
    push_rules_bytes_max: u64,
}

impl Default for CacheConfig {
    fn default() -> Self {
        let api = CacheSettings::default();
        Self {
            bytes_max: CACHE_BYTES_MAX,
            answers_bytes_max: api.answers_bytes_max,
            push_rules_bytes_max: api.push_rules_bytes_max,
        }
    }
}

/// The table `limits`; see `kitbag_domain::limit` for the reasons of the defaults.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LimitsConfig {
    pub(crate) info_uri: Option<String>,
    content_bytes_max: u64,
    device_content_bytes_max: u64,
    json_depth_max: usize,
    entries_max: u64,
    bytes_max: u64,
    device_entries_max: u64,
    devices_max: u64,
    tombstones_max: u64,
    tombstone_age_ms_max: u64,
    filters_max: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        let limits = Limits::default();
        Self {
            info_uri: None,
            content_bytes_max: limits.content_bytes_max,
            device_content_bytes_max: limits.device_content_bytes_max,
            json_depth_max: limits.json_depth_max,
            entries_max: limits.quota.entries_max,
            bytes_max: limits.quota.bytes_max,
            device_entries_max: limits.quota.device_entries_max,
            devices_max: limits.devices_max,
            tombstones_max: limits.tombstones_max,
            tombstone_age_ms_max: limits.tombstone_age_ms_max,
            filters_max: limits.filters_max,
        }
    }
}

/// The table `log`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct LogConfig {
    pub(crate) format: LogFormat,
    /// A filter of `tracing`, such as `info` or `kitbag_http=debug`.
    pub(crate) level: String,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: "info".to_owned(),
        }
    }
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    Json,
    Text,
}

/// The table `passwords`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct PasswordsConfig {
    /// Hashes computed at once.
    pub(crate) parallel: NonZeroUsize,
}

impl Default for PasswordsConfig {
    fn default() -> Self {
        Self {
            parallel: processors().min(bounds::PASSWORDS_PARALLEL_MAX),
        }
    }
}

/// The table `runtime`.
#[derive(Debug, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RuntimeConfig {
    /// Threads that answer requests.
    pub(crate) threads: NonZeroUsize,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            threads: processors().min(bounds::THREADS_MAX),
        }
    }
}

impl RuntimeConfig {
    /// Starts the threads of a server.
    pub(crate) fn start(&self) -> io::Result<Runtime> {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(self.threads.get())
            .enable_all()
            .build()
    }
}

fn processors() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

/// Returns how many threads the gateway has by itself: half as many as there are processors, since the
/// homeserver is busier, and no more than hand on what any homeserver answers. Each more makes a request
/// dearer, as docs/performance.md tells.
fn gateway_threads(processors: NonZeroUsize) -> NonZeroUsize {
    let half = NonZeroUsize::new(processors.get() / 2);
    half.unwrap_or(NonZeroUsize::MIN).min(GATEWAY_THREADS_MAX)
}

impl Config {
    /// Returns the defaults of `kitbag gateway`, where they are others.
    fn of_gateway() -> Self {
        let mut config = Self {
            listen: GATEWAY_LISTEN.into(),
            ..Self::default()
        };
        // Each `GET /devices` is one more sync of the homeserver.
        config.msc4331.in_devices = DeviceDataSettings::default().in_devices;
        config.runtime.threads = gateway_threads(processors());
        config
    }

    /// Reads the settings of `kitbag serve`.
    pub(crate) fn load_for_serve(arguments: &ServeArguments) -> Result<Self> {
        let mut figment = sources(&Self::default(), &arguments.config)?;
        if let Some(listen) = arguments.listen {
            figment = figment.merge(("listen", listen));
        }
        if let Some(private) = arguments.private {
            figment = figment.merge(("private", private));
        }
        extract(set(figment, &arguments.config)?)
    }

    /// Reads the settings of `kitbag gateway`.
    pub(crate) fn load_for_gateway(arguments: &GatewayArguments) -> Result<Self> {
        let mut figment = sources(&Self::of_gateway(), &arguments.config)?;
        if let Some(listen) = arguments.listen {
            figment = figment.merge(("listen", listen));
        }
        if let Some(private) = arguments.private {
            figment = figment.merge(("private", private));
        }
        if let Some(upstream) = &arguments.upstream {
            figment = figment.merge(("upstream.url", upstream));
        }
        extract(set(figment, &arguments.config)?)
    }

    /// Reads the settings of `kitbag doctor`, which asks as the gateway does.
    pub(crate) fn load_for_doctor(arguments: &DoctorArguments) -> Result<Self> {
        Self::load_for_gateway(&GatewayArguments {
            config: arguments.config.clone(),
            upstream: arguments.upstream.clone(),
            ..GatewayArguments::default()
        })
    }

    /// Reads the settings of the other commands.
    pub(crate) fn load(arguments: &ConfigArguments) -> Result<Self> {
        extract(set(sources(&Self::default(), arguments)?, arguments)?)
    }

    pub(crate) fn server_name(&self) -> Result<ServerName> {
        ServerName::parse(self.server_name.as_str()).context("setting `server_name`")
    }

    pub(crate) fn limits(&self) -> Limits {
        let limits = &self.limits;
        Limits {
            content_bytes_max: limits.content_bytes_max,
            device_content_bytes_max: limits.device_content_bytes_max,
            json_depth_max: limits.json_depth_max,
            quota: Quota {
                entries_max: limits.entries_max,
                bytes_max: limits.bytes_max,
                device_entries_max: limits.device_entries_max,
                ..Quota::default()
            },
            devices_max: limits.devices_max,
            tombstones_max: limits.tombstones_max,
            tombstone_age_ms_max: limits.tombstone_age_ms_max,
            filters_max: limits.filters_max,
        }
    }

    /// Returns the push rules as the admin socket and the command line show them: seldom, so none
    /// are kept in memory.
    pub(crate) fn push_rules(&self) -> SpecRules {
        SpecRules::new(self.compat, 0, self.limits.content_bytes_max)
    }

    /// Returns the settings of the API on a listener at `address`.
    pub(crate) fn api(&self, address: SocketAddr) -> Settings {
        // An address of all interfaces is none that a client could use.
        let is_reachable = !address.ip().is_unspecified();
        let own_url = is_reachable.then(|| format!("http://{address}"));
        Settings {
            public_base_url: self.public_base_url.clone().or(own_url),
            limits_info_uri: self.limits.info_uri.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            is_loopback_only: address.ip().is_loopback(),
            admin: self.admin.clone(),
            registration: self.registration.clone(),
            rate_limits: self.rate_limits,
            features: Features {
                msc3391: self.msc3391,
                msc4331: self.msc4331,
            },
            compat: self.compat,
            listener: self.listener,
            sessions: self.sessions,
            sync: self.sync,
            cache: CacheSettings {
                answers_bytes_max: self.cache.answers_bytes_max,
                push_rules_bytes_max: self.cache.push_rules_bytes_max,
            },
        }
    }

    /// Returns the settings of the gateway.
    pub(crate) fn gateway(&self) -> GatewaySettings {
        GatewaySettings {
            limits_info_uri: self.limits.info_uri.clone(),
            trusted_proxies: self.trusted_proxies.clone(),
            listener: self.listener,
            upstream: self.upstream.clone(),
            protect: self.protect,
            msc4331: DeviceDataSettings {
                stable_path: self.msc4331.stable_path,
                in_devices: self.msc4331.in_devices,
            },
            msc4547: self.msc4547,
            writes: self.writes,
        }
    }
}

/// What [`read`] made of a file.
#[doc(hidden)]
#[derive(Debug)]
pub struct Reading {
    /// All settings, the defaults too.
    pub all: serde_json::Value,
    /// What the service takes of them.
    pub limits: Limits,
    /// What the API takes of them.
    pub api: Settings,
}

/// Reads settings as `kitbag serve --config FILE --set KEY=VALUE` does, and starts nothing.
///
/// For the fuzz targets alone.
/// # Errors
/// Those with which `kitbag serve` ends.
#[doc(hidden)]
pub fn read(file: &Path, set: &[String]) -> Result<Reading> {
    let arguments = ConfigArguments {
        config: Some(file.to_owned()),
        set: set.to_owned(),
        ..ConfigArguments::default()
    };
    let config = Config::load(&arguments)?;
    logging::filter(&config.log)?;
    config.server_name()?;
    Ok(Reading {
        all: serde_json::to_value(&config)?,
        limits: config.limits(),
        api: config.api(config.listen),
    })
}

fn sources(defaults: &Config, arguments: &ConfigArguments) -> Result<Figment> {
    let mut figment = Figment::from(Serialized::defaults(defaults));
    if let Some(file) = &arguments.config {
        if !file.try_exists().unwrap_or(false) {
            return Err(anyhow!(
                "there is no configuration file `{}`",
                file.display()
            ));
        }
        figment = figment.merge(Toml::file_exact(file));
    }
    let environment = Env::prefixed(ENVIRONMENT_PREFIX)
        .filter(|name| {
            let name = name.as_str().to_ascii_lowercase();
            name != FILE_VARIABLE && !name.starts_with(TEST_VARIABLES)
        })
        .split("__");
    for (key, text) in environment.iter() {
        let (key, text) = (key.as_str(), text.as_str());
        let place = "environment";
        figment = figment.merge(Text { key, text, place });
    }
    if let Some(data) = &arguments.data {
        figment = figment.merge(("data", data));
    }
    if let Some(name) = &arguments.server_name {
        figment = figment.merge(("server_name", name));
    }
    Ok(figment)
}

/// Lays what `--set` says over everything else.
fn set(mut figment: Figment, arguments: &ConfigArguments) -> Result<Figment> {
    for pair in &arguments.set {
        let shown = shown(pair);
        let (key, text) = pair
            .split_once('=')
            .filter(|(key, _)| key.trim() == shown)
            .with_context(|| format!("`--set {shown}`: expected KEY=VALUE"))?;
        let key = key.trim();
        let is_whole = !key.split('.').any(str::is_empty);
        ensure!(
            is_whole,
            "`--set {shown}`: the key is empty, or a part of it"
        );
        let place = "command line";
        figment = figment.merge(Text { key, text, place });
    }
    Ok(figment)
}

/// Returns what of a pair can be shown: its key. What stands behind that can be a secret, also where
/// the pair is none.
fn shown(pair: &str) -> &str {
    let is_end = |c: char| c.is_whitespace() || "=:[{\"'".contains(c);
    pair.trim_start().split(is_end).next().unwrap_or_default()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the last that is done with it"
)]
fn extract(figment: Figment) -> Result<Config> {
    let config = figment.extract().map_err(|error| {
        let messages: Vec<String> = error
            .into_iter()
            .map(|error| hint::explain(&error))
            .collect();
        anyhow!("configuration: {}", messages.join("; "))
    })?;
    bounds::check(&config, &figment)?;
    Ok(config)
}

#[cfg(test)]
mod tests;
