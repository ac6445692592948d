//! The queue's rules, seen from inside: turns, budget, admission, abandoned requests. Vectors are checked
//! through the front door, in `tests/local.rs`.

use embeddery_core::Priority::{Batch, Interactive};
use embeddery_engine::{LoadOptions, Model, ModelFiles, TruncationSide};
use proptest::prelude::*;

use super::*;

thread_local! {
    /// Loaded once for each test's thread; only its tokenizer matters here.
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

/// A text of exactly `count` tokens, the two special ones included.
fn text(model: &Model, count: usize) -> Tokens {
    let tokens = model.tokenize(&"word ".repeat(count - 2), TruncationSide::All).unwrap();
    assert_eq!(tokens.len(), count);
    tokens
}

fn admit(state: &mut State, texts: Vec<Tokens>) -> oneshot::Receiver<Answer> {
    let (reply, answer) = oneshot::channel();
    state.admit((texts, Interactive), reply, usize::MAX).unwrap();
    answer
}

fn owners(batch: &[BatchItem]) -> Vec<u64> {
    batch.iter().map(|text| text.job).collect()
}

#[test]
fn a_short_request_beside_a_long_one_waits_for_one_step_only() {
    let model = model();
    let mut state = State::default();
    let _long = admit(&mut state, vec![text(&model, 10); 100]);
    let _short = admit(&mut state, vec![text(&model, 10)]);
    assert_eq!(owners(&state.take(40)), [0, 1, 0, 0]);
    let _late = admit(&mut state, vec![text(&model, 10); 2]);
    assert_eq!(owners(&state.take(40)), [0, 2, 0, 2]);
}

#[test]
fn a_step_keeps_to_its_budget_but_takes_a_text_that_is_longer() {
    let model = model();
    let mut state = State::default();
    let _a = admit(&mut state, vec![text(&model, 30), text(&model, 30)]);
    assert_eq!(state.take(40).len(), 1);
    assert_eq!(state.take(10).len(), 1, "longer than the budget, alone");
    assert!(state.take(40).is_empty());
}

#[test]
fn a_request_whose_caller_has_gone_costs_nothing() {
    let model = model();
    let mut state = State::default();
    let gone = admit(&mut state, vec![text(&model, 10); 5]);
    let _stays = admit(&mut state, vec![text(&model, 10)]);
    drop(gone);
    assert_eq!(owners(&state.take(1000)), [1]);
    assert_eq!((state.tokens, state.jobs.len()), (0, 1));
}

#[test]
fn too_much_is_refused_with_a_time_but_an_empty_queue_takes_anything() {
    let model = model();
    let mut state = State { rate: 10.0, ..State::default() };
    let request = |count: usize| (vec![text(&model, 10); count], oneshot::channel());
    let (texts, (reply, first)) = request(20);
    state.admit((texts, Interactive), reply, 100).expect("the queue is empty");
    let (texts, (reply, _second)) = request(1);
    let error = state.admit((texts, Interactive), reply, 100).unwrap_err();
    assert_eq!((error.kind, error.retry), (ErrorKind::Overloaded, Retry::After(Duration::from_secs(20))));
    drop(first);
    let (texts, (reply, _third)) = request(1);
    state.admit((texts, Interactive), reply, 100).expect("the first caller has gone");
}

#[test]
fn no_more_may_wait_than_is_computed_before_callers_give_up() {
    let model = model();
    let mut state = State { rate: 1.0, ..State::default() };
    let admit = |state: &mut State, count, priority| {
        let (reply, answer) = oneshot::channel();
        state.admit((vec![text(&model, 10); count], priority), reply, usize::MAX).map(|()| answer)
    };
    let _first = admit(&mut state, 2, Interactive).unwrap();
    let _second = admit(&mut state, 1, Interactive).expect("thirty seconds' work");
    let error = admit(&mut state, 1, Interactive).err().unwrap();
    assert_eq!(error.kind, ErrorKind::Overloaded);
    assert!(error.message.contains("30 tokens wait"), "{error}");
    let _patient = admit(&mut state, 50, Batch).expect("a pipeline waits as long as it takes");
    assert!(admit(&mut state, 1, Interactive).is_err());
    state.rate = 1000.0;
    let _third = admit(&mut state, 1, Interactive)
        .expect("it computes faster now, and the pipeline's texts are not in its way");
}

#[test]
fn a_failed_step_fails_its_requests_alone() {
    let model = model();
    let mut state = State::default();
    let mut hit = admit(&mut state, vec![text(&model, 10)]);
    let batch = state.take(10);
    let mut spared = admit(&mut state, vec![text(&model, 10)]);
    state.fail(&batch);
    assert_eq!(hit.try_recv().unwrap().unwrap_err().kind, ErrorKind::Internal);
    assert!(spared.try_recv().is_err(), "still waiting");
    assert_eq!(state.jobs.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the sizes and the budget: every text is computed once, in its place, and nothing is left.
    #[test]
    fn every_text_gets_its_own_vector(sizes in proptest::collection::vec(1usize..6, 1..12), budget in 1usize..60) {
        let model = model();
        let mut state = State::default();
        let answers: Vec<_> = sizes.iter().map(|size| admit(&mut state, vec![text(&model, 7); *size])).collect();
        loop {
            let batch = state.take(budget);
            if batch.is_empty() {
                break;
            }
            prop_assert!(batch.len() == 1 || batch.len() * 7 <= budget);
            let vectors: Vec<f32> = batch.iter().flat_map(|taken| [taken.job as f32, taken.index as f32]).collect();
            state.deliver(&batch, &vectors, Duration::from_millis(1));
        }
        for (job, (mut answer, size)) in answers.into_iter().zip(sizes).enumerate() {
            let wanted: Vec<f32> = (0..size).flat_map(|index| [job as f32, index as f32]).collect();
            prop_assert_eq!(answer.try_recv().unwrap().unwrap(), wanted);
        }
        prop_assert_eq!((state.tokens, state.jobs.len(), state.turns.len()), (0, 0, 0));
    }
}
