//! What fails fails alone, and what is nobody's fault is charged to nobody.

use std::time::Duration;

use embeddery_core::{EmbedError, ErrorKind, Fault, Retry};
use embeddery_pipeline::{DocumentState, Stage, Status};

use crate::support::{Plant, count, unavailable};

const TEXT: &str = "One two three. Four five six. Seven eight nine.";

/// Ten documents, the fourth of which holds `word` in its second chunk.
fn documents(word: &str) -> Vec<(String, String)> {
    let text = |i| if i == 3 { format!("{TEXT} Here is {word} now.") } else { format!("Number {i}. {TEXT}") };
    (0..10).map(|i| (format!("d{i}"), text(i))).collect()
}

async fn submit(plant: &Plant, word: &str) -> embeddery_pipeline::JobId {
    let documents = documents(word);
    let documents: Vec<_> = documents.iter().map(|(id, text)| (id.as_str(), text.as_str())).collect();
    plant.submit(&documents).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_chunk_fails_its_document_alone_and_is_named() {
    let mut plant = Plant::new();
    plant.fake.state().refused = Some("poison");
    plant.work();
    let job = submit(&plant, "poison").await;
    let ended = plant.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Partial, 9));
    let row = plant.rows(job).await.remove(3);
    assert_eq!((row.state, row.attempts), (DocumentState::Failed, 1));
    let reason = row.reason.unwrap();
    assert_eq!(&*reason.code, "invalid_input");
    assert!(reason.message.starts_with("chunk 2 (characters "), "{}", reason.message);
    assert_eq!(plant.stored().await.len(), 9);
    assert!(
        plant.queue.dead_letters(Stage::Embedding, None, 10).await.unwrap().is_empty(),
        "the user's own mistake"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_text_that_fells_the_provider_ends_as_dead_letter_and_its_neighbours_are_stored() {
    let mut plant = Plant::new();
    plant.fake.state().crashing = Some("poison");
    plant.work();
    let job = submit(&plant, "poison").await;
    let ended = plant.ended(job).await;
    assert_eq!((ended.status, count(&ended, DocumentState::Stored)), (Status::Partial, 9));
    // The job knows of the end first, and then the queue.
    let letters = async || plant.queue.dead_letters(Stage::Embedding, None, 10).await.unwrap();
    while letters().await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let letters = letters().await;
    assert_eq!(letters.len(), 1);
    assert_eq!(&*letters[0].reason.code, "provider_unavailable");
    assert_eq!(letters[0].task.as_ref().unwrap().attempts, 2, "two were charged before the last");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_charged_to_nobody() {
    let mut plant = Plant::new();
    let limited = EmbedError::new(
        ErrorKind::BreakerOpen,
        Fault::Us,
        Retry::After(Duration::from_millis(300)),
        "left alone",
    );
    plant.fake.state().down = Some(unavailable());
    plant.work();
    let job = submit(&plant, "nothing").await;
    let delayed = async || plant.queue.depth().await.unwrap()[&Stage::Embedding].delayed;
    while delayed().await < 10 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for row in plant.rows(job).await {
        let why = row.reason.unwrap();
        assert_eq!((&*why.code, row.attempts), ("provider_unavailable", 0));
        assert!(why.message.starts_with("openai has not served since 2"), "{}", why.message);
        assert!(row.retry_at_ms.unwrap() > 1_700_000_000_000);
    }
    let calls = plant.fake.state().calls.len();
    assert!(calls <= 8, "a parked provider is not asked for each document: {calls}");
    plant.fake.state().down = Some(limited);
    plant.fake.begun.subscribe().wait_for(|begun| *begun > calls).await.unwrap();
    plant.fake.state().down = None;
    assert_eq!(plant.ended(job).await.status, Status::Completed);
    assert!(plant.rows(job).await.iter().all(|row| row.attempts == 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_provider_that_is_down_does_not_keep_another_jobs_documents() {
    let mut plant = Plant::new();
    plant.fake.state().down = Some(EmbedError::model_not_found("openai knows no model 'fake'"));
    plant.work();
    let job = submit(&plant, "nothing").await;
    let ended = plant.ended(job).await;
    assert_eq!(ended.status, Status::Failed, "an unknown model is not waited for");
    assert!(plant.rows(job).await.iter().all(|row| &*row.reason.as_ref().unwrap().code == "model_not_found"));
}
