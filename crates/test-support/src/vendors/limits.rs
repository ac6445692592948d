//! The vendors' limits and their models' dimensions. Tokens are counted as in OpenAI's own check: a quarter of the bytes.

use super::{VendorApi, response::Refusal};

/// The limits of one request: texts, tokens of all texts, tokens of one text, bytes.
fn limits(api: VendorApi, model: &str) -> (usize, usize, usize, usize) {
    const NONE: usize = usize::MAX;
    match api {
        VendorApi::OpenAi | VendorApi::Azure => (2048, 300_000, 8192, NONE),
        VendorApi::Cohere => (96, NONE, NONE, NONE),
        VendorApi::Google => (100, NONE, NONE, 4_194_304),
        VendorApi::Mistral => (512, 16_384, 8192, NONE),
        VendorApi::Voyage => (1000, if model.ends_with("-lite") { 1_000_000 } else { 120_000 }, NONE, NONE),
        VendorApi::Tei => (32, 16_384, NONE, 2_000_000),
        VendorApi::OllamaLegacy => (1, NONE, NONE, NONE),
        VendorApi::LocalOpenAi | VendorApi::Ollama | VendorApi::Tldw => (NONE, NONE, NONE, NONE),
    }
}

/// Checks a request against the vendor's limits.
pub(super) fn enforce(api: VendorApi, model: &str, texts: &[String], bytes: usize) -> Result<(), Refusal> {
    let (items, tokens, tokens_each, max_bytes) = limits(api, model);
    if bytes > max_bytes {
        return Err(Refusal::new(413, "Request payload size exceeds the limit"));
    }
    if texts.len() > items {
        let message = format!("batch size {} > maximum allowed batch size {items}", texts.len());
        return Err(Refusal::new(if api == VendorApi::Tei { 413 } else { 400 }, message));
    }
    if texts.iter().any(String::is_empty)
        && !matches!(api, VendorApi::Ollama | VendorApi::OllamaLegacy | VendorApi::Tldw)
    {
        return Err(Refusal::new(400, "input cannot be an empty string"));
    }
    let counts: Vec<usize> = texts.iter().map(|text| text.len().div_ceil(4)).collect();
    if let Some(longest) = counts.iter().find(|count| **count > tokens_each) {
        return Err(Refusal::input_too_long(*longest, tokens_each));
    }
    let sum: usize = counts.iter().sum();
    if sum > tokens {
        return Err(Refusal::too_many_tokens(api, sum, tokens));
    }
    Ok(())
}

/// The dimensions of a model.
pub(super) fn native_dimensions(model: &str) -> usize {
    match model {
        "text-embedding-3-small" | "text-embedding-ada-002" | "embed-v4.0" | "codestral-embed" => 1536,
        "text-embedding-3-large" | "gemini-embedding-001" | "gemini-embedding-2" => 3072,
        "embed-v5.0-pro" | "embed-v5.0-fast" => 2048,
        "embed-english-light-v3.0" | "embed-multilingual-light-v3.0" => 384,
        "nomic-embed-text" => 768,
        _ if model.starts_with("voyage-") || model.starts_with("embed-") || model == "mistral-embed" => 1024,
        _ => 16,
    }
}
