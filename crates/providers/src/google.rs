//! The API of Google Gemini: `batchEmbedContents`, with one content and the model name per text. Several parts in one
//! content would become one vector.
//!
//! Google truncates long texts and does not report it. gemini-embedding-2 has no `taskType`; the input type is part of
//! the text.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, ErrorKind, Fault, InputError, InputType, ProviderKind, Retry, Truncate};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;

use crate::{
    http::{BaseUrl, KeyHeader},
    reported_tokens,
    response_vectors::{EncodedVector, ResponseVectors},
    vendor_protocol::{
        VendorProtocol, VendorRequest, VendorResponse, describe_unparsable, to_json, unsupported_truncate,
    },
};

/// Google.
pub(crate) struct Google;

#[derive(Serialize)]
struct BatchBody<'a> {
    requests: Vec<ContentRequest<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContentRequest<'a> {
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

/// A text with a prefix for its input type.
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
struct EmbedResponse<'a> {
    #[serde(borrow, default)]
    embeddings: Vec<Values<'a>>,
    #[serde(borrow)]
    usage_metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Values<'a> {
    #[serde(borrow)]
    values: EncodedVector<'a>,
}

/// The model name without the prefix `models/`, which Google's documentation writes.
fn bare_name(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

/// The input type as the field `taskType` and as a prefix of the text. Each model has one of the two.
fn task_type_and_prefix(model: &str, input_type: Option<InputType>) -> (Option<&'static str>, &'static str) {
    let Some(input_type) = input_type else { return (None, "") };
    if bare_name(model).starts_with("gemini-embedding-2") {
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

/// Texts that Google might truncate. A token has at least one byte, so a text with at most `max_tokens` bytes is not
/// truncated.
fn possibly_truncated(request: &VendorRequest<'_>, prefix: &str) -> Vec<InputError> {
    let max_bytes = request.max_tokens.map_or(0, NonZeroUsize::get).saturating_sub(prefix.len());
    let lengths = request.inputs.iter().map(|input| input.text().map_or(0, str::len)).enumerate();
    lengths
        .filter(|(_, bytes)| *bytes > max_bytes)
        .map(|(index, _)| InputError { index, tokens: None })
        .collect()
}

impl VendorProtocol for Google {
    /// `base` is Google's root, its `/v1beta`, or the complete URL.
    fn url(&self, base: &BaseUrl, model: &str) -> BaseUrl {
        let method = format!("{}:batchEmbedContents", bare_name(model));
        match base.path() {
            path if path.ends_with(":batchEmbedContents") => base.clone(),
            path if path.ends_with("/v1beta") || path.ends_with("/v1") => base.join(&["models", &method]),
            _ => base.join(&["v1beta", "models", &method]),
        }
    }

    fn key_header(&self) -> KeyHeader {
        KeyHeader::Google
    }

    fn document_prefix(&self, model: &str) -> &'static str {
        task_type_and_prefix(model, Some(InputType::Document)).1
    }

    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError> {
        let (task_type, prefix) = task_type_and_prefix(request.model, request.input_type);
        match request.truncate {
            Some(Truncate::Start) => {
                return Err(unsupported_truncate(ProviderKind::Google, "truncate the start of a text"));
            }
            Some(Truncate::None) => {
                let inputs = possibly_truncated(request, prefix);
                if let Some(first) = inputs.first() {
                    let message = format!(
                        "input[{}] may be longer than the limit of '{}', and google truncates without reporting it; shorten it, or leave `truncate` out",
                        first.index, request.model
                    );
                    return Err(EmbedError::new(
                        ErrorKind::InputTooLong,
                        Fault::Caller,
                        Retry::Never,
                        message,
                    )
                    .with_inputs(inputs));
                }
            }
            Some(Truncate::End) | None => {}
        }
        let model = format!("models/{}", bare_name(request.model));
        to_json(&BatchBody {
            requests: request
                .inputs
                .iter()
                .map(|input| ContentRequest {
                    model: &model,
                    content: Content {
                        parts: [Part { text: Prefixed(prefix, input.text().unwrap_or_default()) }],
                    },
                    task_type,
                    output_dimensionality: request.dimensions,
                })
                .collect(),
        })
    }

    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String> {
        let response: EmbedResponse<'_> =
            serde_json::from_slice(body).map_err(|error| describe_unparsable(body, &error))?;
        let rows = response.embeddings.into_iter().map(|embedding| embedding.values).collect();
        let tokens = reported_tokens::read(response.usage_metadata, &[&["promptTokenCount"]]);
        Ok(VendorResponse { vectors: ResponseVectors::InOrder(rows), tokens })
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::Input;
    use serde_json::json;

    use super::*;
    use crate::vendor_protocol::tests::{body, request};

    #[test]
    fn the_body_follows_googles_schema() {
        let inputs = [Input::Text("a".into()), Input::Text("b".into())];
        let full = VendorRequest {
            model: "models/gemini-embedding-001",
            input_type: Some(InputType::Query),
            dimensions: NonZeroUsize::new(768),
            ..request(&inputs)
        };
        let expected = |text: &str| {
            json!({"model": "models/gemini-embedding-001", "content": {"parts": [{"text": text}]},
                "taskType": "RETRIEVAL_QUERY", "outputDimensionality": 768})
        };
        assert_eq!(body(&Google, &full), json!({"requests": [expected("a"), expected("b")]}));
    }

    #[test]
    fn gemini_embedding_2_gets_the_input_type_as_a_prefix() {
        let inputs = [Input::Text("a \"b\"".into())];
        let query = VendorRequest {
            model: "gemini-embedding-2",
            input_type: Some(InputType::Document),
            ..request(&inputs)
        };
        assert_eq!(
            body(&Google, &query),
            json!({"requests": [{"model": "models/gemini-embedding-2",
                "content": {"parts": [{"text": "title: none | text: a \"b\""}]}}]})
        );
    }

    #[test]
    fn truncate_none_refuses_a_text_that_may_be_truncated() {
        let inputs = [Input::Text("short".into()), Input::Text("x".repeat(11).into())];
        let none = VendorRequest {
            truncate: Some(Truncate::None),
            max_tokens: NonZeroUsize::new(10),
            ..request(&inputs)
        };
        let error = Google.build_request(&none).unwrap_err();
        assert_eq!((error.kind, error.inputs[0].index, error.inputs.len()), (ErrorKind::InputTooLong, 1, 1));
        assert!(Google.build_request(&VendorRequest { max_tokens: NonZeroUsize::new(11), ..none }).is_ok());
    }

    #[test]
    fn urls_are_completed() {
        let at = |base: &str| Google.url(&BaseUrl::parse(base).unwrap(), "models/g?x").to_string();
        let complete = "https://g.com/v1beta/models/g%3Fx:batchEmbedContents";
        assert_eq!(at("https://g.com"), complete);
        assert_eq!(at("https://g.com/v1beta"), complete);
        assert_eq!(at(complete), complete);
    }

    #[test]
    fn a_recorded_response_is_parsed() {
        let recorded = json!({"embeddings": [{"values": [-0.02, 0.5]}, {"values": [1, 0]}],
            "usageMetadata": {"promptTokenCount": 6}})
        .to_string();
        let response = Google.parse_response(recorded.as_bytes()).unwrap();
        assert_eq!(response.tokens, Some(6));
        assert_eq!(response.vectors.into_flat(2), Ok((vec![-0.02, 0.5, 1.0, 0.0], 2)));
        assert!(
            Google.parse_response(b"{}").unwrap().vectors.into_flat(1).unwrap_err().contains("0 vectors")
        );
    }
}
