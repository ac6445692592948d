//! One suite, every job store. A test gets a store and a tenant of its own; the store may be shared.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod outcomes;
mod postgres;
mod progress;
mod retention;
#[path = "../../../store/tests/conformance/server.rs"]
mod server;
mod sqlite;
mod submit;
mod support;

/// The suite for one implementation: `$make` is an async function that gives a store.
macro_rules! conformance {
    ($make:path) => {
        crate::conformance!($make:
            submit: a_job_is_seen_once_it_starts, documents_come_as_they_were_sent,
                another_tenants_job_is_nobodys, the_same_key_and_body_is_the_same_job,
                two_uploads_with_one_key_make_one_job, a_tenant_has_so_many_unfinished_jobs,
                jobs_are_listed_newest_first, a_job_can_be_found_by_its_key;
            progress: a_document_walks_through_the_stages, a_result_is_written_once,
                results_are_loaded_as_they_were, what_is_stored_leaves_no_text,
                an_attempt_is_noted_and_nothing_moves, counts_hold_under_many_writers,
                unfinished_documents_are_paged_and_rested, many_results_are_one_step_and_each_has_its_answer,
                one_has_a_period;
            outcomes: all_stored_is_completed, some_failed_is_partial, all_failed_is_failed,
                cancelled_for_good, what_failed_is_tried_again_where_it_failed,
                a_failure_of_the_try_before_does_not_end_the_present_one, one_document_is_tried_again_as_it_was_edited,
                one_document_that_has_not_ended_is_set_back,
                skipped_by_an_operator, priority_changes, a_tenant_leaves_nothing
        );
    };
    ($make:path: $($module:ident: $($test:ident),*);*) => {
        $(mod $module {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let store = $make().await;
                crate::$module::$test(&crate::support::Tenant::new(store)).await;
            })*
        })*
    };
}
pub(crate) use conformance;
