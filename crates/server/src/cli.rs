//! The command line. What has commands of its own stands in a file of its own.

mod data;
mod devices;
mod gateway;
mod push;
mod user;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Parser, Subcommand};

pub(crate) use self::data::{DataArguments, DataCommand, EntryArguments, ScopeArgument};
pub(crate) use self::devices::{DevicesArguments, DevicesCommand};
pub(crate) use self::gateway::{GatewayArguments, GatewayCommand, SweepArguments};
pub(crate) use self::push::{ExplainArguments, PushArguments, PushCommand};
pub(crate) use self::user::{PasswordArguments, UserArguments, UserCommand};

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
    /// Reads and writes the account data of users, beside a running server or without one.
    ///
    /// What the server manages, such as m.push_rules, cannot be written here; limits and quotas hold
    /// as for the users themselves, who see each change in their next sync. A running server notes
    /// each command in its log, without contents.
    #[command(after_long_help = DATA_EXAMPLES)]
    Data(DataArguments),
    /// Tells what the devices of all users say to the server (MSC4331).
    ///
    /// Beside a running server or without one.
    #[command(after_long_help = DEVICES_EXAMPLES)]
    Devices(DevicesArguments),
    /// Tells what a homeserver lacks, and what the gateway before it would add.
    ///
    /// Without an account it looks at what anybody can see. With --user it logs in as that user, a
    /// new device that it logs out again, and tries account data: best a user made for it.
    ///
    /// It writes entries of types that begin with org.kitbag.doctor, and empties them. One thing it
    /// writes is not its own: it puts the push rules that it has just read back as they are, to see
    /// whether the homeserver lets clients write them so. A client that changes them in between loses
    /// that change.
    #[command(
        after_long_help = DOCTOR_EXAMPLES,
        mut_arg("data", |arg| arg.hide(true)),
        mut_arg("server_name", |arg| arg.hide(true))
    )]
    Doctor(DoctorArguments),
    /// Adds device account data and protected account data to a homeserver that runs already.
    ///
    /// Stands before it as a proxy: Synapse, Dendrite, the Conduit family. What it does not handle goes
    /// through as it came, tokens too. What it adds is kept in the homeserver, as account data of the
    /// user, and nothing here: so it can be taken away at any time, and nothing breaks.
    #[command(
        after_long_help = GATEWAY_EXAMPLES,
        mut_arg("data", |arg| arg.help("Taken and not used: the gateway keeps nothing")),
        mut_arg("server_name", |arg| arg.hide(true))
    )]
    Gateway(GatewayArguments),
    /// Tells what push rules do, from files: no server and no data are needed.
    #[command(after_long_help = PUSH_EXAMPLES)]
    Push(PushArguments),
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

const DATA_EXAMPLES: &str = "\
Examples:
  kitbag data list alice
  kitbag data list alice --scope devices --json
  kitbag data get alice org.example.rooms --device PHONE
  kitbag data put alice org.example.theme '{\"dark\": true}'
  kitbag data delete alice org.example.theme";

const DOCTOR_EXAMPLES: &str = "\
Exit codes:
  0  the gateway can stand before it
  1  it lacks something that the gateway needs; the table says what
  2  it could not be looked at, or not to the end: it does not answer, a proxy before it answers
     502 or above, it has this wait for more than 30 seconds, or the login failed

Examples:
  kitbag doctor --upstream http://127.0.0.1:8008
  kitbag doctor --upstream https://matrix.example.org --user doctor
      Asks for the password, or reads it from standard input where that is no terminal.
  printf %s \"$PASSWORD\" | kitbag doctor --upstream unix:/run/main.sock --user doctor --json
      One line of JSON, for scripts.
  kitbag doctor --upstream http://127.0.0.1:8009 --user doctor
      The gateway itself, to see what clients get through it.";

const GATEWAY_EXAMPLES: &str = "\
Exit codes:
  0  it was stopped by a signal
  1  it could not start, as where no homeserver is named or the address is taken
  2  the arguments are not understood

Examples:
  kitbag gateway --upstream http://127.0.0.1:8008
      On 127.0.0.1:8009, before the homeserver on this machine. Have your reverse proxy send clients
      there instead, and back again to take the gateway away: nothing else changes.
  kitbag gateway --upstream unix:/run/matrix-synapse/main.sock --private 127.0.0.1:9009
      With /health and /metrics on a second address.
  kitbag gateway --upstream http://127.0.0.1:8008 --set protect.push_rules=observe
      Count who writes push rules through account data (/metrics) before refusing it.
  kitbag doctor --upstream http://127.0.0.1:8008
      What the homeserver lacks, and what the gateway would add.

Every setting can be given in a TOML file (--config), as an environment variable
(KITBAG_UPSTREAM__URL) or with --set; later ones win. See docs/gateway.md, which has snippets for
nginx, Caddy and HAProxy, and docs/configuration.md.";

const DEVICES_EXAMPLES: &str = "\
Examples:
  kitbag devices list --type org.example.client
  kitbag devices report --type org.example.client --pointer /version
  kitbag devices report --type org.example.rooms --pointer /versions --lacks '\"12\"'";

const PUSH_EXAMPLES: &str = "\
Examples:
  kitbag push explain event.json --user @alice:example.org
  kitbag push explain event.json --user @alice:example.org --rules rules.json --json";

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

#[derive(Args, Clone, Debug, Default)]
pub(crate) struct DoctorArguments {
    #[command(flatten)]
    pub(crate) config: ConfigArguments,
    /// Where the homeserver is: http://HOST:PORT, https://HOST or unix:/PATH.
    #[arg(long, value_name = "URL")]
    pub(crate) upstream: Option<String>,
    /// Log in as this user, by the name such as `doctor` or the whole ID.
    #[arg(long, value_name = "USER", value_parser = NonEmptyStringValueParser::new())]
    pub(crate) user: Option<String>,
    /// Read the password from standard input instead of asking for it.
    #[arg(long, requires = "user")]
    pub(crate) password_stdin: bool,
    /// Print the result as one line of JSON, with `failure` where it was not looked at to the end.
    #[arg(long)]
    pub(crate) json: bool,
}
