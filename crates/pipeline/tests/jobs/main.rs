//! One suite for all job stores. Each test has a tenant of its own; tests may share the store.

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

/// The suite for one implementation. `$make` is an async function that returns a store.
macro_rules! conformance {
    ($make:path) => {
        crate::conformance!($make:
            submit: a_job_is_visible_once_it_has_started, documents_are_loaded_as_they_were_sent,
                a_job_of_another_tenant_is_invisible, the_same_key_and_body_make_the_same_job,
                two_uploads_with_one_key_make_one_job, unfinished_jobs_per_tenant_are_limited,
                jobs_are_listed_newest_first, a_job_is_found_by_its_key;
            progress: a_document_goes_through_the_stages, a_result_is_written_once,
                results_round_trip, a_stored_document_leaves_no_text,
                a_retry_note_does_not_change_the_state, counts_hold_under_many_writers,
                unfinished_documents_are_paged_and_untouched, many_results_are_one_step_with_a_result_each,
                one_process_claims_a_period;
            outcomes: all_stored_is_completed, some_failed_is_partial, all_failed_is_failed,
                a_cancelled_job_stays_cancelled, failed_documents_are_retried_at_their_stage,
                a_failure_of_an_earlier_try_does_not_end_the_document, one_document_is_edited_and_retried,
                an_unfinished_document_is_edited_and_retried,
                a_job_is_skipped, priority_changes, a_deleted_tenant_leaves_nothing
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
