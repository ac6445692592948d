//! Mistral: OpenAI's form, with its own name for the vector's length. Inputs that are too long are refused.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, ProviderKind, Truncate};
use serde::Serialize;

use crate::{
    http::BaseUrl,
    openai,
    vendor_protocol::{Inputs, VendorProtocol, VendorRequest, VendorResponse, cannot_truncate, to_json},
};

/// Mistral.
pub(crate) struct Mistral;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: Inputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimension: Option<NonZeroUsize>,
}

impl VendorProtocol for Mistral {
    fn address(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        openai::address(base)
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        if ask.truncate == Some(Truncate::Start) {
            return Err(cannot_truncate(ProviderKind::Mistral, "cut the start off a text"));
        }
        to_json(&Body { model: ask.model, input: Inputs(ask.inputs), output_dimension: ask.dimensions })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        openai::answer(body)
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::json;

    use super::*;
    use crate::vendor_protocol::tests::{ask, asked};

    #[test]
    fn the_body_is_mistrals() {
        let inputs = [Input::Text("a".into())];
        let sized = VendorRequest { dimensions: NonZeroUsize::new(3072), ..ask(&inputs) };
        assert_eq!(asked(&Mistral, &sized), json!({"model": "m", "input": ["a"], "output_dimension": 3072}));
    }

    #[test]
    fn a_recorded_answer_is_read() {
        let recorded = json!({"id": "b16c", "object": "list", "model": "mistral-embed",
            "usage": {"prompt_audio_seconds": null, "prompt_tokens": 14, "total_tokens": 14,
                      "completion_tokens": 0, "request_count": null, "prompt_token_details": null},
            "data": [{"object": "embedding", "index": 0, "embedding": [-0.0165, 0.0707]}]})
        .to_string();
        let answer = Mistral.parse_response(recorded.as_bytes()).unwrap();
        assert_eq!(answer.tokens, Some(14));
        assert_eq!(answer.rows.into_flat(1), Ok((vec![-0.0165, 0.0707], 2)));
    }
}
