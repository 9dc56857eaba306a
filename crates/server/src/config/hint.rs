//! Says what is wrong with a setting, and what was probably meant.

use figment::error::{Error, Kind};
use figment::{Metadata, Source};

/// How like a known key must be to be named: below it, a hint would only puzzle.
const LIKENESS_MIN: f64 = 0.7;

/// The tables whose values are not repeated.
const SECRETS: [&str; 2] = ["admin", "registration"];

pub(super) fn explain(error: &Error) -> String {
    let path = error.path.join(".");
    match &error.kind {
        Kind::UnknownField(field, known) => {
            let key = if path.is_empty() || error.path.last() == Some(field) {
                if path.is_empty() { field.clone() } else { path }
            } else {
                format!("{path}.{field}")
            };
            format!("there is no setting `{key}`{}", hint(field, known))
        }
        // Not of a setting: the file as such cannot be read.
        Kind::Message(message) if path.is_empty() => {
            format!(
                "{}{}",
                without_source(message),
                source(error.metadata.as_ref())
            )
        }
        kind => {
            let wrong = match kind {
                // Not what was found: it may be a token.
                Kind::InvalidType(_, expected) | Kind::InvalidValue(_, expected)
                    if SECRETS.iter().any(|table| path.starts_with(table)) =>
                {
                    format!("expected {expected}")
                }
                kind => kind.to_string(),
            };
            format!(
                "setting `{path}`: {wrong}{}",
                source(error.metadata.as_ref())
            )
        }
    }
}

/// Drops the lines of the file that an error of TOML repeats: a token may stand there.
fn without_source(message: &str) -> String {
    let is_source = |line: &&str| {
        let behind_number = line
            .trim_start()
            .trim_start_matches(|c: char| c.is_ascii_digit());
        behind_number.trim_start().starts_with('|')
    };
    let lines: Vec<&str> = message.lines().filter(|line| !is_source(line)).collect();
    lines.join(", ")
}

/// Names the file or the environment; of the command line the user knows.
pub(super) fn source(metadata: Option<&Metadata>) -> String {
    let metadata = metadata.filter(|metadata| {
        matches!(metadata.source, Some(Source::File(_))) || metadata.name.contains("environment")
    });
    metadata.map_or(String::new(), |metadata| match &metadata.source {
        Some(Source::File(file)) => format!(" (in `{}`)", file.display()),
        _ => " (in the environment)".to_owned(),
    })
}

fn hint(field: &str, known: &[&'static str]) -> String {
    let likeness = |known: &str| strsim::jaro_winkler(field, known);
    let nearest = known
        .iter()
        .max_by(|a, b| likeness(a).total_cmp(&likeness(b)));
    match nearest.filter(|nearest| likeness(nearest) >= LIKENESS_MIN) {
        Some(nearest) => format!(": did you mean `{nearest}`?"),
        None => format!(": known here are {}", known.join(", ")),
    }
}
