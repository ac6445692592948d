//! Recognises the refusal of vectors as base64 in an error response. Some servers name the field, some only the value, and
//! some only in the path of a schema error, so the whole body is searched, except for echoes of the request: they contain
//! the field in every error.

use serde_json::{Map, Value};

/// The field of the request.
const FIELD: &str = "encoding_format";
/// The value of the field.
const VALUE: &str = "base64";
/// Fields of error responses that repeat the request or a part of it, as in Pydantic's and FastAPI's schema.
const ECHOES: [&str; 6] = ["input", "inputs", "input_value", "body", "request", "ctx"];

/// Whether an error response refuses the encoding. A failure of the server (500) says nothing about the request.
pub(super) fn is_refusal(status: u16, body: &[u8]) -> bool {
    if !matches!(status, 400 | 415 | 422 | 501) {
        return false;
    }
    let text = match serde_json::from_slice(body) {
        Ok(json) => {
            let mut text = String::new();
            collect(&json, &mut text);
            text
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let text = without_echoes(&text.to_ascii_lowercase());
    [FIELD, "encoding format", VALUE].iter().any(|word| text.contains(word))
}

/// Appends the names and the texts of a JSON document, without echoes of the request.
fn collect(json: &Value, text: &mut String) {
    match json {
        Value::String(string) => {
            text.push_str(string);
            text.push('\n');
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, text)),
        Value::Object(object) => collect_fields(object, text),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn collect_fields(object: &Map<String, Value>, text: &mut String) {
    for (name, value) in object {
        let is_echo = ECHOES.contains(&&**name) || (name == FIELD && value == VALUE);
        if !is_echo {
            text.push_str(name);
            text.push('\n');
            collect(value, text);
        }
    }
}

/// A text without each `"encoding_format": "base64"`. A message may quote the request in the syntax of JSON or Python, and
/// shorten the value.
fn without_echoes(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::with_capacity(text.len());
    while let Some(at) = rest.find(FIELD) {
        let (before, field) = rest.split_at(at);
        kept.push_str(before);
        let after = &field[FIELD.len()..];
        rest = match after_echo(after) {
            Some(after) => after,
            None => {
                kept.push_str(FIELD);
                after
            }
        };
    }
    kept.push_str(rest);
    kept
}

/// The text behind the value, if the text behind the name of the field shows that both are an echo.
fn after_echo(text: &str) -> Option<&str> {
    let without_quotes = |text: &str| text.trim_start_matches(['"', '\'', '\\']).len();
    let behind_name = &text[text.len() - without_quotes(text)..];
    let value = behind_name.trim_start().strip_prefix(':')?.trim_start();
    let behind_quotes = &value[value.len() - without_quotes(value)..];
    if behind_name.len() == text.len() || behind_quotes.len() == value.len() {
        return None; // the name or the value is not quoted
    }
    let length = behind_quotes.bytes().zip(VALUE.bytes()).take_while(|(one, other)| one == other).count();
    let behind_value = &behind_quotes[length..];
    let is_whole = length == VALUE.len() || behind_value.starts_with(['.', '…']) || behind_value.is_empty();
    is_whole.then_some(behind_value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_base64_is_recognised_in_any_schema() {
        for (status, body) in [
            (
                400,
                r#"{"error":{"message":"encoding_format base64 is not supported","type":"BadRequestError"}}"#,
            ),
            (400, r#"{"object":"error","message":"Unknown parameter: 'Encoding_Format'","code":400}"#),
            (400, r#"{"encoding_format":["Not a valid choice."]}"#),
            (400, "encoding_format: 'base64' is not supported"),
            (
                422,
                r#"{"detail":[{"type":"literal_error","loc":["body","encoding_format"],"msg":"Input should be 'float'","input":"base64"}]}"#,
            ),
            (422, "Base64 embeddings are not implemented"),
            (501, r#"{"error":"encoding format 'base64' not implemented"}"#),
        ] {
            assert!(is_refusal(status, body.as_bytes()), "{status} {body}");
        }
    }

    #[test]
    fn an_echo_of_the_request_is_not_a_refusal() {
        for (status, body) in [
            (400, r#"{"error":{"message":"input cannot be an empty string"}}"#),
            (401, r#"{"error":{"message":"encoding_format"}}"#),
            (429, "base64"),
            (500, r#"{"error":"base64 encoder crashed"}"#),
            (422, ""),
            (
                422,
                r#"{"detail":[{"type":"missing","loc":["body","model"],"msg":"Field required","input":{"input":["a"],"encoding_format":"base64"}}]}"#,
            ),
            (
                422,
                r#"{"detail":[{"loc":["body","dimensions"],"msg":"too large"}],"body":{"encoding_format":"base64"}}"#,
            ),
            (400, r#"{"error":"unknown model","received":{"model":"m","encoding_format":"base64"}}"#),
            (400, r#"{"error":"invalid: {\"input\":[\"a\"],\"encoding_format\":\"base64\"}"}"#),
            (400, r#"bad request {"input":["a"],"encoding_format":"base64"}"#),
            (
                400,
                r#"{"message":"1 validation error\ninput\n  Field required [type=missing, input_value={'model': 'm', 'encoding_format': 'base64'}, input_type=dict]"}"#,
            ),
            (400, r#"{"message":"Field required, input_value={'model': 'm', 'encoding_format': 'bas...}"}"#),
        ] {
            assert!(!is_refusal(status, body.as_bytes()), "{status} {body}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_searched(text in "(encoding_format|base64|[\"':… ]){0,8}") {
            is_refusal(400, text.as_bytes());
        }
    }
}
