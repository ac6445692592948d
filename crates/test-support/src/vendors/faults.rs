//! Builds the response of each [`Behaviour`].

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, Response, StatusCode, header},
};
use futures_util::stream;
use serde_json::json;

use super::{
    Behaviour, VendorApi,
    request::ParsedRequest,
    response::{Refusal, response_body},
    vector,
};

/// The response of a behaviour that returns no vectors; `None` for the other behaviours.
pub(super) fn error_response(
    api: VendorApi,
    request: &ParsedRequest,
    behaviour: &Behaviour,
    given_key: Option<&str>,
) -> Option<Response<Body>> {
    let google = |seconds: &u64| {
        json!({"error": {"code": 429, "message": "Resource has been exhausted (e.g. check quota).",
            "status": "RESOURCE_EXHAUSTED", "details": [
                {"@type": "type.googleapis.com/google.rpc.Help", "links": []},
                {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": format!("{seconds}s")}]}})
    };
    let refusal = |refusal: Refusal| respond(refusal.status, refusal.body(api).to_string());
    Some(match behaviour {
        Behaviour::RateLimited(seconds) => {
            let mut response = refusal(Refusal::new(429, "Rate limit reached for requests"));
            response.headers_mut().insert(header::RETRY_AFTER, (*seconds).into());
            response
        }
        Behaviour::RateLimitedInBody(seconds) => respond(429, google(seconds).to_string()),
        Behaviour::RateLimitedInList(seconds) => respond(429, json!([google(seconds)]).to_string()),
        Behaviour::QuotaExhausted => respond(
            429,
            json!({"error": {"message": "You exceeded your current quota, please check your plan and billing details.",
                "type": "insufficient_quota", "param": null, "code": "insufficient_quota"}})
            .to_string(),
        ),
        Behaviour::Status(status) => refusal(Refusal::new(*status, "The server had an error")),
        Behaviour::Unauthorized => {
            let given = given_key.unwrap_or_default();
            refusal(Refusal { code: Some("invalid_api_key"), ..Refusal::new(401, format!("Incorrect API key provided: {given}.")) })
        }
        Behaviour::Html => {
            let mut response = respond(200, "<!doctype html><html><body>Welcome</body></html>".into());
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html"));
            response
        }
        Behaviour::Empty => respond(200, String::new()),
        Behaviour::TooManyTokensAbove(max) if request.texts.len() > *max => {
            refusal(Refusal::too_many_tokens(api, 453_357, 300_000))
        }
        Behaviour::InputTooLong => refusal(Refusal::input_too_long(9000, 8192)),
        Behaviour::NoSuchModel => refusal(Refusal {
            code: Some("model_not_found"),
            ..Refusal::new(404, format!("The model `{}` does not exist or you do not have access to it.", request.model))
        }),
        Behaviour::Huge => respond_with(200, Body::from_stream(stream::unfold(0, |sent| async move {
            (sent < 80).then(|| (Ok::<_, io::Error>(Bytes::from(vec![b' '; 1 << 20])), sent + 1))
        }))),
        Behaviour::Redirect(to) => {
            let mut response = respond(307, String::new());
            if let Ok(to) = HeaderValue::from_str(to) {
                response.headers_mut().insert(header::LOCATION, to);
            }
            response
        }
        _ => return None,
    })
}

/// The response with the vectors, with the fault of the behaviour, if any.
pub(super) async fn vectors_response(
    api: VendorApi,
    request: &ParsedRequest,
    dimensions: usize,
    behaviour: &Behaviour,
) -> Response<Body> {
    let dimensions = if *behaviour == Behaviour::WrongLength { dimensions - 1 } else { dimensions };
    let scale = if api == VendorApi::OllamaLegacy { 3.0 } else { 1.0 };
    let mut vectors: Vec<Vec<f32>> = request
        .texts
        .iter()
        .map(|text| vector(text, dimensions).into_iter().map(|x| x * scale).collect())
        .collect();
    match behaviour {
        Behaviour::FewerVectors => drop(vectors.pop()),
        Behaviour::ZeroVector => {
            if let Some(last) = vectors.last_mut() {
                last.fill(0.0);
            }
        }
        Behaviour::MixedLengths => {
            if let Some(last) = vectors.last_mut() {
                last.pop();
            }
        }
        _ => {}
    }
    let body = response_body(api, request, &vectors, behaviour);
    match behaviour {
        Behaviour::Hang => std::future::pending().await,
        Behaviour::Truncated => {
            let half = Bytes::copy_from_slice(&body.as_bytes()[..body.len() / 2]);
            respond_with(
                200,
                Body::from_stream(stream::unfold(Some(half), |half| async move {
                    match half {
                        Some(half) => Some((Ok(half), None)),
                        None => {
                            // The yield lets hyper flush its buffer before it receives the error.
                            tokio::task::yield_now().await;
                            Some((Err(io::Error::other("closed on demand")), None))
                        }
                    }
                })),
            )
        }
        Behaviour::Drip => {
            let body = Bytes::from(body);
            respond_with(
                200,
                Body::from_stream(stream::unfold(body, |mut rest| async move {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    (!rest.is_empty()).then(|| (Ok::<_, io::Error>(rest.split_to(1)), rest))
                })),
            )
        }
        _ => respond(200, body),
    }
}

/// A JSON response.
pub(super) fn respond(status: u16, body: String) -> Response<Body> {
    respond_with(status, body.into())
}

fn respond_with(status: u16, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
