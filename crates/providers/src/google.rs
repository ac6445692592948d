//! Google Gemini, in its own form: `batchEmbedContents` with one content per text (several parts in one
//! content would be fused into one vector), the model repeated in each.
//!
//! Google cuts long texts and does not say so. gemini-embedding-2 has no `taskType`; the purpose stands in the
//! text.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, ErrorKind, Fault, InputError, InputType, ProviderKind, Retry, Truncate};
use serde::{Deserialize, Serialize, Serializer};

use crate::{
    http::{BaseUrl, KeyHeader},
    response_vectors::{ResponseVectors, Row},
    vendor_protocol::{VendorProtocol, VendorRequest, VendorResponse, cannot_truncate, to_json, unreadable},
};

/// Google.
pub(crate) struct Google;

#[derive(Serialize)]
struct Body<'a> {
    requests: Vec<Request<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    model: &'a str,
    content: Content<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_dimensionality: Option<NonZeroUsize>,
}

#[derive(Serialize)]
struct Content<'a> {
    parts: [Part<'a>; 1],
}

#[derive(Serialize)]
struct Part<'a> {
    text: Prefixed<'a>,
}

/// A text behind the words that say its purpose.
struct Prefixed<'a>(&'static str, &'a str);

impl Serialize for Prefixed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self("", text) => serializer.serialize_str(text),
            Self(prefix, text) => serializer.collect_str(&format_args!("{prefix}{text}")),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Embedded<'a> {
    #[serde(borrow, default)]
    embeddings: Vec<Values<'a>>,
    usage_metadata: Option<Usage>,
}

#[derive(Deserialize)]
struct Values<'a> {
    #[serde(borrow)]
    values: Row<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Usage {
    prompt_token_count: Option<u64>,
}

