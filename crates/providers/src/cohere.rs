//! Cohere, API v2. A purpose is required; without one texts are documents, as in the replaced service.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, InputType, Truncate};
use serde::{Deserialize, Serialize};

use crate::{
    http::BaseUrl,
    response_vectors::{ResponseVectors, Row},
    vendor_protocol::{Inputs, VendorProtocol, VendorRequest, VendorResponse, to_json, unreadable},
};

/// Cohere.
pub(crate) struct Cohere;

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    texts: Inputs<'a>,
    input_type: &'static str,
    embedding_types: [&'static str; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimension: Option<NonZeroUsize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<&'static str>,
}

#[derive(Deserialize)]
struct Embedded<'a> {
    #[serde(borrow)]
    embeddings: ByType<'a>,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct ByType<'a> {
    #[serde(borrow)]
    float: Vec<Row<'a>>,
}

#[derive(Deserialize)]
struct Meta {
    billed_units: Option<Billed>,
}

#[derive(Deserialize)]
struct Billed {
    input_tokens: Option<f64>,
}

impl VendorProtocol for Cohere {
    /// Cohere's root, its `/v2`, or the whole address.
    fn address(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        match base.path() {
            path if path.ends_with("/embed") => base.clone(),
            path if path.ends_with("/v2") => base.join(&["embed"]),
            _ => base.join(&["v2", "embed"]),
        }
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        to_json(&Body {
            model: ask.model,
            texts: Inputs(ask.inputs),
            input_type: match ask.input_type {
                Some(InputType::Query) => "search_query",
                Some(InputType::Document) | None => "search_document",
                Some(InputType::Classification) => "classification",
                Some(InputType::Clustering) => "clustering",
            },
            embedding_types: ["float"],
            output_dimension: ask.dimensions,
            truncate: ask.truncate.map(|truncate| match truncate {
                Truncate::End => "END",
                Truncate::Start => "START",
                Truncate::None => "NONE",
            }),
        })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        let answer: Embedded<'_> = serde_json::from_slice(body).map_err(|error| unreadable(body, &error))?;
        let tokens = answer.meta.and_then(|meta| meta.billed_units?.input_tokens);
        // Cohere's own types have billed units as floating point numbers.
        let tokens = tokens.filter(|tokens| *tokens >= 0.0).map(|tokens| tokens as u64);
        Ok(VendorResponse { rows: ResponseVectors::InOrder(answer.embeddings.float), tokens })
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::json;

    use super::*;
    use crate::vendor_protocol::tests::{ask, asked};

    #[test]
    fn the_body_is_coheres() {
        let inputs = [Input::Text("a".into())];
        assert_eq!(
            asked(&Cohere, &ask(&inputs)),
            json!({"model": "m", "texts": ["a"], "input_type": "search_document", "embedding_types": ["float"]})
        );
        let full = VendorRequest {
            input_type: Some(InputType::Query),
            dimensions: NonZeroUsize::new(512),
            truncate: Some(Truncate::Start),
            ..ask(&inputs)
        };
        assert_eq!(
            asked(&Cohere, &full),
            json!({"model": "m", "texts": ["a"], "input_type": "search_query", "embedding_types": ["float"],
                "output_dimension": 512, "truncate": "START"})
        );
    }

    #[test]
    fn addresses_are_roots_or_whole() {
        let at = |base: &str| Cohere.address(&BaseUrl::parse(base).unwrap(), "m").to_string();
        for base in
            ["https://api.cohere.com", "https://api.cohere.com/v2/", "https://api.cohere.com/v2/embed"]
        {
            assert_eq!(at(base), "https://api.cohere.com/v2/embed");
        }
    }

    #[test]
    fn a_recorded_answer_is_read() {
        let recorded = json!({"id": "5807ee2e", "embeddings": {"float": [[0.016, -0.008], [1, 2]]},
            "texts": ["hello", "goodbye"], "response_type": "embeddings_by_type",
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 4}}})
        .to_string();
        let answer = Cohere.parse_response(recorded.as_bytes()).unwrap();
        assert_eq!(answer.tokens, Some(4));
        assert_eq!(answer.rows.into_flat(2), Ok((vec![0.016, -0.008, 1.0, 2.0], 2)));
        assert!(Cohere.parse_response(br#"{"embeddings":[[1]]}"#).err().unwrap().contains("another form"));
    }
}
