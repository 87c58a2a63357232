//! What every database has to hold to: one list of sentences, said to SQLite and to a real PostgreSQL.
//!
//! `place` is a database for one test, `sentences` what holds of it, `crash` what holds when processes are killed,
//! `engines` what only one of them can do.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cognitive_complexity,
    reason = "a test that cannot go on has to end there; a sentence is told in one go, and each assertion counts"
)]

mod crash;
mod engines;
mod failover;
mod measure;
mod place;
mod postgres;
mod sentences;

/// The name of a test process that does what the environment says, and is no test otherwise.
const CHILD: &str = "crash::this_process_writes_when_it_is_told_to";

/// Says each sentence of both engines.
macro_rules! both {
    ($($module:ident :: { $($sentence:ident),* $(,)? })*) => {
        mod sqlite {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $sentence() {
                crate::$module::$sentence(&crate::place::Place::sqlite()).await;
            })*)*
        }
        mod postgresql {
            $($(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $sentence() {
                let Some(place) = crate::place::Place::postgres().await else { return };
                crate::$module::$sentence(&place).await;
            })*)*
        }
    };
}

both! {
    sentences::{
        a_change_has_the_next_position_and_comes_once,
        what_was_refused_leaves_nothing_behind,
        a_follower_of_many_writers_at_two_replicas_skips_no_position,
        a_commit_at_one_replica_wakes_whoever_waits_at_another,
        the_same_key_and_request_is_made_once_wherever_it_is_asked,
        the_same_key_with_another_request_is_refused,
        a_name_is_good_once_at_whichever_replica,
        a_name_that_ended_long_ago_is_forgotten_and_not_good_again,
        lists_go_on_where_they_ended_and_keep_to_their_filters,
        a_sidecar_hears_nothing_of_other_tenants_and_nothing_that_covers_nothing,
        a_join_token_is_good_once_and_its_secret_is_nowhere,
        a_join_token_that_is_not_good_always_gets_the_same_answer,
        a_sidecars_keys_overlap_while_one_replaces_the_other,
        a_ledger_has_one_key_and_one_sidecar_that_speaks_for_it,
        a_ledger_stays_every_tenants_whose_records_it_may_hold,
        a_head_takes_the_place_of_the_one_it_continues_and_of_no_other,
        of_earlier_heads_one_a_minute_is_kept_and_not_for_ever,
        what_lessens_an_agent_withdraws_it_and_what_widens_does_not,
        what_lessens_a_grant_withdraws_it_and_what_widens_does_not,
        a_task_keeps_within_its_grant_its_agent_and_its_run,
        the_grant_that_counts_is_the_last_of_one_user_to_one_agent,
        the_task_that_goes_on_is_the_last_of_that_session,
        a_user_is_known_in_each_tenant_by_the_newest_token,
        users_are_found_by_an_attribute_of_theirs_as_it_was_last,
        a_withdrawal_ends_what_is_registered,
        what_ended_never_begins_again,
        what_is_remembered_is_what_is_there_whatever_changed_it_at_whichever_replica,
        whoever_has_read_a_head_finds_nothing_older_however_many_change_it,
        two_replicas_never_lease_more_than_a_limit_holds,
        what_is_given_back_is_there_for_others_and_what_is_not_is_spent,
        a_question_that_comes_again_or_too_late_changes_nothing,
        a_limit_that_a_sidecar_could_not_see_is_not_there,
        a_limit_that_was_lowered_holds_from_the_next_lease_on,
        what_was_spent_before_a_restore_is_not_taken_for_left,
        the_same_call_is_charged_once_whichever_sidecars_it_comes_to,
        a_charge_is_taken_back_unless_another_call_goes_on_it,
        a_charge_stands_for_something_that_was_leased_and_for_no_longer_than_its_window,
        what_was_charged_before_a_restore_is_not_taken_for_paid,
        charges_go_a_day_after_their_window,
        an_outage_of_a_ledger_is_one_for_as_long_as_it_lasts,
        declarations_are_applied_once_and_make_nothing_good_again,
        what_enrolled_one_key_enrols_no_other_one,
        what_is_told_once_has_its_effect_once_wherever_it_is_told,
        a_signing_key_takes_over_at_one_moment_at_every_replica,
        a_signing_key_that_was_withdrawn_signs_and_shows_no_more,
        a_restore_begins_a_generation_in_which_nothing_unused_from_before_is_good,
        a_database_of_an_earlier_program_is_brought_up_to_date_with_what_is_in_it,
        a_later_schema_is_refused,
        a_bundle_has_one_pin_for_the_same_sidecars_and_it_is_gone_when_it_is_taken_back,
        a_pin_that_is_over_holds_no_more_and_makes_room,
        pins_of_one_tenant_leave_room_for_those_of_others_and_of_all,
        replicas_that_start_together_make_one_schema,
        a_sidecar_that_was_away_misses_nothing_however_much_was_forgotten_meanwhile,
        changes_stay_until_each_ledger_has_them_and_a_month_for_one_that_is_gone,
        who_was_withdrawn_stays_so_and_what_was_said_twice_is_kept_once,
        one_replica_at_a_time_forgets_and_does_it_in_small_steps,
        what_has_ended_is_listed_for_a_season_and_brings_nothing_back_when_it_goes,
        answers_and_windows_of_limits_go_a_day_after_they_are_of_use,
    }
    measure::{ how_long_writes_and_questions_take }
    crash::{
        nothing_acknowledged_is_lost_when_its_process_is_killed,
        processes_that_start_together_make_one_schema,
    }
}
