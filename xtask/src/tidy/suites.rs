//! Every backend against the one suite.

use super::{Findings, Repository};

const CALL: &str = "store_suite!";

/// A backend that does not run the suite may break any law unseen; with the call checked here it
/// cannot be commented out either.
pub(super) fn every_store_runs_the_suite(repository: &Repository) -> Findings {
    let stores = repository
        .crates
        .iter()
        .filter(|member| member.name.starts_with("kitbag-store-"));
    let without = stores.filter(|store| {
        let folder = format!("{}/", store.folder);
        !repository
            .below(&folder, ".rs")
            .any(|file| calls(&file.text))
    });
    without
        .map(|store| format!("{}: no file calls `testkit::{CALL}`", store.name))
        .collect()
}

fn calls(text: &str) -> bool {
    text.lines()
        .any(|line| line.split("//").next().unwrap_or_default().contains(CALL))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Findings {
        let crates = [
            ("kitbag-store-x", "crates/store-x"),
            ("kitbag-domain", "crates/domain"),
        ];
        let file = ("crates/store-x/tests/suite.rs", text);
        every_store_runs_the_suite(&Repository::of(&[file]).with_crates(&crates))
    }

    #[test]
    fn store_with_the_suite_is_fine() {
        assert_eq!(
            findings("kitbag_testkit::store_suite!(open);\n"),
            Findings::new()
        );
    }

    #[test]
    fn store_without_the_suite_is_found() {
        assert_eq!(findings("fn main() {}\n").len(), 1);
    }

    #[test]
    fn suite_in_a_comment_is_found() {
        assert_eq!(
            findings("// kitbag_testkit::store_suite!(open);\n").len(),
            1
        );
    }
}
