//! `kitbag gateway`: wires the gateway together, and stops cleanly.

use std::io::{self, Write as _};
use std::sync::Arc;

use anyhow::{Context as _, Result};
use kitbag_gateway::{Gateway, Parts};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::{debug, info};

use crate::cli::GatewayArguments;
use crate::config::Config;
use crate::serve::{listen, stop_at_signal};
use crate::system::{SystemClock, SystemRandom};
use crate::{descriptors, logging};

pub(crate) fn run(arguments: &GatewayArguments) -> Result<()> {
    let config = Config::load_for_gateway(arguments)?;
    logging::start(&config.log)?;
    // Each connection of a client can need one to the homeserver.
    descriptors::provide_for(config.listener.connections_max.get().saturating_mul(2));
    let gateway = Gateway::new(Parts {
        settings: config.gateway(),
        limits: config.limits(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    })?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let listener = runtime
        .block_on(async { listen(config.listen) })
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    runtime.block_on(serve(&config, gateway, listener))?;
    info!("stopped");
    Ok(())
}

async fn serve(config: &Config, gateway: Gateway, listener: TcpListener) -> Result<()> {
    let (stop, stopping) = watch::channel(false);
    let signalled = stop_at_signal(stop)?;
    let address = listener.local_addr()?;
    let upstream = config.upstream.url.as_ref();
    let upstream = upstream.map(ToString::to_string).unwrap_or_default();
    let mut out = io::stdout().lock();
    let greeting = writeln!(out, "kitbag listening on http://{address}")
        .and_then(|()| writeln!(out, "  homeserver:   {upstream}"));
    drop(out);
    if let Err(error) = greeting {
        debug!(%error, "nobody reads the standard output");
    }
    tokio::join!(kitbag_http::serve(listener, gateway, stopping), signalled);
    Ok(())
}
