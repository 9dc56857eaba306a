//! `kitbag gateway`.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::ConfigArguments;

const GATEWAY_SWEEP_EXAMPLES: &str = "\
Exit codes:
  0  all users were looked at
  1  something failed, which standard error tells of; all that could be was done; with the Matrix
     Authentication Service that is each user with something to empty: nobody can be logged in as

Examples:
  kitbag gateway sweep --upstream http://127.0.0.1:8008 --token-file admin-token --dry-run
  SYNAPSE_ADMIN_TOKEN=… kitbag gateway sweep --upstream http://127.0.0.1:8008 --json

Entries of a device that is gone read as none with or without it. It matters where a device is made
anew with the ID of one that was removed past the gateway, and nobody read its entries in between.";

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct GatewayArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Listen on this address, by default 127.0.0.1:8009; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Serve /health and /metrics on a second, private address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) private: Option<SocketAddr>,
    /// Where the homeserver is: http://HOST:PORT, https://HOST or unix:/PATH; must be given, here or as
    /// `upstream.url`.
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    #[command(subcommand)]
    pub(crate) command: Option<GatewayCommand>,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum GatewayCommand {
    /// Empties account data of devices that were removed past the gateway.
    ///
    /// It is for Synapse, whose admin API it asks for all users, their devices and account data. Who
    /// has such data is logged in by the administrator for a moment, without a device. A gateway may
    /// run beside it.
    #[command(after_long_help = GATEWAY_SWEEP_EXAMPLES)]
    Sweep(SweepArguments),
}

#[derive(Args, Clone, Debug)]
pub(crate) struct SweepArguments {
    /// Read an administrator's access token from a file, `-` for standard input; else it is taken from
    /// the environment, SYNAPSE_ADMIN_TOKEN.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
    /// Only tell what would be emptied.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Print one line of JSON, with `failure` where something failed.
    #[arg(long)]
    pub(crate) json: bool,
}
