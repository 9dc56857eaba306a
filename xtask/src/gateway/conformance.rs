//! The conformance scenarios through the gateway: all that Kitbag has, and those of rooms, which it
//! has not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::lab::Lab;
use crate::conformance::{self, GATEWAY, Report};
use crate::process::{self, Ended};

/// All scenarios, one after the other, take half a minute.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Areas that are not run.
const LEFT_OUT: [(&str, &str); 2] = [
    // Synapse has it behind an experimental setting, and the gateway adds it for device data alone.
    ("delete/", "global and room account data cannot be deleted"),
    ("push_rule_explanations/", "an endpoint of Kitbag's own"),
];

/// Why scenarios do not hold, and which: each of these must fail.
type Exceptions = &'static [(&'static str, &'static [&'static str])];

const EXCEPTIONS: Exceptions = &[
    (
        "Synapse writes each content anew, as its JSON library does",
        &[
            "account_data/content_comes_back_byte_for_byte",
            "account_data/verbatim_is_from_brace_to_brace",
            "device_account_data/content_comes_back_byte_for_byte",
            "room_account_data/content_comes_back_byte_for_byte",
            "sync/content_is_verbatim",
        ],
    ),
    (
        "what would be a guarded type if it were decoded once more never reaches the homeserver",
        &["protected/similar_types_are_ordinary"],
    ),
    (
        "reads go through: Synapse looks for what Kitbag refuses to look for",
        &["room_account_data/impossible_room_ids_are_400_invalid_param"],
    ),
    (
        "Synapse has an empty object there",
        &["protected/push_rules_of_a_room_are_404"],
    ),
    (
        "push rules are Synapse's own: other defaults, places and errcodes, and no limits",
        &[
            "push_rule_edits/update_keeps_place_and_enabled",
            "push_rule_order/after_is_directly_after",
            "push_rule_order/unknown_neighbour_is_400_unknown",
            "push_rule_refusals/bodies_that_are_no_objects_are_400",
            "push_rule_refusals/default_rules_are_not_made_or_deleted",
            "push_rule_refusals/id_that_is_not_utf8_is_400",
            "push_rule_refusals/limits_of_a_rule_are_inclusive",
            "push_rule_refusals/malformed_rules_are_400",
            "push_rule_refusals/malformed_rules_have_their_errcodes",
            "push_rule_refusals/misplaced_requests_are_400_unrecognized",
            "push_rule_refusals/other_methods_are_405",
            "push_rule_refusals/slashes_in_an_id_are_400",
            "push_rules/all_doors_show_the_same_bytes",
            "push_rules/defaults_are_those_of_the_specification",
            "push_rules/nothing_that_was_sent_is_lost",
        ],
    ),
    (
        "a deleted entry stands as a tombstone in global account data, and filters see its type there",
        &[
            "device_sync/filter_goes_by_type",
            "device_sync/filtered_change_does_not_end_the_wait",
            "life_cycle/deleted_entry_is_a_tombstone_in_sync",
            "life_cycle/recreated_device_starts_empty",
            "life_cycle/siblings_see_the_removal_in_sync",
        ],
    ),
    (
        "Synapse keeps the old token of a device that logs in again",
        &[
            "accounts/login_with_the_same_device_kills_the_old_token",
            "life_cycle/login_with_the_same_device_id_keeps_the_entries",
        ],
    ),
    (
        "Synapse lets a waiting sync wait on behind the end of its device",
        &["tokens/waiting_sync_ends_with_its_device"],
    ),
    (
        "Synapse has another errcode or status",
        &[
            "filters/invalid_filters_are_4xx",
            "filters/senders_exclude_all_and_not_senders_none",
            "http/profile_of_nobody_is_404",
            "sync/garbage_token_is_invalid_param",
            "tokens/old_refresh_token_lives_until_the_new_is_used",
        ],
    ),
    (
        "Synapse looks for a star at the end of a type only",
        &["filters/star_matches_anywhere"],
    ),
    (
        "Synapse has other bounds of IDs and types, or none",
        &[
            "devices/device_id_of_128_bytes_is_the_longest",
            "refusals/type_of_255_bytes_is_the_longest",
            "room_account_data/type_of_255_bytes_is_the_longest",
        ],
    ),
    (
        "global account data cannot be deleted",
        &["compare_and_swap/deleted_entry_has_no_revision"],
    ),
];

