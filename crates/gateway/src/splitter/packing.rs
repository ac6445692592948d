//! Distributes the inputs of a request over calls: as many per call as the limits allow, in order.

use std::num::NonZeroUsize;

use embeddery_core::{CallLimits, Embedder, Input, TokenCount};

/// Bytes of a call's body that each input needs besides its content: quotes, field names and a repeated model name.
const OVERHEAD_BYTES: usize = 256;

/// The size that one input adds to a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub(super) tokens: usize,
    pub(super) bytes: usize,
}

/// The parts of a request. Each part is within the limits, unless it is a single input that exceeds them by itself.
pub(super) fn plan(embedder: &dyn Embedder, inputs: &[Input]) -> Vec<Vec<usize>> {
    let limits = embedder.limits();
    let (needs_tokens, needs_bytes) = (limits.tokens.is_some(), limits.bytes.is_some());
    let weights = inputs.iter().map(|input| Weight {
        tokens: if needs_tokens { tokens(embedder, input) } else { 0 },
        bytes: if needs_bytes { bytes(input) } else { 0 },
    });
    pack(limits, weights)
}

pub(super) fn pack(limits: &CallLimits, weights: impl Iterator<Item = Weight>) -> Vec<Vec<usize>> {
    let max = |limit: Option<NonZeroUsize>| limit.map_or(usize::MAX, NonZeroUsize::get);
    let (max_items, max_tokens, max_bytes) = (max(limits.items), max(limits.tokens), max(limits.bytes));
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut sum = Weight { tokens: 0, bytes: 0 };
    for (index, weight) in weights.enumerate() {
        let total = Weight {
            tokens: sum.tokens.saturating_add(weight.tokens),
            bytes: sum.bytes.saturating_add(weight.bytes),
        };
        match parts.last_mut() {
            Some(part)
                if part.len() < max_items && total.tokens <= max_tokens && total.bytes <= max_bytes =>
            {
                part.push(index);
                sum = total;
            }
            _ => {
                parts.push(vec![index]);
                sum = weight;
            }
        }
    }
    parts
}

fn tokens(embedder: &dyn Embedder, input: &Input) -> usize {
    match input {
        Input::Tokens(ids) => ids.len(),
        Input::Text(text) => match embedder.count_tokens(text) {
            TokenCount::Exact(tokens) | TokenCount::Estimate(tokens) => tokens,
        },
    }
}

/// The bytes of an input in a JSON body.
fn bytes(input: &Input) -> usize {
    let content = match input {
        Input::Tokens(ids) => ids.len().saturating_mul(7), // six digits and a comma
        Input::Text(text) => text.bytes().map(escaped_length).sum(),
    };
    content + OVERHEAD_BYTES
}

/// Length of a byte of text in a JSON string.
fn escaped_length(byte: u8) -> usize {
    match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 => 6,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn order_is_kept_nothing_is_lost_and_no_limit_is_exceeded(
            weights in proptest::collection::vec((0usize..50, 0usize..50), 0..60),
            items in 0usize..8, tokens in 0usize..100, bytes in 0usize..100,
        ) {
            let limit = NonZeroUsize::new; // 0: no limit
            let limits = CallLimits { items: limit(items), tokens: limit(tokens), bytes: limit(bytes), ..CallLimits::default() };
            let weights: Vec<Weight> = weights.into_iter().map(|(tokens, bytes)| Weight { tokens, bytes }).collect();
            let parts = pack(&limits, weights.iter().copied());
            let all: Vec<usize> = parts.concat();
            prop_assert_eq!(all, (0..weights.len()).collect::<Vec<_>>());
            for part in &parts {
                let sum = |of: fn(&Weight) -> usize| part.iter().map(|&index| of(&weights[index])).sum::<usize>();
                prop_assert!(!part.is_empty());
                prop_assert!(items == 0 || part.len() <= items);
                prop_assert!(tokens == 0 || part.len() == 1 || sum(|weight| weight.tokens) <= tokens);
                prop_assert!(bytes == 0 || part.len() == 1 || sum(|weight| weight.bytes) <= bytes);
            }
        }
    }
}
