//! `cargo xtask fuzz`: libFuzzer on each target of `fuzz/`, led by coverage.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use crate::parts::{Outcome, PartResult};
use crate::process::{self, Ended};
use crate::workspace::Workspace;

/// What makes a stable compiler count edges and compares for libFuzzer, as cargo-fuzz has it. There
/// is no sanitizer: no crate has unsafe code.
const INSTRUMENTATION: &str = "--cfg fuzzing -Ccodegen-units=1 -Cpasses=sancov-module \
    -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
    -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares";
/// How long `ci --long` runs each target.
const SECONDS: u64 = 60;
/// How long one input may take before it counts as a finding.
const INPUT_SECONDS_MAX: u64 = 10;
/// Memory that a target may take; the largest takes a fifth.
const MEMORY_MIB_MAX: u64 = 1_024;
/// What a run may take beyond its time, for reading the corpus and for the last input.
const SURPLUS: Duration = Duration::from_secs(120);

/// What to fuzz, and for how long.
#[derive(Clone, Debug, Args)]
pub(crate) struct FuzzArguments {
    /// How long each target runs.
    #[arg(long, default_value_t = SECONDS)]
    seconds: u64,
    /// The targets, all if none is named: files of `fuzz/fuzz_targets` without `.rs`.
    targets: Vec<String>,
}

/// `cargo xtask fuzz`.
pub(crate) fn task(workspace: &Workspace, arguments: &FuzzArguments) -> anyhow::Result<()> {
    match run(workspace, arguments)? {
        Outcome::NotRun(why) => bail!("{why}"),
        Outcome::Failed(_) | Outcome::Passed(_) => Ok(()),
    }
}

/// All targets, a minute each; counts the executions.
pub(crate) fn part(workspace: &Workspace) -> PartResult {
    let arguments = FuzzArguments {
        seconds: SECONDS,
        targets: Vec::new(),
    };
    run(workspace, &arguments)
}

fn run(workspace: &Workspace, arguments: &FuzzArguments) -> PartResult {
    // As the build script of libfuzzer-sys looks for it.
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    if process::ask(Command::new(&compiler).arg("--version")).is_none() {
        let compiler = compiler.display();
        let why = format!("no C++ compiler `{compiler}`, which libFuzzer is built with");
        return Ok(Outcome::NotRun(why));
    }
    let fuzzing = Fuzzing {
        source: workspace.path("fuzz"),
        target: workspace.target.join("fuzz"),
    };
    let known = fuzzing.targets()?;
    let chosen = if arguments.targets.is_empty() {
        &known
    } else {
        &arguments.targets
    };
    for name in chosen {
        let known = known.join(", ");
        ensure!(
            known.split(", ").any(|k| k == name),
            "no target `{name}`: there are {known}"
        );
    }
    let programs = fuzzing.build()?;
    let mut executions = 0;
    println!("target           executions  edges  inputs");
    for name in chosen {
        let program = programs.join(name);
        let report = fuzzing.fuzz(name, &program, arguments.seconds)?;
        let Report {
            runs,
            edges,
            inputs,
        } = report;
        println!("{name:<15}  {runs:>10} {edges:>6} {inputs:>7}");
        executions += runs;
    }
    Ok(Outcome::Passed(Some(executions)))
}

/// What libFuzzer says of a run.
#[derive(Debug, Eq, PartialEq)]
struct Report {
    runs: u64,
    edges: u64,
    inputs: u64,
}

/// The folders that fuzzing uses.
struct Fuzzing {
    /// `fuzz/` of the repository.
    source: PathBuf,
    /// Where it is built, and where corpora grow and findings go.
    target: PathBuf,
}

