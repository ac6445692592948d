//! Whatever is asked and whatever the limits: order is kept, nothing is lost, no limit is passed.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{CallLimits, Embedder, ErrorKind, Fault, Priority, Retry};
use embeddery_gateway::Splitter;
use proptest::prelude::*;

use crate::mock_embedder::{Scripted, failure, number, request};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn any_inputs_within_any_limits(
        texts in proptest::collection::vec("[a-z\"\n]{1,30}", 1..40),
        items in 0usize..6, tokens in 0usize..80, truth in 1usize..60, parallel in 1usize..5,
    ) {
        let limits = CallLimits {
            items: NonZeroUsize::new(items),
            tokens: NonZeroUsize::new(tokens),
            ..CallLimits::default()
        };
        // The vendor counts in its own way, and may find a call too large that we thought fitting.
        let model = Arc::new(Scripted::new(limits, move |request| {
            let bytes: usize = request.inputs.iter().map(|input| input.text().unwrap().len()).sum();
            if bytes > truth && request.inputs.len() > 1 {
                return Err(failure(ErrorKind::BatchTooLarge, Fault::Caller, Retry::Never));
            }
            Ok(())
        }));
        let splitter = Splitter::new(Arc::clone(&model) as Arc<dyn Embedder>, parallel);
        let answer = run(splitter.embed(request(&texts, Priority::Batch))).unwrap();
        prop_assert_eq!(&answer.data, &texts.iter().map(|text| number(text)).collect::<Vec<_>>());
        prop_assert_eq!(&answer.tokens, &texts.iter().map(|text| text.len() as u32).collect::<Vec<_>>());
        prop_assert_eq!(answer.billed_tokens, texts.len() as u64, "usage is summed over parts that were answered");
        for (_, call) in &*model.asked.lock().unwrap() {
            prop_assert!(items == 0 || call.len() <= items);
            prop_assert!(tokens == 0 || call.len() == 1 || call.iter().map(String::len).sum::<usize>() <= tokens);
        }
    }

    #[test]
    fn exactly_the_bad_inputs_fail_where_they_may_fail_alone(
        bad in proptest::collection::vec(any::<bool>(), 1..40), items in 0usize..8, named: bool,
    ) {
        let texts: Vec<String> =
            bad.iter().enumerate().map(|(at, bad)| format!("{} {at}", if *bad { "bad" } else { "good" })).collect();
        let limits = CallLimits { items: NonZeroUsize::new(items), ..CallLimits::default() };
        let model = Arc::new(Scripted::new(limits, move |request| {
            let is_bad = |input: &embeddery_core::Input| input.text().unwrap().starts_with("bad");
            let faults: Vec<_> = (0..request.inputs.len())
                .filter(|&index| is_bad(&request.inputs[index]))
                .map(|index| embeddery_core::InputError { index, tokens: None })
                .collect();
            if faults.is_empty() {
                return Ok(());
            }
            // Some vendors say which inputs are bad, most do not.
            let error = failure(ErrorKind::InvalidRequest, Fault::Caller, Retry::Never);
            Err(if named { error.with_inputs(faults) } else { error })
        }));
        let mut asked = request(&texts, Priority::Batch);
        asked.partial = true;
        match run(Splitter::new(model, 3).embed(asked)) {
            Ok(answer) => {
                let failed: Vec<usize> = answer.failed.iter().map(|(place, _)| *place).collect();
                let due: Vec<usize> = (0..bad.len()).filter(|&at| bad[at]).collect();
                prop_assert_eq!(failed, due);
                for (at, text) in texts.iter().enumerate() {
                    prop_assert_eq!(answer.data[at], if bad[at] { 0.0 } else { number(text) });
                }
            }
            Err(_) => prop_assert!(bad.iter().all(|bad| *bad), "an answer is due where one input is good"),
        }
    }
}
