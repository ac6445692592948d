//! Token counts where only the vendor has the tokenizer: an estimate before the call, the vendor's total
//! shared out after it.

use embeddery_core::Input;

/// About how many tokens a text has: four letters of ASCII to a token, every other letter a token of its own.
/// Never less than a quarter of the bytes, which is how OpenAI itself estimates a request.
pub(crate) fn estimate(text: &str) -> usize {
    let (ascii, others) = text.chars().fold((0_usize, 0_usize), |(ascii, others), c| {
        if c.is_ascii() { (ascii + 1, others) } else { (ascii, others + 1) }
    });
    (ascii.div_ceil(4) + others).max(1)
}

/// Each input's tokens, so that they add up to the vendor's total; the estimates when it gave none.
pub(crate) fn distribute(inputs: &[Input], total: Option<u64>) -> Vec<u32> {
    let weight = |input: &Input| match input {
        Input::Text(text) => estimate(text) as u64,
        Input::Tokens(ids) => ids.len() as u64,
    };
    let weights: Vec<u64> = inputs.iter().map(weight).collect();
    let sum: u64 = weights.iter().sum();
    let total = total.unwrap_or(sum);
    // No input has no tokens; the rest goes by weight. Rounded at the running sum, the parts add up exactly.
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
        fn shares_add_up(texts in prop::collection::vec(".{1,40}", 1..20), total in 0_u64..1_000_000) {
            let inputs: Vec<Input> = texts.iter().map(|text| Input::Text(text.as_str().into())).collect();
            let shares = distribute(&inputs, Some(total));
            prop_assert_eq!(shares.iter().map(|share| u64::from(*share)).sum::<u64>(), total);
            prop_assert_eq!(shares.len(), inputs.len());
            prop_assert!(shares.iter().all(|share| *share > 0) || total < inputs.len() as u64);
        }

        #[test]
        fn an_estimate_is_never_below_openais(text in ".{0,200}") {
            prop_assert!(estimate(&text) * 4 >= text.len());
        }
    }

    #[test]
    fn equal_texts_of_a_batch_share_alike() {
        let inputs =
            [Input::Text("same".into()), Input::Text("same".into()), Input::Tokens(vec![1, 2].into())];
        assert_eq!(distribute(&inputs, Some(7)), [2, 2, 3]);
        assert_eq!(distribute(&inputs, None).iter().sum::<u32>(), 4);
    }
}