impl Fuzzing {
    fn targets(&self) -> anyhow::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.source.join("fuzz_targets"))? {
            let path = entry?.path();
            let name = path.file_stem().context("a file has a name")?;
            names.push(name.to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    /// Builds all targets and returns the folder of the programs.
    fn build(&self) -> anyhow::Result<PathBuf> {
        let about = process::ask(Command::new("rustc").arg("-vV")).context("rustc is not there")?;
        let host = about.lines().find_map(|line| line.strip_prefix("host: "));
        let host = host.context("rustc does not name its host")?;
        let target = self.target.display().to_string();
        // With the target named, build scripts and macros are not instrumented.
        let arguments = [
            "build",
            "--release",
            "--target",
            host,
            "--target-dir",
            &target,
        ];
        let mut command = process::cargo(&self.source, arguments);
        command.env("RUSTFLAGS", INSTRUMENTATION);
        process::run(command)?;
        Ok(self.target.join(host).join("release"))
    }

    /// Runs one target for its time.
    fn fuzz(&self, name: &str, program: &Path, seconds: u64) -> anyhow::Result<Report> {
        let corpus = self.folder("corpus", name)?;
        let findings = self.folder("artifacts", name)?;
        let log = self.folder("logs", name)?.join("log.txt");
        let mut command = Command::new(program);
        command
            .arg(&corpus)
            .arg(self.committed(name))
            .arg(format!("-dict={}", self.dictionary(name).display()))
            .arg(format!("-artifact_prefix={}/", findings.display()))
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
            .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"))
            .arg("-print_final_stats=1");
        process::remove_own_variables(&mut command);
        let limit = Duration::from_secs(seconds) + SURPLUS;
        let ended = process::run_within(&command, limit, &log)?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        if !matches!(ended, Ended::By(status) if status.success()) {
            bail!("{}", self.finding(name, program, &text, &log));
        }
        report(&text).with_context(|| format!("no coverage in {}", log.display()))
    }

    /// Says what was found and how to see it again.
    fn finding(&self, name: &str, program: &Path, text: &str, log: &Path) -> String {
        let panicked = text
            .lines()
            .skip_while(|line| !line.contains("panicked at"));
        let panicked: Vec<&str> = panicked.take(3).collect();
        let written = text
            .lines()
            .find_map(|line| line.split_once("Test unit written to "));
        let Some((_, input)) = written else {
            return format!("{name} did not end well: see {}", log.display());
        };
        let (program, log) = (program.display(), log.display());
        let corpus = self.committed(name);
        let corpus = corpus.display();
        format!(
            "{name}: {}\nthe input:  {input}\nonce more:  {program} {input}\nthe log:    {log}\n\
             once mended, copy the input to {corpus}, and each `cargo xtask test` runs it",
            panicked.join("\n")
        )
    }

    fn committed(&self, name: &str) -> PathBuf {
        self.source.join("corpus").join(name)
    }

    fn dictionary(&self, name: &str) -> PathBuf {
        self.source
            .join("dictionaries")
            .join(format!("{name}.dict"))
    }

    fn folder(&self, kind: &str, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.target.join(kind).join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}

/// Reads the last line of progress, `#9 DONE cov: 12 ft: 34 corp: 5/67b …`, and the final figures;
/// without instrumentation there is no `cov`.
fn report(text: &str) -> Option<Report> {
    let number_behind = |name: &str| {
        let line = text.lines().rev().find(|line| line.contains(name))?;
        let rest = line.split_once(name)?.1.trim_start();
        let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
        digits.parse().ok()
    };
    Some(Report {
        runs: number_behind("stat::number_of_executed_units:")?,
        edges: number_behind(" cov: ")?,
        inputs: number_behind(" corp: ")?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "#2\tINITED cov: 7 ft: 8 corp: 1/1b exec/s: 0 rss: 27Mb\n\
        #99\tDONE   cov: 211 ft: 536 corp: 141/47Kb lim: 4096 exec/s: 360957 rss: 27Mb\n\
        stat::number_of_executed_units: 5775323\n";

    #[test]
    fn the_report_is_that_of_the_end() {
        let report = report(LOG).unwrap();
        let expected = Report {
            runs: 5_775_323,
            edges: 211,
            inputs: 141,
        };
        assert_eq!(report, expected);
    }

    #[test]
    fn a_run_without_coverage_has_no_report() {
        assert_eq!(report(&LOG.replace(" cov: ", " ")), None);
    }

    #[test]
    fn a_finding_names_the_input_and_how_to_see_it_again() {
        let fuzzing = Fuzzing {
            source: "source".into(),
            target: "target".into(),
        };
        let log = "thread 'x' panicked at a.rs:1:2:\nwhat broke\n\
            artifact_prefix='a/'; Test unit written to a/crash-1\n";
        let text = fuzzing.finding("id", "bin/id".as_ref(), log, "log.txt".as_ref());
        for part in ["what broke", "bin/id a/crash-1", "source/corpus/id"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
