//! OpenAI, Azure OpenAI, and servers near by that speak OpenAI's form.
//!
//! Vectors are asked for as base64: a third of the bytes and a tenth of the work of numbers. Token ids are
//! passed on, because they are of OpenAI's own tokenizer. OpenAI neither cuts inputs nor knows their purpose.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, ProviderKind, Truncate};
use serde::{Deserialize, Serialize};

use crate::{
    http::{BaseUrl, KeyHeader},
    response_vectors::{Indexed, ResponseVectors},
    vendor_protocol::{
        Inputs, VendorProtocol, VendorRequest, VendorResponse, cannot_truncate, to_json, unreadable,
    },
};

/// OpenAI.
pub(crate) struct OpenAi;

/// Azure OpenAI: the deployment is in the address, the key in a header of its own.
pub(crate) struct Azure;

/// vLLM, llama.cpp, LM Studio, Infinity, TEI's `/v1`: OpenAI's form without base64 and without its token ids.
pub(crate) struct LocalOpenAi;

/// The version of Azure's interface that is asked for when the address names none.
const AZURE_VERSION: &str = "2024-10-21";

#[derive(Serialize)]
struct Body<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    input: Inputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<NonZeroUsize>,
    // Always written: some servers refuse a request without it, some refuse null.
    encoding_format: &'static str,
}

/// The form of the answer, shared by Mistral and Voyage.
#[derive(Deserialize)]
struct Embedded<'a> {
    #[serde(borrow)]
    data: Vec<Indexed<'a>>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

/// Reads `{"data":[{"index","embedding"}],"usage"}`.
pub(crate) fn answer(body: &[u8]) -> Result<VendorResponse<'_>, String> {
    let answer: Embedded<'_> = serde_json::from_slice(body).map_err(|error| unreadable(body, &error))?;
    let tokens = answer.usage.and_then(|usage| usage.total_tokens.or(usage.prompt_tokens));
    Ok(VendorResponse { rows: ResponseVectors::Indexed(answer.data), tokens })
}

/// The base with `embeddings` below it, unless it is the whole address already.
pub(crate) fn address(base: &BaseUrl) -> BaseUrl {
    if base.path().ends_with("/embeddings") { base.clone() } else { base.join(&["embeddings"]) }
}

fn body(
    ask: &VendorRequest<'_>,
    model: Option<&str>,
    encoding_format: &'static str,
) -> Result<Vec<u8>, EmbedError> {
    if ask.truncate == Some(Truncate::Start) {
        return Err(cannot_truncate(ProviderKind::OpenAi, "cut the start off a text"));
    }
    to_json(&Body { model, input: Inputs(ask.inputs), dimensions: ask.dimensions, encoding_format })
}

impl VendorProtocol for OpenAi {
    fn address(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        address(base)
    }

    fn takes_tokens(&self) -> bool {
        true
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        body(ask, Some(ask.model), "base64")
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        answer(body)
    }
}

impl VendorProtocol for Azure {
    /// A resource's address, a deployment's, or the whole one.
    fn address(&self, base: &BaseUrl, model: &str) -> BaseUrl {
        let path = base.path();
        let whole = if path.contains("/deployments/") || path.ends_with("/v1") {
            address(base)
        } else if path.ends_with("/openai") {
            base.join(&["deployments", model, "embeddings"])
        } else {
            base.join(&["openai", "deployments", model, "embeddings"])
        };
        // Azure's newer `/openai/v1` has no versions.
        if path.ends_with("/v1") { whole } else { whole.with_query("api-version", AZURE_VERSION) }
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::ApiKey
    }

    fn takes_tokens(&self) -> bool {
        true
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        body(ask, Some(ask.model), "base64")
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        answer(body)
    }
}

impl VendorProtocol for LocalOpenAi {
    /// A server's root, its `/v1`, or the whole address.
    fn address(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        if base.path().is_empty() { base.join(&["v1", "embeddings"]) } else { address(base) }
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        body(ask, Some(ask.model), "float")
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        answer(body)
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::{Value, json};

    use super::*;
    use crate::vendor_protocol::tests::{ask, asked};

    #[test]
    fn the_body_is_openais() {
        assert_eq!(
            asked(&OpenAi, &ask(&[Input::Text("a \"b\"".into())])),
            json!({"model": "m", "input": ["a \"b\""], "encoding_format": "base64"})
        );
        let tokens = [Input::Tokens(vec![1, 2].into()), Input::Tokens(vec![3].into())];
        let sized = VendorRequest { dimensions: NonZeroUsize::new(256), ..ask(&tokens) };
        assert_eq!(
            asked(&OpenAi, &sized),
            json!({"model": "m", "input": [[1, 2], [3]], "dimensions": 256, "encoding_format": "base64"})
        );
        let text = [Input::Text("a".into())];
        assert_eq!(asked(&LocalOpenAi, &ask(&text))["encoding_format"], "float");
        let start = VendorRequest { truncate: Some(Truncate::Start), ..ask(&text) };
        assert!(OpenAi.build_request(&start).unwrap_err().message.starts_with("truncate:"));
    }

    #[test]
    fn addresses_are_bases_or_whole() {
        let at = |wire: &dyn VendorProtocol, base: &str| {
            wire.address(&BaseUrl::parse(base).unwrap(), "de/p").to_string()
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
    fn a_recorded_answer_is_read() {
        let recorded = json!({"object": "list", "model": "text-embedding-3-small",
            "data": [{"object": "embedding", "index": 1, "embedding": "AACAPwAAAEA="},
                     {"object": "embedding", "index": 0, "embedding": [0.5, -1]}],
            "usage": {"prompt_tokens": 8, "total_tokens": 9}})
        .to_string();
        let answer = answer(recorded.as_bytes()).unwrap();
        assert_eq!(answer.tokens, Some(9));
        assert_eq!(answer.rows.into_flat(2), Ok((vec![0.5, -1.0, 1.0, 2.0], 2)));
    }

    #[test]
    fn what_is_no_answer_is_described() {
        let reason = |body: &str| answer(body.as_bytes()).err().unwrap();
        assert_eq!(reason(""), "nothing");
        assert!(reason(" <!doctype html>").contains("a web page"));
        assert!(reason(r#"{"data":[{"index":0,"embed"#).contains("ends early"));
        assert!(reason(r#"{"object":"list"}"#).contains("another form"));
        assert!(reason("so sorry").contains("no JSON"));
        assert_eq!(serde_json::from_str::<Value>("1").unwrap(), 1);
    }
}
