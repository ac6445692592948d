//! Tests of the batcher's state: turns, token budget, overload, cancelled requests. `tests/local.rs` checks the vectors.

use embeddery_core::Priority::{Batch, Interactive};
use embeddery_engine::{LoadOptions, Model, ModelFiles, TruncationSide};
use proptest::prelude::*;

use super::*;

thread_local! {
    /// Loaded once per test thread. Only its tokenizer is used.
    static MODEL: std::rc::Rc<Model> = std::rc::Rc::new(load());
}

fn model() -> std::rc::Rc<Model> {
    MODEL.with(std::rc::Rc::clone)
}

fn load() -> Model {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let dir = root.join("models/embedding_models_data/sentence-transformers/all-MiniLM-L6-v2");
    ModelFiles::open(&dir).expect("`make test` fetches the model").load(&LoadOptions::default()).unwrap()
}

/// A text of exactly `count` tokens, with the two special tokens.
fn text(model: &Model, count: usize) -> Tokens {
    let tokens = model.tokenize(&"word ".repeat(count - 2), TruncationSide::None).unwrap();
    assert_eq!(tokens.len(), count);
    tokens
}

fn enqueue(state: &mut State, texts: Vec<Tokens>) -> oneshot::Receiver<BatchResult> {
    let (reply, result) = oneshot::channel();
    state.enqueue(Submission { texts, priority: Interactive, reply }, usize::MAX).unwrap();
    result
}

fn requests(batch: &[BatchItem]) -> Vec<u64> {
    batch.iter().map(|item| item.request).collect()
}

#[test]
fn a_short_request_beside_a_long_one_waits_for_one_batch_only() {
    let model = model();
    let mut state = State::default();
    let _long = enqueue(&mut state, vec![text(&model, 10); 100]);
    let _short = enqueue(&mut state, vec![text(&model, 10)]);
    assert_eq!(requests(&state.take_batch(40)), [0, 1, 0, 0]);
    let _late = enqueue(&mut state, vec![text(&model, 10); 2]);
    assert_eq!(requests(&state.take_batch(40)), [0, 2, 0, 2]);
}

#[test]
fn a_batch_keeps_to_its_budget_unless_one_text_is_longer() {
    let model = model();
    let mut state = State::default();
    let _a = enqueue(&mut state, vec![text(&model, 30), text(&model, 30)]);
    assert_eq!(state.take_batch(40).len(), 1);
    assert_eq!(state.take_batch(10).len(), 1, "longer than the budget, alone");
    assert!(state.take_batch(40).is_empty());
}

#[test]
fn a_cancelled_request_is_not_computed() {
    let model = model();
    let mut state = State::default();
    let cancelled = enqueue(&mut state, vec![text(&model, 10); 5]);
    let _stays = enqueue(&mut state, vec![text(&model, 10)]);
    drop(cancelled);
    assert_eq!(requests(&state.take_batch(1000)), [1]);
    assert_eq!((state.waiting_tokens, state.requests.len()), (0, 1));
}

#[test]
fn overload_is_refused_with_a_wait_but_an_empty_queue_accepts_any_request() {
    let model = model();
    let mut state = State { tokens_per_second: 10.0, ..State::default() };
    let request = |count: usize| (vec![text(&model, 10); count], oneshot::channel());
    let (texts, (reply, first)) = request(20);
    state.enqueue(Submission { texts, priority: Interactive, reply }, 100).expect("the queue is empty");
    let (texts, (reply, _second)) = request(1);
    let error = state.enqueue(Submission { texts, priority: Interactive, reply }, 100).unwrap_err();
    assert_eq!((error.kind, error.retry), (ErrorKind::Overloaded, Retry::After(Duration::from_secs(20))));
    drop(first);
    let (texts, (reply, _third)) = request(1);
    state
        .enqueue(Submission { texts, priority: Interactive, reply }, 100)
        .expect("the first request was cancelled");
}

#[test]
fn waiting_interactive_work_is_limited_to_thirty_seconds() {
    let model = model();
    let mut state = State { tokens_per_second: 1.0, ..State::default() };
    let enqueue = |state: &mut State, count, priority| {
        let (reply, result) = oneshot::channel();
        let texts = vec![text(&model, 10); count];
        state.enqueue(Submission { texts, priority, reply }, usize::MAX).map(|()| result)
    };
    let _first = enqueue(&mut state, 2, Interactive).unwrap();
    let _second = enqueue(&mut state, 1, Interactive).expect("thirty seconds of work");
    let error = enqueue(&mut state, 1, Interactive).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Overloaded);
    assert!(error.message.contains("30 tokens wait"), "{error}");
    let _patient = enqueue(&mut state, 50, Batch).expect("work of pipelines is not limited by time");
    assert!(enqueue(&mut state, 1, Interactive).is_err());
    state.tokens_per_second = 1000.0;
    let _third = enqueue(&mut state, 1, Interactive)
        .expect("the rate is higher now, and texts of pipelines do not count");
}

#[test]
fn a_failed_batch_fails_only_its_requests() {
    let model = model();
    let mut state = State::default();
    let mut failed = enqueue(&mut state, vec![text(&model, 10)]);
    let batch = state.take_batch(10);
    let mut other = enqueue(&mut state, vec![text(&model, 10)]);
    state.fail(&batch);
    assert_eq!(failed.try_recv().unwrap().unwrap_err().kind, ErrorKind::Internal);
    assert!(other.try_recv().is_err(), "still waiting");
    assert_eq!(state.requests.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For all sizes and budgets every text is computed once and returned at its index.
    #[test]
    fn every_text_gets_its_own_vector(sizes in proptest::collection::vec(1usize..6, 1..12), budget in 1usize..60) {
        let model = model();
        let mut state = State::default();
        let results: Vec<_> = sizes.iter().map(|size| enqueue(&mut state, vec![text(&model, 7); *size])).collect();
        loop {
            let batch = state.take_batch(budget);
            if batch.is_empty() {
                break;
            }
            prop_assert!(batch.len() == 1 || batch.len() * 7 <= budget);
            let vectors: Vec<f32> = batch.iter().flat_map(|item| [item.request as f32, item.index as f32]).collect();
            state.deliver(&batch, &vectors, Duration::from_millis(1));
        }
        for (request, (mut result, size)) in results.into_iter().zip(sizes).enumerate() {
            let expected: Vec<f32> = (0..size).flat_map(|index| [request as f32, index as f32]).collect();
            prop_assert_eq!(result.try_recv().unwrap().unwrap(), expected);
        }
        prop_assert_eq!((state.waiting_tokens, state.requests.len(), state.turns.len()), (0, 0, 0));
    }
}
