//! Settings that the references of the bench copy, since the walls keep the originals out of reach.

use super::{Findings, Repository};

const HTTP: &str = "crates/http/src/edge.rs";
const SETTINGS: &str = "docs/kitbag.example.toml";
const OPTIONS: &str = "crates/store-sqlite/src/options.rs";
const FORMAT: &str = "crates/store-sqlite/src/format.rs";
const LISTENER: &str = "bench/src/reference/listener.rs";
const ENGINE: &str = "bench/src/reference/engine.rs";

/// A value and its copy: the file of each, and what stands before it there.
type Copy = [(&'static str, &'static str); 2];

const COPIES: [Copy; 13] = [
    [
        (HTTP, "const HEAD_BYTES_MAX: usize = "),
        (LISTENER, "const HEAD_BYTES_MAX: usize = "),
    ],
    [
        (SETTINGS, "header_timeout_ms = "),
        (LISTENER, "const HEADER_TIMEOUT_MS: u64 = "),
    ],
    [
        (SETTINGS, "connections_max = "),
        (LISTENER, "const CONNECTIONS_MAX: usize = "),
    ],
    [
        (OPTIONS, "pub const WRITE_QUEUE_JOBS_MAX: usize = "),
        (ENGINE, "const QUEUE_JOBS_MAX: usize = "),
    ],
    [
        (OPTIONS, "pub const BATCH_JOBS_MAX: usize = "),
        (ENGINE, "const BATCH_JOBS_MAX: usize = "),
    ],
    [
        (OPTIONS, "pub const CHECKPOINT_FRAMES: u64 = "),
        (ENGINE, "const CHECKPOINT_FRAMES: i32 = "),
    ],
    [
        (OPTIONS, "pub const PAGE_CACHE_KIB: u32 = "),
        (ENGINE, "PRAGMA cache_size = -"),
    ],
    pragma("PRAGMA secure_delete = "),
    pragma("PRAGMA foreign_keys = "),
    pragma("PRAGMA cell_size_check = "),
    pragma("PRAGMA mmap_size = "),
    pragma("PRAGMA temp_store = "),
    pragma("PRAGMA wal_autocheckpoint = "),
];

const fn pragma(statement: &'static str) -> Copy {
    [(FORMAT, statement), (ENGINE, statement)]
}

/// A reference with other settings than the server's does other work, and its figures lie.
pub(super) fn references_have_the_settings_of_the_server(repository: &Repository) -> Findings {
    let mut findings = Findings::new();
    for copy in COPIES {
        let [original, copied] = copy.map(|(path, before)| {
            let value = repository
                .file(path)
                .and_then(|file| value(&file.text, before));
            if value.is_none() {
                findings.push(format!(
                    "{path}: `{before}` is not there: name it in copies.rs"
                ));
            }
            value
        });
        if let (Some(original), Some(copied)) = (original, copied)
            && original != copied
        {
            let [(path, _), (copy, name)] = copy;
            findings.push(format!(
                "{copy}: `{name}` is {copied}, but {original} in {path}"
            ));
        }
    }
    findings
}

/// What stands behind `before`, at the beginning of a line, up to the end of the value.
fn value(text: &str, before: &str) -> Option<String> {
    let rest = text
        .lines()
        .find_map(|line| line.trim_start().strip_prefix(before))?;
    let value = rest.split(';').next().unwrap_or_default().trim();
    Some(value.replace('_', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The files that [`COPIES`] names, where each value is 1, but for one line.
    fn findings(other: (&str, &str)) -> Findings {
        let paths = [HTTP, SETTINGS, OPTIONS, FORMAT, LISTENER, ENGINE];
        let texts = paths.map(|path| {
            let lines = COPIES.iter().flatten().filter(|(file, _)| *file == path);
            let lines = lines.map(|(_, before)| match other {
                (file, line) if file == path && line.starts_with(before) => format!("{line}\n"),
                _ => format!("    {before}1_0;\n"),
            });
            lines.collect::<String>()
        });
        let files: Vec<_> = paths
            .into_iter()
            .zip(texts.iter().map(String::as_str))
            .collect();
        references_have_the_settings_of_the_server(&Repository::of(&files))
    }

    #[test]
    fn same_values_are_fine_however_their_digits_are_grouped() {
        assert_eq!(findings(("", "")), Findings::new());
        let line = "const BATCH_JOBS_MAX: usize = 10;";
        assert_eq!(findings((ENGINE, line)), Findings::new());
    }

    #[test]
    fn other_value_on_either_side_is_found() {
        for (file, line) in [
            (ENGINE, "const BATCH_JOBS_MAX: usize = 11;"),
            (FORMAT, "PRAGMA mmap_size = 11;"),
            (SETTINGS, "connections_max = 11"),
        ] {
            assert_eq!(findings((file, line)).len(), 1, "{line}");
        }
    }

    #[test]
    fn value_that_is_not_there_any_more_is_found() {
        let found = references_have_the_settings_of_the_server(&Repository::of(&[]));
        assert_eq!(found.len(), 2 * COPIES.len());
    }
}
