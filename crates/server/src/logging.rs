//! The log: to standard error, as text or JSON.

use std::io::{self, IsTerminal as _};

use anyhow::{Result, anyhow, ensure};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::{LogConfig, LogFormat};

pub(crate) fn start(config: &LogConfig) -> Result<()> {
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter(config)?)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    let started = match config.format {
        LogFormat::Json => builder.json().try_init(),
        LogFormat::Text => builder.try_init(),
    };
    started.map_err(|error| anyhow!("the log could not be started: {error}"))
}

/// Returns what of the log is shown.
pub(crate) fn filter(config: &LogConfig) -> Result<EnvFilter> {
    let level = &config.level;
    // To the library a word that is no level names a part of the program, and all others are silent.
    let mut words = level
        .split(',')
        .filter(|part| !part.contains('='))
        .peekable();
    let has_words = words.peek().is_some() && !level.contains('[');
    let has_level = words.any(|word| !word.is_empty() && word.parse::<LevelFilter>().is_ok());
    ensure!(
        !has_words || has_level,
        "setting `log.level`: `{level}` is no level; these are error, warn, info, debug, trace and \
         off, and a filter is such as `info,kitbag_http=debug`"
    );
    // Its text has that of its source too.
    EnvFilter::try_new(level).map_err(|error| anyhow!("setting `log.level`: `{level}`: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LogFormat;

    fn try_level(level: &str) -> Result<EnvFilter> {
        filter(&LogConfig {
            format: LogFormat::Text,
            level: level.to_owned(),
        })
    }

    #[test]
    fn a_word_that_is_no_level_is_refused_with_those_there_are() {
        for level in [
            "warning",
            "banana",
            " info",
            "kitbag_http",
            "informational",
            "6",
            "",
            "warning,kitbag_http=debug",
            "kitbag_http=debug,",
        ] {
            let error = format!("{:#}", try_level(level).unwrap_err());
            assert!(
                error.contains(&format!("`log.level`: `{level}` is no")),
                "{error}"
            );
            assert!(
                error.contains("error, warn, info, debug, trace and off"),
                "{error}"
            );
        }
        for level in [
            "error",
            "warn",
            "info",
            "debug",
            "trace",
            "off",
            "WARN",
            "Info",
            "kitbag_http=debug",
            "info,kitbag_http=debug",
            "info,kitbag_http",
            "[request]",
        ] {
            assert!(try_level(level).is_ok(), "{level}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_filter_is_said_once() {
        let error = format!("{:#}", try_level("kitbag_http=loud").unwrap_err());
        assert_eq!(error.matches("error parsing").count(), 1, "{error}");
    }
}
