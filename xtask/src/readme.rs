//! The marked shell blocks of README.md and docs/admin-api.md, run as they are printed.
//!
//! A fenced `sh` block with `<!-- test -->` on the line before it is run; the next fenced block, if
//! it is `text` or `json`, is what it must print, where `…` stands for anything. All blocks run in
//! one shell, so that a variable which one sets is there in the next.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf, absolute};
use std::process::{Command, Stdio};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::parts::{Outcome, PartResult};
use crate::process;
use crate::server::{self, Server};
use crate::workspace::Workspace;

const MARK: &str = "<!-- test -->";

/// Where README.md says that the server is.
const ADDRESSES: [&str; 2] = ["127.0.0.1:8008", "localhost:8008"];

/// What the shell prints between two blocks.
const SEPARATOR: &str = "--- end of a README block ---";

const ANYTHING: char = '…';

/// Which server.
#[derive(Clone, Debug, Args)]
pub(crate) struct ReadmeArguments {
    /// Run against this server instead of starting one. It must be fresh: the names are fixed.
    #[arg(long, requires = "data")]
    base_url: Option<String>,
    /// The data directory of that server, for the blocks that run `kitbag`.
    #[arg(long, requires = "base_url")]
    data: Option<PathBuf>,
}

/// A block to run and what it must print.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Block {
    line: usize,
    script: String,
    expected: Option<Expected>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
struct Expected {
    json: bool,
    text: String,
}

impl Expected {
    fn at(&self, base_url: &str) -> Self {
        Self {
            text: at(base_url, &self.text),
            ..*self
        }
    }
}

/// `cargo xtask readme`.
pub(crate) fn task(workspace: &Workspace, arguments: &ReadmeArguments) -> anyhow::Result<()> {
    match (&arguments.base_url, &arguments.data) {
        (Some(base_url), Some(data)) => {
            let data = absolute(data)?;
            run(workspace, base_url.trim_end_matches('/'), &data)
        }
        _ => match part(workspace)? {
            Outcome::Passed(_) => Ok(()),
            outcome => bail!("{outcome:?}"),
        },
    }
}

/// All marked blocks against a fresh server.
pub(crate) fn part(workspace: &Workspace) -> PartResult {
    if process::ask(Command::new("curl").arg("--version")).is_none() {
        return Ok(Outcome::NotRun(
            "needs curl: https://curl.se/download.html".to_owned(),
        ));
    }
    let count = blocks(&readme(workspace)?)?.len() + admin_api(workspace)?;
    let data = workspace.target.join("xtask/readme-data");
    remove(&data)?;
    let server = Server::start_in(workspace, "readme", &data)?;
    run(workspace, server.base_url(), &data)?;
    server.stop()?;
    remove(&data)?;
    Ok(Outcome::Passed(Some(u64::try_from(count)?)))
}

/// All marked blocks of the documentation of the admin API, against a fresh server; returns how many.
fn admin_api(workspace: &Workspace) -> anyhow::Result<usize> {
    const FILE: &str = "docs/admin-api.md";
    // No log may hold it.
    let token = server::CANARY;
    let setting = format!("admin.tokens.ops={token}");
    let server = Server::start(workspace, "admin-api", &["private=127.0.0.1:0", &setting])?;
    let text = fs::read_to_string(workspace.path(FILE)).context(FILE)?;
    let text = text.replace("http://127.0.0.1:9009", &server.private_url()?);
    let blocks = blocks(&text)?;
    let script = format!("TOKEN={token}\n{}", script(&blocks, server.base_url()));
    let data = workspace.target.join("xtask/no-data");
    let outputs = shell(
        &workspace.root,
        &script,
        &workspace.program("kitbag"),
        &data,
    )?;
    compare(FILE, &blocks, &outputs, server.base_url())?;
    server.stop()?;
    Ok(blocks.len())
}

fn remove(data: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(data) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        removed => removed.with_context(|| format!("cannot remove {}", data.display())),
    }
}

fn run(workspace: &Workspace, base_url: &str, data: &Path) -> anyhow::Result<()> {
    let blocks = blocks(&readme(workspace)?)?;
    let program = workspace.program("kitbag");
    let script = script(&blocks, base_url);
    let outputs = shell(&workspace.root, &script, &program, data)?;
    compare("README.md", &blocks, &outputs, base_url)
}

