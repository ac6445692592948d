//! Local servers with an HTTP API: the detection of a server's dialect, and the dialects other than OpenAI's.
//!
//! Ollama's `/api/embeddings` returns one vector per call, not of unit length. Ollama refuses a whole batch for one bad
//! input. TEI responds with a bare array. `Tldw` is the API of the service that Embeddery replaces; servers of its users
//! implement it.

use std::{fmt, num::NonZeroUsize, str::FromStr};

use embeddery_core::{EmbedError, ProviderKind, Truncate};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    http::BaseUrl,
    reported_tokens,
    response_vectors::{EncodedVector, ResponseVectors},
    vendor_protocol::{
        Inputs, VendorProtocol, VendorRequest, VendorResponse, describe_unparsable, to_json,
        unsupported_truncate,
    },
};

/// The API of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's API.
    OpenAi,
    /// Azure's variant of OpenAI's API.
    Azure,
    /// Ollama's `/api/embed`.
    Ollama,
    /// Ollama's `/api/embeddings`.
    OllamaLegacy,
    /// Text Embeddings Inference's `/embed`.
    Tei,
    /// `{"texts":[…],"model"}`, the API of the service that Embeddery replaces.
    Tldw,
}

impl Dialect {
    /// The dialects of `local_api`, in the order of messages.
    pub const LOCAL: [Self; 5] = [Self::OpenAi, Self::Ollama, Self::OllamaLegacy, Self::Tei, Self::Tldw];
    /// The dialects of `openai`.
    pub const OPENAI: [Self; 2] = [Self::OpenAi, Self::Azure];

    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Azure => "azure",
            Self::Ollama => "ollama",
            Self::OllamaLegacy => "ollama_legacy",
            Self::Tei => "tei",
            Self::Tldw => "tldw",
        }
    }

    /// Detects the dialect of a server from its URL.
    pub fn detect(kind: ProviderKind, url: &BaseUrl) -> Self {
        let (path, host) = (url.path(), url.host());
        if kind != ProviderKind::LocalApi {
            let azure = [".openai.azure.com", ".cognitiveservices.azure.com"];
            let is_azure =
                azure.iter().any(|suffix| host.ends_with(suffix)) || path.contains("/openai/deployments/");
            return if is_azure { Self::Azure } else { Self::OpenAi };
        }
        match path {
            path if path.ends_with("/api/embed") => Self::Ollama,
            path if path.ends_with("/api/embeddings") => Self::OllamaLegacy,
            path if path.ends_with("/embeddings") || path.ends_with("/v1") => Self::OpenAi,
            path if path.ends_with("/embed") => Self::Tei,
            "" if url.port() == Some(11_434) => Self::Ollama,
            "" => Self::OpenAi,
            // Users of the replaced service have servers of their own at other paths.
            _ => Self::Tldw,
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Dialect {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Azure].into_iter().chain(Self::LOCAL).find(|dialect| dialect.as_str() == name).ok_or_else(
            || {
                format!(
                    "'{}' is not a dialect; write {} or, for openai, azure",
                    name.escape_debug(),
                    Self::LOCAL.map(Self::as_str).join(", ")
                )
            },
        )
    }
}

/// Ollama.
pub(crate) struct Ollama;

/// Ollama's older API: one text per call, vectors not of unit length.
pub(crate) struct OllamaLegacy;

/// Text Embeddings Inference.
pub(crate) struct Tei;

/// The API of the service that Embeddery replaces.
pub(crate) struct Tldw;

/// The complete URL: `base`, or `base` with these segments if it is the server's root.
fn complete_url(base: &BaseUrl, segments: &[&str]) -> BaseUrl {
    if base.path().is_empty() { base.join(segments) } else { base.clone() }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| describe_unparsable(body, &error))
}

#[derive(Serialize)]
struct OllamaBody<'a> {
    model: &'a str,
    input: Inputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<NonZeroUsize>,
}

#[derive(Deserialize)]
struct VectorsResponse<'a> {
    #[serde(borrow)]
    embeddings: Vec<EncodedVector<'a>>,
    #[serde(borrow)]
    prompt_eval_count: Option<&'a RawValue>,
}

impl VendorProtocol for Ollama {
    fn url(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        complete_url(base, &["api", "embed"])
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        if request.truncate == Some(Truncate::Start) {
            return Err(unsupported_truncate(
                ProviderKind::LocalApi,
                "truncate the start of a text with Ollama",
            ));
        }
        to_json(&OllamaBody {
            model: request.model,
            input: Inputs(request.inputs),
            truncate: request.truncate.map(|truncate| truncate == Truncate::End),
            dimensions: request.dimensions,
        })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        let response: VectorsResponse<'_> = parse(body)?;
        Ok(VendorResponse {
            vectors: ResponseVectors::InOrder(response.embeddings),
            tokens: reported_tokens::read(response.prompt_eval_count, &[&[]]),
        })
    }
}

#[derive(Serialize)]
struct LegacyBody<'a> {
    model: &'a str,
    prompt: &'a str,
}

#[derive(Deserialize)]
struct VectorResponse<'a> {
    #[serde(borrow)]
    embedding: EncodedVector<'a>,
}

