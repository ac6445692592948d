//! Recorded error responses of vendors, and the errors that they must become.

use std::sync::Arc;

use embeddery_core::{
    ErrorKind::{
        BatchTooLarge, InputTooLong, InvalidRequest, ModelNotFound, RateLimited, Unavailable, UpstreamAuth,
    },
    ProviderKind,
    Retry::{After, Backoff, Never},
    UpstreamServer,
};
use reqwest::header::{HeaderName, HeaderValue};

use super::*;
use crate::http::{ApiKeyPool, BaseUrl, KeyHeader};

const KEY: &str = "sk-very-secret-key";

fn classify(status: u16, body: &str, inputs: usize) -> EmbedError {
    with_headers(status, body, inputs, &HeaderMap::new())
}

fn with_headers(status: u16, body: &str, inputs: usize, headers: &HeaderMap) -> EmbedError {
    let target = target();
    Failure { target: &target, status, headers, body: body.as_bytes(), inputs }.classify()
}

fn target() -> Target {
    Target {
        provider: ProviderKind::OpenAi,
        model: "m".into(),
        url: BaseUrl::parse("https://x").unwrap(),
        headers: [(HeaderName::from_static("x-secret"), HeaderValue::from_static("of-a-header"))]
            .into_iter()
            .collect(),
        keys: Arc::new(ApiKeyPool::new(&[KEY.into()], KeyHeader::Bearer, "OPENAI_API_KEY").unwrap()),
        listener: None,
        server: UpstreamServer::in_process(ProviderKind::OpenAi),
    }
}

