//! docs/spec.md against the route table and against the scenarios.

use std::collections::BTreeSet;

use super::{Findings, Repository, cells, quoted};

const FILE: &str = "docs/spec.md";

const ROUTES: &str = "crates/http/src/routes.rs";

const SCENARIOS: &str = "conformance/src/scenarios/";

/// What docs/spec.md says of itself must hold in both directions; this is the one from the code:
/// an endpoint that is served and not written down is a promise that nobody knows of.
///
/// A row names a path in back-quotes, with or without method and prefix; what stands between
/// braces may be called differently.
pub(super) fn every_route_has_a_row(repository: &Repository) -> Findings {
    let Some(routes) = repository.file(ROUTES) else {
        return vec![format!("{ROUTES}: is missing")];
    };
    let paths = route_paths(&routes.text);
    if paths.is_empty() {
        return vec![format!("{ROUTES}: no route was found")];
    }
    let Some(spec) = repository.file(FILE) else {
        return vec![format!("{FILE}: is missing")];
    };
    let documented: BTreeSet<_> = rows(&spec.text)
        .flat_map(|row| row_paths(row.line))
        .collect();
    let without = paths.into_iter().filter(|path| {
        let path = nameless(path);
        !documented.iter().any(|row| serves(row, &path))
    });
    without
        .map(|path| format!("{FILE}: no row for the route `{path}`"))
        .collect()
}

/// A row is worth what shows it: its last cell names a scenario or a test that exists, or says
/// `–` and why there is none.
pub(super) fn every_row_names_its_evidence(repository: &Repository) -> Findings {
    let Some(spec) = repository.file(FILE) else {
        return vec![format!("{FILE}: is missing")];
    };
    let known = evidence(repository);
    let mut findings = Findings::new();
    for row in rows(&spec.text) {
        let number = row.number;
        let last = cells(row.line)
            .and_then(|cells| cells.last().copied())
            .unwrap_or_default();
        if let Some(reason) = last.strip_prefix('–') {
            if !reason.contains(char::is_alphabetic) {
                findings.push(format!("{FILE}:{number}: `–` wants a reason"));
            }
            continue;
        }
        let mut names = quoted(last).peekable();
        if names.peek().is_none() {
            findings.push(format!(
                "{FILE}:{number}: the last cell names no scenario or test"
            ));
        }
        for name in names.filter(|name| !known.contains(name)) {
            findings.push(format!(
                "{FILE}:{number}: there is no scenario or test `{name}`"
            ));
        }
    }
    findings
}

/// A row of a table below its header.
struct Row<'a> {
    number: usize,
    line: &'a str,
}

fn rows(text: &str) -> impl Iterator<Item = Row<'_>> {
    let lines: Vec<_> = text.lines().collect();
    let is_rule = |line: &str| line.starts_with('|') && cells(line).is_none();
    let header = {
        let lines = lines.clone();
        move |index: usize| lines.get(index + 1).is_some_and(|next| is_rule(next))
    };
    lines
        .into_iter()
        .enumerate()
        .filter(move |(index, line)| cells(line).is_some() && !header(*index))
        .map(|(index, line)| Row {
            number: index + 1,
            line,
        })
}

/// The string literals of the route table that begin with `/` and stand first in parentheses.
fn route_paths(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut paths = BTreeSet::new();
    for (start, _) in code.match_indices("\"/") {
        let first = code[..start].trim_end().ends_with('(');
        if let Some(path) = code[start + 1..].split('"').next().filter(|_| first) {
            paths.insert(path.to_owned());
        }
    }
    paths
}

/// The paths that a row names, without their method.
fn row_paths(line: &str) -> Vec<String> {
    quoted(line)
        .filter_map(|text| text.split_whitespace().find(|word| word.contains('/')))
        .map(nameless)
        .collect()
}

/// Forgets what the variable parts of a path are called.
fn nameless(path: &str) -> String {
    let mut nameless = String::new();
    let mut inside = false;
    for c in path.chars() {
        inside = (inside || c == '{') && c != '}';
        if !inside || c == '{' {
            nameless.push(c);
        }
    }
    nameless
}