fn compare(file: &str, blocks: &[Block], outputs: &[String], base_url: &str) -> anyhow::Result<()> {
    for (index, block) in blocks.iter().enumerate() {
        let output = outputs
            .get(index)
            .with_context(|| format!("{file}:{}: the block did not end well", block.line))?;
        if let Some(expected) = &block.expected
            && !matches(&expected.at(base_url), output)
        {
            let Block { line, script, .. } = block;
            bail!(
                "{file}:{line}: the block\n{script}\nmust print\n{}\nand printed\n{output}",
                expected.text
            );
        }
        println!("{file}:{}: as printed", block.line);
    }
    Ok(())
}

fn readme(workspace: &Workspace) -> anyhow::Result<String> {
    fs::read_to_string(workspace.path("README.md")).context("cannot read README.md")
}

/// Finds the marked blocks.
fn blocks(readme: &str) -> anyhow::Result<Vec<Block>> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut before = "";
    let mut wants_output = false;
    let mut lines = readme.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            before = line;
            continue;
        };
        let body: Vec<_> = lines
            .by_ref()
            .map(|(_, line)| line)
            .take_while(|line| !line.starts_with("```"))
            .collect();
        let body = body.join("\n");
        match language.trim() {
            "sh" if before.trim() == MARK => {
                let line = index + 1;
                blocks.push(Block {
                    line,
                    script: body,
                    expected: None,
                });
                wants_output = true;
            }
            output @ ("text" | "json") if wants_output => {
                let expected = Expected {
                    json: output == "json",
                    text: body.trim().to_owned(),
                };
                blocks
                    .last_mut()
                    .context("a block wants this output")?
                    .expected = Some(expected);
                wants_output = false;
            }
            _ => {
                ensure!(
                    before.trim() != MARK,
                    "README.md:{}: only `sh` can be run",
                    index + 1
                );
                wants_output = false;
            }
        }
        before = "";
    }
    ensure!(
        !blocks.is_empty(),
        "README.md has no `sh` block behind `{MARK}`"
    );
    Ok(blocks)
}

fn script(blocks: &[Block], base_url: &str) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for block in blocks {
        let body = at(base_url, &block.script);
        script.push_str(&format!("{body}\nprintf '\\n%s\\n' '{SEPARATOR}'\n"));
    }
    script
}

/// The text with the README's address replaced by that of the server under test.
fn at(base_url: &str, text: &str) -> String {
    let place = base_url
        .split_once("://")
        .map_or(base_url, |(_, place)| place);
    ADDRESSES.iter().fold(text.to_owned(), |text, address| {
        text.replace(&format!("http://{address}"), base_url)
            .replace(address, place)
    })
}

/// Runs the script and returns what each block printed, as far as it got; `kitbag` is ours, on `data`.
fn shell(root: &Path, script: &str, program: &Path, data: &Path) -> anyhow::Result<Vec<String>> {
    let script = format!("kitbag() {{ \"$README_PROGRAM\" \"$@\"; }}\n{script}");
    let output = Command::new("bash")
        .args(["-c", &script])
        .env("KITBAG_DATA", data)
        .env("README_PROGRAM", program)
        .current_dir(root)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run bash")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let mut outputs: Vec<_> = text
        .split(SEPARATOR)
        .map(|output| output.trim().to_owned())
        .collect();
    // What stands behind the last separator belongs to a block that broke.
    let rest = outputs.pop().unwrap_or_default();
    if !output.status.success() {
        println!("{rest}");
    }
    Ok(outputs)
}

fn matches(expected: &Expected, output: &str) -> bool {
    if expected.json
        && let (Some(expected), Some(output)) = (documents(&expected.text), documents(output))
    {
        let same = |(expected, output)| same_json(expected, output);
        return expected.len() == output.len() && expected.iter().zip(&output).all(same);
    }
    same_text(&expected.text, output)
}

/// Reads one JSON document after the other.
fn documents(text: &str) -> Option<Vec<Value>> {
    serde_json::Deserializer::from_str(text)
        .into_iter()
        .collect::<Result<_, _>>()
        .ok()
}

