//! `kitbag user`.

use clap::{Args, Subcommand};

use super::ConfigArguments;

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
