//! Changes vectors to the requested number of dimensions, or fails the request. Vectors of a model with Matryoshka
//! training are reduced and renormalised; for any other model the request's policy decides. A resized vector can be
//! compared only with vectors of the same length, so the space id gets the length as a suffix.

use std::{num::NonZeroUsize, sync::Arc};

use embeddery_core::{
    BoxFuture, DimensionPolicy, EmbedError, EmbedRequest, Embedder, Embeddings, InputError, ModelInfo,
    SpaceId, to_unit_length, vector_defect,
};

use crate::{delegate::delegate_embedder, metrics::Metrics};

/// Changes vectors to the requested number of dimensions.
pub struct AdjustDimensions {
    inner: Arc<dyn Embedder>,
    metrics: Metrics,
    label: String,
}

impl AdjustDimensions {
    /// Wraps `inner`. `label` is the model's label in metrics.
    pub fn new(inner: Arc<dyn Embedder>, metrics: &Metrics, label: &str) -> Self {
        Self { inner, metrics: metrics.clone(), label: label.to_owned() }
    }
}

impl Embedder for AdjustDimensions {
    delegate_embedder!(inner);

    fn embed(&self, mut request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        let Some(requested) = request.dimensions else { return self.inner.embed(request) };
        // The provider returns a supported length by itself.
        if self.limits().dimensions.contains(requested) {
            return self.inner.embed(request);
        }
        request.dimensions = None;
        let (policy, normalize) = (request.dimension_policy, request.normalize);
        Box::pin(async move {
            // Fail before the work if the model's dimensions are known.
            if let Some(native) = self.model().dimensions {
                check(self.model(), native.get(), requested, policy)?;
            }
            let response = self.inner.embed(request).await?;
            check(self.model(), response.dim, requested, policy)?;
            if response.dim == requested.get()
                || (policy == DimensionPolicy::Ignore && !self.model().matryoshka)
            {
                return Ok(response);
            }
            let method = if requested.get() < response.dim { "reduce" } else { "pad" };
            self.metrics.record_dimension_adjustment(self.model().provider, &self.label, method);
            let resized = resize(response, requested.get(), normalize);
            match first_without_direction(&resized) {
                Some(input) => Err(no_direction(self.model(), requested, input)),
                None => Ok(resized),
            }
        })
    }
}

/// Fails if `policy` does not allow to change vectors of `native` dimensions to `requested` dimensions.
fn check(
    model: &ModelInfo,
    native: usize,
    requested: NonZeroUsize,
    policy: DimensionPolicy,
) -> Result<(), EmbedError> {
    let requested = requested.get();
    let allowed = match policy {
        DimensionPolicy::Pad | DimensionPolicy::Ignore => true,
        DimensionPolicy::Reduce => requested <= native,
        DimensionPolicy::Strict => requested == native || (model.matryoshka && requested < native),
    };
    if allowed {
        return Ok(());
    }
    let reason = if requested > native { "does not support more" } else { "does not support fewer" };
    Err(EmbedError::invalid(format!(
        "dimensions: {requested} requested, but '{}' has {native} dimensions and {reason}; omit `dimensions`",
        model.name
    )))
}

/// The first input whose vector is all zeros in its first components.
fn first_without_direction(resized: &Embeddings) -> Option<usize> {
    let has_failed = |input: usize| resized.failed.iter().any(|(failed, _)| *failed == input);
    let mut rows = resized.rows().enumerate();
    rows.find(|(input, row)| vector_defect(row).is_some() && !has_failed(*input)).map(|(input, _)| input)
}

fn no_direction(model: &ModelInfo, requested: NonZeroUsize, input: usize) -> EmbedError {
    let message = format!(
        "dimensions: the first {requested} numbers of the vector of '{}' are all zeros; request more dimensions",
        model.name
    );
    EmbedError::invalid(message).with_inputs(vec![InputError { index: input, tokens: None }])
}

/// Reduces each vector to `dimensions` numbers and renormalises it, or pads it with zeros.
fn resize(response: Embeddings, dimensions: usize, normalize: bool) -> Embeddings {
    let native = response.dim;
    if dimensions == native {
        return response;
    }
    let mut data = Vec::with_capacity(response.tokens.len() * dimensions);
    for row in response.rows() {
        let start = data.len();
        data.extend_from_slice(&row[..dimensions.min(native)]);
        if normalize && dimensions < native {
            to_unit_length(&mut data[start..]);
        }
        data.resize(start + dimensions, 0.0);
    }
    let space = SpaceId::new(format!("{}:{dimensions}", response.space));
    Embeddings { data, dim: dimensions, space, ..response }
}

#[cfg(test)]
mod tests {
    use embeddery_core::ProviderKind;
    use proptest::prelude::*;

    use super::*;

    fn model(matryoshka: bool) -> ModelInfo {
        ModelInfo {
            name: "m".into(),
            provider: ProviderKind::HuggingFace,
            dimensions: NonZeroUsize::new(4),
            max_tokens: None,
            matryoshka,
        }
    }

    #[test]
    fn each_policy_allows_its_dimensions() {
        use DimensionPolicy::*;
        let allowed = |matryoshka, requested: usize, policy| {
            check(&model(matryoshka), 4, NonZeroUsize::new(requested).unwrap(), policy).is_ok()
        };
        assert!(allowed(false, 4, Strict) && !allowed(false, 2, Strict) && !allowed(false, 8, Strict));
        assert!(allowed(true, 2, Strict) && !allowed(true, 8, Strict));
        assert!(allowed(false, 2, Reduce) && !allowed(false, 8, Reduce));
        assert!(allowed(false, 2, Pad) && allowed(false, 8, Pad));
        assert!(allowed(false, 8, Ignore));
    }

    #[test]
    fn a_vector_without_a_direction_is_found_with_its_input() {
        let response = |failed| Embeddings {
            data: vec![0.6, 0.8, 0.0, 1.0],
            dim: 2,
            space: SpaceId::new("s"),
            tokens: vec![1; 2],
            billed_tokens: 0,
            truncated: 0,
            failed,
            served_by: Arc::new(model(true)),
        };
        assert_eq!(first_without_direction(&response(Vec::new())), None);
        assert_eq!(first_without_direction(&resize(response(Vec::new()), 1, true)), Some(1));
        let failed = vec![(1, EmbedError::invalid("too long"))];
        assert_eq!(first_without_direction(&resize(response(failed), 1, true)), None);
    }

    proptest! {
        #[test]
        fn a_resized_vector_has_the_requested_length_and_keeps_its_direction(
            rows in proptest::collection::vec(proptest::collection::vec(-1f32..1.0, 4), 1..5),
            requested in 1usize..9,
        ) {
            let response = Embeddings {
                data: rows.concat(), dim: 4, space: SpaceId::new("s"), tokens: vec![1; rows.len()],
                billed_tokens: 0, truncated: 0, failed: Vec::new(), served_by: Arc::new(model(false)),
            };
            let resized = resize(response, requested, true);
            prop_assert_eq!(resized.dim, requested);
            prop_assert_eq!(resized.data.len(), requested * rows.len());
            for (new, old) in resized.rows().zip(&rows) {
                let kept = requested.min(4);
                if requested < 4 && old[..kept].iter().any(|x| x.abs() > 1e-3) {
                    let length = new.iter().map(|x| x * x).sum::<f32>().sqrt();
                    prop_assert!((length - 1.0).abs() < 1e-5, "length {length}");
                } else if requested >= 4 {
                    prop_assert_eq!(&new[..4], &old[..]);
                    prop_assert!(new[4..].iter().all(|x| *x == 0.0));
                }
            }
        }
    }
}