/// Runs them, and returns how many held.
pub(super) fn run(lab: &Lab<'_>) -> anyhow::Result<u64> {
    let report = lab.file("conformance.json");
    let printed = lab.file("conformance.txt");
    let mut rest = vec!["--json".to_owned(), report.display().to_string()];
    // An acknowledged write is not in every sync of Synapse while others write, whoever they are:
    // the position of a stream stands before the oldest write that is under way.
    rest.extend(["--parallel", "1", "--device-data", "global"].map(str::to_owned));
    for (area, _) in LEFT_OUT {
        rest.extend(["--without".to_owned(), area.to_owned()]);
    }
    let program = lab.workspace.program("kitbag-conformance");
    let command = conformance::command(&program, lab.gateway.base_url(), &GATEWAY, &rest);
    // Ends with a failure where one is red, so only the report tells.
    if process::run_within(&command, TIMEOUT, &printed)? == Ended::TimedOut {
        bail!("not at an end after {TIMEOUT:?}, see {}", printed.display());
    }
    let read = Report::read(&report);
    let printed = || fs::read_to_string(&printed).unwrap_or_default();
    judge(&read.with_context(printed)?, EXCEPTIONS)
}

/// Compares what failed with what must fail.
fn judge(report: &Report, exceptions: Exceptions) -> anyhow::Result<u64> {
    ensure!(
        report.canary_stored > 0,
        "the canary was never stored, so its absence from the log shows nothing"
    );
    let mut excepted = BTreeMap::new();
    for (why, names) in exceptions {
        excepted.extend(names.iter().map(|name| (*name, *why)));
    }
    let mut findings = Vec::new();
    let mut held = 0;
    for row in &report.rows {
        let name = row.name.as_str();
        match (row.passed, excepted.get(name)) {
            (true, None) => held += 1,
            (true, Some(why)) => findings.push(format!("{name} holds, and is excepted: {why}")),
            (false, None) => findings.push(format!(
                "{name} fails:\n    expected  {}\n    got       {}",
                row.expected.as_deref().unwrap_or_default(),
                row.got.as_deref().unwrap_or_default(),
            )),
            (false, Some(_)) => {}
        }
    }
    let names: BTreeSet<_> = report.rows.iter().map(|row| row.name.as_str()).collect();
    let unknown = excepted.keys().filter(|name| !names.contains(*name));
    findings.extend(unknown.map(|name| format!("{name} is excepted, and was not run")));
    ensure!(findings.is_empty(), "{}", findings.join("\n"));
    Ok(held)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn judged(rows: &[(&str, bool)], canary_stored: u64) -> Result<u64, String> {
        let row = |(name, passed): &(&str, bool)| json!({"name": name, "passed": passed});
        let rows: Vec<_> = rows.iter().map(row).collect();
        let report = json!({"rows": rows, "canary_stored": canary_stored});
        let report = serde_json::from_value(report).unwrap();
        judge(&report, &[("the homeserver's", &["a/one"])]).map_err(|error| error.to_string())
    }

    #[test]
    fn just_what_is_excepted_may_fail() {
        assert_eq!(judged(&[("a/one", false), ("a/two", true)], 1), Ok(1));
        let error = judged(&[("a/one", false), ("a/two", false)], 1).unwrap_err();
        assert!(error.contains("a/two fails"), "{error}");
    }

    #[test]
    fn what_is_excepted_must_fail() {
        let error = judged(&[("a/one", true)], 1).unwrap_err();
        assert!(error.contains("a/one holds"), "{error}");
        let error = judged(&[("a/two", true)], 1).unwrap_err();
        assert!(error.contains("was not run"), "{error}");
    }

    #[test]
    fn run_that_stores_no_canary_shows_nothing() {
        assert!(judged(&[("a/one", false)], 0).is_err());
    }
}