#[test]
fn a_batch_that_is_too_large_is_reported_as_such() {
    for (status, body) in [
        (
            400,
            r#"{"error":{"message":"Requested 453357 tokens, max 300000 tokens per request","type":"max_tokens_per_request","code":"max_tokens_per_request"}}"#,
        ),
        (
            400,
            r#"{"object":"error","message":"Too many tokens overall, split into more batches.","type":"invalid_request_prompt","param":null,"code":"3210"}"#,
        ),
        (
            400,
            r#"{"detail":"Request to model 'voyage-3' failed. The max allowed tokens per submitted batch is 120000. Your batch has 330231 tokens after truncation. Please lower the number of tokens in the batch."}"#,
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"* BatchEmbedContentsRequest.requests: at most 100 requests can be in one batch","status":"INVALID_ARGUMENT"}}"#,
        ),
        (
            400,
            r#"{"error":{"code":400,"message":"Request payload size exceeds the limit: 4194304 bytes.","status":"INVALID_ARGUMENT"}}"#,
        ),
        (400, r#"{"message":"invalid request: total number of texts must be at most 96 - received 97"}"#),
        (413, r#"{"error":"batch size 33 > maximum allowed batch size 32","error_type":"Validation"}"#),
        (422, r#"{"error":"batch size 33 > maximum allowed batch size 32","error_type":"Validation"}"#),
        (413, "<html>nginx</html>"),
        (
            400,
            r#"{"error":{"message":"Invalid 'input': array too long. Expected an array with maximum length 2048","code":"array_above_max_length"}}"#,
        ),
        (500, r#"{"error":"EOF"}"#),
        (500, r#"{"error":"do embedding request: Post \"http://127.0.0.1:35391/embedding\": EOF"}"#),
    ] {
        let error = classify(status, body, 5);
        assert_eq!((error.kind, error.retry), (BatchTooLarge, Never), "{body}");
    }
}

#[test]
fn a_too_long_input_is_named_if_the_vendor_names_it() {
    for (status, body, inputs, indices) in [
        (
            400,
            r#"{"error":{"message":"This model's maximum context length is 8192 tokens, however you requested 10001 tokens (10001 in your prompt; 0 for the completion).","code":null}}"#,
            3,
            vec![],
        ),
        (
            400,
            r#"{"error":{"message":"Invalid 'input[2]': maximum input length is 8192 tokens.","code":null}}"#,
            3,
            vec![2],
        ),
        (
            400,
            r#"{"detail":"The example at index 1 in your batch has too many tokens and does not fit into the model's context window of 32000 tokens."}"#,
            3,
            vec![1],
        ),
        (400, r#"{"error":"the input length exceeds the context length"}"#, 1, vec![0]),
        (
            500,
            r#"{"error":{"message":"input is too large to process. increase the physical batch size","code":500}}"#,
            1,
            vec![0],
        ),
        (
            413,
            r#"{"error":"`inputs` must have less than 512 tokens. Given: 600","error_type":"Validation"}"#,
            2,
            vec![],
        ),
    ] {
        let error = classify(status, body, inputs);
        assert_eq!((error.kind, error.fault, error.retry), (InputTooLong, Fault::Caller, Never), "{body}");
        assert_eq!(error.inputs.iter().map(|fault| fault.index).collect::<Vec<_>>(), indices, "{body}");
    }
}

#[test]
fn rate_limits_have_a_wait() {
    let google = r#"{"error":{"code":429,"message":"Resource exhausted","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"27s"}]}}"#;
    let mistral = r#"{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300","raw_status_code":429}"#;
    let wait = |body: &str| classify(429, body, 1).retry;
    assert_eq!(wait(google), After(Duration::from_secs(27)));
    assert_eq!(wait(&format!("[{google}]")), After(Duration::from_secs(27)));
    assert_eq!(wait(mistral), Backoff);
    assert_eq!(
        wait(r#"{"error":{"message":"Rate limit reached. Please try again in 20ms."}}"#),
        After(Duration::from_millis(20))
    );
    assert_eq!(wait("<html>"), Backoff);
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("3"));
    let error = with_headers(429, google, 1, &headers);
    assert_eq!(
        (error.kind, error.fault, error.retry),
        (RateLimited, Fault::Upstream, After(Duration::from_secs(3)))
    );
    headers.insert("x-should-retry", HeaderValue::from_static("false"));
    assert_eq!(with_headers(429, "", 1, &headers).retry, Never);
}

#[test]
fn an_exhausted_quota_is_not_retried() {
    let openai = r#"{"error":{"message":"You exceeded your current quota, please check your plan and billing details.","type":"insufficient_quota","param":null,"code":"insufficient_quota"}}"#;
    let google = r#"{"error":{"code":429,"message":"You exceeded your current quota, please check your plan and billing details. Please retry in 5s.","status":"RESOURCE_EXHAUSTED"}}"#;
    let error = classify(429, openai, 1);
    assert_eq!((error.kind, error.retry), (RateLimited, Never));
    assert!(error.message.contains("quota") && error.message.contains("OPENAI_API_KEY"));
    assert_eq!(classify(402, "", 1).retry, Never);
    // Google sends the same message for a limit per minute, with a wait.
    assert_eq!(classify(429, google, 1).retry, After(Duration::from_secs(5)));
}

#[test]
fn a_refused_key_is_our_fault_and_never_shown() {
    let body = format!(r#"{{"error":{{"message":"Incorrect API key provided: {KEY}."}}}}"#);
    for status in [401, 403] {
        let error = classify(status, &body, 1);
        assert_eq!((error.kind, error.retry), (UpstreamAuth, Never));
        assert!(error.message.contains("openai") && error.message.contains("OPENAI_API_KEY"));
        assert!(!format!("{error:?}").contains(KEY));
    }
    let error =
        classify(400, &format!(r#"{{"message":"bad {KEY} or ({KEY}) or sk-other-key-123\u0000\n"}}"#), 1);
    assert_eq!(error.message, "openai reports: bad *** or (***) or ***");
    assert_eq!(classify(400, r#"{"message":"bad of-a-header"}"#, 1).message, "openai reports: bad ***");
}

#[test]
fn unknown_models_and_wrong_urls_are_told_apart() {
    for (status, body) in [
        (404, r#"{"error":{"message":"The model `m` does not exist","code":"model_not_found"}}"#),
        (
            404,
            r#"{"error":{"code":"DeploymentNotFound","message":"The API deployment for this resource does not exist."}}"#,
        ),
        (404, r#"{"error":"model \"m\" not found, try pulling it first"}"#),
        (
            404,
            r#"{"error":{"code":404,"message":"models/m is not found for API version v1beta","status":"NOT_FOUND"}}"#,
        ),
        (
            400,
            r#"{"object":"error","message":"Invalid model: m","type":"invalid_model","param":null,"code":"1500"}"#,
        ),
        (400, r#"{"detail":"Model m is not supported. Supported models are …"}"#),
    ] {
        assert_eq!(classify(status, body, 1).kind, ModelNotFound, "{body}");
    }
    for body in [r#"{"detail":"Not Found"}"#, "<html>404</html>", ""] {
        let error = classify(404, body, 1);
        assert_eq!((error.kind, error.fault, error.retry), (Unavailable, Fault::Upstream, Never));
        assert!(error.message.contains("base_url"));
    }
}

#[test]
fn failures_of_the_vendor_are_retried() {
    for status in [408, 424, 499, 500, 502, 503, 504, 529] {
        let error = classify(status, "<html>bad gateway</html>", 2);
        assert_eq!(
            (error.kind, error.fault, error.retry),
            (Unavailable, Fault::Upstream, Backoff),
            "{status}"
        );
    }
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", HeaderValue::from_static("2"));
    assert_eq!(with_headers(503, "", 1, &headers).retry, After(Duration::from_secs(2)));
    assert_eq!(classify(500, r#"{"error":"EOF"}"#, 1).kind, Unavailable);
}

#[test]
fn all_other_errors_quote_the_vendor() {
    let pydantic = r#"{"detail":[{"loc":["body","input"],"msg":"field required","type":"value_error"}]}"#;
    let error = classify(422, pydantic, 1);
    assert_eq!((error.kind, error.fault, error.retry), (InvalidRequest, Fault::Caller, Never));
    assert_eq!(error.message, "openai reports: field required");
    assert_eq!(classify(400, "", 1).message, "openai refused the request (400)");
    assert_eq!(classify(400, r#"{"error":{"message":""}}"#, 1).message, "openai refused the request (400)");
    assert_eq!(classify(418, "[]", 1).kind, InvalidRequest);
}
