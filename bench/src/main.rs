//! `kitbag-bench`: measures Kitbag, each workload beside its reference in the same run.
//!
//! A ratio of two figures of one run means something on any machine; a figure alone does not. So
//! the real `kitbag` and the reference, which is this program in another mode, run as processes of
//! their own and are measured by turns, in pairs.

#![expect(
    clippy::print_stdout,
    reason = "figures are what this program is for, and the reference tells its address"
)]

mod answer;
mod budgets;
mod load;
mod machine;
mod markdown;
mod pairs;
mod plan;
mod process;
mod reference;
mod report;
mod server;
mod stats;
mod synapse;
mod workloads;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, Subcommand};

use crate::machine::Machine;
use crate::plan::Plan;
use crate::reference::Mode;
use crate::report::Report;

/// Kitbag's allocator, so that the references have it too.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// And set as Kitbag's.
#[cfg(target_os = "linux")]
#[expect(
    unsafe_code,
    reason = "a symbol of this name is how jemalloc is configured"
)]
#[unsafe(export_name = "_rjem_malloc_conf")]
pub static SETTINGS: &[u8; 60] = b"background_thread:true,dirty_decay_ms:1000,muzzy_decay_ms:0\0";

/// Measures Kitbag beside reference handlers: CPU, throughput, latency and memory.
///
/// Needs the program `kitbag` of the same profile next to this one:
/// `cargo build --release -p kitbag-server`.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    bench: BenchArguments,
}

const EXAMPLES: &str = "\
Examples (`cargo xtask bench` builds this program and `kitbag`, and runs it):
  cargo xtask bench
      Everything; some twenty minutes.
  cargo xtask bench --filter put/64 --pairs 3
      Only the puts of 64 clients, in a hurry.
  cargo xtask bench --json run.json
      Also write every figure to a file, which `kitbag-bench table run.json` prints as tables of
      documents.

A run that is not short fails in the end where a budget is missed that is no ratio to a reference.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a reference server; the measuring process starts these itself.
    #[command(hide = true)]
    Reference(Mode),
    /// Writes the figures of the runs that documents name into these.
    Fill {
        /// The documents; what they name lies below this directory.
        #[arg(required = true, value_name = "FILE")]
        documents: Vec<PathBuf>,
    },
    /// Prints the figures of a run, written by --json, as the tables of documents.
    Table {
        /// What the run wrote.
        #[arg(value_name = "FILE")]
        run: PathBuf,
    },
}

#[derive(Clone, Debug, clap::Args)]
struct BenchArguments {
    /// Only check that every workload runs: each once, for a fraction of a second.
    #[arg(long)]
    short: bool,
    /// Also write the report to this file, as JSON.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Run only workloads whose name contains this.
    #[arg(long, default_value = "", value_name = "TEXT")]
    filter: String,
    /// List the workloads instead of running them.
    #[arg(long)]
    list: bool,
    /// How many pairs of measurements each workload makes.
    #[arg(long, default_value_t = plan::PAIRS_DEFAULT, value_name = "N")]
    pairs: usize,
    /// How long each measurement takes.
    #[arg(long, default_value_t = plan::MEASURE_MS_DEFAULT, value_name = "MS")]
    measure_ms: u64,
    /// How many syncs wait at once; as many as the limit of open files allows, where that is less
    /// [default: 9000, and through the gateway as many as that limit allows].
    #[arg(long, value_name = "N")]
    waiting: Option<usize>,
    /// Keep the data below this directory, which must be on a real disk [default: bench, in the
    /// target directory].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Measure beside a Synapse instead of the references: the Python that has it installed. `cargo
    /// xtask bench --synapse` installs one.
    #[arg(long, value_name = "PYTHON")]
    synapse: Option<PathBuf>,
    /// The program to measure [default: kitbag, next to this program].
    #[arg(long, value_name = "FILE")]
    kitbag: Option<PathBuf>,
}

impl BenchArguments {
    /// The command that makes such a run, without paths, which are those of a machine.
    fn command(&self) -> String {
        let mut command = "cargo xtask bench".to_owned();
        for (is_given, flag) in [
            (self.short, " --short"),
            (self.synapse.is_some(), " --synapse"),
        ] {
            command += if is_given { flag } else { "" };
        }
        if !self.filter.is_empty() {
            command += &format!(" --filter {}", self.filter);
        }
        let numbers = [
            ("pairs", self.pairs as u64, plan::PAIRS_DEFAULT as u64),
            ("measure-ms", self.measure_ms, plan::MEASURE_MS_DEFAULT),
        ];
        for (name, number, default) in numbers {
            if number != default {
                command += &format!(" --{name} {number}");
            }
        }
        if let Some(waiting) = self.waiting {
            command += &format!(" --waiting {waiting}");
        }
        command
    }
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Reference(mode)) => return reference::run(mode),
        Some(Command::Fill { documents }) => return fill(&documents),
        Some(Command::Table { run }) => {
            print!("{}", markdown::tables(&Report::read_json(&run)?));
            return Ok(());
        }
        None => {}
    }
    if arguments.bench.list {
        for name in workloads::names(&arguments.bench) {
            println!("{name}");
        }
        return Ok(());
    }
    // One thread: the load must leave the other processors to what is measured.
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(bench(&arguments.bench))
}

fn fill(documents: &[PathBuf]) -> Result<()> {
    for path in documents {
        let document = fs::read_to_string(path)
            .with_context(|| format!("cannot read `{}`", path.display()))?;
        let filled = markdown::filled(&document, |run| Report::read_json(Path::new(run)))?;
        fs::write(path, filled).with_context(|| format!("cannot write `{}`", path.display()))?;
    }
    Ok(())
}

async fn bench(arguments: &BenchArguments) -> Result<()> {
    let plan = Plan::new(arguments)?;
    let mut report = Report::new(
        Machine::look(&plan.dir, plan.synapse.as_deref(), arguments.command())?,
        &plan,
    );
    println!("{}", report.heading());
    let waiting = arguments.waiting.unwrap_or(plan::WAITING_DEFAULT);
    if plan.waiting < waiting && !plan.is_short {
        println!(
            "warning: the limit of open files lets {} syncs wait, not {waiting}\n",
            plan.waiting
        );
    }
    for name in workloads::names(arguments) {
        let table = workloads::run(name, &plan).await?;
        println!("{}", table.render(plan.is_short));
        report.tables.push(table);
    }
    println!("{}", report.ending());
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    let missed = report.missed();
    ensure!(
        missed.is_empty(),
        "budgets are missed:\n{}",
        missed.join("\n")
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(words: &[&str]) -> String {
        let words = ["kitbag-bench"].iter().chain(words);
        Arguments::parse_from(words).bench.command()
    }

    #[test]
    fn command_of_a_report_makes_such_a_run_anywhere() {
        assert_eq!(command(&[]), "cargo xtask bench");
        let words = [
            "--synapse",
            "/a/python",
            "--json",
            "/b",
            "--pairs",
            "3",
            "--filter",
            "get",
        ];
        let expected = "cargo xtask bench --synapse --filter get --pairs 3";
        assert_eq!(command(&words), expected);
    }
}
