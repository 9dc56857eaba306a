//! `kitbag gateway`: wires the gateway together, and stops cleanly.

use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use kitbag_gateway::{Gateway, Parts, Private, Probe, Protection, UpstreamAddress};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time;
use tracing::{debug, info, warn};

use crate::cli::GatewayArguments;
use crate::config::Config;
use crate::metrics;
use crate::serve::{listen, stop_at_signal};
use crate::system::{SystemClock, SystemRandom};
use crate::{descriptors, logging};

/// How often a homeserver is looked for that is not there at the start.
const LOOK: Duration = Duration::from_secs(1);

pub(crate) fn run(arguments: &GatewayArguments) -> Result<()> {
    let config = Config::load_for_gateway(arguments)?;
    logging::start(&config.log)?;
    let upstream = upstream(&config)?;
    if is_itself(config.listen, &upstream) {
        bail!(
            "`--upstream` is {upstream}, where the gateway itself is to listen: choose another \
             address by `--listen`"
        );
    }
    // Each connection of a client can need one to the homeserver.
    descriptors::provide_for(config.listener.connections_max.get(), 2);
    let runtime = config.runtime.start()?;
    runtime.block_on(serve(&config, &upstream))?;
    info!("stopped");
    Ok(())
}

/// Returns where the homeserver is.
pub(crate) fn upstream(config: &Config) -> Result<UpstreamAddress> {
    let Some(upstream) = config.upstream.url.clone() else {
        bail!(
            "which homeserver? Name it by `--upstream http://HOST:PORT`, or by `upstream.url` in the \
             configuration"
        );
    };
    Ok(upstream)
}

/// Tells whether an address of the homeserver is the listener's own: requests would go round.
fn is_itself(listen: SocketAddr, upstream: &UpstreamAddress) -> bool {
    let UpstreamAddress::Tcp { is_tls, authority } = upstream else {
        return false;
    };
    let port = authority
        .port_u16()
        .unwrap_or(if *is_tls { 443 } else { 80 });
    let host = authority.host().trim_matches(['[', ']']);
    // The name stands for either family.
    let hosts = match host.parse::<IpAddr>() {
        Ok(host) => vec![host],
        Err(_) if host.eq_ignore_ascii_case("localhost") => {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        }
        Err(_) => Vec::new(),
    };
    port == listen.port() && hosts.into_iter().any(|host| reaches(host, listen.ip()))
}

/// Tells whether a connection to an address meets a listener of the same port.
fn reaches(host: IpAddr, listen: IpAddr) -> bool {
    let (host, listen) = (host.to_canonical(), listen.to_canonical());
    // Who connects to no address in particular meets this machine.
    let host = match host {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(Ipv6Addr::UNSPECIFIED) => Ipv6Addr::LOCALHOST.into(),
        host => host,
    };
    // A listener on all addresses of IPv6 has those of IPv4 too.
    let is_of_all = listen.is_unspecified() && (listen.is_ipv6() || host.is_ipv4());
    host == listen || (is_of_all && host.is_loopback())
}

async fn serve(config: &Config, upstream: &UpstreamAddress) -> Result<()> {
    let gateway = Gateway::new(Parts {
        settings: config.gateway(),
        limits: config.limits(),
        clock: Arc::new(SystemClock),
        random: Arc::new(SystemRandom),
    })?;
    let listener =
        listen(config.listen).with_context(|| format!("cannot listen on {}", config.listen))?;
    let private = match config.private {
        Some(address) => Some(
            listen(address)
                .with_context(|| format!("cannot listen on the private address {address}"))?,
        ),
        None => None,
    };
    let (stop, stopping) = watch::channel(false);
    let signalled = stop_at_signal(stop)?;
    let greeting = Greeting {
        config,
        upstream,
        address: listener.local_addr()?,
        private: private.as_ref().map(TcpListener::local_addr).transpose()?,
    };
    greeting.print();
    // It serves meanwhile: a homeserver may be started after its gateway.
    let looking = look_for_homeserver(gateway.clone(), upstream.to_string(), LOOK);
    tokio::spawn(looking);
    let private = private.map(|listener| {
        let render_metrics = metrics::gateway::renderer(config, &SystemClock);
        let private = Private::new(gateway.clone(), render_metrics);
        tokio::spawn(kitbag_http::serve(listener, private, stopping.clone()))
    });
    tokio::join!(kitbag_http::serve(listener, gateway, stopping), signalled);
    if let Some(task) = private {
        task.await.context("the private listener failed")?;
    }
    Ok(())
}

