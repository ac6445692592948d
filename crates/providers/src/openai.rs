//! The APIs of OpenAI, of Azure OpenAI, and of local servers that implement OpenAI's API.
//!
//! Vectors are requested as base64, which takes a third of the bytes and a tenth of the parsing time of JSON numbers.
//! Token ids are passed on, because they belong to OpenAI's own tokenizer. OpenAI neither truncates inputs nor has an
//! input type.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, ProviderKind, Truncate};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    http::{BaseUrl, KeyHeader},
    reported_tokens,
    response_vectors::{IndexedVector, ResponseVectors},
    vendor_protocol::{
        Inputs, VendorProtocol, VendorRequest, VendorResponse, describe_unparsable, to_json,
        unsupported_truncate,
    },
};

/// OpenAI.
pub(crate) struct OpenAi;

/// Azure OpenAI. The deployment is in the URL, and the key is in the header `api-key`.
pub(crate) struct Azure;

/// OpenAI's API on vLLM, llama.cpp, LM Studio, Infinity, or TEI's `/v1`: vectors as numbers, and no token ids.
pub(crate) struct LocalOpenAi;

/// The API version of requests to Azure, if the URL names none.
const DEFAULT_AZURE_VERSION: &str = "2024-10-21";

#[derive(Serialize)]
struct Body<'a> {
    model: &'a str,
    input: Inputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<NonZeroUsize>,
    // Always present: some servers refuse a request without it, others refuse null.
    encoding_format: &'static str,
}

/// The response, also of Mistral and Voyage.
#[derive(Deserialize)]
struct EmbedResponse<'a> {
    #[serde(borrow)]
    data: Vec<IndexedVector<'a>>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
}

/// Parses `{"data":[{"index","embedding"}],"usage"}`.
pub(crate) fn parse_response(body: &[u8]) -> Result<VendorResponse<'_>, String> {
    let response: EmbedResponse<'_> =
        serde_json::from_slice(body).map_err(|error| describe_unparsable(body, &error))?;
    let tokens = reported_tokens::read(response.usage, &[&["total_tokens"], &["prompt_tokens"]]);
    Ok(VendorResponse { vectors: ResponseVectors::Indexed(response.data), tokens })
}

/// The URL of requests: `base` with `embeddings` appended, unless it is the complete URL.
pub(crate) fn url(base: &BaseUrl) -> BaseUrl {
    if base.path().ends_with("/embeddings") { base.clone() } else { base.join(&["embeddings"]) }
}

fn build_body(request: &VendorRequest<'_>, encoding_format: &'static str) -> Result<Vec<u8>, EmbedError> {
    if request.truncate == Some(Truncate::Start) {
        return Err(unsupported_truncate(ProviderKind::OpenAi, "truncate the start of a text"));
    }
    to_json(&Body {
        model: request.model,
        input: Inputs(request.inputs),
        dimensions: request.dimensions,
        encoding_format,
    })
}

impl VendorProtocol for OpenAi {
    fn url(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        url(base)
    }

    fn accepts_tokens(&self) -> bool {
        true
    }

    fn has_base64(&self) -> bool {
        true
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        build_body(request, if request.base64 { "base64" } else { "float" })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        parse_response(body)
    }
}

impl VendorProtocol for Azure {
    /// `base` is the URL of a resource, of a deployment, or the complete URL.
    fn url(&self, base: &BaseUrl, model: &str) -> BaseUrl {
        let path = base.path();
        let url = if path.contains("/deployments/") || path.ends_with("/v1") {
            url(base)
        } else if path.ends_with("/openai") {
            base.join(&["deployments", model, "embeddings"])
        } else {
            base.join(&["openai", "deployments", model, "embeddings"])
        };
        // Azure's newer API `/openai/v1` has no versions.
        if path.ends_with("/v1") { url } else { url.with_query("api-version", DEFAULT_AZURE_VERSION) }
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::ApiKey
    }

    fn accepts_tokens(&self) -> bool {
        true
    }

    fn has_base64(&self) -> bool {
        true
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        build_body(request, if request.base64 { "base64" } else { "float" })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        parse_response(body)
    }
}