impl VendorProtocol for OllamaLegacy {
    fn url(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        complete_url(base, &["api", "embeddings"])
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        let [input] = request.inputs else {
            return Err(EmbedError::internal("several inputs reached an API that accepts one"));
        };
        if matches!(request.truncate, Some(Truncate::Start | Truncate::None)) {
            return Err(unsupported_truncate(
                ProviderKind::LocalApi,
                "apply it with Ollama's /api/embeddings; use /api/embed",
            ));
        }
        to_json(&LegacyBody { model: request.model, prompt: input.text().unwrap_or_default() })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        Ok(VendorResponse {
            vectors: ResponseVectors::InOrder(vec![parse::<VectorResponse<'_>>(body)?.embedding]),
            tokens: None,
        })
    }
}

#[derive(Serialize)]
struct TeiBody<'a> {
    inputs: Inputs<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncate: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncation_direction: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dimensions: Option<NonZeroUsize>,
}

impl VendorProtocol for Tei {
    fn url(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        complete_url(base, &["embed"])
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        to_json(&TeiBody {
            inputs: Inputs(request.inputs),
            truncate: request.truncate.map(|truncate| truncate != Truncate::None),
            truncation_direction: (request.truncate == Some(Truncate::Start)).then_some("Left"),
            dimensions: request.dimensions,
        })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        Ok(VendorResponse { vectors: ResponseVectors::InOrder(parse(body)?), tokens: None })
    }
}

#[derive(Serialize)]
struct TldwBody<'a> {
    texts: Inputs<'a>,
    model: &'a str,
}

impl VendorProtocol for Tldw {
    fn url(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        base.clone()
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        if matches!(request.truncate, Some(Truncate::Start | Truncate::None)) {
            return Err(unsupported_truncate(ProviderKind::LocalApi, "apply it in the dialect tldw"));
        }
        to_json(&TldwBody { texts: Inputs(request.inputs), model: request.model })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        let response: VectorsResponse<'_> = parse(body)?;
        Ok(VendorResponse { vectors: ResponseVectors::InOrder(response.embeddings), tokens: None })
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::json;

    use super::*;
    use crate::vendor_protocol::tests::{body, request};

    #[test]
    fn dialects_are_detected_from_urls() {
        let local = |text: &str| Dialect::detect(ProviderKind::LocalApi, &BaseUrl::parse(text).unwrap());
        assert_eq!(local("http://localhost:11434/api/embeddings"), Dialect::OllamaLegacy);
        assert_eq!(local("http://localhost:11434/api/embed"), Dialect::Ollama);
        assert_eq!(local("http://localhost:11434"), Dialect::Ollama);
        assert_eq!(local("http://x:8080/v1"), Dialect::OpenAi);
        assert_eq!(local("http://x:8080/v1/embeddings/"), Dialect::OpenAi);
        assert_eq!(local("http://x:8080"), Dialect::OpenAi);
        assert_eq!(local("http://x:8080/embed"), Dialect::Tei);
        assert_eq!(local("http://x:8080/my/vectors"), Dialect::Tldw);
        let openai = |text: &str| Dialect::detect(ProviderKind::OpenAi, &BaseUrl::parse(text).unwrap());
        assert_eq!(openai("https://r.openai.azure.com"), Dialect::Azure);
        assert_eq!(openai("https://gate.corp/openai/deployments/d/embeddings"), Dialect::Azure);
        assert_eq!(openai("https://api.openai.com/v1"), Dialect::OpenAi);
        assert!("olama".parse::<Dialect>().unwrap_err().contains("ollama_legacy"));
    }

    #[test]
    fn bodies_follow_the_servers_schemas() {
        let one = [Input::Text("a".into())];
        let with_truncate = |truncate| VendorRequest { truncate: Some(truncate), ..request(&one) };
        assert_eq!(body(&Ollama, &request(&one)), json!({"model": "m", "input": ["a"]}));
        assert_eq!(body(&Ollama, &with_truncate(Truncate::None))["truncate"], false);
        assert_eq!(body(&OllamaLegacy, &request(&one)), json!({"model": "m", "prompt": "a"}));
        assert_eq!(body(&Tei, &request(&one)), json!({"inputs": ["a"]}));
        assert_eq!(
            body(&Tei, &with_truncate(Truncate::Start)),
            json!({"inputs": ["a"], "truncate": true, "truncation_direction": "Left"})
        );
        assert_eq!(body(&Tldw, &request(&one)), json!({"texts": ["a"], "model": "m"}));
        let two = [Input::Text("a".into()), Input::Text("b".into())];
        assert!(OllamaLegacy.build_request(&request(&two)).is_err());
        assert!(Ollama.build_request(&with_truncate(Truncate::Start)).is_err());
    }

    #[test]
    fn recorded_responses_are_parsed() {
        let ollama = br#"{"model":"all-minilm","embeddings":[[0.01,-0.5],[1,2]],"total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}"#;
        let response = Ollama.parse_response(ollama).unwrap();
        assert_eq!(response.tokens, Some(8));
        assert_eq!(response.vectors.into_flat(2), Ok((vec![0.01, -0.5, 1.0, 2.0], 2)));
        let flat = |protocol: &dyn VendorProtocol, body: &'static [u8], inputs| {
            protocol.parse_response(body).unwrap().vectors.into_flat(inputs)
        };
        assert_eq!(
            flat(&OllamaLegacy, br#"{"embedding":[0.5670403838157654,9]}"#, 1),
            Ok((vec![0.567_040_4, 9.0], 2))
        );
        assert_eq!(flat(&Tei, b"[[1,2],[3,4]]", 2), Ok((vec![1.0, 2.0, 3.0, 4.0], 2)));
        assert_eq!(flat(&Tldw, br#"{"embeddings":[[1]]}"#, 1), Ok((vec![1.0], 1)));
        assert!(flat(&Ollama, br#"{"model":"m","embeddings":[]}"#, 1).is_err());
    }
}
