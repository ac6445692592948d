//! Responses and errors of each vendor's API.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Behaviour, VendorApi, request::ParsedRequest};

/// An error response.
pub(super) struct Refusal {
    pub status: u16,
    pub message: String,
    pub code: Option<&'static str>,
}

impl Refusal {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None }
    }

    /// The error for too many tokens, with each vendor's message.
    pub fn too_many_tokens(api: VendorApi, requested: usize, max: usize) -> Self {
        let message = match api {
            VendorApi::Mistral => "Too many tokens overall, split into more batches.".to_owned(),
            VendorApi::Voyage => format!(
                "Request to model failed. The max allowed tokens per submitted batch is {max}. Your batch has {requested} tokens after truncation. Please lower the number of tokens in the batch."
            ),
            VendorApi::Cohere => {
                format!("too many tokens: {requested} tokens in the request, at most {max}")
            }
            VendorApi::Google => "Request payload size exceeds the limit: 4194304 bytes.".to_owned(),
            VendorApi::Tei => format!("batch size {requested} > maximum allowed batch size {max}"),
            _ => format!("Requested {requested} tokens, max {max} tokens per request"),
        };
        let status = if api == VendorApi::Tei { 413 } else { 400 };
        let code = match api {
            VendorApi::OpenAi | VendorApi::Azure => Some("max_tokens_per_request"),
            VendorApi::Mistral => Some("3210"),
            _ => None,
        };
        Self { status, message, code }
    }

    pub fn input_too_long(tokens: usize, max: usize) -> Self {
        let message = format!(
            "This model's maximum context length is {max} tokens, however you requested {tokens} tokens ({tokens} in your prompt). Please reduce your prompt."
        );
        Self { code: Some("context_length_exceeded"), ..Self::new(400, message) }
    }

    /// The vendor's error body.
    pub fn body(&self, api: VendorApi) -> Value {
        let Self { status, message, code } = self;
        match api {
            VendorApi::OpenAi | VendorApi::Azure | VendorApi::LocalOpenAi => json!({"error": {
                "message": message, "type": "invalid_request_error", "param": null, "code": code}}),
            VendorApi::Cohere => json!({"id": "4f6ec1b2", "message": message}),
            VendorApi::Google => json!({"error": {
                "code": status, "message": message, "status": "INVALID_ARGUMENT"}}),
            VendorApi::Mistral => json!({"object": "error", "message": message,
                "type": "invalid_request_error", "param": null, "code": code.unwrap_or("1000")}),
            VendorApi::Voyage => json!({"detail": message}),
            VendorApi::Ollama | VendorApi::OllamaLegacy | VendorApi::Tldw => json!({"error": message}),
            VendorApi::Tei => json!({"error": message, "error_type": "Validation"}),
        }
    }
}

/// The response body with the vectors, with the fault of the behaviour, if any.
pub(super) fn response_body(
    api: VendorApi,
    request: &ParsedRequest,
    vectors: &[Vec<f32>],
    behaviour: &Behaviour,
) -> String {
    let tokens: usize = request.texts.iter().map(|text| text.len().div_ceil(4)).sum();
    let tokens = match behaviour {
        Behaviour::TokenCount(_) => json!(PLACEHOLDER),
        _ => json!(tokens),
    };
    let base64 = request.base64 && *behaviour != Behaviour::Numbers;
    let usage =
        |usage: Value| if matches!(behaviour, Behaviour::Usage(_)) { json!(PLACEHOLDER) } else { usage };
    let vectors: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let nan = index == 0 && *behaviour == Behaviour::Nan;
            encode(vector, base64, nan, *behaviour == Behaviour::BrokenBase64)
        })
        .collect();
    let body = match api {
        VendorApi::OpenAi | VendorApi::Azure | VendorApi::LocalOpenAi => {
            json!({"object": "list", "model": request.model,
            "data": indexed(vectors, behaviour),
            "usage": usage(json!({"prompt_tokens": tokens, "total_tokens": tokens}))})
        }
        VendorApi::Mistral => json!({"id": "0d7a", "object": "list", "model": request.model,
            "usage": usage(json!({"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens})),
            "data": indexed(vectors, behaviour)}),
        VendorApi::Voyage => {
            json!({"object": "list", "data": indexed(vectors, behaviour), "model": request.model,
            "usage": usage(json!({"total_tokens": tokens}))})
        }
        VendorApi::Cohere => json!({"id": "da6e", "response_type": "embeddings_by_type",
            "texts": request.texts, "images": [], "embeddings": {"float": vectors},
            "meta": {"api_version": {"version": "2"}, "billed_units": usage(json!({"input_tokens": tokens}))}}),
        VendorApi::Google => {
            let mut body = json!({"embeddings":
                vectors.into_iter().map(|vector| json!({"values": vector})).collect::<Vec<_>>()});
            // Google reports no tokens for most models.
            if matches!(behaviour, Behaviour::TokenCount(_) | Behaviour::Usage(_)) {
                body["usageMetadata"] = usage(json!({"promptTokenCount": tokens}));
            }
            body
        }
        VendorApi::Ollama => json!({"model": request.model, "embeddings": vectors,
            "total_duration": 14_143_917, "load_duration": 1_019_500, "prompt_eval_count": usage(tokens)}),
        VendorApi::OllamaLegacy => json!({"embedding": vectors.into_iter().next().unwrap_or(json!([]))}),
        VendorApi::Tei => json!(vectors),
        VendorApi::Tldw => json!({"embeddings": vectors}),
    };
    // `NaN` is not valid JSON, and a number may be too large for it, so serde_json cannot write them.
    let body = body.to_string().replace("\"not a number\"", "NaN");
    match behaviour {
        Behaviour::TokenCount(json) | Behaviour::Usage(json) => {
            body.replace(&json!(PLACEHOLDER).to_string(), json)
        }
        _ => body,
    }
}

/// Stands for JSON that replaces it in the text of the body.
const PLACEHOLDER: &str = "replaced in the body";

/// The `data` of OpenAI's response.
fn indexed(vectors: Vec<Value>, behaviour: &Behaviour) -> Vec<Value> {
    let mut data: Vec<Value> = vectors
        .into_iter()
        .enumerate()
        .map(|(index, vector)| json!({"object": "embedding", "index": index, "embedding": vector}))
        .collect();
    match behaviour {
        Behaviour::Shuffled => data.reverse(),
        Behaviour::DuplicateIndex => {
            if let Some(last) = data.last_mut() {
                last["index"] = json!(0);
            }
        }
        _ => {}
    }
    data
}

fn encode(vector: &[f32], base64: bool, nan: bool, incomplete: bool) -> Value {
    if !base64 {
        let mut numbers = json!(vector);
        if nan {
            numbers[0] = json!("not a number");
        }
        return numbers;
    }
    let mut bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    if nan {
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    }
    if incomplete {
        bytes.pop();
    }
    json!(STANDARD.encode(bytes))
}
