//! The numbers of the architecture decision records.

use std::collections::BTreeMap;

use super::{Findings, Repository};

const FOLDER: &str = "docs/adr/";

/// Records are cited by number: two of one number, made on two branches, make every citation
/// ambiguous.
pub(super) fn record_numbers_are_unique(repository: &Repository) -> Findings {
    let mut findings = Findings::new();
    let mut seen = BTreeMap::new();
    for file in repository.below(FOLDER, ".md") {
        let name = &file.path[FOLDER.len()..];
        if name == "README.md" {
            continue;
        }
        let Some(number) = number(name) else {
            findings.push(format!("{}: the name is not NNNN-title.md", file.path));
            continue;
        };
        if let Some(other) = seen.insert(number, &file.path) {
            findings.push(format!("{}: {other} has the same number", file.path));
        }
    }
    findings
}

fn number(name: &str) -> Option<&str> {
    let (number, title) = name.split_once('-')?;
    let digits = number.len() == 4 && number.chars().all(|c| c.is_ascii_digit());
    (digits && title.len() > ".md".len()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(names: &[&str]) -> Findings {
        let paths: Vec<_> = names.iter().map(|name| format!("{FOLDER}{name}")).collect();
        let files: Vec<_> = paths.iter().map(|path| (path.as_str(), "")).collect();
        record_numbers_are_unique(&Repository::of(&files))
    }

    #[test]
    fn different_numbers_are_fine() {
        assert_eq!(
            findings(&["0001-a.md", "0002-b.md", "README.md"]),
            Findings::new()
        );
    }

    #[test]
    fn same_number_is_found() {
        assert!(findings(&["0001-a.md", "0001-b.md"])[0].contains("the same number"));
    }

    #[test]
    fn name_without_a_number_is_found() {
        assert_eq!(findings(&["engine.md"]).len(), 1);
    }
}
