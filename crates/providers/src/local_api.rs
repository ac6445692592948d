//! Servers near by: which dialect an address speaks, and the dialects that are not OpenAI's.
//!
//! Vectors of `/api/embeddings` are not of unit length and come one at a time; Ollama refuses a whole batch
//! for one bad input; TEI answers with a bare list. The replaced service had a form of its own, which its
//! users' servers still speak.

use std::{fmt, num::NonZeroUsize, str::FromStr};

use embeddery_core::{EmbedError, ProviderKind, Truncate};
use serde::{Deserialize, Serialize};

use crate::{
    http::BaseUrl,
    response_vectors::{ResponseVectors, Row},
    vendor_protocol::{
        Inputs, VendorProtocol, VendorRequest, VendorResponse, cannot_truncate, to_json, unreadable,
    },
};

/// How a server is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// OpenAI's form.
    OpenAi,
    /// Azure's variety of it.
    Azure,
    /// Ollama's `/api/embed`.
    Ollama,
    /// Ollama's `/api/embeddings`.
    OllamaLegacy,
    /// Text Embeddings Inference's `/embed`.
    Tei,
    /// The replaced service's `{"texts":[…],"model"}`.
    Tldw,
}

impl Dialect {
    /// Those of `local_api`, in the order in which they are named to users.
    pub const LOCAL: [Self; 5] = [Self::OpenAi, Self::Ollama, Self::OllamaLegacy, Self::Tei, Self::Tldw];
    /// Those of `openai`.
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

    /// What an address of a provider speaks when nobody says so.
    pub fn recognise(kind: ProviderKind, address: &BaseUrl) -> Self {
        let (path, host) = (address.path(), address.host());
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
            "" if address.port() == Some(11_434) => Self::Ollama,
            "" => Self::OpenAi,
            // Any other path is what the replaced service's users have: a server of their own.
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
                    "'{}' is not a dialect; known are {} and, for openai, azure",
                    name.escape_debug(),
                    Self::LOCAL.map(Self::as_str).join(", ")
                )
            },
        )
    }
}

/// Ollama.
pub(crate) struct Ollama;

/// Ollama's older form: one text, raw vectors.
pub(crate) struct OllamaLegacy;

/// Text Embeddings Inference.
pub(crate) struct Tei;

/// The replaced service's form.
pub(crate) struct Tldw;

/// The whole address, or the server's root with this below it.
fn below_root(base: &BaseUrl, segments: &[&str]) -> BaseUrl {
    if base.path().is_empty() { base.join(segments) } else { base.clone() }
}

fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    serde_json::from_slice(body).map_err(|error| unreadable(body, &error))
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
struct Many<'a> {
    #[serde(borrow)]
    embeddings: Vec<Row<'a>>,
    prompt_eval_count: Option<u64>,
}

impl VendorProtocol for Ollama {
    fn address(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        below_root(base, &["api", "embed"])
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        if ask.truncate == Some(Truncate::Start) {
            return Err(cannot_truncate(ProviderKind::LocalApi, "cut the start off a text with Ollama"));
        }
        to_json(&OllamaBody {
            model: ask.model,
            input: Inputs(ask.inputs),
            truncate: ask.truncate.map(|truncate| truncate == Truncate::End),
            dimensions: ask.dimensions,
        })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        let answer: Many<'_> = parse(body)?;
        Ok(VendorResponse {
            rows: ResponseVectors::InOrder(answer.embeddings),
            tokens: answer.prompt_eval_count,
        })
    }
}

#[derive(Serialize)]
struct LegacyBody<'a> {
    model: &'a str,
    prompt: &'a str,
}

#[derive(Deserialize)]
struct One<'a> {
    #[serde(borrow)]
    embedding: Row<'a>,
}

