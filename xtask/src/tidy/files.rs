//! The files of the repository, and checks of every one.

use std::fs;
use std::path::Path;

use anyhow::Context as _;

use super::{Findings, Repository};

/// A text file of the repository.
#[derive(Clone, Debug, Default)]
pub(super) struct SourceFile {
    /// Relative to the root, with `/`.
    pub(super) path: String,
    /// What it says.
    pub(super) text: String,
}

/// More than this, tests apart, and a reader loses the thread.
const LINES_MAX: usize = 600;

/// What is made, not written: nobody keeps it in order. Where git has several working trees, `.git` is
/// a file.
const SKIPPED: [&str; 5] = [
    ".git",
    "__pycache__",
    "kitbag-data",
    "node_modules",
    "target",
];

/// Folders of the machines that we build on. In pieces, so that this file does not name them.
const MACHINE_PATHS: [&str; 4] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/tmp/", "target"),
    concat!("/ho", "me/"),
];

/// Reads every text file below the root; `target` may lie there under any name.
pub(super) fn read_all(root: &Path, target: &Path) -> anyhow::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    read_folder(root, "", target, &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}

fn read_folder(
    folder: &Path,
    prefix: &str,
    target: &Path,
    files: &mut Vec<SourceFile>,
) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("cannot list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let kind = entry.file_type()?;
        if SKIPPED.contains(&name.as_ref()) || path == target {
            continue;
        }
        if kind.is_dir() {
            read_folder(&path, &format!("{prefix}{name}/"), target, files)?;
        } else if kind.is_file() {
            let bytes =
                fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
            // Anything else is not text, and no check is for it: the path alone counts.
            let text = String::from_utf8(bytes).unwrap_or_default();
            files.push(SourceFile {
                path: format!("{prefix}{name}"),
                text,
            });
        }
    }
    Ok(())
}

/// A path of one machine in a file means that the file works there and nowhere else.
pub(super) fn no_file_names_a_machine_path(repository: &Repository) -> Findings {
    let mut findings = Findings::new();
    for file in &repository.files {
        for (index, line) in file.text.lines().enumerate() {
            if MACHINE_PATHS.iter().any(|path| names_path(line, path)) {
                findings.push(format!(
                    "{}:{}: names a machine's path",
                    file.path,
                    index + 1
                ));
            }
        }
    }
    findings
}

/// Whether the path stands there from its root, not as the middle of a longer one.
fn names_path(line: &str, path: &str) -> bool {
    let inside = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | '}' | ')' | '*');
    line.match_indices(path)
        .any(|(start, _)| !line[..start].ends_with(inside))
}

/// Long files are where readers get lost and where changes collide; tests do not count.
pub(super) fn files_are_short_enough_to_read(repository: &Repository) -> Findings {
    let rust = repository.below("", ".rs");
    let long = rust.filter_map(|file| {
        let code = file
            .text
            .split("#[cfg(test)]\nmod tests")
            .next()
            .unwrap_or_default();
        let lines = code.lines().count();
        let path = &file.path;
        (lines > LINES_MAX).then(|| format!("{path}: {lines} lines, at most {LINES_MAX}"))
    });
    long.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_path_is_found() {
        for path in MACHINE_PATHS {
            let text = format!("see {path}here");
            let repository = Repository::of(&[("a.md", &text)]);
            assert_eq!(no_file_names_a_machine_path(&repository).len(), 1, "{path}");
        }
    }

    #[test]
    fn path_that_only_contains_the_words_is_fine() {
        let text = concat!("crates/wo", "rk/x and https://example.org/ho", "me/");
        let repository = Repository::of(&[("a.md", text)]);
        assert_eq!(no_file_names_a_machine_path(&repository), Findings::new());
    }

    #[test]
    fn long_file_is_found_but_its_tests_do_not_count() {
        let long = "x\n".repeat(LINES_MAX + 1);
        let tested = format!("x\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
        let repository = Repository::of(&[("a.rs", &long), ("b.rs", &tested), ("c.md", &long)]);
        let findings = files_are_short_enough_to_read(&repository);
        assert_eq!(findings, [format!("a.rs: 601 lines, at most {LINES_MAX}")]);
    }
}
