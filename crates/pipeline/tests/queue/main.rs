//! One suite for all queues, and tests of what only one of them has.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster_sentinel_tls;
mod conformance;
mod faults;
mod file;
mod harness;
mod model;

/// Makes a test of each behaviour, for each queue.
macro_rules! suite {
    ($($topic:ident: $($name:ident),*);* $(;)?) => {
        suite!(@queue sqlite, crate::harness::Sqlite: $($topic: $($name),*);*);
        suite!(@queue redis_streams, crate::harness::Streams: $($topic: $($name),*);*);
    };
    (@queue $module:ident, $bench:path: $($topic:ident: $($name:ident),*);*) => {
        mod $module {
            $(mod $topic {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $name() {
                    crate::conformance::$topic::$name(&<$bench>::start()).await;
                })*
            })*
        }
    };
}

suite!(
    tasks:
        a_task_goes_through_all_stages_and_leaves_the_queue,
        enqueueing_twice_is_enqueueing_once,
        a_delayed_task_is_charged_only_for_its_own_failure,
        a_released_task_is_first_again,
        a_cancelled_job_leaves_the_queue_from_every_state,
        a_cancelled_task_is_removed_when_its_worker_crashes,
        a_waiting_worker_is_woken_by_another_process,
        many_workers_do_each_task_once;
    leases:
        a_lost_lease_can_be_neither_settled_nor_renewed,
        a_worker_cannot_settle_with_its_own_expired_lease,
        a_renewed_lease_does_not_expire,
        a_lost_lease_response_is_not_a_crash,
        an_outage_does_not_expire_leases,
        workers_are_registered_while_they_send_heartbeats,
        deregister_releases_all_leases;
    fairness:
        a_small_tenant_does_not_wait_for_a_large_one,
        a_tenant_that_keeps_enqueueing_does_not_starve_others,
        tasks_of_a_tenant_are_leased_by_priority_then_age,
        a_turn_without_a_result_is_refunded,
        refunds_do_not_starve_other_tenants,
        tasks_in_flight_per_tenant_are_limited;
    crashes:
        a_task_that_crashes_workers_runs_alone_and_becomes_a_dead_letter,
        a_worker_becomes_idle_for_a_task_that_must_run_alone,
        a_panic_counts_as_a_crash;
    dead_letters:
        a_message_of_a_newer_version_is_left_to_newer_workers,
        an_unreadable_message_becomes_a_dead_letter,
        dead_letters_are_listed_requeued_and_deleted,
        the_number_of_dead_letters_is_limited,
        dead_letters_expire;
    stages:
        stages_pause_and_drain,
        cancel_removes_tasks_that_a_draining_stage_holds,
        depth_and_backlog_count_tasks_and_bytes;
);
