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

/// The routes of the tables, `const TABLE: &[Route] = &[("/path", …), …];`, each below the prefix of
/// its table if that has a single one, `add(router, "/prefix", TABLE)`; and those of `route("/path"`.
fn route_paths(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let lines = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"));
    let code = lines.collect::<Vec<_>>().join("\n");
    let mut paths = BTreeSet::new();
    for chunk in code.split("\nconst ") {
        let (table, rest) = chunk.split_once("];").unwrap_or(("", chunk));
        let name = table.split(':').next().unwrap_or_default();
        let prefix = prefix(&code, name);
        paths.extend(literals_behind(table, "(").map(|path| format!("{prefix}{path}")));
        paths.extend(literals_behind(rest, "route(").map(str::to_owned));
    }
    paths
}

/// The string literals that begin with `/` and stand behind `before`.
fn literals_behind<'a>(code: &'a str, before: &'a str) -> impl Iterator<Item = &'a str> {
    let found = code.match_indices("\"/");
    let found = found.filter(move |(start, _)| code[..*start].trim_end().ends_with(before));
    found.filter_map(|(start, _)| code[start + 1..].split('"').next())
}

fn prefix<'a>(code: &'a str, table: &str) -> &'a str {
    // `add(router, "/prefix", TABLE)`, over however many lines.
    let calls = code
        .match_indices(table)
        .map(|(start, _)| code[..start].trim_end());
    let mut before = calls.filter_map(|before| before.strip_suffix("\","));
    before
        .next()
        .and_then(|before| before.rsplit('"').next())
        .unwrap_or_default()
}

/// The paths that a row names, without their method.
fn row_paths(line: &str) -> Vec<String> {
    quoted(line)
        .filter_map(|text| text.split_whitespace().find(|word| word.contains('/')))
        .map(|path| nameless(&long(path)))
        .collect()
}

/// Writes the short forms of the prefixes out.
fn long(path: &str) -> String {
    let (short, rest) = path.split_once('/').unwrap_or((path, ""));
    match short {
        "C1" => format!("/_matrix/client/v1/{rest}"),
        "C3" => format!("/_matrix/client/v3/{rest}"),
        "CU" => format!("/_matrix/client/unstable/{rest}"),
        _ => path.to_owned(),
    }
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
    ["", "/_matrix/client/r0", "/_matrix/client/v3"].contains(&prefix)
}

/// The names of all scenarios, and of all test functions.
fn evidence(repository: &Repository) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for file in repository.below(SCENARIOS, ".rs") {
        names.extend(file.text.split('"').filter(|text| is_scenario(text)));
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

/// Whether a string literal has the form `area/fact` of a scenario's name.
fn is_scenario(text: &str) -> bool {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    text.split_once('/').is_some_and(|(area, fact)| {
        !area.is_empty() && !fact.is_empty() && area.chars().chain(fact.chars()).all(word)
    })
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
const DELETION: &[Route] = &[
    ("/user/{user}/account_data/{type}", || delete(entry)),
];
fn router() {
    add(router, "/_matrix/client/unstable/org.matrix.msc3391", DELETION);
    Router::new().route( "/health", get(health)).nest("/_matrix/client/v3")
}
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
| `DELETE CU/org.matrix.msc3391/user/{u}/account_data/{t}` | done | `global/put_then_get` |
| `/health` | done | – for operators, not clients |
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
    fn route_below_another_prefix_wants_its_own_row() {
        let rows = ALL.replace("CU/org.matrix.msc3391/user", "C3/user");
        let findings = every_route_has_a_row(&repository(&rows));
        assert!(
            findings[0].contains("org.matrix.msc3391/user/{user}"),
            "{findings:?}"
        );
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