/// The model's name without the `models/` that Google's own documentation puts before it.
fn bare(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

/// The purpose as a field, and as words before the text.
fn purpose(model: &str, input_type: Option<InputType>) -> (Option<&'static str>, &'static str) {
    let Some(input_type) = input_type else { return (None, "") };
    if bare(model).starts_with("gemini-embedding-2") {
        let prefix = match input_type {
            InputType::Query => "task: search result | query: ",
            InputType::Document => "title: none | text: ",
            InputType::Classification => "task: classification | query: ",
            InputType::Clustering => "task: clustering | query: ",
        };
        return (None, prefix);
    }
    let task = match input_type {
        InputType::Query => "RETRIEVAL_QUERY",
        InputType::Document => "RETRIEVAL_DOCUMENT",
        InputType::Classification => "CLASSIFICATION",
        InputType::Clustering => "CLUSTERING",
    };
    (Some(task), "")
}

/// Texts that might be cut. Every token has at least one byte, so whatever has no more bytes than the model
/// reads tokens is surely whole.
fn may_be_cut(ask: &VendorRequest<'_>, prefix: &str) -> Vec<InputError> {
    let most = ask.max_tokens.map_or(0, NonZeroUsize::get).saturating_sub(prefix.len());
    let lengths = ask.inputs.iter().map(|input| input.text().map_or(0, str::len)).enumerate();
    lengths.filter(|(_, bytes)| *bytes > most).map(|(index, _)| InputError { index, tokens: None }).collect()
}

impl VendorProtocol for Google {
    /// Google's root, its `/v1beta`, or the whole address.
    fn address(&self, base: &BaseUrl, model: &str) -> BaseUrl {
        let method = format!("{}:batchEmbedContents", bare(model));
        match base.path() {
            path if path.ends_with(":batchEmbedContents") => base.clone(),
            path if path.ends_with("/v1beta") || path.ends_with("/v1") => base.join(&["models", &method]),
            _ => base.join(&["v1beta", "models", &method]),
        }
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::Google
    }

    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        let (task_type, prefix) = purpose(ask.model, ask.input_type);
        match ask.truncate {
            Some(Truncate::Start) => {
                return Err(cannot_truncate(ProviderKind::Google, "cut the start off a text"));
            }
            Some(Truncate::None) => {
                let doubtful = may_be_cut(ask, prefix);
                if let Some(first) = doubtful.first() {
                    let message = format!(
                        "input[{}] may be longer than '{}' reads, and google cuts without saying so; shorten it, or leave `truncate` out",
                        first.index, ask.model
                    );
                    return Err(EmbedError::new(
                        ErrorKind::InputTooLong,
                        Fault::Caller,
                        Retry::Never,
                        message,
                    )
                    .with_inputs(doubtful));
                }
            }
            Some(Truncate::End) | None => {}
        }
        let model = format!("models/{}", bare(ask.model));
        to_json(&Body {
            requests: ask
                .inputs
                .iter()
                .map(|input| Request {
                    model: &model,
                    content: Content {
                        parts: [Part { text: Prefixed(prefix, input.text().unwrap_or_default()) }],
                    },
                    task_type,
                    output_dimensionality: ask.dimensions,
                })
                .collect(),
        })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        let answer: Embedded<'_> = serde_json::from_slice(body).map_err(|error| unreadable(body, &error))?;
        let rows = answer.embeddings.into_iter().map(|embedding| embedding.values).collect();
        let tokens = answer.usage_metadata.and_then(|usage| usage.prompt_token_count);
        Ok(VendorResponse { rows: ResponseVectors::InOrder(rows), tokens })
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::json;

    use super::*;
    use crate::vendor_protocol::tests::{ask, asked};

    #[test]
    fn the_body_is_googles() {
        let inputs = [Input::Text("a".into()), Input::Text("b".into())];
        let full = VendorRequest {
            model: "models/gemini-embedding-001",
            input_type: Some(InputType::Query),
            dimensions: NonZeroUsize::new(768),
            ..ask(&inputs)
        };
        let request = |text: &str| {
            json!({"model": "models/gemini-embedding-001", "content": {"parts": [{"text": text}]},
                "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 768})
        };
        assert_eq!(asked(&Google, &full), json!({"requests": [request("a"), request("b")]}));
    }

    #[test]
    fn the_second_model_reads_its_purpose_in_the_text() {
        let inputs = [Input::Text("a \"b\"".into())];
        let query = VendorRequest {
            model: "gemini-embedding-2",
            input_type: Some(InputType::Document),
            ..ask(&inputs)
        };
        assert_eq!(
            asked(&Google, &query),
            json!({"requests": [{"model": "models/gemini-embedding-2",
                "content": {"parts": [{"text": "title: none | text: a \"b\""}]}}]})
        );
    }

    #[test]
    fn a_text_that_may_be_cut_is_refused_when_none_may_be() {
        let inputs = [Input::Text("short".into()), Input::Text("x".repeat(11).into())];
        let none = VendorRequest {
            truncate: Some(Truncate::None),
            max_tokens: NonZeroUsize::new(10),
            ..ask(&inputs)
        };
        let error = Google.build_request(&none).unwrap_err();
        assert_eq!((error.kind, error.inputs[0].index, error.inputs.len()), (ErrorKind::InputTooLong, 1, 1));
        assert!(Google.build_request(&VendorRequest { max_tokens: NonZeroUsize::new(11), ..none }).is_ok());
    }

    #[test]
    fn addresses_are_roots_or_whole() {
        let at = |base: &str| Google.address(&BaseUrl::parse(base).unwrap(), "models/g?x").to_string();
        let whole = "https://g.com/v1beta/models/g%3Fx:batchEmbedContents";
        assert_eq!(at("https://g.com"), whole);
        assert_eq!(at("https://g.com/v1beta"), whole);
        assert_eq!(at(whole), whole);
    }

    #[test]
    fn a_recorded_answer_is_read() {
        let recorded = json!({"embeddings": [{"values": [-0.02, 0.5]}, {"values": [1, 0]}],
            "usageMetadata": {"promptTokenCount": 6}})
        .to_string();
        let answer = Google.parse_response(recorded.as_bytes()).unwrap();
        assert_eq!(answer.tokens, Some(6));
        assert_eq!(answer.rows.into_flat(2), Ok((vec![-0.02, 0.5, 1.0, 0.0], 2)));
        assert!(Google.parse_response(b"{}").unwrap().rows.into_flat(1).unwrap_err().contains("0 vectors"));
    }
}
