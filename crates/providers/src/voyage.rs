//! Voyage AI: OpenAI's form with a purpose, a length and a switch for cutting. `encoding_format` is `base64`
//! or absent; "float" is refused.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, InputType, ProviderKind, Truncate};
use serde::Serialize;

use crate::{
    http::BaseUrl,
    openai,
    vendor_protocol::{Inputs, VendorProtocol, VendorRequest, VendorResponse, cannot_truncate, to_json},
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
    encoding_format: &'static str,
}

impl VendorProtocol for Voyage {
    fn address(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        openai::address(base)
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        let truncation = match ask.truncate {
            None => None,
            Some(Truncate::End) => Some(true),
            Some(Truncate::None) => Some(false),
            Some(Truncate::Start) => {
                return Err(cannot_truncate(ProviderKind::Voyage, "cut the start off a text"));
            }
        };
        to_json(&Body {
            model: ask.model,
            input: Inputs(ask.inputs),
            // For every other purpose Voyage wants the plain form.
            input_type: match ask.input_type {
                Some(InputType::Query) => Some("query"),
                Some(InputType::Document) => Some("document"),
                Some(InputType::Classification | InputType::Clustering) | None => None,
            },
            output_dimension: ask.dimensions,
            truncation,
            encoding_format: "base64",
        })
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
    fn the_body_is_voyages() {
        let inputs = [Input::Text("a".into())];
        assert_eq!(
            asked(&Voyage, &ask(&inputs)),
            json!({"model": "m", "input": ["a"], "encoding_format": "base64"})
        );
        let full = VendorRequest {
            input_type: Some(InputType::Query),
            dimensions: NonZeroUsize::new(256),
            truncate: Some(Truncate::None),
            ..ask(&inputs)
        };
        assert_eq!(
            asked(&Voyage, &full),
            json!({"model": "m", "input": ["a"], "input_type": "query", "output_dimension": 256,
                "truncation": false, "encoding_format": "base64"})
        );
        let clustering = VendorRequest { input_type: Some(InputType::Clustering), ..ask(&inputs) };
        assert!(asked(&Voyage, &clustering)["input_type"].is_null());
    }

    #[test]
    fn usage_has_only_a_total() {
        let recorded = json!({"object": "list", "model": "voyage-4", "usage": {"total_tokens": 10},
            "data": [{"object": "embedding", "embedding": "AACAPwAAAEA=", "index": 0}]})
        .to_string();
        let answer = Voyage.parse_response(recorded.as_bytes()).unwrap();
        assert_eq!(answer.tokens, Some(10));
        assert_eq!(answer.rows.into_flat(1), Ok((vec![1.0, 2.0], 2)));
    }
}
