//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

/// Account data for Matrix: settings, tags, push rules and device account data, as a server.
#[derive(Debug, Parser)]
#[command(name = "kitbag", version, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Copies the data to a file, beside a running server or without one.
    ///
    /// The server goes on meanwhile. The file holds all that was written when the copying ends, and
    /// gets its name only when it is whole and on the disk. It holds secrets: only its owner can read
    /// it, which is the user that the server runs as.
    ///
    /// It must lie on a local disk: while that takes its time, writes wait. Copy it from there to
    /// where it is to be kept.
    #[command(after_long_help = BACKUP_EXAMPLES, mut_arg("server_name", |arg| arg.hide(true)))]
    Backup(BackupArguments),
    /// Looks whether the data are sound.
    ///
    /// Looks through the whole database: its pages, its tables, each row, and whether positions and
    /// counts agree with what is there. Changes nothing, unless it is told to repair. Beside a
    /// running server it looks through a copy, which takes as much room in the data directory while
    /// it lasts. Contents and tokens are never printed.
    #[command(after_long_help = CHECK_EXAMPLES, mut_arg("server_name", |arg| arg.hide(true)))]
    Check(CheckArguments),
    /// Puts a backup in the place of the data, with the server stopped.
    ///
    /// The backup is looked through first. Data that are there are kept beside it, with --replace.
    /// Every client syncs in full afterwards, and what was written since the backup is gone.
    #[command(after_long_help = RESTORE_EXAMPLES, mut_arg("server_name", |arg| arg.hide(true)))]
    Restore(RestoreArguments),
    /// Runs a Matrix server for one machine's users.
    ///
    /// Without options it listens on 127.0.0.1:8008, keeps its data in ./kitbag-data and lets
    /// everybody on this machine register.
    #[command(after_long_help = SERVE_EXAMPLES)]
    Serve(ServeArguments),
    /// Manages accounts, beside a running server or without one.
    #[command(after_long_help = USER_EXAMPLES)]
    User(UserArguments),
}

const BACKUP_EXAMPLES: &str = "\
Examples:
  kitbag backup /var/backups/kitbag.db
  kitbag backup --force --json --data /var/lib/kitbag /var/backups/kitbag.db
      Every night: replace the file of yesterday, and print one line of JSON.";

const CHECK_EXAMPLES: &str = "\
Exit codes:
  0  sound
  1  something was found and is still there
  2  could not be checked, as where there is no data or it is of a newer format

Examples:
  kitbag check
  kitbag check --json --data /var/lib/kitbag
  kitbag check --repair
      Mend what follows from other data, behind a copy of the database beside it, with the server
      stopped: counts, positions, rows whose user or device is gone. In a damaged file nothing is
      touched.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  kitbag restore /var/backups/kitbag.db --data /var/lib/kitbag
      Where there are no data yet.
  kitbag restore /var/backups/kitbag.db --data /var/lib/kitbag --replace
      In the place of data, which are kept beside it under a name that is printed.";

const SERVE_EXAMPLES: &str = "\
Examples:
  kitbag serve
      Start on this machine, keep the data in ./kitbag-data.
  kitbag serve --ephemeral --listen 127.0.0.1:0
      For tests: a free port, nothing is kept. The first line of output names the address.
  kitbag serve --listen 0.0.0.0:8008 --set 'registration.tokens=[\"secret\"]'
      Reachable by others, who need the token to register.

Every setting can be given in a TOML file (--config), as an environment variable
(KITBAG_REGISTRATION__MODE=open) or with --set; later ones win. See docs/configuration.md.";

const USER_EXAMPLES: &str = "\
Examples:
  kitbag user add alice
  kitbag user list --json
  printf %s 'new password' | kitbag user password alice --password-stdin
  kitbag user deactivate alice --yes";

/// Where settings come from; common to all commands.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ConfigArguments {
    /// Read settings from this TOML file.
    #[arg(long, global = true, value_name = "FILE", env = "KITBAG_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Keep the data in this directory.
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// The name behind the colon of user IDs; kept with the data.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) server_name: Option<String>,
    /// Set any setting; may be repeated.
    #[arg(long, global = true, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct BackupArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// The file to make.
    pub(crate) file: PathBuf,
    /// Replace the file where it exists.
    #[arg(long)]
    pub(crate) force: bool,
    /// Print the result as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct RestoreArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// The backup.
    pub(crate) file: PathBuf,
    /// Set data that are there aside.
    #[arg(long)]
    pub(crate) replace: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct CheckArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Mend what follows from other data; the server must be stopped.
    #[arg(long)]
    pub(crate) repair: bool,
    /// Print the result as one line of JSON.
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct ServeArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Listen on this address; port 0 takes a free one.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) listen: Option<SocketAddr>,
    /// Keep nothing: the data live in a temporary directory and go with the server.
    #[arg(long, conflicts_with = "data")]
    pub(crate) ephemeral: bool,
    /// Serve /health and /metrics on a second, private address.
    #[arg(long, value_name = "ADDR:PORT")]
    pub(crate) private: Option<SocketAddr>,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct UserArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    #[command(subcommand)]
    pub(crate) command: UserCommand,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Makes an account.
    Add {
        /// The user name, such as `alice`, or the whole ID.
        name: String,
        #[command(flatten)]
        password: PasswordArguments,
    },
    /// Lists the accounts.
    List {
        /// Print JSON, one account a line.
        #[arg(long)]
        json: bool,
    },
    /// Sets a new password and logs all devices out.
    Password {
        /// The user name or the whole ID.
        name: String,
        /// Keep the devices logged in.
        #[arg(long)]
        keep_devices: bool,
        #[command(flatten)]
        password: PasswordArguments,
    },
    /// Ends an account for ever and erases its data; the name stays taken.
    Deactivate {
        /// The user name or the whole ID.
        name: String,
        /// Do it.
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Args, Clone, Copy, Debug)]
pub(crate) struct PasswordArguments {
    /// Read the password from standard input instead of asking for it.
    #[arg(long)]
    pub(crate) password_stdin: bool,
}
