//! docs/reliability.md against the tests that it names.

use super::{Findings, Repository};

const FILE: &str = "docs/reliability.md";
/// A name of so many words is that of a test.
const WORDS_MIN: usize = 4;

/// A promise whose test was renamed or removed is a promise that nobody keeps.
pub(super) fn every_promise_names_its_tests(repository: &Repository) -> Findings {
    let Some(document) = repository.file(FILE) else {
        return Findings::new();
    };
    let missing = names(&document.text).filter(|name| {
        let function = format!("fn {name}(");
        !repository
            .below("", ".rs")
            .any(|file| file.text.contains(&function))
    });
    missing
        .map(|name| format!("{FILE}: there is no test `{name}`"))
        .collect()
}

fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|quoted| {
        let is_name = |word: &str| {
            word.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_numeric())
        };
        quoted.split('_').count() >= WORDS_MIN && quoted.split('_').all(is_name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(document: &str) -> Findings {
        let test = ("crates/x/tests/a.rs", "fn what_was_said_is_there() {}\n");
        every_promise_names_its_tests(&Repository::of(&[(FILE, document), test]))
    }

    #[test]
    fn test_that_exists_is_fine() {
        let text = "`what_was_said_is_there`, `law_suite!` and `put_empty_deletes`\n";
        assert_eq!(findings(text), Findings::new());
    }

    #[test]
    fn test_that_is_gone_is_found() {
        let found = findings("`what_was_said_is_gone`\n");
        assert_eq!(
            found,
            ["docs/reliability.md: there is no test `what_was_said_is_gone`"]
        );
    }
}
