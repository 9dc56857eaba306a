//! `kitbag serve`: wires store, service and API together, and stops cleanly.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use kitbag_domain::{Clock, Limits, ServerName};
use kitbag_http::{Edge, Parts, Passwords, RegistrationMode, RenderMetrics, Settings};
use kitbag_store_sqlite::{Durability, Options, SqliteStore};
use tokio::net::{TcpListener, TcpSocket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::admin::{Admin, socket};
use crate::cli::ServeArguments;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::system::{SystemClock, SystemRandom};
use crate::{data, descriptors, logging};

/// Connections that may wait to be accepted: when thousands of syncs come back after a restart, one
/// beyond it waits a second. The system may allow fewer (`net.core.somaxconn`).
const BACKLOG: u32 = 4_096;

pub(crate) fn run(arguments: &ServeArguments) -> Result<()> {
    let config = Config::load_for_serve(arguments)?;
    logging::start(&config.log)?;
    descriptors::provide_for(config.listener.connections_max.get(), 1);
    let server_name = config.server_name()?;
    let limits = config.limits();
    let runtime = config.runtime.start()?;
    // First, since a port that is taken must leave no new data directory behind.
    let listener = runtime
        .block_on(async { listen(config.listen) })
        .with_context(|| format!("cannot listen on {}", config.listen))?;
    let store = open(arguments, &config, &server_name, &limits)?;
    let server = Server {
        arguments,
        config: &config,
        server_name,
        limits,
        store: store.clone(),
        listener,
    };
    runtime.block_on(server.run())?;
    // Everything that holds the store ends with the runtime; then the store commits and closes.
    drop(runtime);
    drop(store);
    info!("stopped");
    Ok(())
}

pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // So that a new server need not wait until the connections of the old one are forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn open(
    arguments: &ServeArguments,
    config: &Config,
    server_name: &ServerName,
    limits: &Limits,
) -> Result<Arc<SqliteStore>> {
    let mut options = Options::new(server_name.clone(), SystemRandom.number());
    options.limits = limits.clone();
    options.cache_bytes_max = config.cache.bytes_max;
    let store = if arguments.ephemeral {
        options.durability = Durability::None;
        SqliteStore::ephemeral(options)
    } else {
        SqliteStore::open(&config.data, options)
    };
    let store = store.map_err(data::advise);
    Ok(Arc::new(store.context("the store could not be opened")?))
}

/// What was made ready before anything is served.
struct Server<'a> {
    arguments: &'a ServeArguments,
    config: &'a Config,
    server_name: ServerName,
    limits: Limits,
    store: Arc<SqliteStore>,
    listener: TcpListener,
}

impl Server<'_> {
    async fn run(self) -> Result<()> {
        let Self {
            arguments, config, ..
        } = self;
        let (stop, stopping) = watch::channel(false);
        let signalled = stop_at_signal(stop)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let parallel = config.passwords.parallel.get();
        let passwords = Passwords::new(parallel, Arc::new(SystemRandom))?;
        let address = self.listener.local_addr()?;
        let settings = config.api(address);

        if !arguments.ephemeral {
            let admin = Admin::new(
                Arc::clone(&self.store),
                Arc::clone(&clock),
                passwords.clone(),
                self.server_name.clone(),
                config,
            );
            if let Some(socket) = socket::bind(&config.data)? {
                tokio::spawn(socket::serve(socket, admin));
            }
        }
        tell_of_admin_api(config);
        let private = match config.private {
            Some(address) => {
                let listener = listen(address)
                    .with_context(|| format!("cannot listen on the private address {address}"))?;
                Some((listener.local_addr()?, listener))
            }
            None => None,
        };
        let greeting = Greeting {
            arguments,
            config,
            address,
            settings: &settings,
        };
        greeting.print(private.as_ref().map(|(address, _)| *address));

        let render_metrics = self.start_metrics(&clock);
        let edge = Edge::new(Parts {
            store: self.store,
            clock,
            random: Arc::new(SystemRandom),
            limits: Arc::new(self.limits),
            server_name: self.server_name,
            passwords,
            settings,
            render_metrics,
            stopping: stopping.clone(),
        });
        let private = private.map(|(_, listener)| {
            // Its own task: each listener has its own connections.
            tokio::spawn(kitbag_http::serve(
                listener,
                edge.private(),
                stopping.clone(),
            ))
        });
        tokio::join!(kitbag_http::serve(self.listener, edge, stopping), signalled);
        if !arguments.ephemeral {
            socket::remove(&config.data);
        }
        if let Some(task) = private {
            // A program that follows changes gets its last page, as a waiting sync does.
            task.await.context("the private listener failed")?;
        }
        Ok(())
    }

    /// Returns what writes the page of metrics; accounts are counted where somebody can ask for it.
    fn start_metrics(&self, clock: &Arc<dyn Clock>) -> RenderMetrics {
        let (store, limits) = (Arc::clone(&self.store), self.limits.clone());
        let metrics = Arc::new(Metrics::new(store, limits, self.config, &**clock));
        if self.config.private.is_some() {
            tokio::spawn(Arc::clone(&metrics).survey(Arc::clone(clock)));
        }
        metrics.renderer()
    }
}

