//! `cargo xtask mutants`: takes rules out of the product, one at a time, and sees tests notice.
//!
//! A test is worth something once it was seen to fail. The tables name for each rule who notices
//! its absence; here they have to prove it.

mod copy;
mod programs;
mod report;
mod scenarios;
pub(crate) mod table;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::parts::{Outcome, PartResult};
use crate::workspace::Workspace;
use copy::Copy;
use report::{Progress, Report};
use table::{Mutant, Table, TestName};

/// Which mutants, and where to work.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct MutantsArguments {
    /// Only mutants whose name contains this; several are possible.
    #[arg(long, value_name = "SUBSTRING")]
    only: Vec<String>,
    /// Only the mutants of this table.
    #[arg(long)]
    table: Option<Table>,
    /// Where the copy and what is built of it lie, instead of below the target directory.
    #[arg(long, value_name = "DIR")]
    jobs_dir: Option<PathBuf>,
    /// List the mutants and who notices them, and do nothing.
    #[arg(long)]
    list: bool,
}

/// How a test or scenario ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Colour {
    Green,
    Red,
    /// It did not end in its time, which is as good as red: a mutant may well wait for ever.
    Hung,
}

/// What became of a mutant.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Verdict {
    /// Something is wrong with its row of the table, such as that it does not compile.
    Broken(String),
    /// All who were named noticed it; so many of them by hanging.
    Red { hung: usize },
    /// These did not.
    Survived(Vec<String>),
}

/// `cargo xtask mutants`.
pub(crate) fn task(workspace: &Workspace, arguments: &MutantsArguments) -> anyhow::Result<()> {
    if arguments.list {
        for (_, mutant) in chosen(workspace, arguments)? {
            println!("{}  ({})", mutant.name, mutant.file);
            for name in &mutant.red {
                println!("    {name}");
            }
        }
        return Ok(());
    }
    run(workspace, arguments).map(drop)
}

/// All mutants of all tables.
pub(crate) fn part(workspace: &Workspace) -> PartResult {
    let count = run(workspace, &MutantsArguments::default())?;
    Ok(Outcome::Passed(Some(u64::try_from(count)?)))
}

/// Sees every chosen mutant red; returns how many there are.
fn run(workspace: &Workspace, arguments: &MutantsArguments) -> anyhow::Result<usize> {
    let mutants = chosen(workspace, arguments)?;
    let dir = arguments.jobs_dir.clone();
    let dir = dir.unwrap_or_else(|| workspace.target.join("mutants"));
    let copy = Copy::refresh(&workspace.root, &dir)?;
    println!("{} mutants of commit {}", mutants.len(), copy.commit);
    for table in Table::ALL {
        see_green(&copy, table, &mutants)?;
    }
    let mut report = Report::default();
    let mut progress = Progress::of(mutants.len());
    for (table, mutant) in &mutants {
        let started = Instant::now();
        let verdict = judge(&copy, *table, mutant);
        progress.print(mutant, &verdict, started.elapsed());
        report.add(mutant, verdict, started.elapsed());
    }
    println!("\n{report}");
    ensure!(report.is_good(), "not every mutant is red");
    Ok(mutants.len())
}

/// The tables are those of the working tree, so that a new row can be tried before it is committed.
fn chosen(
    workspace: &Workspace,
    arguments: &MutantsArguments,
) -> anyhow::Result<Vec<(Table, Mutant)>> {
    let mut mutants = Vec::new();
    for table in Table::ALL {
        if arguments.table.is_some_and(|only| only != table) {
            continue;
        }
        let path = workspace.path(table.file());
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let rows = table::read(&text).with_context(|| format!("{} is wrong", table.file()))?;
        mutants.extend(rows.into_iter().map(|mutant| (table, mutant)));
    }
    let only = &arguments.only;
    mutants.retain(|(_, mutant)| {
        only.is_empty() || only.iter().any(|part| mutant.name.contains(part.as_str()))
    });
    // A run of nothing shows nothing.
    ensure!(!mutants.is_empty(), "there is no such mutant");
    Ok(mutants)
}

/// Checks that all who are to notice a mutant pass where nothing is taken out.
fn see_green(copy: &Copy, table: Table, mutants: &[(Table, Mutant)]) -> anyhow::Result<()> {
    let of_table = mutants.iter().filter(|(of, _)| *of == table);
    let named: BTreeSet<&str> = of_table
        .flat_map(|(_, mutant)| mutant.red.iter().map(String::as_str))
        .collect();
    if named.is_empty() {
        return Ok(());
    }
    let started = Instant::now();
    let named: Vec<&str> = named.into_iter().collect();
    let colours = colours(copy, table, &named).context("with nothing taken out")?;
    let wrong: Vec<&str> = named
        .iter()
        .zip(colours)
        .filter(|(_, colour)| *colour != Colour::Green)
        .map(|(name, _)| *name)
        .collect();
    if !wrong.is_empty() {
        bail!("red with nothing taken out:\n{}", wrong.join("\n"));
    }
    let (count, seconds) = (named.len(), started.elapsed().as_secs());
    println!("{count} named in {} are green: {seconds} s", table.file());
    Ok(())
}

fn judge(copy: &Copy, table: Table, mutant: &Mutant) -> Verdict {
    let named: Vec<&str> = mutant.red.iter().map(String::as_str).collect();
    let colours = copy.mutate(mutant).and_then(|mutated| {
        let colours = colours(copy, table, &named);
        drop(mutated);
        colours
    });
    let colours = match colours {
        Ok(colours) => colours,
        Err(error) => return Verdict::Broken(format!("{error:#}")),
    };
    let green = named.iter().zip(&colours);
    let green = green.filter(|(_, colour)| **colour == Colour::Green);
    let green: Vec<String> = green.map(|(name, _)| (*name).to_owned()).collect();
    let hung = colours.iter().filter(|colour| **colour == Colour::Hung);
    if green.is_empty() {
        Verdict::Red { hung: hung.count() }
    } else {
        Verdict::Survived(green)
    }
}

/// Builds what is needed and tells how each of `named` ends, in their order.
fn colours(copy: &Copy, table: Table, named: &[&str]) -> anyhow::Result<Vec<Colour>> {
    match table {
        Table::Conformance => {
            let colours = scenarios::run(copy, named.iter().copied())?;
            Ok(named.iter().map(|name| colours[name]).collect())
        }
        Table::Laws => {
            let parse = |name: &&str| {
                let parsed = name.parse::<TestName>();
                parsed.map_err(|_| anyhow::anyhow!("`{name}` is not the name of a test"))
            };
            let tests: Vec<TestName> = named.iter().map(parse).collect::<Result<_, _>>()?;
            let colours = programs::run(copy, &tests.iter().cloned().collect())?;
            Ok(tests.iter().map(|test| colours[test]).collect())
        }
    }
}
