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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use clap::CommandFactory as _;

    use super::Cli;

    /// Splits a line as a shell does with quotes and pipes.
    fn commands(line: &str) -> Vec<Vec<String>> {
        let (mut commands, mut word, mut quote) = (vec![Vec::new()], None::<String>, None);
        for letter in line.chars().chain([' ']) {
            match letter {
                _ if quote == Some(letter) => quote = None,
                _ if quote.is_some() => word.get_or_insert_default().push(letter),
                '\'' | '"' => {
                    quote = Some(letter);
                    word.get_or_insert_default();
                }
                '|' => commands.push(Vec::new()),
                ' ' => commands.last_mut().unwrap().extend(word.take()),
                _ => word.get_or_insert_default().push(letter),
            }
        }
        assert_eq!(quote, None, "an open quote: {line}");
        commands
    }

    /// Parses each call of the program on a line, and returns how many there are.
    fn parse(line: &str) -> Result<usize, clap::Error> {
        let is_call = |command: &Vec<String>| command.first().is_some_and(|name| name == "kitbag");
        let calls: Vec<_> = commands(line).into_iter().filter(is_call).collect();
        for call in &calls {
            Cli::command().try_get_matches_from(call)?;
        }
        Ok(calls.len())
    }

    #[test]
    fn every_example_of_the_help_is_a_command() {
        let help = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/program/help");
        let (mut files, mut calls) = (0, 0);
        for file in fs::read_dir(help).unwrap() {
            let path = file.unwrap().path();
            let text = fs::read_to_string(&path).unwrap();
            files += 1;
            for line in text.lines().filter(|line| line.contains("  kitbag ")) {
                match parse(line.trim()) {
                    Ok(count) => calls += count,
                    Err(error) => panic!("{}: `{line}`: {error}", path.display()),
                }
            }
        }
        assert!(files > 20 && calls > 50, "{calls} calls in {files} files");
    }

    #[test]
    fn a_wrong_example_would_be_found_also_behind_a_pipe() {
        assert_eq!(
            parse("kitbag user list | kitbag data put a b -").unwrap(),
            2
        );
        assert_eq!(parse("kitbag data put a b '{\"c\": 1}'").unwrap(), 1);
        parse("kitbag data put a b {\"c\": 1}").unwrap_err();
        parse("kitbag user list | kitbag data pt a b -").unwrap_err();
        parse("kitbag user list --jsn").unwrap_err();
    }
}
