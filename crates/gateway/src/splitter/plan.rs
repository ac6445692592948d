//! Which inputs go into which call: as many as the limits allow, in order.

use std::num::NonZeroUsize;

use embeddery_core::{CallLimits, Embedder, Input, TokenCount};

/// What surrounds an input in a call's body: quotes, names, the model's name where it is repeated.
const BYTES_AROUND: usize = 256;

/// What one input adds to a call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Weight {
    pub(super) tokens: usize,
    pub(super) bytes: usize,
}

/// The parts of a request, each within the limits, except where one input alone is beyond them.
pub(super) fn plan(embedder: &dyn Embedder, inputs: &[Input]) -> Vec<Vec<usize>> {
    let limits = embedder.limits();
    let (count, measure) = (limits.tokens.is_some(), limits.bytes.is_some());
    let weights = inputs.iter().map(|input| Weight {
        tokens: if count { tokens(embedder, input) } else { 0 },
        bytes: if measure { bytes(input) } else { 0 },
    });
    pack(limits, weights)
}

pub(super) fn pack(limits: &CallLimits, weights: impl Iterator<Item = Weight>) -> Vec<Vec<usize>> {
    let most = |limit: Option<NonZeroUsize>| limit.map_or(usize::MAX, NonZeroUsize::get);
    let (items, tokens, bytes) = (most(limits.items), most(limits.tokens), most(limits.bytes));
    let mut parts: Vec<Vec<usize>> = Vec::new();
    let mut sum = Weight { tokens: 0, bytes: 0 };
    for (place, weight) in weights.enumerate() {
        let with = Weight {
            tokens: sum.tokens.saturating_add(weight.tokens),
            bytes: sum.bytes.saturating_add(weight.bytes),
        };
        match parts.last_mut() {
            Some(part) if part.len() < items && with.tokens <= tokens && with.bytes <= bytes => {
                part.push(place);
                sum = with;
            }
            _ => {
                parts.push(vec![place]);
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
        Input::Text(text) => text.bytes().map(escaped).sum(),
    };
    content + BYTES_AROUND
}

/// How long a byte of text becomes in JSON.
fn escaped(byte: u8) -> usize {
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
                let sum = |of: fn(&Weight) -> usize| part.iter().map(|&place| of(&weights[place])).sum::<usize>();
                prop_assert!(!part.is_empty());
                prop_assert!(items == 0 || part.len() <= items);
                prop_assert!(tokens == 0 || part.len() == 1 || sum(|weight| weight.tokens) <= tokens);
                prop_assert!(bytes == 0 || part.len() == 1 || sum(|weight| weight.bytes) <= bytes);
            }
        }
    }
}
