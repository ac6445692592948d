//! Checks that a response matches its request: one vector per input, each of the same length, all numbers finite. A short
//! or broken response would silently corrupt an index. A mismatch is the upstream's fault, whatever its status was.

use std::{sync::Arc, time::Instant};

use embeddery_core::{BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Retry};

use crate::{cache::variant, delegate::delegate_embedder};

/// Rejects a response that does not match its request.
pub struct ValidateResponse(pub Arc<dyn Embedder>);

impl Embedder for ValidateResponse {
    delegate_embedder!(0);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let (original, started) = (request.clone(), Instant::now());
            let stats = original.context.stats.clone();
            let result = self.0.embed(request).await;
            stats.record_attempt(started.elapsed());
            let response = result?;
            if let Some(defect) = defect(&response, original.inputs.len()) {
                return Err(EmbedError::new(
                    ErrorKind::InvalidUpstreamResponse,
                    Fault::Upstream,
                    Retry::Backoff,
                    format!("'{}' of {} returned {defect}", self.model().name, self.model().provider),
                ));
            }
            if let Some(identity) = self.identity() {
                stats.set_variant(|| variant(&identity, &original).into());
            }
            Ok(response)
        })
    }
}

/// Describes what is wrong with a response to `inputs` inputs; `None` for a valid response.
fn defect(response: &Embeddings, inputs: usize) -> Option<String> {
    if response.dim == 0 {
        return Some("vectors of length zero".into());
    }
    if response.data.len() != inputs * response.dim {
        return Some(format!(
            "{} numbers instead of {inputs} vectors of {}",
            response.data.len(),
            response.dim
        ));
    }
    if response.tokens.len() != inputs {
        return Some(format!("{} token counts for {inputs} inputs", response.tokens.len()));
    }
    let broken = response.rows().position(|row| row.iter().any(|number| !number.is_finite()))?;
    Some(format!("a vector with a non-finite number for input {broken}"))
}

#[cfg(test)]
mod tests {
    use embeddery_core::{ModelInfo, ProviderKind, SpaceId};

    use super::*;

    fn response(data: Vec<f32>, dim: usize, tokens: usize) -> Embeddings {
        Embeddings {
            data,
            dim,
            space: SpaceId::new("test"),
            tokens: vec![1; tokens],
            billed_tokens: 0,
            truncated: 0,
            failed: Vec::new(),
            served_by: Arc::new(ModelInfo {
                name: "test".into(),
                provider: ProviderKind::OpenAi,
                dimensions: None,
                max_tokens: None,
                matryoshka: false,
            }),
        }
    }

    #[test]
    fn a_complete_response_is_valid() {
        assert_eq!(defect(&response(vec![0.5; 6], 3, 2), 2), None);
    }

    #[test]
    fn each_defect_is_described() {
        assert!(
            defect(&response(vec![0.5; 3], 3, 2), 2).unwrap().contains("3 numbers instead of 2 vectors of 3")
        );
        assert!(defect(&response(vec![0.5; 9], 3, 2), 2).unwrap().contains("9 numbers"));
        assert!(defect(&response(vec![0.5; 6], 3, 1), 2).unwrap().contains("1 token counts"));
        assert!(defect(&response(vec![], 0, 2), 2).unwrap().contains("length zero"));
        let broken = vec![0.5, 0.5, 0.5, 0.5, f32::NAN, 0.5];
        assert!(defect(&response(broken, 3, 2), 2).unwrap().ends_with("for input 1"));
    }
}
