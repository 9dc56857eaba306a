//! Checks of what no compiler checks. Few, each with its reason: a check that nobody needs is noise.

mod architecture;
mod copies;
mod files;
mod links;
mod mutants;
mod records;
mod reliability;
mod spec;
mod suites;
mod walls;

use std::collections::BTreeSet;

use anyhow::bail;

use crate::parts::{Outcome, PartResult};
use crate::tidy::files::SourceFile;
use crate::workspace::{Crate, Workspace};

/// What the checks look at: plain data, so that a test can break any of it.
#[derive(Debug, Default)]
struct Repository {
    crates: Vec<Crate>,
    files: Vec<SourceFile>,
}

/// What a check found, as `file: sentence`, or `crate: sentence`.
type Findings = Vec<String>;

type Check = fn(&Repository) -> Findings;

const CHECKS: [(&str, Check); 12] = [
    ("architecture table", architecture::table_names_every_crate),
    (
        "copied settings",
        copies::references_have_the_settings_of_the_server,
    ),
    (
        "dependency walls",
        walls::dependencies_stay_within_the_walls,
    ),
    ("links", links::relative_links_resolve),
    ("machine paths", files::no_file_names_a_machine_path),
    ("mutants of laws", mutants::every_mutant_names_its_tests),
    ("mutants of scenarios", mutants::every_scenario_can_fail),
    ("record numbers", records::record_numbers_are_unique),
    ("promises", reliability::every_promise_names_its_tests),
    ("spec coverage", spec::every_route_has_a_row),
    ("spec evidence", spec::every_row_names_its_evidence),
    ("store suites", suites::every_store_runs_the_suite),
];

const WARNINGS: [(&str, Check); 1] = [("file length", files::files_are_short_enough_to_read)];

/// `cargo xtask tidy`.
pub(crate) fn task(workspace: &Workspace) -> anyhow::Result<()> {
    part(workspace).map(drop)
}

/// All checks; every finding is shown, not only the first.
pub(crate) fn part(workspace: &Workspace) -> PartResult {
    let repository = Repository {
        crates: workspace.crates.clone(),
        files: files::read_all(&workspace.root, &workspace.target)?,
    };
    for (name, check) in WARNINGS {
        for finding in check(&repository) {
            println!("warning: {name}: {finding}");
        }
    }
    let mut findings = 0;
    for (name, check) in CHECKS {
        for finding in check(&repository) {
            println!("error: {name}: {finding}");
            findings += 1;
        }
    }
    if findings > 0 {
        bail!("tidy has {findings} findings");
    }
    println!("{} checks, {} files", CHECKS.len(), repository.files.len());
    Ok(Outcome::Passed(Some(u64::try_from(CHECKS.len())?)))
}

impl Repository {
    fn file(&self, path: &str) -> Option<&SourceFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// The files whose path begins with `folder` and ends with `end`.
    fn below<'a>(
        &'a self,
        folder: &'a str,
        end: &'a str,
    ) -> impl Iterator<Item = &'a SourceFile> + use<'a> {
        self.files
            .iter()
            .filter(move |file| file.path.starts_with(folder) && file.path.ends_with(end))
    }

    /// All files and all folders that hold one.
    fn paths(&self) -> BTreeSet<&str> {
        let mut paths = BTreeSet::from([""]);
        for file in &self.files {
            paths.insert(&file.path);
            paths.extend(
                file.path
                    .match_indices('/')
                    .map(|(end, _)| &file.path[..end]),
            );
        }
        paths
    }
}

/// The cells of a Markdown table row, or nothing for any other line and for `|---|` lines.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inner = line.trim().strip_prefix('|')?.strip_suffix('|')?;
    let cells: Vec<_> = inner.split('|').map(str::trim).collect();
    let rule = |cell: &&str| cell.chars().all(|c| matches!(c, '-' | ':'));
    (!cells.iter().all(rule)).then_some(cells)
}

/// The pieces of a text that stand between back-quotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Repository {
        /// A repository of these files and nothing else.
        pub(super) fn of(files: &[(&str, &str)]) -> Self {
            let files = files.iter().map(|(path, text)| SourceFile {
                path: (*path).to_owned(),
                text: (*text).to_owned(),
            });
            Self {
                crates: Vec::new(),
                files: files.collect(),
            }
        }

        /// The same with crates of these names and folders.
        pub(super) fn with_crates(mut self, crates: &[(&str, &str)]) -> Self {
            self.crates = crates
                .iter()
                .map(|(name, folder)| Crate {
                    name: (*name).to_owned(),
                    folder: (*folder).to_owned(),
                    dependencies: Vec::new(),
                })
                .collect();
            self
        }
    }

    #[test]
    fn cells_are_those_of_a_row() {
        assert_eq!(cells("| a | `b` |"), Some(vec!["a", "`b`"]));
        assert_eq!(cells("|---|:-:|"), None);
        assert_eq!(cells("text"), None);
    }
}
