//! The trait of all adapters: a vendor's API as pure functions from a request to a body and from a body to vectors. There
//! is no I/O here, and nothing of HTTP except URLs and the header of the key.

use std::num::NonZeroUsize;

use embeddery_core::{EmbedError, Input, InputType, ProviderKind, Truncate};
use serde::{Serialize, Serializer, ser::SerializeSeq as _};

use crate::{
    cohere::Cohere,
    google::Google,
    http::{BaseUrl, KeyHeader},
    local_api::{Dialect, Ollama, OllamaLegacy, Tei, Tldw},
    mistral::Mistral,
    openai::{Azure, LocalOpenAi, OpenAi},
    response_vectors::ResponseVectors,
    voyage::Voyage,
};

/// A vendor's API.
pub(crate) trait VendorProtocol: Send + Sync {
    /// The URL of one model's requests. `base` is the vendor's base URL or the complete URL.
    fn url(&self, base: &BaseUrl, model: &str) -> BaseUrl;

    /// The header that carries the key.
    fn key_header(&self) -> KeyHeader {
        KeyHeader::Bearer
    }

    /// Whether the vendor accepts token ids of its own tokenizer.
    fn accepts_tokens(&self) -> bool {
        false
    }

    /// Whether the API returns vectors as base64 on request.
    fn has_base64(&self) -> bool {
        false
    }

    /// The text that the vendor's API has in place of a field for the input type, before a document for this model.
    fn document_prefix(&self, _model: &str) -> &'static str {
        ""
    }

    /// The body of a request. Fails if the vendor does not support a parameter.
    fn build_request(&self, request: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError>;

    /// Parses the body of a successful response. The error describes what the body is instead.
    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String>;
}

/// The parameters of one call.
pub(crate) struct VendorRequest<'a> {
    pub model: &'a str,
    pub inputs: &'a [Input],
    pub input_type: Option<InputType>,
    /// The dimensions of the vectors, if they differ from the model's own.
    pub dimensions: Option<NonZeroUsize>,
    pub truncate: Option<Truncate>,
    /// Maximum tokens of one input, if known.
    pub max_tokens: Option<NonZeroUsize>,
    /// Whether to request vectors as base64, if the API [has it](VendorProtocol::has_base64).
    pub base64: bool,
}

/// A parsed response.
pub(crate) struct VendorResponse<'a> {
    pub vectors: ResponseVectors<'a>,
    /// Tokens of all inputs together, as the vendor counted them.
    pub tokens: Option<u64>,
}

/// The protocol of a provider. `dialect` selects one if the provider has several.
pub(crate) fn for_provider(kind: ProviderKind, dialect: Dialect) -> &'static dyn VendorProtocol {
    match (kind, dialect) {
        (ProviderKind::Cohere, _) => &Cohere,
        (ProviderKind::Google, _) => &Google,
        (ProviderKind::Mistral, _) => &Mistral,
        (ProviderKind::Voyage, _) => &Voyage,
        (_, Dialect::Azure) => &Azure,
        (ProviderKind::LocalApi, Dialect::OpenAi) => &LocalOpenAi,
        (_, Dialect::OpenAi) => &OpenAi,
        (_, Dialect::Ollama) => &Ollama,
        (_, Dialect::OllamaLegacy) => &OllamaLegacy,
        (_, Dialect::Tei) => &Tei,
        (_, Dialect::Tldw) => &Tldw,
    }
}

/// The inputs as a JSON array of texts, or of arrays of token ids.
pub(crate) struct Inputs<'a>(pub &'a [Input]);

impl Serialize for Inputs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.0.len()))?;
        for input in self.0 {
            match input {
                Input::Text(text) => list.serialize_element(&**text)?,
                Input::Tokens(ids) => list.serialize_element(&**ids)?,
            }
        }
        list.end()
    }
}

/// Serializes a body. Serializing our own types does not fail, so an error is a defect.
pub(crate) fn to_json(body: &impl Serialize) -> Result<Vec<u8>, EmbedError> {
    serde_json::to_vec(body).map_err(|_| EmbedError::internal("the request could not be serialized"))
}

/// Describes a response body that could not be parsed. The description continues "the vendor responded with ...".
pub(crate) fn describe_unparsable(body: &[u8], error: &serde_json::Error) -> String {
    let start = body.trim_ascii_start();
    if start.is_empty() {
        "an empty body".into()
    } else if start.starts_with(b"<") {
        "a web page instead of JSON; check the configured URL".into()
    } else if error.is_eof() {
        "truncated JSON".into()
    } else if error.is_data() {
        format!("JSON of another schema ({error})")
    } else {
        format!("a body that is not JSON ({error})")
    }
}

/// The error for a `truncate` that a vendor does not support. `action` completes "the vendor cannot ...".
pub(crate) fn unsupported_truncate(kind: ProviderKind, action: &str) -> EmbedError {
    EmbedError::invalid(format!("truncate: {kind} cannot {action}; leave `truncate` out"))
}

#[cfg(test)]
pub(crate) mod tests {
    //! Helpers for the adapters' tests.

    use super::*;

    pub(crate) fn request(inputs: &[Input]) -> VendorRequest<'_> {
        VendorRequest {
            model: "m",
            inputs,
            input_type: None,
            dimensions: None,
            truncate: None,
            max_tokens: None,
            base64: true,
        }
    }

    pub(crate) fn body(protocol: &dyn VendorProtocol, request: &VendorRequest<'_>) -> serde_json::Value {
        serde_json::from_slice(&protocol.build_request(request).unwrap()).unwrap()
    }
}
