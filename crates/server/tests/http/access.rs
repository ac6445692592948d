//! Authentication of every route of the OpenAPI document, so that no new route is open by mistake.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, KEY, Server};

/// Routes without authentication (SPEC §3). `/docs` and `/openapi.json` are not in the document; they are tested as well.
const OPEN: [&str; 5] = ["/health", "/ready", "/api/v1/embeddings/health", "/docs/", "/openapi.json"];
/// Routes without authentication unless `metrics_auth` is on.
const METRICS: [&str; 2] = ["/metrics", "/api/v1/metrics/text"];

/// A route of the document, and a body that it accepts.
struct Route {
    method: Method,
    path: String,
    body: Option<Value>,
    /// Whether the document says that the route requires authentication.
    documented_as_protected: bool,
    documented: Vec<u16>,
}

impl Route {
    async fn send(&self, server: &Server, header: Option<(&str, &str)>) -> Answer {
        let mut request = server.bare(self.method.clone(), &self.path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        Answer::of(match &self.body {
            Some(body) => request.json(body),
            None => request,
        })
        .await
    }

    fn is_metrics(&self) -> bool {
        METRICS.contains(&self.path.as_str())
    }

    fn is_open(&self) -> bool {
        OPEN.contains(&self.path.as_str())
    }
}

fn routes() -> Vec<Route> {
    let document = serde_json::to_value(embeddery_server::openapi()).unwrap();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let method: Method = method.to_uppercase().parse().unwrap();
            let body = operation.get("requestBody").map(|_| match path.as_str() {
                "/api/v1/embeddings/batch" => json!({"texts": ["a"]}),
                _ if path.contains("/models/") => json!({"model": "small"}),
                _ => json!({"input": "a"}),
            });
            let statuses = operation["responses"].as_object().unwrap().keys();
            routes.push(Route {
                method,
                path: path.replace("{id}", "small").replace("{provider}", "openai"),
                body,
                documented_as_protected: operation.get("security").is_some(),
                documented: statuses.map(|status| status.parse().unwrap()).collect(),
            });
        }
    }
    for path in ["/docs/", "/openapi.json"] {
        let (method, path) = (Method::GET, path.to_owned());
        routes.push(Route {
            method,
            path,
            body: None,
            documented_as_protected: false,
            documented: vec![200],
        });
    }
    assert!(routes.len() >= 14, "the document has only {} routes", routes.len());
    routes
}

impl Route {
    /// Whether the status shows that the caller was authenticated. Only an authenticated caller gets another 4xx than 401:
    /// for a collection or job that does not exist, or for a missing parameter.
    fn is_authenticated(&self, status: reqwest::StatusCode) -> bool {
        let parts = ["/collections", "/users/", "/jobs", "/job/", "/ledger/", "/dlq", "/stage/"];
        let stored = parts.iter().any(|part| self.path.contains(part));
        status == 200 || (stored && status != 401 && !status.is_server_error())
    }
}

/// Missing and wrong keys, and the error code of each.
fn wrong_keys() -> Vec<(Option<(&'static str, String)>, &'static str)> {
    let (short, long) = (KEY[..KEY.len() - 1].to_owned(), format!("{KEY}x"));
    vec![
        (None, "missing_api_key"),
        (Some(("authorization", String::new())), "missing_api_key"),
        (Some(("authorization", "Bearer".into())), "missing_api_key"),
        (Some(("authorization", format!("Basic {KEY}"))), "missing_api_key"),
        (Some(("authorization", KEY.into())), "missing_api_key"),
        (Some(("authorization", "Bearer wrong".into())), "invalid_api_key"),
        (Some(("authorization", format!("Bearer {long}"))), "invalid_api_key"),
        (Some(("x-api-key", String::new())), "invalid_api_key"),
        (Some(("x-api-key", short)), "invalid_api_key"),
        (Some(("x-api-key", long)), "invalid_api_key"),
        (Some(("x-api-key", KEY.to_uppercase())), "invalid_api_key"),
    ]
}

async fn assert_protected(server: &Server, route: &Route) {
    for (header, code) in wrong_keys() {
        let header = header.as_ref().map(|(name, value)| (*name, value.as_str()));
        let answer = route.send(server, header).await;
        let what = format!("{} {} with {header:?}", route.method, route.path);
        assert_eq!(answer.status, 401, "{what}: {}", answer.text);
        assert_eq!(answer.code(), code, "{what}");
        assert_eq!(answer.json["error"]["type"], "authentication_error", "{what}");
        assert_eq!(answer.header("www-authenticate"), "Bearer", "{what}");
        assert!(!answer.text.contains(KEY), "{what}: {}", answer.text);
    }
    assert!(route.documented.contains(&401), "{} can be a 401, which is not documented", route.path);
}

async fn assert_accepts_key(server: &Server, route: &Route) {
    let (bearer, lower) = (format!("Bearer {KEY}"), format!("bearer {KEY}"));
    for header in [("x-api-key", KEY), ("authorization", &bearer), ("authorization", &lower)] {
        let answer = route.send(server, Some(header)).await;
        assert!(route.is_authenticated(answer.status), "{} with {}: {}", route.path, header.0, answer.text);
    }
}

#[tokio::test]
async fn every_route_but_the_open_ones_requires_the_key() {
    let server = Server::start().await;
    for route in routes() {
        assert_accepts_key(&server, &route).await;
        if route.is_open() || route.is_metrics() {
            for (header, _) in wrong_keys() {
                let header = header.as_ref().map(|(name, value)| (*name, value.as_str()));
                assert_eq!(route.send(&server, header).await.status, 200, "{}", route.path);
            }
            assert!(!route.documented_as_protected, "{}", route.path);
        } else {
            assert_protected(&server, &route).await;
            assert!(route.documented_as_protected, "{}", route.path);
        }
    }
    let mut events = server.fake.events.lock().unwrap().clone();
    events.sort();
    assert_eq!(
        events,
        [["downloaded test/plain"; 3], ["warmed test/plain"; 3]].concat(),
        "only requests with the key did anything"
    );
}

#[tokio::test]
async fn metrics_require_the_key_if_metrics_auth_is_on() {
    let server = Server::with(|settings| settings.metrics_auth = true).await;
    let routes = routes();
    for route in routes.iter().filter(|route| route.is_metrics()) {
        assert_protected(&server, route).await;
        assert_accepts_key(&server, route).await;
    }
    for route in routes.iter().filter(|route| route.is_open()) {
        assert_eq!(route.send(&server, None).await.status, 200, "{} stays open", route.path);
    }
}

#[tokio::test]
async fn the_key_is_checked_before_the_body() {
    let server = Server::start().await;
    let request = server.bare(Method::POST, "/v1/embeddings").header("content-type", "text/plain");
    assert_eq!(Answer::of(request.body("not JSON")).await.status, 401);
    let request = server.bare(Method::GET, "/v1/models/no-such-model");
    assert_eq!(
        Answer::of(request).await.status,
        401,
        "an unauthenticated caller does not learn which models exist"
    );
}
