//! Failures are isolated, and failures that are not due to a document are not charged to it.

use std::time::Duration;

use embeddery_core::{EmbedError, ErrorKind, Fault, Retry};
use embeddery_pipeline::{Chunking, DocumentState, Stage, Status};

use crate::support::{Harness, TENANT, count, unavailable};

const TEXT: &str = "One two three. Four five six. Seven eight nine.";

/// Ten documents, the fourth of which holds `word` in its second chunk.
fn documents(word: &str) -> Vec<(String, String)> {
    let text = |i| if i == 3 { format!("{TEXT} Here is {word} now.") } else { format!("Number {i}. {TEXT}") };
    (0..10).map(|i| (format!("d{i}"), text(i))).collect()
}

async fn submit(harness: &Harness, word: &str) -> embeddery_pipeline::JobId {
    let documents = documents(word);
    let documents: Vec<_> = documents.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    harness.submit(&documents).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_chunk_fails_its_document_alone_and_is_named() {
    let mut harness = Harness::new();
    harness.fake.state().refused = Some("poison");
    harness.start_worker();
    let job = submit(&harness, "poison").await;
    let ended = harness.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Partial, 9));
    let row = harness.rows(job).await.remove(3);
    assert_eq!((row.state, row.attempts), (DocumentState::Failed, 1));
    let reason = row.reason.unwrap();
    assert_eq!(&*reason.code, "invalid_input");
    assert!(reason.message.starts_with("chunk 2 (characters "), "{}", reason.message);
    assert_eq!(harness.stored().await.len(), 9);
    assert!(
        harness.queue.dead_letters(Stage::Embedding, None, 10).await.unwrap().is_empty(),
        "a mistake of the caller is no dead letter"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_crashes_the_provider_becomes_a_dead_letter_and_the_other_documents_are_stored() {
    let mut harness = Harness::new();
    harness.fake.state().crashing = Some("poison");
    harness.start_worker();
    let job = submit(&harness, "poison").await;
    let ended = harness.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Partial, 9));
    // The job store is written first, then the queue.
    let dead_letters = async || harness.queue.dead_letters(Stage::Embedding, None, 10).await.unwrap();
    while dead_letters().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let dead_letters = dead_letters().await;
    assert_eq!(dead_letters.len(), 1);
    assert_eq!(&*dead_letters[0].reason.code, "provider_unavailable");
    assert_eq!(dead_letters[0].task.as_ref().unwrap().attempts, 2, "two were charged before the last");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_not_charged_to_documents() {
    let mut harness = Harness::new();
    let limited = EmbedError::new(
        ErrorKind::BreakerOpen,
        Fault::Us,
        Retry::After(Duration::from_millis(300)),
        "left alone",
    );
    harness.fake.state().down = Some(unavailable());
    harness.start_worker();
    let job = submit(&harness, "nothing").await;
    let delayed = async || harness.queue.depth().await.unwrap()[&Stage::Embedding].delayed;
    while delayed().await < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for row in harness.rows(job).await {
        let why = row.reason.unwrap();
        assert_eq!((&*why.code, row.attempts), ("provider_unavailable", 0));
        assert!(why.message.starts_with("openai has not served since 2"), "{}", why.message);
        assert!(row.retry_at_ms.unwrap() > 1_700_000_000_000);
    }
    let calls = harness.fake.state().calls.len();
    assert!(calls <= 8, "a paused provider is not called for each document: {calls}");
    harness.fake.state().down = Some(limited);
    harness.fake.begun.subscribe().wait_for(|begun| *begun > calls).await.unwrap();
    harness.fake.state().down = None;
    assert_eq!(harness.ended(job).await.status, Status::Completed);
    assert!(harness.rows(job).await.iter().all(|row| row.attempts == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_an_unknown_model_fail_at_once() {
    let mut harness = Harness::new();
    harness.fake.state().down = Some(EmbedError::model_not_found("openai knows no model 'fake'"));
    harness.start_worker();
    let job = submit(&harness, "nothing").await;
    let ended = harness.ended(job).await;
    assert_eq!(ended.status, Status::Failed, "documents do not wait for an unknown model");
    assert!(
        harness.rows(job).await.iter().all(|row| &*row.reason.as_ref().unwrap().code == "model_not_found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_must_be_one_chunk_fails_above_the_limit_and_nothing_of_it_is_paid() {
    let mut harness = Harness::new();
    harness.start_worker();
    let whole = Chunking { method: "none".into(), size: 1_000_000, overlap: 0, unit: "characters".into() };
    let (fits, long) = ("word ".repeat(100), "other ".repeat(101));
    let job = harness.submit_chunked(TENANT, &[("fits", &fits), ("long", &long)], whole).await;
    harness.enqueue().await;
    assert_eq!(harness.ended(job).await.status, Status::Partial);
    let row = harness.rows(job).await.remove(1);
    let reason = row.reason.unwrap();
    assert_eq!((row.state, row.attempts, &*reason.code), (DocumentState::Failed, 1, "input_too_long"));
    assert!(
        reason.message.contains("101 tokens") && reason.message.contains("at most 100"),
        "{}",
        reason.message
    );
    assert!(harness.fake.texts().iter().all(|text| !text.contains("other")));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_chunk_of_a_job_exceeds_the_limit_of_the_model() {
    let mut harness = Harness::new();
    harness.start_worker();
    let text: String = (0..450).map(|n| format!("word{n} ")).collect();
    for (method, unit) in [("words", "words"), ("fixed_size", "characters"), ("paragraphs", "words")] {
        let chunking = Chunking { method: method.into(), size: 100_000, overlap: 10, unit: unit.into() };
        let job = harness.submit_chunked(TENANT, &[("long", &text)], chunking).await;
        harness.enqueue().await;
        assert_eq!(harness.ended(job).await.status, Status::Completed, "{method}");
        let stored = harness.stored().await.remove(0);
        assert!(stored.chunks.len() >= 5, "{method}");
        assert!(stored.chunks.iter().all(|chunk| chunk.text.split_whitespace().count() <= 100), "{method}");
        for n in 0..450 {
            let word = format!("word{n}");
            let is_word = |found: &str| found == word;
            assert!(stored.chunks.iter().any(|chunk| chunk.text.split_whitespace().any(is_word)), "{word}");
        }
    }
}
