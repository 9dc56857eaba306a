//! The two macros that make tests of the cases. Each case is named once, here.

/// Makes a test of each case that every store must pass.
///
/// Takes a closure from [`Limits`](kitbag_domain::Limits) to a future of a fresh store; see the
/// documentation of the crate.
#[macro_export]
macro_rules! store_suite {
    ($open:expr) => {
        $crate::suite_tests! { store_suite_opener = $open =>
            accounts {
                an_account_is_made_with_or_without_a_session
                a_taken_id_is_refused_and_nothing_changes
                accounts_are_paged_by_id
                deactivation_erases_everything
                a_deactivated_account_takes_no_writes_and_no_logins
                a_deactivated_id_stays_taken
                an_unknown_user_is_refused_like_an_ended_session
                the_epoch_stays
            }
            changes {
                each_changed_entry_comes_once_at_its_latest_content
                entries_are_those_that_get_returns
                entries_that_are_read_together_bear_each_its_own_writer
                an_initial_answer_is_the_fold
                everything_live_is_told_packed
                from_zero_the_whole_history_is_told
                an_answer_can_be_asked_for_again
                at_the_head_nothing_is_told
                behind_the_head_everything_is_told
                a_head_that_is_told_at_once_is_that_of_now
                no_operation_moves_another_users_stream
            }
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
            concurrency {
                one_of_many_swaps_wins_while_devices_come_and_go
                concurrent_writes_are_all_there
                a_follower_misses_nothing
                everything_live_is_of_one_snapshot
                a_cancelled_write_is_whole_or_absent
                a_device_is_read_with_entries_of_its_own_time
            }
            device_data {
                a_page_holds_one_type_in_the_order_of_accounts_and_devices
                pages_go_on_behind_any_place
                an_entry_comes_with_the_name_of_its_device
                each_change_is_told_once_at_its_latest_content
                the_end_of_an_account_is_told
                a_collected_deletion_starts_who_has_not_heard_of_it_anew
                a_deletion_from_before_the_beginning_may_be_collected_while_it_is_read
                behind_the_head_everything_is_told
                a_change_wakes_who_follows_before_it_is_acknowledged
                other_data_and_refusals_do_not_wake_who_follows
                followers_know_what_is_there
            }
            devices {
                a_removed_device_writes_no_more
                a_device_made_again_is_another_one
                another_login_with_the_same_id_keeps_everything
                removal_drops_the_devices_entries_as_tombstones
                tombstones_bear_the_marks_of_the_removal
                removal_drops_the_notification_settings_that_exist
                nobody_writes_for_a_device_that_is_not_there
                a_new_device_takes_a_position_as_its_incarnation
                a_device_is_renamed_by_its_siblings_too
                devices_are_listed_by_id
                devices_are_read_with_their_entries
                devices_are_limited_but_known_ones_may_return
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
                descriptions_are_those_of_the_listed_entries_page_by_page
                an_unknown_user_has_nothing
                update_sees_the_live_entry_and_writes_what_it_decides
                update_is_guarded
                concurrent_updates_lose_nothing
            }
            filters {
                a_filter_comes_back_as_it_was
                equal_filters_are_kept_once
                filters_belong_to_their_users
            }
            passwords {
                a_new_password_ends_the_old_one
                without_logout_the_other_devices_stay
                with_logout_the_other_devices_go_with_their_entries
                a_refused_change_changes_nothing
            }
            profiles {
                fields_are_set_and_removed_each_for_itself
                profiles_belong_to_their_users
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
            reader {
                entries_are_read_as_a_type_of_the_caller
                what_is_not_there_is_read_as_nothing
                pages_of_devices_are_read_and_one_that_is_wrong_hides_no_other
                who_follows_waits_until_there_is_something
            }
            sessions {
                a_session_is_found_by_its_token_and_user
                a_session_comes_with_an_entry_of_its_user
                expired_sessions_are_returned_with_their_end
                a_login_ends_the_devices_old_tokens
                a_stale_password_starts_no_session
                refreshed_tokens_replace_the_old_ones_when_used
                a_missed_refresh_can_be_asked_for_again
                refreshing_with_the_new_token_is_a_use_of_it
                touching_the_old_token_ends_nothing
                touching_remembers_when_and_where_from
                touching_an_ended_session_does_nothing
                refreshing_needs_a_refresh_token_of_that_user
                refreshed_tokens_bear_their_own_end
            }
            tombstones {
                the_oldest_go_first_and_the_horizon_follows
                the_aged_go_with_a_later_deletion
                without_room_for_tombstones_every_deletion_moves_the_horizon
                a_new_put_takes_the_tombstones_place
                other_users_keep_their_horizon
                removed_devices_leave_no_more_than_the_limit
            }
            wakeups {
                a_write_is_published_before_it_is_acknowledged
                the_end_of_a_device_is_published
                other_users_do_not_wake
                refusals_and_what_changes_nothing_do_not_wake
                every_subscription_is_woken
                two_waiting_tasks_never_miss_each_other
            }
        }
    };
}

/// Makes a test of each law of histories: property tests against the oracle.
///
/// Takes what [`store_suite!`](crate::store_suite) takes. A few seconds; with `KITBAG_TEST_LONG=1` in the
/// environment minutes and many more seeds. A failure prints the seed, and `KITBAG_TEST_SEED` runs one
/// seed again.
#[macro_export]
macro_rules! law_suite {
    ($open:expr) => {
        $crate::suite_tests! { law_suite_opener = $open =>
            laws {
                sequential_histories_are_those_of_the_model
                concurrent_histories_obey_the_laws
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
            include_str!("suite/accounts.rs"),
            include_str!("suite/changes.rs"),
            include_str!("suite/compare_and_swap.rs"),
            include_str!("suite/concurrency.rs"),
            include_str!("suite/device_data.rs"),
            include_str!("suite/devices.rs"),
            include_str!("suite/entries.rs"),
            include_str!("suite/filters.rs"),
            include_str!("suite/laws.rs"),
            include_str!("suite/passwords.rs"),
            include_str!("suite/profiles.rs"),
            include_str!("suite/quota.rs"),
            include_str!("suite/reader.rs"),
            include_str!("suite/sessions.rs"),
            include_str!("suite/tombstones.rs"),
            include_str!("suite/wakeups.rs"),
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
