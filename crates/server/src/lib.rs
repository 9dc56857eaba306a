//! The program `kitbag` as a library, which `main.rs` runs and whose settings the fuzz targets read.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to its user"
)]

mod admin;
mod backup;
mod check;
mod cli;
mod config;
mod data;
mod data_command;
mod descriptors;
mod devices;
mod doctor;
mod gateway;
mod gateway_sweep;
mod logging;
mod metrics;
mod operator;
mod output;
mod push_command;
mod restore;
mod serve;
mod system;
mod table;
mod user;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, GatewayCommand};
pub use config::{Reading, read};

/// Runs the program with the arguments of the process.
#[must_use]
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Backup(arguments) => backup::run(&arguments),
        Command::Check(arguments) => return check::run(&arguments),
        Command::Data(arguments) => data_command::run(arguments),
        Command::Devices(arguments) => devices::run(arguments),
        Command::Doctor(arguments) => return doctor::run(&arguments),
        Command::Gateway(arguments) => match &arguments.command {
            None => gateway::run(&arguments),
            Some(GatewayCommand::Sweep(sweep)) => gateway_sweep::run(&arguments, sweep),
        },
        Command::Push(arguments) => push_command::run(&arguments),
        Command::Restore(arguments) => restore::run(&arguments),
        Command::Serve(arguments) => serve::run(&arguments),
        Command::User(arguments) => user::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With the whole chain of causes, on one line: users choose types that it can name.
            eprintln!("kitbag: {}", table::plain(&format!("{error:#}")));
            ExitCode::FAILURE
        }
    }
}
