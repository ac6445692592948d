//! The API of Cohere, version 2. It requires an input type. A request without one gets `search_document`, as in the
//! service that Embeddery replaces.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, InputType, Truncate};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    http::BaseUrl,
    reported_tokens,
    response_vectors::{EncodedVector, ResponseVectors},
    vendor_protocol::{Inputs, VendorProtocol, VendorRequest, VendorResponse, describe_unparsable, to_json},
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
struct EmbedResponse<'a> {
    #[serde(borrow)]
    embeddings: ByType<'a>,
    #[serde(borrow)]
    meta: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ByType<'a> {
    #[serde(borrow)]
    float: Vec<EncodedVector<'a>>,
}

impl VendorProtocol for Cohere {
    /// `base` is Cohere's root, its `/v2`, or the complete URL.
    fn url(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        match base.path() {
            path if path.ends_with("/embed") => base.clone(),
            path if path.ends_with("/v2") => base.join(&["embed"]),
            _ => base.join(&["v2", "embed"]),
        }
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        to_json(&Body {
            model: request.model,
            texts: Inputs(request.inputs),
            input_type: match request.input_type {
                Some(InputType::Query) => "search_query",
                Some(InputType::Document) | None => "search_document",
                Some(InputType::Classification) => "classification",
                Some(InputType::Clustering) => "clustering",
            },
            embedding_types: ["float"],
            output_dimension: request.dimensions,
            truncate: request.truncate.map(|truncate| match truncate {
                Truncate::End => "END",
                Truncate::Start => "START",
                Truncate::None => "NONE",
            }),
        })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        let response: EmbedResponse<'_> =
            serde_json::from_slice(body).map_err(|error| describe_unparsable(body, &error))?;
        let tokens = reported_tokens::read(response.meta, &[&["billed_units", "input_tokens"]]);
        Ok(VendorResponse { vectors: ResponseVectors::InOrder(response.embeddings.float), tokens })
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::json;

    use super::*;
    use crate::vendor_protocol::tests::{body, request};

    #[test]
    fn the_body_follows_coheres_schema() {
        let inputs = [Input::Text("a".into())];
        assert_eq!(
            body(&Cohere, &request(&inputs)),
            json!({"model": "m", "texts": ["a"], "input_type": "search_document", "embedding_types": ["float"]})
        );
        let full = VendorRequest {
            input_type: Some(InputType::Query),
            dimensions: NonZeroUsize::new(512),
            truncate: Some(Truncate::Start),
            ..request(&inputs)
        };
        assert_eq!(
            body(&Cohere, &full),
            json!({"model": "m", "texts": ["a"], "input_type": "search_query", "embedding_types": ["float"],
                "output_dimension": 512, "truncate": "START"})
        );
    }

    #[test]
    fn urls_are_completed() {
        let at = |base: &str| Cohere.url(&BaseUrl::parse(base).unwrap(), "m").to_string();
        for base in
            ["https://api.cohere.com", "https://api.cohere.com/v2/", "https://api.cohere.com/v2/embed"]
        {
            assert_eq!(at(base), "https://api.cohere.com/v2/embed");
        }
    }

    #[test]
    fn a_recorded_response_is_parsed() {
        let recorded = json!({"id": "5807ee2e", "embeddings": {"float": [[0.016, -0.008], [1, 2]]},
            "texts": ["hello", "goodbye"], "response_type": "embeddings_by_type",
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": 4}}})
        .to_string();
        let response = Cohere.parse_response(recorded.as_bytes()).unwrap();
        assert_eq!(response.tokens, Some(4));
        assert_eq!(response.vectors.into_flat(2), Ok((vec![0.016, -0.008, 1.0, 2.0], 2)));
        assert!(Cohere.parse_response(br#"{"embeddings":[[1]]}"#).err().unwrap().contains("another schema"));
    }
}
