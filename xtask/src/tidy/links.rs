//! The links of the Markdown files.

use std::collections::BTreeSet;

use super::{Findings, Repository};

/// A dead link in a document says that nobody reads it.
pub(super) fn relative_links_resolve(repository: &Repository) -> Findings {
    let paths = repository.paths();
    let mut findings = Findings::new();
    for file in repository.below("", ".md") {
        for (number, target) in links(&file.text) {
            let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
            let place = format!("{}:{number}", file.path);
            let path = if path.is_empty() {
                Some(file.path.clone())
            } else {
                resolve(&file.path, path)
            };
            match path.filter(|path| paths.contains(path.as_str())) {
                None => findings.push(format!("{place}: `{target}` is not there")),
                Some(path) if path.ends_with(".md") && !anchor.is_empty() => {
                    let text = repository.file(&path).map_or("", |file| &file.text);
                    if !anchors(text).contains(anchor) {
                        findings.push(format!("{place}: `{target}` is no heading there"));
                    }
                }
                Some(_) => {}
            }
        }
    }
    findings
}

/// The targets of inline links that lie in this repository, with their line.
fn links(text: &str) -> Vec<(usize, &str)> {
    let mut links = Vec::new();
    for (number, line) in prose(text) {
        // What stands in back-quotes is an example, not a link.
        for piece in line.split('`').step_by(2) {
            for (start, _) in piece.match_indices("](") {
                let target = piece[start + 2..]
                    .split([')', ' '])
                    .next()
                    .unwrap_or_default();
                if !target.contains("://") && !target.starts_with("mailto:") && !target.is_empty() {
                    links.push((number, target));
                }
            }
        }
    }
    links
}

/// The lines outside fenced blocks, with their number.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// The path from the root, or nothing if the link leads out of the repository.
fn resolve(from: &str, link: &str) -> Option<String> {
    let mut parts: Vec<&str> = if link.starts_with('/') {
        Vec::new()
    } else {
        from.split('/')
            .rev()
            .skip(1)
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect()
    };
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The names by which headings can be linked: lower case, punctuation dropped, spaces as hyphens.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = prose(text).filter_map(|(_, line)| {
        let heading = line.trim_start_matches('#');
        (heading.len() < line.len()).then(|| heading.trim().to_lowercase())
    });
    headings
        .map(|heading| {
            let kept = |c: &char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
            heading
                .chars()
                .filter(kept)
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn findings(text: &str) -> Findings {
        relative_links_resolve(&Repository::of(&[
            ("docs/a.md", text),
            ("docs/adr/0001-x.md", "# 1. Why `x`?\n"),
            ("README.md", ""),
        ]))
    }

    #[test]
    fn links_to_files_folders_and_headings_are_fine() {
        let text = "[a](adr/0001-x.md) [b](../README.md) [c](adr/) [d](adr/0001-x.md#1-why-x)\n\
                    [e](https://example.org/x) ![f](/README.md) [g](#here)\n# Here\n";
        assert_eq!(findings(text), Findings::new());
    }

    #[test]
    fn link_to_nothing_is_found() {
        assert!(findings("\n[a](gone.md)")[0].contains("docs/a.md:2: `gone.md`"));
    }

    #[test]
    fn link_out_of_the_repository_is_found() {
        assert_eq!(findings("[a](../../README.md)").len(), 1);
    }

    #[test]
    fn link_to_a_missing_heading_is_found() {
        assert!(findings("[a](adr/0001-x.md#2-why)")[0].contains("no heading"));
    }

    #[test]
    fn examples_are_not_links() {
        assert_eq!(
            findings("`[a](gone.md)`\n```text\n[a](gone.md)\n```\n"),
            Findings::new()
        );
    }
}
