//! For any inputs and any limits: order is kept, nothing is lost, and no limit is exceeded.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{CallLimits, Embedder, ErrorKind, Fault, Priority, Retry};
use embeddery_gateway::Splitter;
use proptest::prelude::*;

use crate::mock_embedder::{MockEmbedder, failure, request, vector_of};

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

proptest! {
    #[test]
    fn any_inputs_within_any_limits(
        texts in proptest::collection::vec("[a-z\"\n]{1,30}", 1..40),
        items in 0usize..6, tokens in 0usize..80, vendor_limit in 1usize..60, parallel in 1usize..5,
    ) {
        let limits = CallLimits {
            items: NonZeroUsize::new(items),
            tokens: NonZeroUsize::new(tokens),
            ..CallLimits::default()
        };
        // The vendor counts tokens differently and may reject a call that fits the known limits.
        let model = Arc::new(MockEmbedder::new(limits, move |request| {
            let bytes: usize = request.inputs.iter().map(|input| input.text().unwrap().len()).sum();
            if bytes > vendor_limit && request.inputs.len() > 1 {
                return Err(failure(ErrorKind::BatchTooLarge, Fault::Caller, Retry::Never));
            }
            Ok(())
        }));
        let splitter = Splitter::new(Arc::clone(&model) as Arc<dyn Embedder>, parallel);
        let response = run(splitter.embed(request(&texts, Priority::Batch))).unwrap();
        prop_assert_eq!(&response.data, &texts.iter().map(|text| vector_of(text)).collect::<Vec<_>>());
        prop_assert_eq!(&response.tokens, &texts.iter().map(|text| text.len() as u32).collect::<Vec<_>>());
        prop_assert_eq!(response.billed_tokens, texts.len() as u64, "usage is the sum over the successful parts");
        for (_, call) in &*model.calls.lock().unwrap() {
            prop_assert!(items == 0 || call.len() <= items);
            prop_assert!(tokens == 0 || call.len() == 1 || call.iter().map(String::len).sum::<usize>() <= tokens);
        }
    }

    #[test]
    fn exactly_the_bad_inputs_fail_if_single_inputs_may_fail(
        bad in proptest::collection::vec(any::<bool>(), 1..40), items in 0usize..8, named: bool,
        upstream: bool,
    ) {
        let texts: Vec<String> =
            bad.iter().enumerate().map(|(at, bad)| format!("{} {at}", if *bad { "bad" } else { "good" })).collect();
        let limits = CallLimits { items: NonZeroUsize::new(items), ..CallLimits::default() };
        let model = Arc::new(MockEmbedder::new(limits, move |request| {
            let is_bad = |input: &embeddery_core::Input| input.text().unwrap().starts_with("bad");
            let faults: Vec<_> = (0..request.inputs.len())
                .filter(|&index| is_bad(&request.inputs[index]))
                .map(|index| embeddery_core::InputError { index, tokens: None })
                .collect();
            if faults.is_empty() {
                return Ok(());
            }
            // Some vendors name the bad inputs, most do not.
            let (kind, fault) = match named && upstream {
                true => (ErrorKind::InvalidUpstreamResponse, Fault::Upstream),
                false => (ErrorKind::InvalidRequest, Fault::Caller),
            };
            let error = failure(kind, fault, Retry::Never);
            Err(if named { error.with_inputs(faults) } else { error })
        }));
        let mut request = request(&texts, Priority::Batch);
        request.partial = true;
        match run(Splitter::new(model, 3).embed(request)) {
            Ok(response) => {
                let failed: Vec<usize> = response.failed.iter().map(|(index, _)| *index).collect();
                let expected: Vec<usize> = (0..bad.len()).filter(|&at| bad[at]).collect();
                prop_assert_eq!(failed, expected);
                for (at, text) in texts.iter().enumerate() {
                    prop_assert_eq!(response.data[at], if bad[at] { 0.0 } else { vector_of(text) });
                }
            }
            Err(_) => prop_assert!(bad.iter().all(|bad| *bad), "the request fails only if all inputs are bad"),
        }
    }
}