/// Says how the admin API is switched on, where somebody could be looking for it.
fn tell_of_admin_api(config: &Config) {
    match (config.private.is_some(), config.admin.is_enabled()) {
        (true, false) => info!(
            "there is no admin API without a token: set `admin.tokens.NAME`, for instance to what \
             `openssl rand -hex 32` prints"
        ),
        (false, true) => {
            warn!("`admin.tokens` does nothing without a private address: set `private`");
        }
        (true, true) | (false, false) => {}
    }
}

/// Listens for SIGTERM and SIGINT at once; the future ends when one came and `stop` is set.
pub(crate) fn stop_at_signal(stop: watch::Sender<bool>) -> Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("stopping");
        stop.send_replace(true);
    })
}

/// What a user sees first.
struct Greeting<'a> {
    arguments: &'a ServeArguments,
    config: &'a Config,
    address: SocketAddr,
    settings: &'a Settings,
}

impl Greeting<'_> {
    /// Whoever started the server may have left, or may read the first line only: it serves anyway.
    fn print(&self, private: Option<SocketAddr>) {
        let mut out = io::stdout().lock();
        if let Err(error) = self.write(&mut out, private) {
            debug!(%error, "nobody reads the standard output");
        }
    }

    /// The first line is for scripts: it comes once the address answers.
    fn write(&self, out: &mut impl Write, private: Option<SocketAddr>) -> io::Result<()> {
        let Self {
            arguments,
            config,
            address,
            settings,
        } = self;
        writeln!(out, "kitbag listening on http://{address}")?;
        if let Some(private) = private {
            writeln!(out, "  private:      http://{private}/health")?;
            if config.admin.is_enabled() {
                writeln!(out, "  admin API:    http://{private}/_kitbag/admin/v1")?;
            }
        }
        writeln!(out, "  server name:  {}", config.server_name)?;
        if arguments.ephemeral {
            writeln!(out, "  data:         nothing is kept (--ephemeral)")?;
        } else {
            writeln!(out, "  data:         {}", config.data.display())?;
        }
        let registration = &settings.registration;
        let is_private = settings.is_loopback_only && settings.trusted_proxies.is_empty();
        let who = match registration.mode {
            RegistrationMode::Open => "everybody",
            RegistrationMode::Auto if is_private => "everybody on this machine",
            RegistrationMode::Closed => "nobody; use `kitbag user add NAME`",
            RegistrationMode::Auto | RegistrationMode::Token
                if registration.tokens.is_empty() && arguments.ephemeral =>
            {
                "nobody; set `registration.tokens`"
            }
            RegistrationMode::Auto | RegistrationMode::Token if registration.tokens.is_empty() => {
                "nobody; set `registration.tokens`, or use `kitbag user add NAME`"
            }
            RegistrationMode::Auto | RegistrationMode::Token => "whoever has a token",
        };
        writeln!(out, "  may register: {who}")?;
        writeln!(
            out,
            "  try:          curl http://{address}/_matrix/client/versions"
        )
    }
}
