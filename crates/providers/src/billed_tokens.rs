//! Divides the tokens that a vendor counted for a whole call among the call's inputs.

use embeddery_core::{Input, estimate_tokens};

/// The reported total, unless it is more than the inputs can have. A token has at least one byte; servers add prompts and
/// special tokens. A wild number would exhaust the caller's quota.
pub(crate) fn plausible(inputs: &[Input], total: Option<u64>) -> Option<u64> {
    const MAX_ADDED_TOKENS: usize = 4096;
    let max_tokens = |input: &Input| match input {
        Input::Text(text) => text.len() + MAX_ADDED_TOKENS,
        Input::Tokens(ids) => ids.len() + MAX_ADDED_TOKENS,
    };
    let max: usize = inputs.iter().map(max_tokens).sum();
    total.filter(|total| *total <= max as u64)
}

/// The tokens of each input. They add up to `total`, the tokens that the vendor counted, in proportion to the estimates
/// of the inputs. Without a total the result is the estimates themselves. Every input gets at least one token if the
/// total allows it.
pub(crate) fn distribute(inputs: &[Input], total: Option<u64>) -> Vec<u32> {
    let weight = |input: &Input| match input {
        Input::Text(text) => estimate_tokens(text) as u64,
        Input::Tokens(ids) => ids.len() as u64,
    };
    let weights: Vec<u64> = inputs.iter().map(weight).collect();
    let sum: u64 = weights.iter().sum();
    let total = total.unwrap_or(sum);
    // One token for each input first, the rest by weight. Rounding the running sums makes the parts add up exactly.
    let each = u64::from(total >= inputs.len() as u64);
    let rest = u128::from(total - each * inputs.len() as u64);
    let up_to = |weight: u64| rest * u128::from(weight) / u128::from(sum.max(1));
    let mut seen = 0;
    weights
        .into_iter()
        .map(|weight| {
            let before = up_to(seen);
            seen += weight;
            u32::try_from(up_to(seen) - before + u128::from(each)).unwrap_or(u32::MAX)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_add_up_to_the_total(texts in prop::collection::vec(".{1,40}", 1..20), total in 0_u64..1_000_000) {
            let inputs: Vec<Input> = texts.iter().map(|text| Input::Text(text.as_str().into())).collect();
            let parts = distribute(&inputs, Some(total));
            prop_assert_eq!(parts.iter().map(|part| u64::from(*part)).sum::<u64>(), total);
            prop_assert_eq!(parts.len(), inputs.len());
            prop_assert!(parts.iter().all(|part| *part > 0) || total < inputs.len() as u64);
        }
    }

    #[test]
    fn a_total_beyond_all_inputs_is_ignored() {
        let inputs = [Input::Text("one two".into()), Input::Tokens(vec![1, 2].into())];
        for (total, expected) in [
            (None, None),
            (Some(0), Some(0)),
            (Some(4100), Some(4100)),
            (Some(9000), None),
            (Some(u64::MAX), None),
        ] {
            assert_eq!(plausible(&inputs, total), expected, "{total:?}");
        }
    }

    #[test]
    fn equal_texts_of_a_batch_get_equal_parts() {
        let inputs =
            [Input::Text("same".into()), Input::Text("same".into()), Input::Tokens(vec![1, 2].into())];
        assert_eq!(distribute(&inputs, Some(7)), [2, 2, 3]);
        assert_eq!(distribute(&inputs, None).iter().sum::<u32>(), 4);
    }
}
