//! The conformance suite, which runs against both stores. Each test has its own tenant.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod documents;
mod filters;
mod filters_model;
mod lifecycle;
mod migration;
mod numbers;
mod postgres;
mod search;
mod server;
mod sqlite;
mod support;
mod words;

/// Defines the tests of the suite for one store. `$make` is an async function that returns the store.
macro_rules! conformance {
    ($make:path) => {
        crate::conformance!($make:
            lifecycle: a_collection_is_created_once_found_and_deleted, names_that_are_paths_are_refused,
                tenants_do_not_see_each_other, a_tenant_is_deleted_with_a_receipt, concurrent_creates_make_one_collection;
            documents: an_upsert_keeps_equal_chunks_and_replaces_changed_ones, an_inserted_chunk_keeps_the_others,
                metadata_changes_without_vectors, documents_are_paged_by_id, an_upsert_is_all_or_nothing, invalid_vectors_are_refused,
                vectors_of_another_space_are_refused, a_vector_that_is_neither_sent_nor_stored_is_an_error,
                deletion_by_id_and_by_filter, deletion_of_all_documents, an_export_can_be_imported,
                readers_see_the_old_or_the_new_document, an_earlier_submission_does_not_replace_a_later_one,
                an_earlier_submission_does_not_restore_what_was_deleted,
                headings_are_stored_and_updated;
            search: the_nearest_vectors_come_first, hits_carry_text_and_span, no_text_query_is_invalid,
                hybrid_prefers_documents_of_both_rankings, a_search_sees_every_earlier_write, top_k_may_exceed_the_number_of_vectors, an_empty_result_is_not_an_error,
                random_vectors_rank_by_cosine;
            words: words_of_all_scripts_are_found, technical_forms_are_found, phrases_and_starts_of_words_are_found,
                words_rank_by_rarity_frequency_and_length, words_belong_to_their_collection_and_go_with_their_chunk,
                hits_say_how_they_were_found, labelled_passages_are_found_in_six_languages;
            filters: every_operator_filters, a_list_matches_by_element, values_of_different_types_never_match, a_rare_filter_still_fills_top_k,
                a_filter_of_a_thousand_conditions_works, missing_fields_match_a_negation_only;
            filters_model: random_filters_agree_with_a_model;
            numbers: neighbouring_integers_are_different_numbers, metadata_is_read_as_it_was_written, a_document_that_cannot_be_stored_is_refused,
                an_id_that_no_document_can_have_is_unknown;
            migration: a_migration_switches_when_it_is_complete, writes_during_a_migration_are_not_lost,
                a_migration_is_replaced_by_another, a_migration_to_the_same_space_is_refused
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
