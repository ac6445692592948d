//! The API of Mistral: OpenAI's API, with another field for the dimensions. It refuses inputs that are too long.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, ProviderKind, Truncate};
use serde::Serialize;

use crate::{
    http::BaseUrl,
    openai,
    vendor_protocol::{Inputs, VendorProtocol, VendorRequest, VendorResponse, to_json, unsupported_truncate},
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
    fn url(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        openai::url(base)
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        if request.truncate == Some(Truncate::Start) {
            return Err(unsupported_truncate(ProviderKind::Mistral, "truncate the start of a text"));
        }
        to_json(&Body {
            model: request.model,
            input: Inputs(request.inputs),
            output_dimension: request.dimensions,
        })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        openai::parse_response(body)
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::json;

    use super::*;
    use crate::vendor_protocol::tests::{body, request};

    #[test]
    fn the_body_follows_mistrals_schema() {
        let inputs = [Input::Text("a".into())];
        let sized = VendorRequest { dimensions: NonZeroUsize::new(3072), ..request(&inputs) };
        assert_eq!(body(&Mistral, &sized), json!({"model": "m", "input": ["a"], "output_dimension": 3072}));
    }

    #[test]
    fn a_recorded_response_is_parsed() {
        let recorded = json!({"id": "b16c", "object": "list", "model": "mistral-embed",
            "usage": {"prompt_audio_seconds": null, "prompt_tokens": 14, "total_tokens": 14,
                      "completion_tokens": 0, "request_count": null, "prompt_token_details": null},
            "data": [{"object": "embedding", "index": 0, "embedding": [-0.0165, 0.0707]}]})
        .to_string();
        let response = Mistral.parse_response(recorded.as_bytes()).unwrap();
        assert_eq!(response.tokens, Some(14));
        assert_eq!(response.vectors.into_flat(1), Ok((vec![-0.0165, 0.0707], 2)));
    }
}
