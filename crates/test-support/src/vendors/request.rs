//! Reads a request in each vendor's form, as strictly as the vendor does.

use serde_json::Value;

use super::{VendorApi, response::Refusal, token_text};

/// What a request asks for, whatever its form.
pub(super) struct Ask {
    pub model: String,
    pub texts: Vec<String>,
    pub length: Option<usize>,
    pub base64: bool,
}

/// Reads the model's name and the texts; leaves everything else to [`check`], so that a refused request is
/// recorded, too.
pub(super) fn read(form: VendorApi, path_model: Option<&str>, body: &Value) -> Ask {
    let texts = match form {
        VendorApi::OpenAi
        | VendorApi::Azure
        | VendorApi::Mistral
        | VendorApi::Voyage
        | VendorApi::LocalOpenAi
        | VendorApi::Ollama => strings(&body["input"]),
        VendorApi::Cohere | VendorApi::Tldw => strings(&body["texts"]),
        VendorApi::Google => {
            let one = |request: &Value| {
                let parts = request["content"]["parts"].as_array().map(Vec::as_slice).unwrap_or_default();
                parts.iter().filter_map(|part| part["text"].as_str()).collect::<String>()
            };
            body["requests"].as_array().into_iter().flatten().map(one).collect()
        }
        VendorApi::OllamaLegacy => strings(&body["prompt"]),
        VendorApi::Tei => strings(&body["inputs"]),
    };
    let length = match form {
        VendorApi::OpenAi
        | VendorApi::Azure
        | VendorApi::LocalOpenAi
        | VendorApi::Ollama
        | VendorApi::Tei => &body["dimensions"],
        VendorApi::Cohere | VendorApi::Mistral | VendorApi::Voyage => &body["output_dimension"],
        VendorApi::Google => &body["requests"][0]["outputDimensionality"],
        VendorApi::OllamaLegacy | VendorApi::Tldw => &Value::Null,
    };
    Ask {
        model: path_model.or(body["model"].as_str()).unwrap_or_default().to_owned(),
        texts,
        length: length.as_u64().and_then(|length| usize::try_from(length).ok()),
        base64: body["encoding_format"] == "base64",
    }
}

/// A string, strings, token ids or lists of them.
fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::String(text) => vec![text.clone()],
        Value::Array(items) if items.first().is_some_and(Value::is_u64) => vec![ids(items)],
        Value::Array(items) => items
            .iter()
            .map(|item| match item {
                Value::Array(tokens) => ids(tokens),
                other => other.as_str().unwrap_or_default().to_owned(),
            })
            .collect(),
        _ => Vec::new(),
    }
}

fn ids(tokens: &[Value]) -> String {
    token_text(&tokens.iter().filter_map(Value::as_u64).collect::<Vec<_>>())
}

/// The fields each vendor insists on, and those that it refuses.
pub(super) fn check(form: VendorApi, ask: &Ask, body: &Value) -> Result<(), Refusal> {
    let refuse = |message: &str| Err(Refusal::new(400, message));
    if ask.model.is_empty() && form != VendorApi::Tei {
        return refuse("you must provide a model parameter");
    }
    if ask.texts.is_empty() && form != VendorApi::Ollama {
        return refuse("no input");
    }
    let tokens = ask.texts.iter().any(|text| text.starts_with("tokens ["));
    if tokens && !matches!(form, VendorApi::OpenAi | VendorApi::Azure) {
        return refuse("input must be text");
    }
    let encoding = &body["encoding_format"];
    let written = body.as_object().is_some_and(|body| body.contains_key("encoding_format"));
    match form {
        VendorApi::Voyage if written && encoding != "base64" => {
            refuse("encoding_format must be base64 or absent")
        }
        VendorApi::OpenAi | VendorApi::Azure | VendorApi::Mistral | VendorApi::LocalOpenAi
            if written && encoding != "float" && encoding != "base64" =>
        {
            refuse("encoding_format must be float or base64")
        }
        VendorApi::OpenAi if ask.model == "text-embedding-ada-002" && ask.length.is_some() => {
            refuse("This model does not support specifying dimensions.")
        }
        VendorApi::Voyage if !matches!(body["input_type"].as_str(), None | Some("query" | "document")) => {
            refuse("input_type must be query or document")
        }
        VendorApi::Cohere => match body["input_type"].as_str() {
            Some("search_document" | "search_query" | "classification" | "clustering") => Ok(()),
            _ => refuse("invalid request: valid input_type must be provided with the provided model"),
        },
        VendorApi::Google => google(&ask.model, body),
        _ => Ok(()),
    }
}

fn google(model: &str, body: &Value) -> Result<(), Refusal> {
    for request in body["requests"].as_array().into_iter().flatten() {
        let named = request["model"].as_str().unwrap_or_default();
        if named != format!("models/{model}") {
            return Err(Refusal::new(400, format!("model '{named}' in a request to models/{model}")));
        }
        if request["content"]["parts"].as_array().map(Vec::len) != Some(1) {
            return Err(Refusal::new(400, "the stand-in takes one part: several would be fused"));
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
