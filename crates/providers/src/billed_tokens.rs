//! Divides the tokens that a vendor counted for a whole call among the call's inputs.

use embeddery_core::{Input, estimate_tokens};

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
    fn equal_texts_of_a_batch_get_equal_parts() {
        let inputs =
            [Input::Text("same".into()), Input::Text("same".into()), Input::Tokens(vec![1, 2].into())];
        assert_eq!(distribute(&inputs, Some(7)), [2, 2, 3]);
        assert_eq!(distribute(&inputs, None).iter().sum::<u32>(), 4);
    }
}
