//! Answers and errors in each vendor's form.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Behaviour, Form, ask::Ask};

/// A request that is refused.
pub(super) struct Refusal {
    pub status: u16,
    pub message: String,
    pub code: Option<&'static str>,
}

impl Refusal {
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self { status, message: message.into(), code: None }
    }

    /// In each vendor's own words.
    pub fn too_many_tokens(form: Form, requested: usize, most: usize) -> Self {
        let message = match form {
            Form::Mistral => "Too many tokens overall, split into more batches.".to_owned(),
            Form::Voyage => format!(
                "Request to model failed. The max allowed tokens per submitted batch is {most}. Your batch has {requested} tokens after truncation. Please lower the number of tokens in the batch."
            ),
            Form::Cohere => format!("too many tokens: {requested} tokens in the request, at most {most}"),
            Form::Google => "Request payload size exceeds the limit: 4194304 bytes.".to_owned(),
            Form::Tei => format!("batch size {requested} > maximum allowed batch size {most}"),
            _ => format!("Requested {requested} tokens, max {most} tokens per request"),
        };
        let status = if form == Form::Tei { 413 } else { 400 };
        let code = match form {
            Form::OpenAi | Form::Azure => Some("max_tokens_per_request"),
            Form::Mistral => Some("3210"),
            _ => None,
        };
        Self { status, message, code }
    }

    pub fn input_too_long(tokens: usize, most: usize) -> Self {
        let message = format!(
            "This model's maximum context length is {most} tokens, however you requested {tokens} tokens ({tokens} in your prompt). Please reduce your prompt."
        );
        Self { code: Some("context_length_exceeded"), ..Self::new(400, message) }
    }

    /// The vendor's error body.
    pub fn body(&self, form: Form) -> Value {
        let Self { status, message, code } = self;
        match form {
            Form::OpenAi | Form::Azure | Form::LocalOpenAi => json!({"error": {
                "message": message, "type": "invalid_request_error", "param": null, "code": code}}),
            Form::Cohere => json!({"id": "4f6ec1b2", "message": message}),
            Form::Google => json!({"error": {
                "code": status, "message": message, "status": "INVALID_ARGUMENT"}}),
            Form::Mistral => json!({"object": "error", "message": message,
                "type": "invalid_request_error", "param": null, "code": code.unwrap_or("1000")}),
            Form::Voyage => json!({"detail": message}),
            Form::Ollama | Form::OllamaLegacy | Form::Tldw => json!({"error": message}),
            Form::Tei => json!({"error": message, "error_type": "Validation"}),
        }
    }
}

/// The answer to a request: the right one, or one wrong in the way that is wanted.
pub(super) fn answer(form: Form, ask: &Ask, vectors: &[Vec<f32>], behaviour: &Behaviour) -> String {
    let tokens: usize = ask.texts.iter().map(|text| text.len().div_ceil(4)).sum();
    let vectors: Vec<Value> = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| {
            let broken = index == 0 && *behaviour == Behaviour::NotANumber;
            encode(vector, ask.base64, broken, *behaviour == Behaviour::BrokenBase64)
        })
        .collect();
    let body = match form {
        Form::OpenAi | Form::Azure | Form::LocalOpenAi => json!({"object": "list", "model": ask.model,
            "data": indexed(vectors, behaviour),
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens}}),
        Form::Mistral => json!({"id": "0d7a", "object": "list", "model": ask.model,
            "usage": {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens},
            "data": indexed(vectors, behaviour)}),
        Form::Voyage => json!({"object": "list", "data": indexed(vectors, behaviour), "model": ask.model,
            "usage": {"total_tokens": tokens}}),
        Form::Cohere => json!({"id": "da6e", "response_type": "embeddings_by_type",
            "texts": ask.texts, "images": [], "embeddings": {"float": vectors},
            "meta": {"api_version": {"version": "2"}, "billed_units": {"input_tokens": tokens}}}),
        Form::Google => json!({"embeddings":
            vectors.into_iter().map(|vector| json!({"values": vector})).collect::<Vec<_>>()}),
        Form::Ollama => json!({"model": ask.model, "embeddings": vectors,
            "total_duration": 14_143_917, "load_duration": 1_019_500, "prompt_eval_count": tokens}),
        Form::OllamaLegacy => json!({"embedding": vectors.into_iter().next().unwrap_or(json!([]))}),
        Form::Tei => json!(vectors),
        Form::Tldw => json!({"embeddings": vectors}),
    };
    // JSON has no such number; what misbehaves writes it all the same.
    body.to_string().replace("\"not a number\"", "NaN")
}

/// The `data` of OpenAI's form.
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

fn encode(vector: &[f32], base64: bool, broken: bool, torn: bool) -> Value {
    if !base64 {
        let mut numbers = json!(vector);
        if broken {
            numbers[0] = json!("not a number");
        }
        return numbers;
    }
    let mut bytes: Vec<u8> = vector.iter().flat_map(|number| number.to_le_bytes()).collect();
    if broken {
        bytes[..4].copy_from_slice(&f32::NAN.to_le_bytes());
    }
    if torn {
        bytes.pop();
    }
    json!(STANDARD.encode(bytes))
}
