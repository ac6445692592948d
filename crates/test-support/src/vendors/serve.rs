//! The HTTP server of the fake vendors: it maps a path to an API and records the requests.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use axum::{
    Router,
    body::Body,
    extract::{Extension, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Response},
    routing::post,
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use serde_json::Value;
use tokio::{net::TcpListener, sync::Notify, task::JoinSet};

use super::{
    Behaviour, Gate, Shared, VendorApi, VendorRequest,
    faults::{self, respond},
    limits, request,
    response::Refusal,
};

/// Maximum size of a request body, larger than that of any test.
const MAX_BODY_BYTES: usize = 256 << 20;

/// Resets the connection of a request.
#[derive(Clone, Default)]
struct Reset(Arc<Notify>);

#[expect(clippy::expect_used, reason = "a test without loopback cannot run")]
pub(super) async fn start(shared: Arc<Shared>, server: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let routes = Router::new().fallback(post(handle)).with_state(shared);
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let reset = Reset::default();
            let routes = routes.clone().layer(Extension(reset.clone()));
            let _ = stream.set_nodelay(true);
            connections.spawn(async move {
                let service = TowerToHyperService::new(routes);
                let mut connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = &mut connection => {}
                    () = reset.0.notified() => {
                        let stream = connection.into_parts().io.into_inner();
                        // With a linger time of zero, closing the socket sends a reset.
                        let _ = stream.set_zero_linger();
                    }
                }
            });
            while connections.try_join_next().is_some() {}
        }
    });
    address
}

/// The API of a path, and the model if the path contains it.
fn api_of_path(path: &str) -> Option<(VendorApi, Option<String>)> {
    let fixed = match path {
        "/openai/v1/embeddings" => VendorApi::OpenAi,
        "/cohere/v2/embed" => VendorApi::Cohere,
        "/mistral/v1/embeddings" => VendorApi::Mistral,
        "/voyage/v1/embeddings" => VendorApi::Voyage,
        "/local/v1/embeddings" => VendorApi::LocalOpenAi,
        "/ollama/api/embed" => VendorApi::Ollama,
        "/ollama/api/embeddings" => VendorApi::OllamaLegacy,
        "/tei/embed" => VendorApi::Tei,
        "/tldw/embed" => VendorApi::Tldw,
        _ => {
            let within = |start: &str, end: &str| path.strip_prefix(start)?.strip_suffix(end);
            let google =
                within("/google/v1beta/models/", ":batchEmbedContents").map(|m| (VendorApi::Google, m));
            let azure = within("/azure/openai/deployments/", "/embeddings").map(|m| (VendorApi::Azure, m));
            return google.or(azure).map(|(api, model)| (api, Some(percent_decode(model))));
        }
    };
    Some((fixed, None))
}

/// Decodes the percent encoding of a path segment.
fn percent_decode(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment.as_bytes();
    while let Some((&first, others)) = rest.split_first() {
        let hex = others.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let (byte, left) = match hex {
            Some(byte) if first == b'%' => (byte, &others[2..]),
            _ => (first, others),
        };
        bytes.push(byte);
        rest = left;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn handle(
    State(shared): State<Arc<Shared>>,
    Extension(reset): Extension<Reset>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (uri, headers) = (parts.uri, header_map(&parts.headers));
    let Ok(bytes) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        return respond(413, String::new());
    };
    let Some((api, path_model)) = api_of_path(uri.path()) else {
        return respond(404, "{\"detail\":\"Not Found\"}".into());
    };
    let key = request_key(api, &headers);
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let parsed = request::parse(api, path_model.as_deref(), &body);
    let recorded = VendorRequest {
        api,
        path: uri.to_string(),
        headers,
        body: body.clone(),
        model: parsed.model.clone(),
        texts: parsed.texts.clone(),
    };
    let (behaviour, gate, refusal, dimensions, extra_headers) = {
        let mut state = shared.state();
        let refusal = check_key(api, key.as_deref(), state.keys.as_deref())
            .and_then(|()| request::check(api, &parsed, &body))
            .and_then(|()| limits::enforce(api, &parsed.model, &parsed.texts, bytes.len()))
            .and_then(|()| match state.base64_refusal.filter(|_| parsed.base64) {
                Some(status) => Err(Refusal::new(status, "encoding_format: 'base64' is not supported")),
                None => Ok(()),
            })
            .and_then(|()| match recorded.texts.iter().any(|text| state.poison.contains(text)) {
                true if api == VendorApi::Ollama => Err(Refusal::new(500, "EOF")),
                true => Err(Refusal::new(400, "one of the inputs cannot be processed")),
                false => Ok(()),
            })
            .and_then(|()| {
                let azure = api == VendorApi::Azure && !recorded.path.contains("api-version=");
                if azure { Err(Refusal::new(404, "Resource not found")) } else { Ok(()) }
            });
        let held = state.text_gate.as_ref().filter(|(text, _)| recorded.texts.contains(text));
        let gate = held.map(|(_, gate)| gate.clone()).or_else(|| state.gate.clone());
        state.requests.push(recorded);
        let native = state.dimensions.get(&parsed.model).copied();
        let native = native.unwrap_or_else(|| limits::native_dimensions(&parsed.model));
        let dimensions = parsed.dimensions.unwrap_or(native);
        let behaviour = state.script.pop_front().or_else(|| state.default.clone());
        let behaviour = behaviour.unwrap_or(Behaviour::Normal);
        (behaviour, gate, refusal.err(), dimensions, state.response_headers.clone())
    };
    if let Some(Gate { arrived, released }) = gate {
        arrived.send_modify(|count| *count += 1);
        let _ = released.subscribe().wait_for(|released| *released).await;
    }
    let mut response = match faults::error_response(api, &parsed, &behaviour, key.as_deref()) {
        Some(response) => response,
        None => match refusal {
            Some(refusal) => respond(refusal.status, refusal.body(api).to_string()),
            None if behaviour == Behaviour::Reset => {
                reset.0.notify_one();
                std::future::pending().await
            }
            None => faults::vectors_response(api, &parsed, dimensions, &behaviour).await,
        },
    };
    for (name, value) in extra_headers {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The API key of a request, from the header that the API uses.
fn request_key(api: VendorApi, headers: &HashMap<String, String>) -> Option<String> {
    match api {
        VendorApi::Azure => headers.get("api-key").cloned(),
        VendorApi::Google => headers.get("x-goog-api-key").cloned(),
        _ => headers.get("authorization")?.strip_prefix("Bearer ").map(str::to_owned),
    }
}

fn check_key(api: VendorApi, key: Option<&str>, accepted: Option<&[String]>) -> Result<(), Refusal> {
    let local = matches!(
        api,
        VendorApi::LocalOpenAi
            | VendorApi::Ollama
            | VendorApi::OllamaLegacy
            | VendorApi::Tei
            | VendorApi::Tldw
    );
    let valid = match (key, accepted) {
        (Some(key), Some(accepted)) => accepted.iter().any(|accepted| accepted == key),
        (Some(key), None) => !key.is_empty(),
        (None, _) => local,
    };
    if valid { Ok(()) } else { Err(Refusal::new(401, "no valid key provided")) }
}

fn header_map(headers: &HeaderMap) -> HashMap<String, String> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}
