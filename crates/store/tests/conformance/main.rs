//! One suite, every implementation. A test gets a store and a tenant of its own.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod documents;
mod filters;
mod lifecycle;
mod migration;
mod postgres;
mod search;
mod server;
mod sqlite;
mod support;

/// The suite for one implementation: `$make` is an async function that gives a store.
macro_rules! conformance {
    ($make:path) => {
        crate::conformance!($make:
            lifecycle: a_collection_is_made_once_found_and_dropped, names_that_are_paths_are_refused,
                tenants_do_not_see_each_other, a_tenant_is_deleted_with_a_receipt, two_make_one_collection;
            documents: adding_again_costs_nothing_and_changes_replace, an_insertion_keeps_the_neighbours,
                metadata_change_alone, pages_by_id, all_or_nothing, vectors_that_cannot_be_compared_are_refused,
                another_space_is_refused_by_name, a_vector_that_is_not_sent_and_not_stored_is_missed,
                deletion_by_id_and_by_filter, export_gives_what_import_takes,
                readers_see_the_old_or_the_new_document, the_later_submission_stays_whoever_comes_last,
                what_was_deleted_does_not_come_back_with_an_earlier_submission,
                headings_come_back_and_follow_a_change;
            search: the_nearest_come_first, with_text_and_spans, words_are_found_not_operators,
                hybrid_prefers_what_both_find, search_follows_every_write, top_k_beyond_all, nothing_is_not_an_error,
                random_vectors_rank_as_arithmetic_says;
            filters: every_operator, lists_fit_by_element, types_do_not_mix, a_filter_leaves_enough,
                filters_as_a_plain_program_reads_them;
            migration: a_move_switches_at_the_end, writes_during_a_move_are_not_lost,
                a_move_is_replaced_by_another, a_move_to_the_same_space_is_refused
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
