//! What is told of the mutants, while they run and in the end.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::Verdict;
use super::table::Mutant;

/// How far a run has come.
pub(super) struct Progress {
    started: Instant,
    done: u32,
    all: usize,
}

impl Progress {
    pub(super) fn of(all: usize) -> Self {
        Self {
            started: Instant::now(),
            done: 0,
            all,
        }
    }

    /// Tells of one mutant, of the time that went by, and of about how much is to come.
    pub(super) fn print(&mut self, mutant: &Mutant, verdict: &Verdict, took: Duration) {
        self.done += 1;
        let (done, all, word) = (self.done, self.all, word(verdict));
        let gone = self.started.elapsed();
        let left = u32::try_from(all).unwrap_or(u32::MAX).saturating_sub(done);
        let left = gone.checked_div(done).unwrap_or_default() * left;
        println!(
            "[{done:>3}/{all}] {word:8} {:>5.1} s  {}  ({} gone, about {} left)",
            took.as_secs_f64(),
            mutant.name,
            minutes(gone),
            minutes(left)
        );
        for line in details(verdict) {
            println!("          {line}");
        }
    }
}

/// All results; `Display` is the table.
#[derive(Default)]
pub(super) struct Report {
    files: BTreeMap<String, Row>,
    bad: Vec<(String, Verdict)>,
}

#[derive(Default)]
struct Row {
    mutants: usize,
    red: usize,
    took: Duration,
}

impl Report {
    pub(super) fn add(&mut self, mutant: &Mutant, verdict: Verdict, took: Duration) {
        let row = self.files.entry(mutant.file.clone()).or_default();
        row.mutants += 1;
        row.took += took;
        match verdict {
            Verdict::Red { .. } => row.red += 1,
            bad => self.bad.push((mutant.name.clone(), bad)),
        }
    }

    pub(super) fn is_good(&self) -> bool {
        self.bad.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.files.keys().map(String::len).max().unwrap_or(0);
        writeln!(
            f,
            "{:width$} {:>8} {:>8} {:>8}",
            "file", "mutants", "red", "seconds"
        )?;
        let mut sum = Row::default();
        for (file, Row { mutants, red, took }) in &self.files {
            let seconds = took.as_secs_f64();
            writeln!(f, "{file:width$} {mutants:>8} {red:>8} {seconds:>8.1}")?;
            sum.mutants += mutants;
            sum.red += red;
            sum.took += *took;
        }
        let Row { mutants, red, took } = sum;
        let seconds = took.as_secs_f64();
        write!(f, "{:width$} {mutants:>8} {red:>8} {seconds:>8.1}", "all")?;
        for (name, verdict) in &self.bad {
            write!(f, "\n{}: {name}", word(verdict).to_uppercase())?;
            for line in details(verdict) {
                write!(f, "\n    {line}")?;
            }
        }
        Ok(())
    }
}

fn word(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Broken(_) => "broken",
        Verdict::Red { .. } => "red",
        Verdict::Survived(_) => "survived",
    }
}

fn details(verdict: &Verdict) -> Vec<String> {
    match verdict {
        Verdict::Broken(why) => vec![why.clone()],
        Verdict::Red { hung: 0 } => Vec::new(),
        Verdict::Red { hung } => vec![format!("{hung} hung, which counts as red")],
        Verdict::Survived(green) => green.iter().map(|name| format!("green: {name}")).collect(),
    }
}

fn minutes(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant(name: &str) -> Mutant {
        Mutant {
            name: name.to_owned(),
            file: "a.rs".to_owned(),
            find: String::new(),
            replace: String::new(),
            red: Vec::new(),
        }
    }

    #[test]
    fn only_a_report_of_red_mutants_is_good() {
        let mut report = Report::default();
        report.add(&mutant("m"), Verdict::Red { hung: 1 }, Duration::ZERO);
        assert!(report.is_good());
        for verdict in [
            Verdict::Survived(vec!["area/fact".to_owned()]),
            Verdict::Broken("does not build".to_owned()),
        ] {
            let mut report = Report::default();
            report.add(&mutant("m"), Verdict::Red { hung: 0 }, Duration::ZERO);
            report.add(&mutant("bad"), verdict.clone(), Duration::from_secs(2));
            assert!(!report.is_good());
            let text = report.to_string();
            assert!(text.contains("2        1      2.0"), "{text}");
            assert!(text.contains(": bad\n"), "{text}");
            assert!(text.ends_with(&details(&verdict)[0]), "{text}");
        }
    }
}
