//! `kitbag-bench`: measures Kitbag, each workload beside its reference in the same run.
//!
//! A ratio of two figures of one run means something on any machine; a figure alone does not. So
//! the real `kitbag` and the reference, which is this program in another mode, run as processes of
//! their own and are measured by turns, in pairs.

#![expect(
    clippy::print_stdout,
    reason = "figures are what this program is for, and the reference tells its address"
)]

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
mod workloads;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::machine::Machine;
use crate::plan::Plan;
use crate::reference::Mode;
use crate::report::Report;

/// Kitbag's allocator, so that the references have it too.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
Examples:
  cargo run --release -p kitbag-bench
      Everything; some ten minutes.
  cargo run --release -p kitbag-bench -- --filter put/64 --pairs 3
      Only the puts of 64 clients, in a hurry.
  cargo run --release -p kitbag-bench -- --json run.json
      Also write every figure to a file.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs a reference server; the measuring process starts these itself.
    #[command(hide = true)]
    Reference(Mode),
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
    /// How many syncs wait at once; as many as the limit of open files allows, where that is less.
    #[arg(long, default_value_t = plan::WAITING_DEFAULT, value_name = "N")]
    waiting: usize,
    /// Keep the data below this directory, which must be on a real disk [default: bench, in the
    /// target directory].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// The program to measure [default: kitbag, next to this program].
    #[arg(long, value_name = "FILE")]
    kitbag: Option<PathBuf>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    match arguments.command {
        Some(Command::Reference(mode)) => return reference::run(mode),
        Some(Command::Table { run }) => {
            print!("{}", markdown::tables(&Report::read_json(&run)?));
            return Ok(());
        }
        None => {}
    }
    if arguments.bench.list {
        for name in workloads::names(&arguments.bench.filter) {
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

async fn bench(arguments: &BenchArguments) -> Result<()> {
    let plan = Plan::new(arguments)?;
    let mut report = Report::new(Machine::look(&plan.dir)?, &plan);
    println!("{}", report.heading());
    for name in workloads::names(&arguments.filter) {
        let table = workloads::run(name, &plan).await?;
        println!("{}", table.render(plan.is_short));
        report.tables.push(table);
    }
    println!("{}", report.ending());
    if let Some(path) = &arguments.json {
        report.write_json(path)?;
    }
    Ok(())
}
