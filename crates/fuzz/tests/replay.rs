//! The short form of fuzzing: every committed input of every target, and some thousand mutations.
//!
//! `cargo xtask fuzz` is the long one. `KITBAG_TEST_SEED=n` draws other mutations.

#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test says which input it was, and clippy does not know its helpers as tests"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use kitbag_fuzz::{TARGETS, Target};
use kitbag_testkit::dice::Dice;

/// Where libFuzzer's part lies.
const FUZZ: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz");
/// What a mutation may grow to.
const INPUT_BYTES_MAX: usize = 4_096;

#[test]
fn config() {
    replay("config", 500);
}

#[test]
fn feed_token() {
    replay("feed_token", 10_000);
}

#[test]
fn filter() {
    replay("filter", 1_000);
}

#[test]
fn id() {
    replay("id", 10_000);
}

#[test]
fn json_depth() {
    replay("json_depth", 10_000);
}

#[test]
fn pointer() {
    replay("pointer", 10_000);
}

#[test]
fn push_changes() {
    replay("push_changes", 2_000);
}

#[test]
fn push_condition() {
    replay("push_condition", 3_000);
}

#[test]
fn push_evaluation() {
    replay("push_evaluation", 2_000);
}

#[test]
fn push_pattern() {
    replay("push_pattern", 10_000);
}

#[test]
fn push_rule() {
    replay("push_rule", 3_000);
}

#[test]
fn request() {
    replay("request", 500);
}

#[test]
fn revision() {
    replay("revision", 10_000);
}

#[test]
fn sync_token() {
    replay("sync_token", 10_000);
}

#[test]
fn token() {
    replay("token", 10_000);
}

#[test]
fn every_target_has_a_corpus_a_dictionary_and_a_program() {
    let targets: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(names(&Path::new(FUZZ).join("corpus")), targets);
    assert_eq!(names(&Path::new(FUZZ).join("dictionaries")), targets);
    assert_eq!(names(&Path::new(FUZZ).join("fuzz_targets")), targets);
    let manifest = fs::read_to_string(Path::new(FUZZ).join("Cargo.toml")).unwrap();
    for name in targets {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}

/// Runs every committed input and `mutations` made of them.
fn replay(name: &'static str, mutations: usize) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).unwrap();
    let inputs = inputs(&Path::new(FUZZ).join("corpus").join(name));
    assert!(!inputs.is_empty(), "{name} has no corpus");
    for (path, input) in &inputs {
        run(*target, input, &path.display().to_string());
    }
    let words = words(&Path::new(FUZZ).join(format!("dictionaries/{name}.dict")));
    let seed = seed();
    let mut dice = Dice::new(seed);
    for number in 0..mutations {
        let mut input = inputs[dice.below(inputs.len())].1.clone();
        for _ in 0..=dice.below(4) {
            let other = &inputs[dice.below(inputs.len())].1;
            mutate(&mut input, other, &words, &mut dice);
        }
        input.truncate(INPUT_BYTES_MAX);
        run(
            *target,
            &input,
            &format!("mutation {number} of seed {seed}"),
        );
    }
}

fn run(target: Target, input: &[u8], from: &str) {
    let _shown = ShownOnPanic { input, from };
    target(input);
}

/// Says which input it was.
struct ShownOnPanic<'a> {
    input: &'a [u8],
    from: &'a str,
}

impl Drop for ShownOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            let Self { input, from } = self;
            println!("the input of {from}:\n{}", input.escape_ascii());
        }
    }
}

fn mutate(input: &mut Vec<u8>, other: &[u8], words: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len() + 1);
    match dice.below(6) {
        0 if at < input.len() => input[at] ^= 1 << dice.below(8),
        1 if at < input.len() => input[at] = dice.draw().to_le_bytes()[0],
        2 => {
            let end = at + dice.below(input.len() - at + 1).min(16);
            input.drain(at..end);
        }
        3 => {
            let start = dice.below(other.len() + 1);
            let end = start + dice.below(other.len() - start + 1);
            input.splice(at.., other[start..end].iter().copied());
        }
        4 => {
            let end = at + dice.below(input.len() - at + 1).min(64);
            let again = input[at..end].to_vec();
            input.splice(at..at, again);
        }
        _ if !words.is_empty() => {
            let word = words[dice.below(words.len())].clone();
            input.splice(at..at, word);
        }
        _ => {}
    }
}

fn inputs(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(folder).unwrap();
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
        .into_iter()
        .map(|path| (path.clone(), fs::read(path).unwrap()))
        .collect()
}

/// Reads a dictionary of libFuzzer: `"word"` a line, with `\"`, `\\` and `\xAB` in it.
fn words(file: &Path) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(file).unwrap();
    let lines = text.lines().filter(|line| line.starts_with('"'));
    lines
        .map(|line| unescaped(&line[1..line.len() - 1]))
        .collect()
}

fn unescaped(word: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = word.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        match bytes.next().unwrap() {
            b'x' => {
                let digits = [bytes.next().unwrap(), bytes.next().unwrap()];
                let digits = std::str::from_utf8(&digits).unwrap();
                out.push(u8::from_str_radix(digits, 16).unwrap());
            }
            other => out.push(other),
        }
    }
    out
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
    entries.map(|entry| stem(entry.unwrap().path())).collect()
}

#[expect(
    clippy::disallowed_methods,
    reason = "tests have no configuration but this"
)]
fn seed() -> u64 {
    std::env::var("KITBAG_TEST_SEED").map_or(1, |seed| seed.parse().unwrap())
}
