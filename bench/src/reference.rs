//! The references: what the same work costs with everything left out that makes it Kitbag.

mod engine;
mod fixed;
pub(crate) mod homeserver;
mod listener;
mod silent;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use hyper::service::service_fn;
use tokio::net::TcpListener;

use engine::Engine;
use homeserver::Written;

/// The source of the handler of fixed bytes, for the report.
pub(crate) const FIXED_SOURCE: &str = include_str!("reference/fixed.rs");

/// Which reference runs.
#[derive(Args, Clone, Debug)]
pub(crate) struct Mode {
    #[command(subcommand)]
    handler: Handler,
}

#[derive(Clone, Debug, Subcommand)]
enum Handler {
    /// Hands the bodies of puts to a bare engine, and answers once they are durable.
    Engine {
        /// Keep the database in this directory.
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
    },
    /// Answers everything with the bytes of a file.
    Fixed {
        /// The file.
        #[arg(long, value_name = "FILE")]
        body: PathBuf,
    },
    /// Answers what the gateway asks by itself, and everything else with the bytes of a file.
    Homeserver {
        /// The file.
        #[arg(long, value_name = "FILE")]
        body: PathBuf,
    },
    /// Never answers.
    Silent,
}

/// Serves until the process is killed, on the runtime that Kitbag uses.
pub(crate) fn run(mode: Mode) -> Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(serve(mode.handler))
}

async fn serve(handler: Handler) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let greet = || println!("reference listening on http://{address}");
    match handler {
        Handler::Engine { dir } => {
            let engine = Engine::open(&dir)?;
            let service = service_fn(move |request| engine.clone().put(request));
            greet();
            listener::serve(listener, service).await;
        }
        Handler::Fixed { body } => {
            let body = read(&body)?;
            greet();
            listener::serve(listener, service_fn(move |_| fixed::answer(body))).await;
        }
        Handler::Homeserver { body } => {
            let body = read(&body)?;
            greet();
            let written: &Written = Box::leak(Box::default());
            let service = service_fn(move |request| homeserver::answer(body, written, request));
            listener::serve(listener, service).await;
        }
        Handler::Silent => {
            greet();
            listener::serve(listener, service_fn(silent::answer)).await;
        }
    }
    Ok(())
}

/// Returns the bytes of a file, leaked, so that not even a count of owners is kept.
fn read(file: &Path) -> Result<&'static [u8]> {
    let bytes = fs::read(file).with_context(|| format!("cannot read `{}`", file.display()))?;
    Ok(bytes.leak())
}
