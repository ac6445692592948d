//! Gives the caller the vector length it asked for, or says why not. A model trained for it (Matryoshka) is
//! cut and renormalised; for any other the request's policy decides. A cut vector stays comparable only with
//! vectors cut to the same length, so the space id gets the length.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{
    BoxFuture, DimensionPolicy, EmbedError, EmbedRequest, Embedder, Embeddings, ModelInfo, SpaceId,
    to_unit_length,
};

use crate::{delegate::delegate_embedder, metrics::Metrics};

/// Brings vectors to the wanted length.
pub struct AdjustDimensions {
    inner: Arc<dyn Embedder>,
    metrics: Metrics,
    label: String,
}

impl AdjustDimensions {
    /// Around `inner`, counting under this label.
    pub fn new(inner: Arc<dyn Embedder>, metrics: &Metrics, label: &str) -> Self {
        Self { inner, metrics: metrics.clone(), label: label.to_owned() }
    }
}

impl Embedder for AdjustDimensions {
    delegate_embedder!(inner);

    fn embed(&self, mut request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        let Some(wanted) = request.dimensions else { return self.inner.embed(request) };
        // A model that gives this length itself is asked for it.
        if self.limits().lengths.contains(wanted) {
            return self.inner.embed(request);
        }
        request.dimensions = None;
        let (policy, normalize) = (request.dimension_policy, request.normalize);
        Box::pin(async move {
            // Refused before the work where the card already tells.
            if let Some(native) = self.model().dimensions {
                check(self.model(), native.get(), wanted, policy)?;
            }
            let answer = self.inner.embed(request).await?;
            check(self.model(), answer.dim, wanted, policy)?;
            if answer.dim == wanted.get() || (policy == DimensionPolicy::Ignore && !self.model().matryoshka) {
                return Ok(answer);
            }
            let method = if wanted.get() < answer.dim { "reduce" } else { "pad" };
            self.metrics.adjusted(self.model().provider, &self.label, method);
            Ok(resize(answer, wanted.get(), normalize))
        })
    }
}

/// Whether `wanted` may be had from vectors of `native` numbers under `policy`.
fn check(
    card: &ModelInfo,
    native: usize,
    wanted: NonZeroUsize,
    policy: DimensionPolicy,
) -> Result<(), EmbedError> {
    let wanted = wanted.get();
    let allowed = match policy {
        DimensionPolicy::Pad | DimensionPolicy::Ignore => true,
        DimensionPolicy::Reduce => wanted <= native,
        DimensionPolicy::Strict => wanted == native || (card.matryoshka && wanted < native),
    };
    if allowed {
        return Ok(());
    }
    let reason = if wanted > native { "has fewer" } else { "was not trained to give fewer" };
    Err(EmbedError::invalid(format!(
        "dimensions: {wanted} was asked for, but '{}' gives {native} numbers and {reason}; leave `dimensions` out",
        card.name
    )))
}

/// Cuts each vector to `wanted` numbers, or fills it with zeros; a cut one is brought back to unit length.
fn resize(answer: Embeddings, wanted: usize, normalize: bool) -> Embeddings {
    let native = answer.dim;
    if wanted == native {
        return answer;
    }
    let mut data = Vec::with_capacity(answer.tokens.len() * wanted);
    for row in answer.rows() {
        let start = data.len();
        data.extend_from_slice(&row[..wanted.min(native)]);
        if normalize && wanted < native {
            to_unit_length(&mut data[start..]);
        }
        data.resize(start + wanted, 0.0);
    }
    let space = SpaceId::new(format!("{}:{wanted}", answer.space));
    Embeddings { data, dim: wanted, space, ..answer }
}

#[cfg(test)]
mod tests {
    use embeddery_core::ProviderKind;
    use proptest::prelude::*;

    use super::*;

    fn card(matryoshka: bool) -> ModelInfo {
        ModelInfo {
            name: "m".into(),
            provider: ProviderKind::HuggingFace,
            dimensions: NonZeroUsize::new(4),
            max_tokens: None,
            matryoshka,
        }
    }

    #[test]
    fn each_policy_allows_what_it_promises() {
        use DimensionPolicy::*;
        let allowed = |matryoshka, wanted: usize, policy| {
            check(&card(matryoshka), 4, NonZeroUsize::new(wanted).unwrap(), policy).is_ok()
        };
        assert!(allowed(false, 4, Strict) && !allowed(false, 2, Strict) && !allowed(false, 8, Strict));
        assert!(allowed(true, 2, Strict) && !allowed(true, 8, Strict));
        assert!(allowed(false, 2, Reduce) && !allowed(false, 8, Reduce));
        assert!(allowed(false, 2, Pad) && allowed(false, 8, Pad));
        assert!(allowed(false, 8, Ignore));
    }

    proptest! {
        #[test]
        fn a_resized_vector_has_the_length_asked_for_and_keeps_its_direction(
            rows in proptest::collection::vec(proptest::collection::vec(-1f32..1.0, 4), 1..5),
            wanted in 1usize..9,
        ) {
            let answer = Embeddings {
                data: rows.concat(), dim: 4, space: SpaceId::new("s"), tokens: vec![1; rows.len()],
                billed_tokens: 0, truncated: 0, failed: Vec::new(), served_by: Arc::new(card(false)),
            };
            let resized = resize(answer, wanted, true);
            prop_assert_eq!(resized.dim, wanted);
            prop_assert_eq!(resized.data.len(), wanted * rows.len());
            for (new, old) in resized.rows().zip(&rows) {
                let kept = wanted.min(4);
                if wanted < 4 && old[..kept].iter().any(|x| x.abs() > 1e-3) {
                    let length = new.iter().map(|x| x * x).sum::<f32>().sqrt();
                    prop_assert!((length - 1.0).abs() < 1e-5, "length {length}");
                } else if wanted >= 4 {
                    prop_assert_eq!(&new[..4], &old[..]);
                    prop_assert!(new[4..].iter().all(|x| *x == 0.0));
                }
            }
        }
    }
}