/// Compares whatever the white space; a string with `…` is a pattern, `"…"` alone any value.
fn same_json(expected: &Value, output: &Value) -> bool {
    match (expected, output) {
        (Value::String(expected), _) if expected.chars().eq([ANYTHING]) => true,
        (Value::String(expected), Value::String(output)) => same_text(expected, output),
        (Value::Array(expected), Value::Array(output)) => {
            let same = |(expected, output)| same_json(expected, output);
            expected.len() == output.len() && expected.iter().zip(output).all(same)
        }
        (Value::Object(expected), Value::Object(output)) => {
            let same = |(key, value)| output.get(key).is_some_and(|other| same_json(value, other));
            expected.len() == output.len() && expected.iter().all(same)
        }
        _ => expected == output,
    }
}

/// Compares texts where `…` in the expectation stands for anything, also for nothing.
fn same_text(expected: &str, output: &str) -> bool {
    let mut pieces = expected.trim().split(ANYTHING);
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = output.trim().strip_prefix(first) else {
        return false;
    };
    let Some(last) = pieces.next_back() else {
        return rest.is_empty();
    };
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else {
            return false;
        };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const README: &str = "\
Start it:

```sh
cargo run --release -- serve
```

<!-- test -->
```sh
TOKEN=secret
echo http://127.0.0.1:8008/versions
```

It answers:

```text
http://…/versions
```

<!-- test -->
```sh
echo \"{\\\"a\\\": 1}\"; echo $TOKEN >&2
```
```json
{ \"a\": 1 }
```

```json
{\"not\": \"ours\"}
```
";

    fn outputs(readme: &str, base_url: &str) -> Vec<String> {
        let here = Path::new(".");
        let script = script(&blocks(readme).unwrap(), base_url);
        shell(here, &script, Path::new("kitbag"), here).unwrap()
    }

    #[test]
    fn only_marked_blocks_run_and_the_next_block_is_their_output() {
        let found = blocks(README).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].line, 8);
        assert_eq!(
            found[0].expected.as_ref().unwrap().text,
            "http://…/versions"
        );
        assert!(found[1].expected.as_ref().unwrap().json);
    }

    #[test]
    fn blocks_run_in_one_shell_at_the_given_address() {
        let outputs = outputs(README, "http://h:1");
        assert_eq!(outputs, ["http://h:1/versions", "{\"a\": 1}"]);
    }

    #[test]
    fn address_is_replaced_with_and_without_its_scheme() {
        let text = "curl 127.0.0.1:8008/a http://localhost:8008/b";
        assert_eq!(at("https://h:1", text), "curl h:1/a https://h:1/b");
    }

    #[test]
    fn block_that_breaks_has_no_output() {
        let readme = "<!-- test -->\n```sh\necho a\n```\n<!-- test -->\n```sh\nfalse\n```\n";
        assert_eq!(outputs(readme, "http://h:1"), ["a"]);
    }

    #[test]
    fn readme_without_a_marked_block_fails() {
        assert!(blocks("```sh\nls\n```\n").is_err());
    }

    #[test]
    fn mark_before_another_language_fails() {
        assert!(blocks("<!-- test -->\n```python\npass\n```\n").is_err());
    }

    #[test]
    fn text_must_match_from_start_to_end() {
        assert!(same_text("a…c", "a b c"));
        assert!(same_text("a…c", "ac"));
        assert!(same_text("…b…", "abc"));
        assert!(!same_text("a…c", "a b c d"));
        assert!(!same_text("abc", "abcd"));
        assert!(!same_text("aba…aba", "aba"));
    }

    #[test]
    fn json_is_compared_by_value() {
        let expected = |text: &str| Expected {
            json: true,
            text: text.to_owned(),
        };
        assert!(matches(
            &expected("{\"a\": \"x…\", \"b\": \"…\"}"),
            "{\"b\":[1],\"a\":\"xyz\"}"
        ));
        assert!(!matches(&expected("{\"a\": 1}"), "{\"a\":1,\"b\":2}"));
        assert!(!matches(&expected("{\"a\": 1}"), "{\"a\":2}"));
        assert!(!matches(&expected("{\"a\": 1}"), "{\"a\":1}{\"a\":1}"));
        assert!(!matches(&expected("{\"a\": 1}"), "not found"));
    }
}
