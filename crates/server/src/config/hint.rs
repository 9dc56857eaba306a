//! Says what is wrong with a setting, and what was probably meant.

use figment::Source;
use figment::error::{Error, Kind};

/// How like a known key must be to be named: below it, a hint would only puzzle.
const LIKENESS_MIN: f64 = 0.7;

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
        kind => {
            // Only a file or a variable has a name that says something to the reader.
            let named = error.metadata.as_ref().filter(|metadata| {
                let is_file = matches!(metadata.source, Some(Source::File(_)));
                is_file || metadata.name.contains("environment")
            });
            let source = named.map_or(String::new(), |metadata| {
                format!(" (from {})", metadata.name)
            });
            format!("setting `{path}`: {kind}{source}")
        }
    }
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
