//! Proves that an answer is the answer to the question: as many vectors as inputs, each of the promised
//! length, every number finite. Peers pass on what they get; a short or broken answer then corrupts an
//! index silently. Whoever lies is at fault, whatever status it sent.

use std::{sync::Arc, time::Instant};

use embeddery_core::{BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Retry};

use crate::{cache::variant, delegate::delegate_embedder};

/// Refuses an answer that cannot be right.
pub struct ValidateResponse(pub Arc<dyn Embedder>);

impl Embedder for ValidateResponse {
    delegate_embedder!(0);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let (asked, began) = (request.clone(), Instant::now());
            let notes = asked.context.notes.clone();
            let answer = self.0.embed(request).await;
            notes.record_attempt(began.elapsed());
            let answer = answer?;
            if let Some(defect) = defect(&answer, asked.inputs.len()) {
                return Err(EmbedError::new(
                    ErrorKind::BadUpstreamAnswer,
                    Fault::Upstream,
                    Retry::Backoff,
                    format!("'{}' of {} answered {defect}", self.model().name, self.model().provider),
                ));
            }
            if let Some(identity) = self.identity() {
                notes.set_variant(|| variant(&identity, &asked).into());
            }
            Ok(answer)
        })
    }
}

/// What is wrong with an answer to `inputs` inputs, in words; `None` when nothing is.
fn defect(answer: &Embeddings, inputs: usize) -> Option<String> {
    if answer.dim == 0 {
        return Some("vectors of length zero".into());
    }
    if answer.data.len() != inputs * answer.dim {
        return Some(format!(
            "{} numbers where {inputs} vectors of {} were due",
            answer.data.len(),
            answer.dim
        ));
    }
    if answer.tokens.len() != inputs {
        return Some(format!("{} token counts for {inputs} inputs", answer.tokens.len()));
    }
    let broken = answer.rows().position(|row| row.iter().any(|number| !number.is_finite()))?;
    Some(format!("a vector with a number that is not finite for input {broken}"))
}

#[cfg(test)]
mod tests {
    use embeddery_core::{ModelInfo, ProviderKind, SpaceId};

    use super::*;

    fn answer(data: Vec<f32>, dim: usize, tokens: usize) -> Embeddings {
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
    fn a_whole_answer_passes() {
        assert_eq!(defect(&answer(vec![0.5; 6], 3, 2), 2), None);
    }

    #[test]
    fn short_long_uncounted_and_infinite_answers_are_named() {
        assert!(defect(&answer(vec![0.5; 3], 3, 2), 2).unwrap().contains("3 numbers where 2 vectors of 3"));
        assert!(defect(&answer(vec![0.5; 9], 3, 2), 2).unwrap().contains("9 numbers"));
        assert!(defect(&answer(vec![0.5; 6], 3, 1), 2).unwrap().contains("1 token counts"));
        assert!(defect(&answer(vec![], 0, 2), 2).unwrap().contains("length zero"));
        let broken = vec![0.5, 0.5, 0.5, 0.5, f32::NAN, 0.5];
        assert!(defect(&answer(broken, 3, 2), 2).unwrap().ends_with("for input 1"));
    }
}
