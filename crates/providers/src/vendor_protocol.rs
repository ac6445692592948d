//! What the adapters have in common: a vendor's form as pure functions from a question to a body and from a
//! body to vectors. Nothing here waits, and nothing here knows HTTP beyond an address.

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

/// A vendor's form.
pub(crate) trait VendorProtocol: Send + Sync {
    /// The address of one model's requests, below the vendor's base or as configured in full.
    fn address(&self, base: &BaseUrl, model: &str) -> BaseUrl;

    /// Where the key goes.
    fn key_header(&self) -> KeyHeader {
        KeyHeader::Bearer
    }

    /// Whether the vendor takes token ids of its own tokenizer.
    fn takes_tokens(&self) -> bool {
        false
    }

    /// The body that asks. Fails when the vendor cannot do what is asked.
    fn build_request(&self, ask: &VendorRequest<'_>) -> Result<Vec<u8>, EmbedError>;

    /// The vectors in an answer; the error says what the answer is instead.
    fn parse_response<'a>(&self, body: &'a [u8]) -> Result<VendorResponse<'a>, String>;
}

/// What is asked.
pub(crate) struct VendorRequest<'a> {
    pub model: &'a str,
    pub inputs: &'a [Input],
    pub input_type: Option<InputType>,
    /// The length of the vectors, where it is not the model's own.
    pub dimensions: Option<NonZeroUsize>,
    pub truncate: Option<Truncate>,
    /// Most tokens of one input, where known.
    pub max_tokens: Option<NonZeroUsize>,
}

/// What came.
pub(crate) struct VendorResponse<'a> {
    pub rows: ResponseVectors<'a>,
    /// Tokens that the vendor counted, over all inputs.
    pub tokens: Option<u64>,
}

/// The form of a provider; `dialect` where it has several.
pub(crate) fn of(kind: ProviderKind, dialect: Dialect) -> &'static dyn VendorProtocol {
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

/// The inputs as a JSON list: of texts, or of lists of token ids.
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

/// A body as JSON. Our own types never fail to be written; should they, that is a defect.
pub(crate) fn to_json(body: &impl Serialize) -> Result<Vec<u8>, EmbedError> {
    serde_json::to_vec(body).map_err(|_| EmbedError::internal("the request could not be written"))
}

/// An answer that is not of the vendor's form, in words.
pub(crate) fn unreadable(body: &[u8], error: &serde_json::Error) -> String {
    let start = body.trim_ascii_start();
    if start.is_empty() {
        "nothing".into()
    } else if start.starts_with(b"<") {
        "a web page instead of JSON; is the configured address right?".into()
    } else if error.is_eof() {
        "JSON that ends early".into()
    } else if error.is_data() {
        format!("JSON of another form ({error})")
    } else {
        format!("something that is no JSON ({error})")
    }
}

/// Refuses what a vendor cannot do.
pub(crate) fn cannot_truncate(kind: ProviderKind, how: &str) -> EmbedError {
    EmbedError::invalid(format!("truncate: {kind} cannot {how}; leave `truncate` out"))
}

#[cfg(test)]
pub(crate) mod tests {
    //! Helpers for the adapters' own tests.

    use super::*;

    pub(crate) fn ask(inputs: &[Input]) -> VendorRequest<'_> {
        VendorRequest {
            model: "m",
            inputs,
            input_type: None,
            dimensions: None,
            truncate: None,
            max_tokens: None,
        }
    }

    pub(crate) fn asked(wire: &dyn VendorProtocol, ask: &VendorRequest<'_>) -> serde_json::Value {
        serde_json::from_slice(&wire.build_request(ask).unwrap()).unwrap()
    }
}
