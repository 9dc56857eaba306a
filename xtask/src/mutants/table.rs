//! The tables of mutants: rules of the product, and who notices when one is taken out.

use std::fmt;
use std::str::FromStr;

use clap::ValueEnum;
use serde::Deserialize;

/// A table, which lies beside the tests that it shows able to fail.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum Table {
    /// What the black-box scenarios notice.
    Conformance,
    /// What the tests of the crates notice, those of the laws above all.
    Laws,
}

/// A rule that is taken out by replacing a text that stands once in a file.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mutant {
    /// What is wrong with the product then.
    pub(crate) name: String,
    /// The file, relative to the root, with `/`.
    pub(crate) file: String,
    /// The text that is replaced.
    pub(crate) find: String,
    /// What stands there instead.
    pub(crate) replace: String,
    /// Who notices, each of them: names of scenarios, or a [`TestName`] each.
    pub(crate) red: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    mutant: Vec<Mutant>,
}

impl Table {
    /// All tables, the quickest to run first.
    pub(crate) const ALL: [Self; 2] = [Self::Laws, Self::Conformance];

    /// Returns the path of the table, relative to the root.
    pub(crate) fn file(self) -> &'static str {
        match self {
            Self::Conformance => "conformance/mutants.toml",
            Self::Laws => "crates/testkit/mutants.toml",
        }
    }
}

/// Reads the text of a table.
pub(crate) fn read(text: &str) -> Result<Vec<Mutant>, toml::de::Error> {
    toml::from_str(text).map(|file: File| file.mutant)
}

impl Mutant {
    /// Returns `text` without the rule, or how often the rule was found where that is not once.
    pub(crate) fn apply(&self, text: &str) -> Result<String, usize> {
        match text.matches(&self.find).count() {
            1 => Ok(text.replacen(&self.find, &self.replace, 1)),
            count => Err(count),
        }
    }
}

/// A test as cargo-nextest prints it: `kitbag-store-sqlite::suite entries::an_equal_put_…`.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct TestName {
    pub(crate) program: TestProgram,
    /// The path of the test in its program.
    pub(crate) path: String,
}

/// A program of tests, of which a package has several.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct TestProgram {
    pub(crate) package: String,
    pub(crate) target: TestTarget,
}

#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum TestTarget {
    /// The tests in the sources of a program.
    Bin(String),
    /// The tests in the sources of the library.
    Lib,
    /// The tests of `tests/NAME.rs` or `tests/NAME/main.rs`.
    Test(String),
}

/// A text that is not of the form of a [`TestName`].
#[derive(Debug)]
pub(crate) struct NoTestName;

impl FromStr for TestName {
    type Err = NoTestName;

    fn from_str(text: &str) -> Result<Self, NoTestName> {
        let (program, path) = text.split_once(' ').ok_or(NoTestName)?;
        let (package, target) = match program.split_once("::") {
            None => (program, TestTarget::Lib),
            Some((package, target)) => match target.strip_prefix("bin/") {
                None => (package, TestTarget::Test(target.to_owned())),
                Some(target) => (package, TestTarget::Bin(target.to_owned())),
            },
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || "_-".contains(c);
        let parts = path.split("::").chain([package]);
        if parts.clone().any(str::is_empty) || !parts.flat_map(str::chars).all(is_name) {
            return Err(NoTestName);
        }
        Ok(Self {
            program: TestProgram {
                package: package.to_owned(),
                target,
            },
            path: path.to_owned(),
        })
    }
}

impl TestName {
    /// Returns the name of the function.
    pub(crate) fn function(&self) -> &str {
        self.path
            .rsplit_once("::")
            .map_or(self.path.as_str(), |(_, name)| name)
    }
}

impl fmt::Display for TestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let TestProgram { package, target } = &self.program;
        match target {
            TestTarget::Bin(name) => write!(f, "{package}::bin/{name} {}", self.path),
            TestTarget::Lib => write!(f, "{package} {}", self.path),
            TestTarget::Test(name) => write!(f, "{package}::{name} {}", self.path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tests_are_those_of_nextest() {
        for (text, target, function) in [
            ("kitbag-domain write::tests::a", TestTarget::Lib, "a"),
            ("p::suite wakeups::b", TestTarget::Test("suite".into()), "b"),
            ("p::bin/kitbag c", TestTarget::Bin("kitbag".into()), "c"),
        ] {
            let name: TestName = text.parse().unwrap();
            assert_eq!((&name.program.target, name.function()), (&target, function));
            assert_eq!(name.to_string(), text);
        }
        for text in ["", "kitbag-domain", "p::suite ", " a", "p a b", "p a::"] {
            assert!(text.parse::<TestName>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_a_text_that_is_found_once_is_replaced() {
        let mutant = Mutant {
            name: String::new(),
            file: String::new(),
            find: "if rule()".to_owned(),
            replace: "if true".to_owned(),
            red: Vec::new(),
        };
        assert_eq!(
            mutant.apply("a; if rule() {}"),
            Ok("a; if true {}".to_owned())
        );
        assert_eq!(mutant.apply("a"), Err(0));
        assert_eq!(mutant.apply("if rule() {if rule() {"), Err(2));
    }
}
