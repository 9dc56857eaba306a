//! The binary `kitbag`: see `kitbag --help`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program talks to its user"
)]

mod admin;
mod cli;
mod config;
mod descriptors;
mod logging;
mod private;
mod serve;
mod system;
mod user;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command};

/// The system's allocator keeps what each thread once needed: 60 logins of 19 MiB each (Argon2) left
/// the server at 660 MiB.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::User(arguments) => user::run(arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // With the whole chain of causes, on one line.
            eprintln!("kitbag: {error:#}");
            ExitCode::FAILURE
        }
    }
}
