//! The two macros that make tests of the cases. Each case is named once, here.

/// Makes a test of each case that every store must pass.
///
/// Takes a closure from [`Limits`](kitbag_domain::Limits) to a future of a fresh store; see the
/// documentation of the crate.
#[macro_export]
macro_rules! store_suite {
    ($open:expr) => {
        $crate::suite_tests! { store_suite_opener = $open =>
            compare_and_swap {
                only_the_expected_revision_is_replaced
                what_has_no_string_revision_matches_any_expectation
                a_deleted_entry_has_no_revision
                name_forms_are_compared_each_with_its_own
                an_unconditional_put_replaces_any_revision
                a_conflict_is_told_before_a_full_quota
                a_missing_device_is_told_before_a_conflict
                a_conflict_in_the_middle_undoes_the_rest
            }
            entries {
                put_then_get_returns_the_same_bytes
                an_entry_bears_the_marks_of_its_latest_change
                an_equal_put_takes_a_position
                a_put_of_the_empty_object_is_a_value
                a_delete_takes_a_position_only_where_something_was
                names_are_compared_byte_for_byte
                positions_increase_strictly
                users_do_not_share_entries_or_positions
                apply_is_all_or_nothing
                apply_sees_its_own_earlier_operations
                apply_of_nothing_changes_nothing
                list_returns_the_selected_live_entries_by_key
                an_unknown_user_has_nothing
                update_sees_the_live_entry_and_writes_what_it_decides
                update_is_guarded
                concurrent_updates_lose_nothing
            }
            quota {
                entries_are_counted_up_to_the_limit
                own_doors_have_a_reserve
                bytes_are_counted_with_the_names
                a_device_has_its_own_count
                operations_of_one_call_are_counted_together
                removed_devices_give_their_share_back
                usage_stays_equal_to_the_sum_of_live_entries
            }
        }
    };
}

/// Expands the lists of the suites; not to be called by others.
#[doc(hidden)]
#[macro_export]
macro_rules! suite_tests {
    ($opener:ident = $open:expr => $($area:ident { $($case:ident)* })*) => {
        fn $opener() -> $crate::Opener {
            $crate::Opener::new($open)
        }

        $(mod $area {
            $(
                #[::tokio::test(flavor = "multi_thread")]
                async fn $case() {
                    $crate::suite::$area::$case(super::$opener()).await;
                }
            )*
        })*
    };
}

#[cfg(test)]
mod tests {
    /// A case that is written but not listed would never run.
    #[test]
    fn every_case_is_listed() {
        let listed = include_str!("macros.rs");
        let areas = [
            include_str!("suite/compare_and_swap.rs"),
            include_str!("suite/entries.rs"),
            include_str!("suite/quota.rs"),
        ];
        for source in areas {
            for line in source.lines() {
                let Some(rest) = line.strip_prefix("pub async fn ") else {
                    continue;
                };
                let name = rest.split('(').next().unwrap();
                let is_listed = listed.lines().any(|line| line.trim() == name);
                assert!(is_listed, "`{name}` is missing in the list");
            }
        }
    }
}