/// Says whether the homeserver is there, and where it is not, when it is.
async fn look_for_homeserver(gateway: Gateway, upstream: String, pause: Duration) {
    let mut is_told = false;
    loop {
        match gateway.probe().await {
            Probe::Answered { status: 200, took } => {
                let took_ms = took.as_millis();
                return info!(upstream, took_ms, "the homeserver answers");
            }
            _ if is_told => {}
            Probe::Answered { status, .. } => warn!(
                upstream,
                status, "what answers at the address of the homeserver is none, or not ready yet"
            ),
            Probe::Unreachable { reason, text } => warn!(
                upstream,
                reason,
                cause = text,
                "the homeserver does not answer; until it does, clients are told 502"
            ),
        }
        is_told = true;
        time::sleep(pause).await;
    }
}

/// What a user sees first.
struct Greeting<'a> {
    config: &'a Config,
    upstream: &'a UpstreamAddress,
    address: SocketAddr,
    private: Option<SocketAddr>,
}

impl Greeting<'_> {
    /// Whoever started the gateway may have left, or may read the first line only.
    fn print(&self) {
        if let Err(error) = self.write(&mut io::stdout().lock()) {
            debug!(%error, "nobody reads the standard output");
        }
    }

    /// The first line is for scripts: it comes once the address answers.
    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let Self {
            config, address, ..
        } = self;
        writeln!(out, "kitbag listening on http://{address}")?;
        if let Some(private) = self.private {
            writeln!(out, "  private:      http://{private}/health")?;
        }
        writeln!(out, "  homeserver:   {}", self.upstream)?;
        writeln!(out, "  adds:         {}", added(config))?;
        writeln!(out, "  protects:     {}", protected(config))?;
        writeln!(out, "  data:         nothing is kept here")?;
        writeln!(
            out,
            "  try:          kitbag doctor --upstream http://{address}"
        )
    }
}

fn added(config: &Config) -> &'static str {
    match config.msc4547.enabled {
        true => "device account data (MSC4331), compare-and-swap (MSC4547)",
        false => "device account data (MSC4331)",
    }
}

fn protected(config: &Config) -> &'static str {
    match config.protect.push_rules {
        Protection::Enforce => "m.fully_read, m.push_rules",
        Protection::Observe => "m.fully_read; writes of m.push_rules are only counted",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use kitbag_gateway::Settings;
    use kitbag_testkit::scripted::{Scripted, whole};

    use super::*;

    #[tokio::test]
    async fn a_homeserver_that_is_not_ready_is_looked_for_until_it_is() {
        let asked = AtomicUsize::new(0);
        let homeserver = Scripted::start(move |_| {
            let status = [503, 503, 200][asked.fetch_add(1, Ordering::SeqCst)];
            async move { whole(status, "{}") }
        });
        let homeserver = homeserver.await;
        let mut settings = Settings::default();
        settings.upstream.url = Some(homeserver.url().parse().unwrap());
        let gateway = Gateway::new(Parts {
            settings,
            limits: kitbag_domain::Limits::default(),
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
        });
        let pause = Duration::from_millis(1);
        let looking = look_for_homeserver(gateway.unwrap(), homeserver.url(), pause);
        time::timeout(Duration::from_secs(10), looking)
            .await
            .unwrap();
        assert_eq!(homeserver.asked().len(), 3);
    }

    #[test]
    fn a_gateway_before_itself_is_noticed() {
        for (listen, upstream, expected) in [
            ("127.0.0.1:8008", "http://127.0.0.1:8008", true),
            ("127.0.0.1:8008", "http://localhost:8008", true),
            ("0.0.0.0:8008", "http://127.0.0.1:8008", true),
            ("[::]:80", "http://[::1]", true),
            ("192.0.2.1:8008", "http://192.0.2.1:8008", true),
            ("127.0.0.1:8009", "http://127.0.0.1:8008", false),
            ("192.0.2.1:8008", "http://127.0.0.1:8008", false),
            ("127.0.0.1:8008", "http://192.0.2.1:8008", false),
            ("127.0.0.1:80", "https://localhost", false),
            ("[::1]:8008", "http://LOCALHOST:8008", true),
            ("127.0.0.1:8008", "http://0.0.0.0:8008", true),
            ("127.0.0.1:8008", "http://[::ffff:127.0.0.1]:8008", true),
            ("[::]:8008", "http://127.0.0.1:8008", true),
            ("0.0.0.0:8008", "http://[::1]:8008", false),
            ("127.0.0.2:8008", "http://127.0.0.1:8008", false),
            ("127.0.0.2:8008", "http://localhost:8008", false),
            ("[::1]:8008", "http://127.0.0.1:8008", false),
            ("192.0.2.1:8008", "http://localhost:8008", false),
            ("127.0.0.1:8008", "http://matrix.example.org:8008", false),
            ("127.0.0.1:8008", "unix:/run/main.sock", false),
        ] {
            let (listen, address) = (listen.parse().unwrap(), upstream.parse().unwrap());
            assert_eq!(is_itself(listen, &address), expected, "{listen} {upstream}");
        }
    }
}