impl VendorProtocol for OllamaLegacy {
    fn address(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        below_root(base, &["api", "embeddings"])
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        let [input] = ask.inputs else {
            return Err(EmbedError::internal("several inputs reached a form that takes one"));
        };
        if matches!(ask.truncate, Some(Truncate::Start | Truncate::None)) {
            return Err(cannot_truncate(
                ProviderKind::LocalApi,
                "do that with Ollama's /api/embeddings; use /api/embed",
            ));
        }
        to_json(&LegacyBody { model: ask.model, prompt: input.text().unwrap_or_default() })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        Ok(VendorResponse {
            rows: ResponseVectors::InOrder(vec![parse::<One<'_>>(body)?.embedding]),
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
    fn address(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        below_root(base, &["embed"])
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        to_json(&TeiBody {
            inputs: Inputs(ask.inputs),
            truncate: ask.truncate.map(|truncate| truncate != Truncate::None),
            truncation_direction: (ask.truncate == Some(Truncate::Start)).then_some("Left"),
            dimensions: ask.dimensions,
        })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        Ok(VendorResponse { rows: ResponseVectors::InOrder(parse(body)?), tokens: None })
    }
}

#[derive(Serialize)]
struct TldwBody<'a> {
    texts: Inputs<'a>,
    model: &'a str,
}

impl VendorProtocol for Tldw {
    fn address(&self, base: &BaseUrl, _: &str) -> BaseUrl {
        base.clone()
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        if matches!(ask.truncate, Some(Truncate::Start | Truncate::None)) {
            return Err(cannot_truncate(ProviderKind::LocalApi, "say how in the dialect tldw"));
        }
        to_json(&TldwBody { texts: Inputs(ask.inputs), model: ask.model })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        let answer: Many<'_> = parse(body)?;
        Ok(VendorResponse { rows: ResponseVectors::InOrder(answer.embeddings), tokens: None })
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::json;

    use super::*;
    use crate::vendor_protocol::tests::{ask, asked};

    #[test]
    fn addresses_tell_their_dialect() {
        let local = |text: &str| Dialect::recognise(ProviderKind::LocalApi, &BaseUrl::parse(text).unwrap());
        assert_eq!(local("http://localhost:11434/api/embeddings"), Dialect::OllamaLegacy);
        assert_eq!(local("http://localhost:11434/api/embed"), Dialect::Ollama);
        assert_eq!(local("http://localhost:11434"), Dialect::Ollama);
        assert_eq!(local("http://x:8080/v1"), Dialect::OpenAi);
        assert_eq!(local("http://x:8080/v1/embeddings/"), Dialect::OpenAi);
        assert_eq!(local("http://x:8080"), Dialect::OpenAi);
        assert_eq!(local("http://x:8080/embed"), Dialect::Tei);
        assert_eq!(local("http://x:8080/my/vectors"), Dialect::Tldw);
        let openai = |text: &str| Dialect::recognise(ProviderKind::OpenAi, &BaseUrl::parse(text).unwrap());
        assert_eq!(openai("https://r.openai.azure.com"), Dialect::Azure);
        assert_eq!(openai("https://gate.corp/openai/deployments/d/embeddings"), Dialect::Azure);
        assert_eq!(openai("https://api.openai.com/v1"), Dialect::OpenAi);
        assert!("olama".parse::<Dialect>().unwrap_err().contains("ollama_legacy"));
    }

    #[test]
    fn each_body_is_the_servers() {
        let one = [Input::Text("a".into())];
        let cut = |truncate| VendorRequest { truncate: Some(truncate), ..ask(&one) };
        assert_eq!(asked(&Ollama, &ask(&one)), json!({"model": "m", "input": ["a"]}));
        assert_eq!(asked(&Ollama, &cut(Truncate::None))["truncate"], false);
        assert_eq!(asked(&OllamaLegacy, &ask(&one)), json!({"model": "m", "prompt": "a"}));
        assert_eq!(asked(&Tei, &ask(&one)), json!({"inputs": ["a"]}));
        assert_eq!(
            asked(&Tei, &cut(Truncate::Start)),
            json!({"inputs": ["a"], "truncate": true, "truncation_direction": "Left"})
        );
        assert_eq!(asked(&Tldw, &ask(&one)), json!({"texts": ["a"], "model": "m"}));
        let two = [Input::Text("a".into()), Input::Text("b".into())];
        assert!(OllamaLegacy.build_request(&ask(&two)).is_err());
        assert!(Ollama.build_request(&cut(Truncate::Start)).is_err());
    }

    #[test]
    fn recorded_answers_are_read() {
        let ollama = br#"{"model":"all-minilm","embeddings":[[0.01,-0.5],[1,2]],"total_duration":14143917,"load_duration":1019500,"prompt_eval_count":8}"#;
        let answer = Ollama.parse_response(ollama).unwrap();
        assert_eq!(answer.tokens, Some(8));
        assert_eq!(answer.rows.into_flat(2), Ok((vec![0.01, -0.5, 1.0, 2.0], 2)));
        let flat = |wire: &dyn VendorProtocol, body: &'static [u8], inputs| {
            wire.parse_response(body).unwrap().rows.into_flat(inputs)
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