/// Whether a documented path is the route, or the route below a prefix.
fn serves(documented: &str, route: &str) -> bool {
    let Some(prefix) = documented.strip_suffix(route) else {
        return false;
    };
    prefix.is_empty() || prefix.starts_with("/_matrix") || !prefix.contains('/')
}

/// The names of all scenarios, and of all test functions.
fn evidence(repository: &Repository) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for file in repository.below(SCENARIOS, ".rs") {
        names.extend(
            file.text
                .split('"')
                .skip(1)
                .step_by(2)
                .filter(|text| text.contains('/')),
        );
    }
    for file in &repository.files {
        let keyword = match file.path.rsplit_once('.') {
            Some((_, "rs")) => "fn ",
            Some((_, "py")) => "def ",
            _ => continue,
        };
        for line in file.text.lines() {
            let name = line.split_once(keyword).map(|(_, rest)| rest);
            let end = |c: char| !c.is_alphanumeric() && c != '_';
            names.extend(name.and_then(|name| name.split(end).next()));
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = r#"
// ("/commented/out", get(x)),
const ROUTES: &[Route] = &[
    ("/user/{user}/account_data/{type}", || entry()),
    ("/sync", || get(sync)),
];
fn router() { Router::new().route( "/health", get(health)).nest("/_matrix/client/v3") }
"#;

    const HEADER: &str = "| Endpoint | State | Shown by |\n|---|---|---|\n";

    fn repository(rows: &str) -> Repository {
        let spec = format!("# Coverage\n\n{HEADER}{rows}");
        Repository::of(&[
            (FILE, &spec),
            (ROUTES, TABLE),
            (
                "conformance/src/scenarios/global.rs",
                "Scenario::new(\"global/put_then_get\", x)",
            ),
            ("crates/http/tests/sync.rs", "async fn sync_wakes_up() {}"),
        ])
    }

    const ALL: &str = "\
| `PUT /_matrix/client/v3/user/{userId}/account_data/{type}` | done | `global/put_then_get` |
| `GET C3/sync` | done | `sync_wakes_up` |
| `/health` `/_matrix/client/v3` | done | – for operators, not clients |
";

    #[test]
    fn complete_table_is_fine() {
        assert_eq!(every_route_has_a_row(&repository(ALL)), Findings::new());
        assert_eq!(
            every_row_names_its_evidence(&repository(ALL)),
            Findings::new()
        );
    }

    #[test]
    fn route_without_a_row_is_found() {
        let rows = ALL.replace("C3/sync", "C3/nosync");
        let findings = every_route_has_a_row(&repository(&rows));
        assert_eq!(findings, [format!("{FILE}: no row for the route `/sync`")]);
    }

    #[test]
    fn scenario_that_does_not_exist_is_found() {
        let rows = ALL.replace("sync_wakes_up", "sync_sleeps");
        let findings = every_row_names_its_evidence(&repository(&rows));
        assert!(findings[0].contains("`sync_sleeps`"), "{findings:?}");
    }

    #[test]
    fn row_without_evidence_is_found() {
        let rows = ALL.replace("`sync_wakes_up`", "");
        assert_eq!(every_row_names_its_evidence(&repository(&rows)).len(), 1);
    }

    #[test]
    fn dash_without_a_reason_is_found() {
        let rows = ALL.replace("– for operators, not clients", "–");
        assert_eq!(every_row_names_its_evidence(&repository(&rows)).len(), 1);
    }

    #[test]
    fn missing_files_are_found() {
        let empty = Repository::default();
        assert_eq!(every_route_has_a_row(&empty).len(), 1);
        assert_eq!(every_row_names_its_evidence(&empty).len(), 1);
    }

    #[test]
    fn route_table_that_cannot_be_read_is_found() {
        let repository = Repository::of(&[(FILE, ""), (ROUTES, "fn router() {}")]);
        assert!(every_route_has_a_row(&repository)[0].contains("no route was found"));
    }
}
