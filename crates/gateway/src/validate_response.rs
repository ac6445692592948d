//! Checks that a response matches its request: one vector per input, each of the same length, all numbers finite, and none
//! all zeros. A short or broken response would silently corrupt an index. A mismatch is the upstream's fault, whatever its
//! status was. Of a local model only a vector of zeros can be expected: the text has no token that the model knows.
//!
//! A wrong vector of single inputs names them. It is a property of their texts, so a retry does not help, and the circuit
//! breaker does not count it. Numbers that are not finite in the vectors of several different inputs, and in all of the
//! response, are a defect of the server.

use std::{sync::Arc, time::Instant};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Input, InputError,
    ModelInfo, ProviderKind, Retry, vector_defect,
};

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
            if let Some(defect) = defect(&response, &original.inputs) {
                return Err(defect.into_error(self.model()));
            }
            if let Some(identity) = self.identity() {
                stats.set_variant(|| variant(&identity, &original).into());
            }
            Ok(response)
        })
    }
}

/// What is wrong with a response.
#[derive(Debug, PartialEq, Eq)]
struct Defect {
    /// Completes "the model returned …".
    problem: String,
    /// The inputs whose vectors are wrong; empty if the whole response is.
    inputs: Vec<usize>,
}

impl Defect {
    fn into_error(self, model: &ModelInfo) -> EmbedError {
        let Self { problem, inputs } = self;
        let message = format!("'{}' of {} returned {problem}", model.name, model.provider);
        let upstream = |retry, message| {
            EmbedError::new(ErrorKind::InvalidUpstreamResponse, Fault::Upstream, retry, message)
        };
        if inputs.is_empty() {
            return upstream(Retry::Backoff, message);
        }
        let message = format!("{message}; change or omit the text");
        let error = match model.provider {
            ProviderKind::HuggingFace | ProviderKind::Onnx => EmbedError::invalid(message),
            _ => upstream(Retry::Never, message),
        };
        error.with_inputs(inputs.into_iter().map(|index| InputError { index, tokens: None }).collect())
    }
}

/// What is wrong with a response to `inputs`; `None` for a valid response.
fn defect(response: &Embeddings, inputs: &[Input]) -> Option<Defect> {
    let whole = |problem: String| Some(Defect { problem, inputs: Vec::new() });
    let count = inputs.len();
    if response.dim == 0 {
        return whole("vectors of length zero".into());
    }
    if response.data.len() != count * response.dim {
        return whole(format!(
            "{} numbers instead of {count} vectors of {}",
            response.data.len(),
            response.dim
        ));
    }
    if response.tokens.len() != count {
        return whole(format!("{} token counts for {count} inputs", response.tokens.len()));
    }
    // One bad text, or the same one repeated, shows nothing about other texts.
    let has_different_inputs = inputs.iter().any(|input| Some(input) != inputs.first());
    let is_broken = |row: &[f32]| row.iter().any(|number| !number.is_finite());
    if has_different_inputs && response.rows().all(is_broken) {
        return whole("only vectors with numbers that are not finite".into());
    }
    let has_failed = |input: usize| response.failed.iter().any(|(failed, _)| *failed == input);
    let defects = response.rows().enumerate().filter_map(|(input, row)| Some((input, vector_defect(row)?)));
    let (inputs, problems): (Vec<usize>, Vec<&str>) =
        defects.filter(|(input, _)| !has_failed(*input)).unzip();
    Some(Defect { problem: format!("a vector that {}", problems.first()?), inputs })
}

#[cfg(test)]
mod tests {
    use embeddery_core::SpaceId;

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

    fn inputs<const N: usize>(texts: [&str; N]) -> [Input; N] {
        texts.map(|text| Input::Text(text.into()))
    }

    #[test]
    fn a_complete_response_is_valid() {
        assert_eq!(defect(&response(vec![0.5; 6], 3, 2), &inputs(["a", "b"])), None);
    }

    #[test]
    fn each_defect_is_described() {
        let problem = |data: Vec<f32>, dim, tokens| {
            let defect = defect(&response(data, dim, tokens), &inputs(["a", "b"])).unwrap();
            assert_eq!(defect.inputs, []);
            defect.problem
        };
        assert!(problem(vec![0.5; 3], 3, 2).contains("3 numbers instead of 2 vectors of 3"));
        assert!(problem(vec![0.5; 9], 3, 2).contains("9 numbers"));
        assert!(problem(vec![0.5; 6], 3, 1).contains("1 token counts"));
        assert!(problem(vec![], 0, 2).contains("length zero"));
    }

    #[test]
    fn a_vector_without_a_direction_is_refused_with_its_input() {
        for (second, problem) in [
            ([0.5, f32::NAN, 0.5], "not finite"),
            ([0.5, f32::INFINITY, 0.5], "not finite"),
            ([0.0, -0.0, 0.0], "all zeros"),
        ] {
            let mut broken = response([[0.5; 3], second].concat(), 3, 2);
            let found = defect(&broken, &inputs(["a", "b"])).unwrap();
            assert_eq!(found.inputs, [1]);
            assert!(found.problem.contains(problem), "{found:?}");
            let error = found.into_error(&broken.served_by);
            assert_eq!((error.kind, error.fault), (ErrorKind::InvalidUpstreamResponse, Fault::Upstream));
            assert_eq!(error.retry, Retry::Never);
            assert_eq!(error.inputs, [InputError { index: 1, tokens: None }]);
            broken.failed = vec![(1, EmbedError::invalid("too long"))];
            assert_eq!(
                defect(&broken, &inputs(["a", "b"])),
                None,
                "the row of a failed input is not a vector"
            );
        }
        let model = ModelInfo {
            provider: ProviderKind::HuggingFace,
            ..ModelInfo::clone(&response(vec![], 1, 0).served_by)
        };
        let zeros = defect(&response(vec![0.0; 3], 3, 1), &inputs(["a"])).unwrap().into_error(&model);
        assert_eq!((zeros.kind, zeros.fault), (ErrorKind::InvalidRequest, Fault::Caller));
    }

    #[test]
    fn only_different_inputs_without_a_finite_vector_show_that_the_server_is_broken() {
        let (nan, zero) = (f32::NAN, 0.0);
        for (numbers, texts, named) in [
            ([nan, nan], ["a", "b"], vec![]),
            ([nan, f32::INFINITY], ["a", "b"], vec![]),
            ([nan, nan], ["a", "a"], vec![0, 1]),
            ([nan, zero], ["a", "b"], vec![0, 1]),
            ([zero, zero], ["a", "b"], vec![0, 1]),
            ([0.5, nan], ["a", "b"], vec![1]),
        ] {
            let response = response(numbers.to_vec(), 1, 2);
            let found = defect(&response, &inputs(texts)).unwrap();
            assert_eq!(found.inputs, named, "{numbers:?} {texts:?}");
            let retry = if named.is_empty() { Retry::Backoff } else { Retry::Never };
            assert_eq!(found.into_error(&response.served_by).retry, retry, "{numbers:?} {texts:?}");
        }
        let single = response(vec![nan], 1, 1);
        assert_eq!(defect(&single, &inputs(["a"])).unwrap().inputs, [0]);
    }
}
