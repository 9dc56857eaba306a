//! ARCHITECTURE.md against the workspace.

use std::collections::BTreeSet;

use super::{Findings, Repository, cells, quoted};

const FILE: &str = "ARCHITECTURE.md";

/// The crate table is the first thing that newcomers read: a crate missing there is not found, and
/// one that is gone sends them astray.
///
/// The table is that below a heading with the word "crates"; the first cell names a crate by its
/// folder, in back-quotes.
pub(super) fn table_names_every_crate(repository: &Repository) -> Findings {
    let Some(file) = repository.file(FILE) else {
        return vec![format!("{FILE}: is missing")];
    };
    let named = named(&file.text);
    let members: BTreeSet<_> = repository
        .crates
        .iter()
        .map(|member| member.folder.as_str())
        .collect();
    let mut findings = Findings::new();
    for missing in members.difference(&named) {
        findings.push(format!("{FILE}: the crate table lacks `{missing}`"));
    }
    for gone in named.difference(&members) {
        findings.push(format!(
            "{FILE}: the crate table has `{gone}`, which is no member"
        ));
    }
    findings
}

fn named(text: &str) -> BTreeSet<&str> {
    let mut named = BTreeSet::new();
    let mut in_section = false;
    for line in text.lines() {
        if let Some(heading) = line.strip_prefix('#') {
            in_section = heading.to_lowercase().contains("crates");
        } else if in_section && let Some(cells) = cells(line) {
            named.extend(
                quoted(cells[0])
                    .next()
                    .map(|folder| folder.trim_end_matches('/')),
            );
        }
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(table: &str) -> Findings {
        let text = format!("# Architecture\n\n## Crates\n\n| Crate | What |\n|---|---|\n{table}");
        let crates = [("kitbag-domain", "crates/domain"), ("xtask", "xtask")];
        table_names_every_crate(&Repository::of(&[(FILE, &text)]).with_crates(&crates))
    }

    #[test]
    fn table_of_all_crates_is_fine() {
        let table =
            "| `crates/domain/` | laws |\n| `xtask` | tasks |\n\n## Invariants\n| `no` | |\n";
        assert_eq!(findings(table), Findings::new());
    }

    #[test]
    fn missing_crate_is_found() {
        assert!(findings("| `xtask` | tasks |\n")[0].contains("lacks `crates/domain`"));
    }

    #[test]
    fn gone_crate_is_found() {
        let table = "| `crates/domain` | laws |\n| `xtask` | tasks |\n| `crates/old` | ? |\n";
        assert!(findings(table)[0].contains("has `crates/old`"));
    }

    #[test]
    fn missing_file_is_found() {
        assert_eq!(table_names_every_crate(&Repository::default()).len(), 1);
    }
}
