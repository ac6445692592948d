//! One suite for all queues, and what only one of them has.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod bench;
mod broken;
mod conformance;
mod elsewhere;
mod file;
mod model;

/// Every test of the suite, on each queue.
macro_rules! suite {
    ($($name:ident),* $(,)?) => {
        mod sqlite {
            use crate::{bench::Sqlite, conformance};
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                conformance::$name(&Sqlite::start()).await;
            })*
        }

        mod streams {
            use crate::{bench::Streams, conformance};
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                conformance::$name(&Streams::start()).await;
            })*
        }
    };
}

suite!(
    a_task_goes_through_all_stages_and_is_gone,
    enqueueing_twice_is_enqueueing_once,
    who_lost_a_lease_can_neither_settle_nor_renew,
    the_same_worker_cannot_settle_with_an_old_lease,
    a_renewed_lease_does_not_run_out,
    a_small_tenant_does_not_wait_for_a_large_one,
    a_tenant_that_always_comes_again_does_not_starve_others,
    priorities_order_a_tenants_work_and_age_the_rest,
    later_is_later_and_charged_when_it_was_the_tasks_own,
    what_is_handed_back_is_first_again,
    a_task_that_kills_runs_alone_and_ends_as_a_dead_letter,
    a_worker_is_cleared_for_what_must_run_alone,
    an_answer_that_is_lost_is_no_death,
    time_in_which_nobody_is_heard_is_not_counted,
    a_turn_that_came_to_nothing_is_given_back,
    turns_given_back_do_not_keep_others_waiting,
    what_breaks_off_counts_as_a_death,
    a_message_of_a_newer_version_is_left_to_newer_workers,
    a_message_that_nobody_can_read_is_put_aside,
    a_cancelled_job_is_out_wherever_it_was,
    a_cancelled_task_whose_worker_dies_is_gone,
    dead_letters_are_listed_revived_and_buried,
    dead_letters_are_not_kept_without_end,
    dead_letters_are_not_kept_for_ever,
    stages_pause_and_drain,
    a_draining_stage_holds_new_jobs_and_cancels_them,
    depth_and_pressure_tell_what_is_there,
    a_tenant_has_no_more_in_flight_than_allowed,
    workers_are_known_while_they_report,
    who_retires_hands_everything_back,
    who_waits_is_woken_by_another_process,
    many_workers_do_everything_once,
);
