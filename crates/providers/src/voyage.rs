//! The API of Voyage AI: OpenAI's API with fields for input type, dimensions and truncation. `encoding_format` is `base64`
//! or absent; `float` is refused.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, InputType, ProviderKind, Truncate};
use serde::Serialize;

use crate::{
    http::BaseUrl,
    openai,
    vendor_protocol::{Inputs, VendorProtocol, VendorRequest, VendorResponse, to_json, unsupported_truncate},
};

/// Voyage.
pub(crate) struct Voyage;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: Inputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    input_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimension: Option<NonZeroUsize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncation: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding_format: Option<&'static str>,
}

impl VendorProtocol for Voyage {
    fn url(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        openai::url(base)
    }

    fn has_base64(&self) -> bool {
        true
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        let truncation = match request.truncate {
            None => None,
            Some(Truncate::End) => Some(true),
            Some(Truncate::None) => Some(false),
            Some(Truncate::Start) => {
                return Err(unsupported_truncate(ProviderKind::Voyage, "truncate the start of a text"));
            }
        };
        to_json(&Body {
            model: request.model,
            input: Inputs(request.inputs),
            // Voyage has no other input types. Without one it embeds the text without a prompt.
            input_type: match request.input_type {
                Some(InputType::Query) => Some("query"),
                Some(InputType::Document) => Some("document"),
                Some(InputType::Classification | InputType::Clustering) | None => None,
            },
            output_dimension: request.dimensions,
            truncation,
            encoding_format: request.base64.then_some("base64"),
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
    fn the_body_follows_voyages_schema() {
        let inputs = [Input::Text("a".into())];
        assert_eq!(
            body(&Voyage, &request(&inputs)),
            json!({"model": "m", "input": ["a"], "encoding_format": "base64"})
        );
        let full = VendorRequest {
            input_type: Some(InputType::Query),
            dimensions: NonZeroUsize::new(256),
            truncate: Some(Truncate::None),
            ..request(&inputs)
        };
        assert_eq!(
            body(&Voyage, &full),
            json!({"model": "m", "input": ["a"], "input_type": "query", "output_dimension": 256,
                "truncation": false, "encoding_format": "base64"})
        );
        let clustering = VendorRequest { input_type: Some(InputType::Clustering), ..request(&inputs) };
        assert!(body(&Voyage, &clustering)["input_type"].is_null());
    }

    #[test]
    fn a_recorded_response_with_only_total_tokens_is_parsed() {
        let recorded = json!({"object": "list", "model": "voyage-4", "usage": {"total_tokens": 10},
            "data": [{"object": "embedding", "embedding": "AACAPwAAAEA=", "index": 0}]})
        .to_string();
        let response = Voyage.parse_response(recorded.as_bytes()).unwrap();
        assert_eq!(response.tokens, Some(10));
        assert_eq!(response.vectors.into_flat(1), Ok((vec![1.0, 2.0], 2)));
    }
}
