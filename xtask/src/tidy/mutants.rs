//! conformance/mutants.toml against the sources and against the scenarios.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{Findings, Repository};

const FILE: &str = "conformance/mutants.toml";

const SCENARIOS: &str = "conformance/src/scenarios/";

/// What a scenario says that Kitbag does not run, and that no mutant of Kitbag can break.
const NOT_OURS: &str = "Feature::Rooms";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    mutant: Vec<Mutant>,
}

/// A rule taken out of the server, and the scenarios that were seen to notice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Mutant {
    name: String,
    file: String,
    find: String,
    replace: String,
    red: Vec<String>,
}

/// A scenario that no mutant turns red may be one that cannot fail, and a mutant whose text is gone
/// from the source shows nothing any more.
pub(super) fn every_scenario_can_fail(repository: &Repository) -> Findings {
    let Some(file) = repository.file(FILE) else {
        return vec![format!("{FILE}: is missing")];
    };
    let table: Table = match toml::from_str(&file.text) {
        Ok(table) => table,
        Err(error) => return vec![format!("{FILE}: {}", error.message())],
    };
    let scenarios = scenarios(repository);
    let mut names = BTreeSet::new();
    let mut findings = Findings::new();
    for mutant in &table.mutant {
        if !names.insert(mutant.name.as_str()) {
            findings.push(format!("{FILE}: `{}` is there twice", mutant.name));
        }
        let wrong = wrongs(mutant, repository, &scenarios);
        findings.extend(
            wrong
                .into_iter()
                .map(|what| format!("{FILE}: `{}` {what}", mutant.name)),
        );
    }
    let red: BTreeSet<&str> = table
        .mutant
        .iter()
        .flat_map(|mutant| mutant.red.iter().map(String::as_str))
        .collect();
    let green = scenarios
        .into_iter()
        .filter(|(name, is_ours)| *is_ours && !red.contains(name));
    findings.extend(green.map(|(name, _)| format!("{FILE}: no mutant turns `{name}` red")));
    findings
}

fn wrongs(
    mutant: &Mutant,
    repository: &Repository,
    scenarios: &BTreeMap<&str, bool>,
) -> Vec<String> {
    let mut wrongs = Vec::new();
    let source = repository.file(&mutant.file).map(|file| &file.text);
    let found = source.map_or(0, |text| text.matches(&mutant.find).count());
    if found != 1 {
        let file = &mutant.file;
        wrongs.push(format!("finds its text {found} times in {file}, not once"));
    }
    if mutant.find == mutant.replace {
        wrongs.push("changes nothing".to_owned());
    }
    if mutant.red.is_empty() {
        wrongs.push("turns nothing red".to_owned());
    }
    let unknown = mutant
        .red
        .iter()
        .filter(|name| !scenarios.contains_key(name.as_str()));
    wrongs.extend(unknown.map(|name| format!("names `{name}`, which is no scenario")));
    wrongs
}

/// The names of all scenarios, and whether Kitbag runs them.
fn scenarios(repository: &Repository) -> BTreeMap<&str, bool> {
    let mut scenarios = BTreeMap::new();
    for file in repository.below(SCENARIOS, ".rs") {
        for item in file.text.split("Scenario::new(").skip(1) {
            // Behind the last of a list stands the code of the file.
            let item = item.split("\n}\n").next().unwrap_or_default();
            if let Some(name) = item.split('"').nth(1) {
                scenarios.insert(name, !item.contains(NOT_OURS));
            }
        }
    }
    scenarios
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"
fn list() {
    vec![
        Scenario::new(
            "area/one",
            one,
        ),
        Scenario::new("area/two", two).needs(Feature::Msc3391),
        Scenario::new("area/rooms", three)
            .needs(Feature::Rooms),
        Scenario::new("area/four", four),
    ]
}

fn four() {
    assert!(Feature::Rooms);
}
"#;

    const MUTANT: &str = r#"
[[mutant]]
name = "rule_is_not_checked"
file = "crates/a/src/lib.rs"
find = 'if rule() {'
replace = 'if true {'
red = ["area/one", "area/two", "area/four"]
"#;

    fn findings(table: &str, source: &str) -> Findings {
        every_scenario_can_fail(&Repository::of(&[
            (FILE, table),
            ("crates/a/src/lib.rs", source),
            ("conformance/src/scenarios/area.rs", LIST),
        ]))
    }

    #[track_caller]
    fn finds(table: &str, expected: &str) {
        let findings = findings(table, "if rule() {}");
        assert_eq!(findings.len(), 1, "{findings:?}");
        assert!(findings[0].contains(expected), "{findings:?}");
    }

    #[test]
    fn complete_table_is_fine() {
        assert_eq!(findings(MUTANT, "if rule() {}"), Findings::new());
    }

    #[test]
    fn text_that_is_not_found_once_is_found() {
        for (source, times) in [
            ("if false {}", "0 times"),
            ("if rule() {if rule() {", "2 times"),
        ] {
            let findings = findings(MUTANT, source);
            assert!(findings[0].contains(times), "{findings:?}");
        }
    }

    #[test]
    fn file_that_does_not_exist_is_found() {
        finds(&MUTANT.replace("crates/a/", "crates/b/"), "0 times");
    }

    #[test]
    fn scenario_that_no_mutant_turns_red_is_found() {
        finds(
            &MUTANT.replace(", \"area/four\"", ""),
            "no mutant turns `area/four` red",
        );
    }

    #[test]
    fn red_scenario_that_does_not_exist_is_found() {
        finds(
            &MUTANT.replace("[\"area/one\"", "[\"area/one\", \"area/none\""),
            "`area/none`, which is no scenario",
        );
    }

    #[test]
    fn mutant_that_changes_or_shows_nothing_is_found() {
        finds(&MUTANT.replace("if true", "if rule()"), "changes nothing");
        let idle = MUTANT.replace("is_not_checked", "is_idle");
        let (idle, _) = idle.split_once("red = ").unwrap();
        finds(&format!("{MUTANT}{idle}red = []\n"), "turns nothing red");
    }

    #[test]
    fn name_that_is_there_twice_is_found() {
        finds(&format!("{MUTANT}{MUTANT}"), "is there twice");
    }

    #[test]
    fn table_that_cannot_be_read_is_found() {
        finds(&MUTANT.replace("file =", "path ="), "unknown field");
        assert_eq!(every_scenario_can_fail(&Repository::default()).len(), 1);
    }
}
