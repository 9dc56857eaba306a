//! The conformance scenarios through the gateway: all that Kitbag has, and those of rooms, which it
//! has not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::lab::Lab;
use crate::conformance::{self, GATEWAY, Report, Row};
use crate::process::{self, Ended};

/// All scenarios, one after the other, take half a minute.
const TIMEOUT: Duration = Duration::from_secs(300);

/// The area that is not run: an endpoint of Kitbag's own.
const LEFT_OUT: &str = "push_rule_explanations/";

/// Why scenarios do not hold, and which, with a part of what each says on failing: each of these must
/// fail, and there. So what goes wrong before that is noticed.
type Exceptions = &'static [(&'static str, &'static [(&'static str, &'static str)])];

/// What Synapse says of a content that it cannot write down.
const NO_NUMBER: &str = r#"500 {"errcode":"M_UNKNOWN","error":"Internal server error"} for PUT "#;

/// What Synapse says of a deletion.
const NO_DELETION: &str =
    r#""Unrecognized request"} for DELETE /_matrix/client/unstable/org.matrix.msc3391/user/"#;

const EXCEPTIONS: Exceptions = &[
    (
        "Synapse writes each content anew, as its JSON library does",
        &[
            (
                "account_data/content_comes_back_byte_for_byte",
                r#"200 {"z":1,"a":[1,2,3]} for GET "#,
            ),
            (
                "account_data/verbatim_is_from_brace_to_brace",
                r#"200 {"a":1} for GET "#,
            ),
            ("sync/content_is_verbatim", r#""content":{"z":1.0,"a":2}}"#),
        ],
    ),
    (
        "Synapse fails at a number that Python has not, here 1e999",
        &[
            (
                "device_account_data/content_comes_back_byte_for_byte",
                NO_NUMBER,
            ),
            (
                "room_account_data/content_comes_back_byte_for_byte",
                NO_NUMBER,
            ),
        ],
    ),
    (
        "what would be a guarded type if it were decoded once more never reaches the homeserver",
        &[(
            "protected/similar_types_are_ordinary",
            "account_data/m.push%255Frules",
        )],
    ),
    (
        "reads go through: Synapse looks for what Kitbag refuses to look for",
        &[(
            "room_account_data/impossible_room_ids_are_400_invalid_param",
            r#""Room account data not found"} for GET "#,
        )],
    ),
    (
        "Synapse has an empty object there",
        &[("protected/push_rules_of_a_room_are_404", "200 {} for GET ")],
    ),
    (
        "push rules are Synapse's own: other defaults, places and errcodes, and no limits",
        &[
            (
                "push_rule_edits/update_keeps_place_and_enabled",
                r#"["b", "a", "c"]"#,
            ),
            (
                "push_rule_order/after_is_directly_after",
                "Query parameter 'before' must be ascii",
            ),
            (
                "push_rule_order/unknown_neighbour_is_400_unknown",
                "200 {} for PUT /_matrix/client/v3/pushrules/global/room/new?before=",
            ),
            (
                "push_rule_refusals/bodies_that_are_no_objects_are_400",
                r#"400 {"errcode":"M_UNKNOWN","error":"No actions found"}"#,
            ),
            (
                "push_rule_refusals/default_rules_are_not_made_or_deleted",
                "cannot add new rule_ids that start with '.'",
            ),
            (
                "push_rule_refusals/id_that_is_not_utf8_is_400",
                "200 {} for PUT /_matrix/client/v3/pushrules/global/room/%FF",
            ),
            (
                "push_rule_refusals/limits_of_a_rule_are_inclusive",
                "200 {} for PUT /_matrix/client/v3/pushrules/global/room/a",
            ),
            (
                "push_rule_refusals/malformed_rules_are_400",
                "200 {} for PUT /_matrix/client/v3/pushrules/global/override/a",
            ),
            (
                "push_rule_refusals/malformed_rules_have_their_errcodes",
                r#"400 {"errcode":"M_UNKNOWN","error":"Missing 'conditions'"}"#,
            ),
            (
                "push_rule_refusals/misplaced_requests_are_400_unrecognized",
                "user-defined rules using `postcontent` are not accepted",
            ),
            (
                "push_rule_refusals/other_methods_are_405",
                "200 {} for DELETE /_matrix/client/v3/pushrules/global/room/a/enabled",
            ),
            (
                "push_rule_refusals/slashes_in_an_id_are_400",
                "200 {} for PUT /_matrix/client/v3/pushrules/global/override/enabled%2F",
            ),
            (
                "push_rules/all_doors_show_the_same_bytes",
                r#"a sync with the content {"global":{"#,
            ),
            (
                "push_rules/defaults_are_those_of_the_specification",
                r#"{"set_tweak":"highlight","value":false},{"set_tweak":"sound","value":"default"}]"#,
            ),
            (
                "push_rules/nothing_that_was_sent_is_lost",
                r#""value":{"n":1000.0}"#,
            ),
        ],
    ),
    (
        "a deleted entry stands as a tombstone in global account data, and filters see its type there",
        &[
            (
                "device_sync/filter_goes_by_type",
                r#"sync {"device_one_time_keys_count""#,
            ),
            (
                "device_sync/filtered_change_does_not_end_the_wait",
                r#"{"events":[{"content":{},"type":"org.example.device"}]}"#,
            ),
            (
                "life_cycle/deleted_entry_is_a_tombstone_in_sync",
                "[Object {}]",
            ),
            ("life_cycle/recreated_device_starts_empty", "[Object {}]"),
            ("life_cycle/siblings_see_the_removal_in_sync", "[Object {}]"),
        ],
    ),
    (
        "Synapse keeps the old token of a device that logs in again",
        &[
            (
                "accounts/login_with_the_same_device_kills_the_old_token",
                r#""Account data not found"} for GET "#,
            ),
            (
                "life_cycle/login_with_the_same_device_id_keeps_the_entries",
                r#"200 {"of":"again"} for GET "#,
            ),
        ],
    ),
    (
        "Synapse lets a waiting sync wait on behind the end of its device",
        &[(
            "tokens/waiting_sync_ends_with_its_device",
            r#"200 {"next_batch":"#,
        )],
    ),
    (
        "Synapse has another errcode or status",
        &[
            (
                "filters/invalid_filters_are_4xx",
                r#"500 {"errcode":"M_UNKNOWN","error":"Internal server error"} for POST "#,
            ),
            (
                "filters/senders_exclude_all_and_not_senders_none",
                "On instance['account_data']['not_senders'][0]",
            ),
            (
                "http/profile_of_nobody_is_404",
                r#"404 {"errcode":"M_UNKNOWN","error":"No row found (profiles)"}"#,
            ),
            (
                "sync/garbage_token_is_invalid_param",
                r#"400 {"errcode":"M_UNKNOWN","error":"Invalid stream token"}"#,
            ),
            (
                "tokens/old_refresh_token_lives_until_the_new_is_used",
                r#"403 {"errcode":"M_FORBIDDEN","error":"refresh token isn't valid anymore"}"#,
            ),
        ],
    ),
    (
        "Synapse looks for a star at the end of a type only",
        &[(
            "filters/star_matches_anywhere",
            r#"with {"types":["*c"]} the types"#,
        )],
    ),
    (
        "Synapse has other bounds of IDs and types, or none",
        &[
            (
                "devices/device_id_of_128_bytes_is_the_longest",
                r#""device_id":"DDDD"#,
            ),
            (
                "refusals/type_of_255_bytes_is_the_longest",
                "200 {} for PUT ",
            ),
            (
                "room_account_data/type_of_255_bytes_is_the_longest",
                "200 {} for PUT ",
            ),
        ],
    ),
    (
        "Synapse deletes global and room account data behind an experimental setting alone, and the \
         gateway adds that for device data",
        &[
            (
                "compare_and_swap/deleted_entry_has_no_revision",
                NO_DELETION,
            ),
            ("delete/bad_room_id_is_400_invalid_param", NO_DELETION),
            ("delete/body_of_a_delete_is_ignored", NO_DELETION),
            ("delete/deleted_entry_can_be_written_again", NO_DELETION),
            ("delete/deleted_global_entry_is_404", NO_DELETION),
            ("delete/deleted_room_entry_is_404", NO_DELETION),
            ("delete/deleting_what_is_absent_is_200", NO_DELETION),
            ("delete/deleting_what_is_absent_is_not_in_sync", NO_DELETION),
            ("delete/incremental_sync_has_a_tombstone_once", NO_DELETION),
            ("delete/initial_sync_hides_the_deleted", NO_DELETION),
            ("delete/only_the_named_entry_goes", NO_DELETION),
            ("delete/room_tombstone_is_in_sync_of_the_room", NO_DELETION),
            ("delete/strange_types_are_deleted", NO_DELETION),
            (
                "delete/write_and_delete_between_syncs_shows_the_deletion",
                NO_DELETION,
            ),
        ],
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
    rest.extend(["--without", LEFT_OUT].map(str::to_owned));
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
        excepted.extend(names.iter().map(|(name, said)| (*name, (*why, *said))));
    }
    let mut findings = Vec::new();
    let mut held = 0;
    for row in &report.rows {
        let name = row.name.as_str();
        match (row.passed, excepted.get(name)) {
            (true, None) => held += 1,
            (true, Some((why, _))) => {
                findings.push(format!("{name} holds, and is excepted: {why}"));
            }
            (false, None) => findings.push(format!("{name} fails:\n{}", said_by(row))),
            (false, Some((why, said))) => {
                let got = said_by(row);
                if !got.contains(said) {
                    findings.push(format!(
                        "{name} fails otherwise than by `{said}` ({why}):\n{got}"
                    ));
                }
            }
        }
    }
    let names: BTreeSet<_> = report.rows.iter().map(|row| row.name.as_str()).collect();
    let unknown = excepted.keys().filter(|name| !names.contains(*name));
    findings.extend(unknown.map(|name| format!("{name} is excepted, and was not run")));
    ensure!(findings.is_empty(), "{}", findings.join("\n"));
    Ok(held)
}

/// Returns what a scenario says on failing.
fn said_by(row: &Row) -> String {
    let [expected, got] = [&row.expected, &row.got].map(|text| text.as_deref().unwrap_or_default());
    format!("    expected  {expected}\n    got       {got}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const EXCEPTED: Exceptions = &[("the homeserver's", &[("a/one", "404 for GET /a")])];

    fn judged(rows: &[(&str, bool)], canary_stored: u64) -> Result<u64, String> {
        told(rows, canary_stored, "404 for GET /a")
    }

    /// As [`judged`], where all that fail say this.
    fn told(rows: &[(&str, bool)], canary_stored: u64, got: &str) -> Result<u64, String> {
        let row = |(name, passed): &(&str, bool)| {
            let (passed, expected) = (*passed, "200 {}");
            json!({"name": name, "passed": passed, "expected": expected, "got": got})
        };
        let rows: Vec<_> = rows.iter().map(row).collect();
        let report = json!({"rows": rows, "canary_stored": canary_stored});
        let report = serde_json::from_value(report).unwrap();
        judge(&report, EXCEPTED).map_err(|error| error.to_string())
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
    fn what_is_excepted_must_fail_there() {
        let error = told(&[("a/one", false)], 1, "404 for GET /b").unwrap_err();
        assert!(error.contains("a/one fails otherwise"), "{error}");
        assert!(error.contains("404 for GET /b"), "{error}");
        let error = told(&[("a/one", false)], 1, "").unwrap_err();
        assert!(error.contains("a/one fails otherwise"), "{error}");
    }

    #[test]
    fn run_that_stores_no_canary_shows_nothing() {
        assert!(judged(&[("a/one", false)], 0).is_err());
    }
}
