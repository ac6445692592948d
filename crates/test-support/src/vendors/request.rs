//! Parses and checks a request as strictly as each vendor does.

use serde_json::Value;

use super::{VendorApi, response::Refusal, token_text};

/// A request, independent of the API.
pub(super) struct ParsedRequest {
    pub model: String,
    pub texts: Vec<String>,
    pub dimensions: Option<usize>,
    pub base64: bool,
}

/// Parses a request without checks, so that a refused request is recorded, too. [`check`] checks it.
pub(super) fn parse(api: VendorApi, path_model: Option<&str>, body: &Value) -> ParsedRequest {
    let texts = match api {
        VendorApi::OpenAi
        | VendorApi::Azure
        | VendorApi::Mistral
        | VendorApi::Voyage
        | VendorApi::LocalOpenAi
        | VendorApi::Ollama => strings(&body["input"]),
        VendorApi::Cohere | VendorApi::Tldw => strings(&body["texts"]),
        VendorApi::Google => {
            let text = |request: &Value| {
                let parts = request["content"]["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
                parts.iter().filter_map(|part| part["text"].as_str()).collect::<String>()
            };
            body["requests"].as_array().into_iter().flatten().map(text).collect()
        }
        VendorApi::OllamaLegacy => strings(&body["prompt"]),
        VendorApi::Tei => strings(&body["inputs"]),
    };
    let dimensions = match api {
        VendorApi::OpenAi
        | VendorApi::Azure
        | VendorApi::LocalOpenAi
        | VendorApi::Ollama
        | VendorApi::Tei => &body["dimensions"],
        VendorApi::Cohere | VendorApi::Mistral | VendorApi::Voyage => &body["output_dimension"],
        VendorApi::Google => &body["requests"][0]["outputDimensionality"],
        VendorApi::OllamaLegacy | VendorApi::Tldw => &Value::Null,
    };
    ParsedRequest {
        model: path_model.or(body["model"].as_str()).unwrap_or_default().to_owned(),
        texts,
        dimensions: dimensions.as_u64().and_then(|dimensions| usize::try_from(dimensions).ok()),
        base64: body["encoding_format"] == "base64",
    }
}

/// The texts of a string, a list of strings, a list of token ids or a list of such lists.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) if items.first().is_some_and(Value::is_u64) => vec![token_ids(items)],
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Array(tokens) => token_ids(tokens),
                other => other.as_str().unwrap_or_default().to_owned(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn token_ids(tokens: &[Value]) -> String {
    token_text(&tokens.iter().filter_map(Value::as_u64).collect::<Vec<_>>())
}

/// Checks the fields that each vendor requires or refuses.
pub(super) fn check(api: VendorApi, request: &ParsedRequest, body: &Value) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::new(400, message));
    if request.model.is_empty() && api != VendorApi::Tei {
        return refuse("you must provide a model parameter");
    }
    if request.texts.is_empty() && api != VendorApi::Ollama {
        return refuse("no input");
    }
    let tokens = request.texts.iter().any(|text| text.starts_with("tokens ["));
    if tokens && !matches!(api, VendorApi::OpenAi | VendorApi::Azure) {
        return refuse("input must be text");
    }
    let encoding = &body["encoding_format"];
    let has_encoding = body.as_object().is_some_and(|body| body.contains_key("encoding_format"));
    match api {
        VendorApi::Voyage if has_encoding && encoding != "base64" => {
            refuse("encoding_format must be base64 or absent")
        }
        VendorApi::OpenAi | VendorApi::Azure | VendorApi::Mistral | VendorApi::LocalOpenAi
            if has_encoding && encoding != "float" && encoding != "base64" =>
        {
            refuse("encoding_format must be float or base64")
        }
        VendorApi::OpenAi if request.model == "text-embedding-ada-002" && request.dimensions.is_some() => {
            refuse("This model does not support specifying dimensions.")
        }
        VendorApi::Voyage if !matches!(body["input_type"].as_str(), None | Some("query" | "document")) => {
            refuse("input_type must be query or document")
        }
        VendorApi::Cohere => match body["input_type"].as_str() {
            Some("search_document" | "search_query" | "classification" | "clustering") => Ok(()),
            _ => refuse("invalid request: valid input_type must be provided with the provided model"),
        },
        VendorApi::Google => check_google(&request.model, body),
        _ => Ok(()),
    }
}

fn check_google(model: &str, body: &Value) -> Result<(), Refusal> {
    for request in body["requests"].as_array().into_iter().flatten() {
        let named = request["model"].as_str().unwrap_or_default();
        if named != format!("models/{model}") {
            return Err(Refusal::new(400, format!("model '{named}' in a request to models/{model}")));
        }
        if request["content"]["parts"].as_array().map(Vec::len) != Some(1) {
            return Err(Refusal::new(
                400,
                "the fake vendor accepts one part only: several would be one input",
            ));
        }
        if model == "gemini-embedding-2" && !request["taskType"].is_null() {
            return Err(Refusal::new(400, "taskType is not supported by this model"));
        }
        if ["output_dimensionality", "task_type"].iter().any(|name| !request[name].is_null()) {
            return Err(Refusal::new(400, "fields are written in camelCase"));
        }
    }
    Ok(())
}
