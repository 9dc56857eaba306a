//! The tables of mutants against the sources, the scenarios and the tests.

use std::collections::{BTreeMap, BTreeSet};

use super::{Findings, Repository};
use crate::mutants::table::{self, Mutant, Table, TestName, TestTarget};

const SCENARIOS: &str = "conformance/src/scenarios/";

/// What a scenario says that Kitbag does not run, and that no mutant of Kitbag can break.
const NOT_OURS: &str = "Feature::Rooms";

/// Where the cases of the suites stand, which a macro makes tests of.
const SUITES: &str = "crates/testkit/src/suite/";

/// A scenario that no mutant turns red may be one that cannot fail, and a mutant whose text is gone
/// from the source shows nothing any more.
pub(super) fn every_scenario_can_fail(repository: &Repository) -> Findings {
    let file = Table::Conformance.file();
    let scenarios = scenarios(repository);
    let is_known = |name: &str| scenarios.contains_key(name);
    let (mutants, mut findings) = check(repository, Table::Conformance, is_known, "scenario");
    if mutants.is_empty() {
        return findings;
    }
    let red = mutants.iter().flat_map(|mutant| &mutant.red);
    let red: BTreeSet<&str> = red.map(String::as_str).collect();
    let green = scenarios
        .into_iter()
        .filter(|(name, is_ours)| *is_ours && !red.contains(name));
    findings.extend(green.map(|(name, _)| format!("{file}: no mutant turns `{name}` red")));
    findings
}

/// The same of the mutants that the tests of the crates notice, of which not each has one.
pub(super) fn every_mutant_names_its_tests(repository: &Repository) -> Findings {
    let is_known = |name: &str| {
        let name = name.parse::<TestName>();
        name.is_ok_and(|name| is_there(repository, &name))
    };
    check(repository, Table::Laws, is_known, "test").1
}

/// Reads a table; returns its mutants and what is wrong with it.
fn check(
    repository: &Repository,
    table: Table,
    is_known: impl Fn(&str) -> bool,
    kind: &str,
) -> (Vec<Mutant>, Findings) {
    let path = table.file();
    let Some(file) = repository.file(path) else {
        return (Vec::new(), vec![format!("{path}: is missing")]);
    };
    let mutants = match table::read(&file.text) {
        Ok(mutants) => mutants,
        Err(error) => return (Vec::new(), vec![format!("{path}: {}", error.message())]),
    };
    let mut names = BTreeSet::new();
    let mut findings = Findings::new();
    for mutant in &mutants {
        let name = &mutant.name;
        if !names.insert(name) {
            findings.push(format!("{path}: `{name}` is there twice"));
        }
        let unknown = mutant.red.iter().filter(|red| !is_known(red));
        let unknown = unknown.map(|red| format!("names `{red}`, which is no {kind}"));
        let wrongs = wrongs(mutant, repository).into_iter().chain(unknown);
        findings.extend(wrongs.map(|what| format!("{path}: `{name}` {what}")));
    }
    (mutants, findings)
}

fn wrongs(mutant: &Mutant, repository: &Repository) -> Vec<String> {
    let mut wrongs = Vec::new();
    let file = &mutant.file;
    let source = repository.file(file);
    let source = source.map_or("", |source| source.text.as_str());
    if let Err(found) = mutant.apply(source) {
        wrongs.push(format!("finds its text {found} times in {file}, not once"));
    }
    if mutant.find == mutant.replace {
        wrongs.push("changes nothing".to_owned());
    }
    if mutant.red.is_empty() {
        wrongs.push("turns nothing red".to_owned());
    }
    wrongs
}

/// Whether the test's function stands where its program is made of.
fn is_there(repository: &Repository, test: &TestName) -> bool {
    let package = &test.program.package;
    let Some(member) = repository.crates.iter().find(|c| c.name == *package) else {
        return false;
    };
    let folder = &member.folder;
    let (file, below) = match &test.program.target {
        TestTarget::Bin(_) | TestTarget::Lib => (None, format!("{folder}/src/")),
        TestTarget::Test(name) => {
            let path = format!("{folder}/tests/{name}");
            (Some(format!("{path}.rs")), path + "/")
        }
    };
    let own = repository.below(&below, ".rs");
    let file = file.and_then(|file| repository.file(&file));
    let own: Vec<&str> = own.chain(file).map(|file| file.text.as_str()).collect();
    let function = format!("fn {}(", test.function());
    let in_suite = own.iter().any(|text| text.contains("_suite!("))
        && repository
            .below(SUITES, ".rs")
            .any(|suite| suite.text.contains(&function));
    in_suite || own.iter().any(|text| text.contains(&function))
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
            (Table::Conformance.file(), table),
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

    const LAWS: &str = r#"
[[mutant]]
name = "rule_is_not_checked"
file = "crates/a/src/lib.rs"
find = 'if rule() {'
replace = 'if true {'
red = [
    "kitbag-a tests::in_the_library",
    "kitbag-a::one of_a_file",
    "kitbag-a::many area::of_a_folder",
    "kitbag-a::one area::of_a_suite",
]
"#;

    fn findings_of_laws(table: &str) -> Findings {
        let library = "if rule() {} fn in_the_library() {}";
        let repository = Repository::of(&[
            (Table::Laws.file(), table),
            ("crates/a/src/lib.rs", library),
            (
                "crates/a/tests/one.rs",
                "x::store_suite!(); fn of_a_file() {}",
            ),
            ("crates/a/tests/many/area.rs", "fn of_a_folder() {}"),
            (
                "crates/testkit/src/suite/area.rs",
                "pub async fn of_a_suite() {}",
            ),
        ]);
        every_mutant_names_its_tests(&repository.with_crates(&[("kitbag-a", "crates/a")]))
    }

    #[test]
    fn tests_are_found_where_their_program_is_made_of() {
        assert_eq!(findings_of_laws(LAWS), Findings::new());
        for (name, wrong) in [
            ("kitbag-a tests", "kitbag-b tests"),
            ("in_the_library", "in_the_librar"),
            ("kitbag-a::one of_a_file", "kitbag-a::many of_a_file"),
            (
                "kitbag-a::one area::of_a_suite",
                "kitbag-a::many area::of_a_suite",
            ),
            ("kitbag-a::many area", "kitbag-a::manyarea"),
        ] {
            let findings = findings_of_laws(&LAWS.replace(name, wrong));
            assert_eq!(findings.len(), 1, "{findings:?}");
            assert!(findings[0].contains("which is no test"), "{findings:?}");
        }
    }
}
