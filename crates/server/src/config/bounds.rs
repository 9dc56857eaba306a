//! The largest value of each number: what is beyond is a mistake, and is refused at the start.

use std::num::NonZeroUsize;

use anyhow::{Result, bail};
use figment::Figment;
use kitbag_domain::limit::DEVICE_PAGE_BYTES_MAX;
use kitbag_store_sqlite::limit::WRITE_QUEUE_BYTES_MAX;

use super::{Config, hint};

const DAY_MS: u64 = 24 * 60 * 60 * 1_000;
const YEAR_MS: u64 = 365 * DAY_MS;
const GIB: u64 = 1024 * 1024 * 1024;
const TRIES_MAX: u64 = 1_000_000;

/// Passwords hashed at once: with 19 MiB each some 19 GiB.
pub(super) const PASSWORDS_PARALLEL_MAX: NonZeroUsize =
    NonZeroUsize::new(1_024).expect("the number is not zero");

/// Threads of the runtime: more than any machine has processors for.
pub(super) const THREADS_MAX: NonZeroUsize =
    NonZeroUsize::new(1_024).expect("the number is not zero");

/// The largest value of each setting that is a number.
const BOUNDS: [(&str, u64); 41] = [
    ("cache.answers_bytes_max", 1_024 * GIB),
    ("cache.bytes_max", 1_024 * GIB),
    ("cache.push_rules_bytes_max", 1_024 * GIB),
    // A larger one would take the queue of writes from everybody else.
    ("limits.content_bytes_max", WRITE_QUEUE_BYTES_MAX),
    // What the server itself reads of many devices at once.
    ("limits.device_content_bytes_max", DEVICE_PAGE_BYTES_MAX),
    ("limits.json_depth_max", 1_024),
    ("limits.entries_max", 1_000_000),
    // An initial sync has all of it in memory.
    ("limits.bytes_max", 4 * GIB),
    ("limits.device_entries_max", 10_000),
    ("limits.devices_max", 100_000),
    ("limits.tombstones_max", 1_000_000),
    ("limits.tombstone_age_ms_max", 100 * YEAR_MS),
    ("limits.filters_max", 10_000),
    // No machine has as many descriptors.
    ("listener.connections_max", 1_000_000),
    ("listener.header_timeout_ms", DAY_MS),
    ("listener.body_timeout_ms", DAY_MS),
    ("listener.write_timeout_ms", DAY_MS),
    ("listener.shutdown_timeout_ms", DAY_MS),
    ("msc4547.fence_ms", DAY_MS),
    ("passwords.parallel", PASSWORDS_PARALLEL_MAX.get() as u64),
    ("rate_limits.admin_burst", TRIES_MAX),
    ("rate_limits.admin_per_minute", TRIES_MAX),
    ("rate_limits.explanation_burst", TRIES_MAX),
    ("rate_limits.explanation_per_minute", TRIES_MAX),
    ("rate_limits.login_burst", TRIES_MAX),
    ("rate_limits.login_per_minute", TRIES_MAX),
    ("rate_limits.refresh_burst", TRIES_MAX),
    ("rate_limits.refresh_per_minute", TRIES_MAX),
    ("rate_limits.registration_burst", TRIES_MAX),
    ("rate_limits.registration_per_minute", TRIES_MAX),
    ("runtime.threads", THREADS_MAX.get() as u64),
    ("sessions.access_token_lifetime_ms", YEAR_MS),
    ("sync.timeout_ms_max", DAY_MS),
    ("upstream.connect_timeout_ms", DAY_MS),
    ("upstream.response_timeout_ms", DAY_MS),
    ("upstream.ask_timeout_ms", DAY_MS),
    ("upstream.idle_timeout_ms", DAY_MS),
    ("upstream.idle_connections_max", 1_000_000),
    // Who is logged out or gone must not be taken for there for longer.
    ("upstream.remember_ms", 5_000),
    ("writes.burst", TRIES_MAX),
    ("writes.per_minute", TRIES_MAX),
];

/// Checks that no number is beyond its bound; `figment` tells where each came from.
pub(super) fn check(config: &Config, figment: &Figment) -> Result<()> {
    let values = serde_json::to_value(config)?;
    for (key, value_max) in BOUNDS {
        let value = values.pointer(&format!("/{}", key.replace('.', "/")));
        let value = value.and_then(serde_json::Value::as_u64);
        let value = value.expect("each row of the table is a number, as a test sees");
        if value > value_max {
            let source = hint::source(figment.find_metadata(key));
            bail!(
                "configuration: setting `{key}`: {value} is too much, {value_max} is the most{source}"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    /// Names all numbers of a table and of those in it.
    fn numbers(path: &str, value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(table) => {
                for (key, value) in table {
                    let dot = if path.is_empty() { "" } else { "." };
                    numbers(&format!("{path}{dot}{key}"), value, found);
                }
            }
            Value::Number(_) => found.push(path.to_owned()),
            _ => {}
        }
    }

    #[test]
    fn every_number_has_a_bound() {
        let mut found = Vec::new();
        numbers(
            "",
            &serde_json::to_value(Config::default()).unwrap(),
            &mut found,
        );
        let mut bounded = BOUNDS.map(|(key, _)| key);
        bounded.sort_unstable();
        found.sort_unstable();
        assert_eq!(found, bounded);
    }

    #[test]
    fn the_bounds_are_documented() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/configuration.md");
        let text = std::fs::read_to_string(path).unwrap();
        let documented = text.lines().filter_map(|line| {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let key = cells.get(1)?.strip_prefix('`')?.strip_suffix('`')?;
            let value_max = cells.get(3)?.split(' ').next()?.parse().ok()?;
            Some((key.to_owned(), value_max))
        });
        let mut documented: Vec<(String, u64)> = documented.collect();
        let mut bounds = BOUNDS.map(|(key, value_max)| (key.to_owned(), value_max));
        documented.sort_unstable();
        bounds.sort_unstable();
        assert_eq!(documented, bounds);
    }

    #[test]
    fn the_largest_values_are_taken_and_larger_ones_are_not() {
        for (key, value_max) in BOUNDS {
            let set = |value: u64| {
                let figment =
                    Figment::from(figment::providers::Serialized::defaults(Config::default()));
                super::super::extract(figment.merge((key, value)))
            };
            set(value_max).unwrap();
            let error = set(value_max + 1).unwrap_err().to_string();
            let because = format!("{} is too much, {value_max} is the most", value_max + 1);
            assert_eq!(error, format!("configuration: setting `{key}`: {because}"));
        }
    }
}
