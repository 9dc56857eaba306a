//! Settings that come as text: from the environment and behind `--set`.

use figment::providers::{Format as _, Toml};
use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider, util};

/// One setting; `key` is `table.key`.
pub(super) struct Text<'a> {
    pub(super) key: &'a str,
    pub(super) text: &'a str,
    /// Where it stands, for who reads an error.
    pub(super) place: &'static str,
}

impl Provider for Text<'_> {
    fn metadata(&self) -> Metadata {
        Metadata::named(self.place)
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let dict = util::nest(self.key, value(self.text)).into_dict();
        // As what comes from flags: then the later one wins.
        Ok(Profile::Global.collect(dict.unwrap_or_default()))
    }
}

/// Reads a value: TOML where it can be, and otherwise a string.
///
/// figment has a reader of its own for these, which takes brackets to any depth of the stack and
/// mixes up bytes and characters before a `\`.
fn value(text: &str) -> Value {
    let line = Toml::string(&format!("value = {text}")).data();
    let dict = line
        .ok()
        .and_then(|mut line| line.remove(&Profile::Default));
    match dict
        .map(|dict| dict.into_iter().collect::<Vec<_>>())
        .as_deref()
    {
        // A date is a table to figment; only what is written as a table is meant as one.
        Some([(_, Value::Dict(..))]) if !text.trim_start().starts_with('{') => Value::from(text),
        Some([(_, value)]) => value.clone(),
        // More than one: the text has further lines, which look like settings.
        Some(_) | None => Value::from(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_toml_is_a_string() {
        let texts = [
            "info",
            "",
            "127.0.0.1:8008",
            "./a b",
            "1979-05-27",
            "1\nb = 2",
            "\"x",
        ];
        for text in texts.into_iter().chain([&*"[".repeat(10_000)]) {
            assert_eq!(value(text).as_str(), Some(text));
        }
    }

    #[test]
    fn what_is_toml_is_read() {
        assert_eq!(value("true").to_bool(), Some(true));
        assert_eq!(value(" 5 ").to_i128(), Some(5));
        assert_eq!(value(r#""\u00e9\n""#).as_str(), Some("\u{e9}\n"));
        // figment's own reader cuts this string in the middle of a character.
        let list = value(r#"["1\u0423\\"]"#.replace(r"\u0423", "\u{423}").as_str());
        let member = list.as_array().and_then(|list| list[0].as_str());
        assert_eq!(member, Some("1\u{423}\\"));
        assert!(value("{ a = 1 }").as_dict().is_some());
    }
}
