//! The stand-ins' HTTP side: which address means which form, and the record of what was
//! asked.

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
    Behaviour, Gate, Seen, Shared, VendorApi,
    faults::{self, respond},
    limits, request,
    response::Refusal,
};

/// More than any test sends.
const MAX_BODY_BYTES: usize = 256 << 20;

/// Asks for the end of the connection on which a request came.
#[derive(Clone, Default)]
struct Cut(Arc<Notify>);

#[expect(clippy::expect_used, reason = "a test without loopback cannot run")]
pub(super) async fn start(shared: Arc<Shared>, server: &mut JoinSet<()>) -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    let routes = Router::new().fallback(post(handle)).with_state(shared);
    server.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let cut = Cut::default();
            let routes = routes.clone().layer(Extension(cut.clone()));
            let _ = stream.set_nodelay(true);
            connections.spawn(async move {
                let service = TowerToHyperService::new(routes);
                let mut connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                tokio::select! {
                    _ = &mut connection => {}
                    () = cut.0.notified() => {
                        let stream = connection.into_parts().io.into_inner();
                        // Without lingering the peer gets a reset instead of an orderly end.
                        let _ = stream.set_zero_linger();
                    }
                }
            });
            while connections.try_join_next().is_some() {}
        }
    });
    address
}

/// The form that an address means, with the model where the address names it.
fn form(path: &str) -> Option<(VendorApi, Option<String>)> {
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
            return google.or(azure).map(|(form, model)| (form, Some(decode(model))));
        }
    };
    Some((fixed, None))
}

/// A segment of a path as it was before it was encoded.
fn decode(segment: &str) -> String {
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
    Extension(cut): Extension<Cut>,
    request: Request,
) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let (uri, headers) = (parts.uri, plain(&parts.headers));
    let Ok(bytes) = axum::body::to_bytes(body, MAX_BODY_BYTES).await else {
        return respond(413, String::new());
    };
    let Some((form, path_model)) = form(uri.path()) else {
        return respond(404, "{\"detail\":\"Not Found\"}".into());
    };
    let given = given_key(form, &headers);
    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
    let ask = request::read(form, path_model.as_deref(), &body);
    let seen = Seen {
        form,
        path: uri.to_string(),
        headers,
        body: body.clone(),
        model: ask.model.clone(),
        texts: ask.texts.clone(),
    };
    let (behaviour, gate, refusal, length, extra) = {
        let mut state = shared.state();
        let refusal = key(form, given.as_deref(), state.keys.as_deref())
            .and_then(|()| request::check(form, &ask, &body))
            .and_then(|()| limits::enforce(form, &ask.model, &ask.texts, bytes.len()))
            .and_then(|()| match seen.texts.iter().any(|text| state.poison.contains(text)) {
                true if form == VendorApi::Ollama => Err(Refusal::new(500, "EOF")),
                true => Err(Refusal::new(400, "one of the inputs cannot be processed")),
                false => Ok(()),
            })
            .and_then(|()| {
                let azure = form == VendorApi::Azure && !seen.path.contains("api-version=");
                if azure { Err(Refusal::new(404, "Resource not found")) } else { Ok(()) }
            });
        let held = state.text_gate.as_ref().filter(|(text, _)| seen.texts.contains(text));
        let gate = held.map(|(_, gate)| gate.clone()).or_else(|| state.gate.clone());
        state.seen.push(seen);
        let native =
            state.lengths.get(&ask.model).copied().unwrap_or_else(|| limits::native_length(&ask.model));
        let behaviour = state.script.pop_front().or_else(|| state.always.clone()).unwrap_or(Behaviour::Well);
        (behaviour, gate, refusal.err(), ask.length.unwrap_or(native), state.answer_headers.clone())
    };
    if let Some(Gate { arrived, released }) = gate {
        arrived.send_modify(|count| *count += 1);
        let _ = released.subscribe().wait_for(|released| *released).await;
    }
    let mut response = match faults::refused(form, &ask, &behaviour, given.as_deref()) {
        Some(response) => response,
        None => match refusal {
            Some(refusal) => respond(refusal.status, refusal.body(form).to_string()),
            None if behaviour == Behaviour::Reset => {
                cut.0.notify_one();
                std::future::pending().await
            }
            None => faults::answered(form, &ask, length, &behaviour).await,
        },
    };
    for (name, value) in extra {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            response.headers_mut().insert(name, value);
        }
    }
    response
}

/// The key of a request, where its form has it.
fn given_key(form: VendorApi, headers: &HashMap<String, String>) -> Option<String> {
    match form {
        VendorApi::Azure => headers.get("api-key").cloned(),
        VendorApi::Google => headers.get("x-goog-api-key").cloned(),
        _ => headers.get("authorization")?.strip_prefix("Bearer ").map(str::to_owned),
    }
}

fn key(form: VendorApi, given: Option<&str>, accepted: Option<&[String]>) -> Result<(), Refusal> {
    let local = matches!(
        form,
        VendorApi::LocalOpenAi
            | VendorApi::Ollama
            | VendorApi::OllamaLegacy
            | VendorApi::Tei
            | VendorApi::Tldw
    );
    let right = match (given, accepted) {
        (Some(given), Some(accepted)) => accepted.iter().any(|key| key == given),
        (Some(given), None) => !given.is_empty(),
        (None, _) => local,
    };
    if right { Ok(()) } else { Err(Refusal::new(401, "no valid key provided")) }
}

fn plain(headers: &HeaderMap) -> HashMap<String, String> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect()
}