impl VendorProtocol for LocalOpenAi {
    /// `base` is a server's root, its `/v1`, or the complete URL.
    fn url(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        if base.path().is_empty() { base.join(&["v1", "embeddings"]) } else { url(base) }
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        build_body(request, "float")
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        parse_response(body)
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::{Value, json};

    use super::*;
    use crate::vendor_protocol::tests::{body, request};

    #[test]
    fn the_body_follows_openais_schema() {
        assert_eq!(
            body(&OpenAi, &request(&[Input::Text("a \"b\"".into())])),
            json!({"model": "m", "input": ["a \"b\""], "encoding_format": "base64"})
        );
        let tokens = [Input::Tokens(vec![1, 2].into()), Input::Tokens(vec![3].into())];
        let sized = VendorRequest { dimensions: NonZeroUsize::new(256), ..request(&tokens) };
        assert_eq!(
            body(&OpenAi, &sized),
            json!({"model": "m", "input": [[1, 2], [3]], "dimensions": 256, "encoding_format": "base64"})
        );
        let text = [Input::Text("a".into())];
        assert_eq!(body(&LocalOpenAi, &request(&text))["encoding_format"], "float");
        let numbers = VendorRequest { base64: false, ..request(&text) };
        assert_eq!(body(&OpenAi, &numbers)["encoding_format"], "float");
        let start = VendorRequest { truncate: Some(Truncate::Start), ..request(&text) };
        assert!(OpenAi.build_request(&start).unwrap_err().message.starts_with("truncate:"));
    }

    #[test]
    fn urls_are_completed() {
        let at = |protocol: &dyn VendorProtocol, base: &str| {
            protocol.url(&BaseUrl::parse(base).unwrap(), "de/p").to_string()
        };
        assert_eq!(at(&OpenAi, "https://api.openai.com/v1"), "https://api.openai.com/v1/embeddings");
        assert_eq!(at(&OpenAi, "https://x/v1/embeddings"), "https://x/v1/embeddings");
        assert_eq!(at(&LocalOpenAi, "http://x:8080"), "http://x:8080/v1/embeddings");
        assert_eq!(at(&LocalOpenAi, "http://x:8080/v1/"), "http://x:8080/v1/embeddings");
        let azure = "https://r.openai.azure.com/openai/deployments/de%2Fp/embeddings?api-version=2024-10-21";
        assert_eq!(at(&Azure, "https://r.openai.azure.com"), azure);
        assert_eq!(at(&Azure, "https://r.openai.azure.com/openai/"), azure);
        assert_eq!(
            at(&Azure, "https://r.openai.azure.com/openai/deployments/d/embeddings?api-version=7"),
            "https://r.openai.azure.com/openai/deployments/d/embeddings?api-version=7"
        );
        assert_eq!(at(&Azure, "https://r/openai/v1"), "https://r/openai/v1/embeddings");
    }

    #[test]
    fn a_recorded_response_is_parsed() {
        let recorded = json!({"object": "list", "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 1, "embedding": "AACAPwAAAEA="},
                     {"object": "embedding", "index": 0, "embedding": [0.5, -1]}],
            "usage": {"prompt_tokens": 8, "total_tokens": 9}})
        .to_string();
        let response = parse_response(recorded.as_bytes()).unwrap();
        assert_eq!(response.tokens, Some(9));
        assert_eq!(response.vectors.into_flat(2), Ok((vec![0.5, -1.0, 1.0, 2.0], 2)));
    }

    #[test]
    fn unparsable_responses_are_described() {
        let reason = |body: &str| parse_response(body.as_bytes()).err().unwrap();
        assert_eq!(reason(""), "an empty body");
        assert!(reason(" <!doctype html>").contains("a web page"));
        assert!(reason(r#"{"data":[{"index":0,"embed"#).contains("truncated JSON"));
        assert!(reason(r#"{"object":"list"}"#).contains("another schema"));
        assert!(reason("so sorry").contains("not JSON"));
        assert_eq!(serde_json::from_str::<Value>("1").unwrap(), 1);
    }
}
