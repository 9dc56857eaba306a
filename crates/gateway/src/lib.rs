//! The gateway: device account data (MSC4331) and protected account data (MSC4010) before a
//! homeserver that runs already.
//!
//! It is stateless and writes through: what it adds is kept in the homeserver, as global account
//! data, so that nothing is lost when the gateway is taken away. `routes.rs` is the table of what it
//! handles; everything else goes through as it came (`pass.rs`). It never rewrites a token, never
//! makes up a sync, never says 401 by itself.
//!
//! [`Gateway`] answers requests on a listener of [`kitbag_http::serve()`], whose errcode table and
//! checks of paths it shares.

mod account_data;
mod answer;
mod aside;
mod bodies;
mod call;
mod compare;
mod credentials;
mod device_data;
mod device_objects;
mod devices;
mod emptying;
mod entries;
mod excesses;
mod gateway;
mod guard;
mod headers;
mod homeserver;
mod identity;
mod life;
mod listing;
mod mapped;
mod memory;
mod metrics;
mod observed;
mod owed;
mod pass;
mod private;
mod recent;
mod routes;
mod settings;
mod sweep;
mod tails;
mod telling;
mod turns;
mod upload;
mod upstream;
mod versions;
mod works;
mod write_rates;

pub use gateway::{Connected, Gateway, Parts, SetupError};
pub use homeserver::{Homeserver, HomeserverAnswer, HomeserverError};
pub use metrics::{GatewayStats, LookupStats, ProtectedStats};
pub use private::{Private, Probe, RenderGatewayMetrics};
pub use settings::{
    CompareSettings, DeviceDataSettings, ProtectSettings, Protection, Settings, UpstreamSettings,
    WriteRateSettings,
};
pub use sweep::{SweepError, SweepEvent, Swept, sweep};
pub use upstream::{UpstreamAddress, UpstreamAddressError, UpstreamSetupError};
