//! The OpenAPI document, its copy in the repository, and the page `/docs`.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::Value;

use crate::support::{Answer, Server};

/// The verbs that operation ids may begin with. An operation id becomes a method of a generated client.
const VERBS: [&str; 26] = [
    "add", "bump", "cancel", "clear", "control", "create", "delete", "download", "export", "find", "get",
    "import", "list", "purge", "reembed", "reload", "requeue", "reset", "retry", "search", "set", "skip",
    "stream", "submit", "unload", "warm",
];

fn document() -> Value {
    serde_json::to_value(embeddery_server::openapi()).unwrap()
}

#[test]
fn the_copy_in_the_repository_is_up_to_date() {
    let copy: Value = serde_json::from_str(include_str!("../../openapi.json")).unwrap();
    assert!(copy == document(), "crates/server/openapi.json is outdated; run `make openapi`");
}

#[tokio::test]
async fn the_served_document_is_the_generated_one() {
    let server = Server::start().await;
    let answer = Answer::of(server.bare(Method::GET, "/openapi.json")).await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/json"));
    assert_eq!(answer.json, document());
}

#[test]
fn the_document_is_complete_and_consistent() {
    let document = document();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1."));
    assert_eq!(document["info"]["title"], "Embeddery");
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    assert_references_resolve(&document, &document);

    let tags: BTreeSet<_> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let schemes = document["components"]["securitySchemes"].as_object().unwrap();
    let mut ids = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let what = format!("{method} {path}");
            let id = operation["operationId"].as_str().unwrap();
            assert!(ids.insert(id.to_owned()), "{what}: another operation has the id {id}");
            let verb: String = id.chars().take_while(char::is_ascii_lowercase).collect();
            assert!(id.chars().all(|c| c.is_ascii_alphanumeric()), "{what}: {id} is not in camel case");
            assert!(VERBS.contains(&&*verb), "{what}: {id} does not begin with a verb");
            assert!(verb.len() < id.len(), "{what}: {id} has only a verb");
            assert!(!operation["summary"].as_str().unwrap_or_default().is_empty(), "{what} has no summary");
            assert!(
                tags.contains(operation["tags"][0].as_str().unwrap()),
                "{what}: its tag has no description"
            );
            let keys = operation["security"].as_array().into_iter().flatten();
            for name in keys.flat_map(|key| key.as_object().unwrap().keys()) {
                assert!(schemes.contains_key(name), "{what}: the security scheme '{name}' is not defined");
            }
            assert_eq!(parameters_of(path), described_parameters(operation), "{what}");
            assert_error_schemas(&what, operation);
        }
    }
}

#[test]
fn the_schemas_of_requests_match_the_parser() {
    let schemas = &document()["components"]["schemas"];
    let request = &schemas["EmbeddingsRequest"];
    assert_eq!(request["required"], serde_json::json!(["input"]), "no other field is required");
    assert_eq!(request["additionalProperties"], false, "unknown fields are rejected");
    assert_eq!(schemas["ModelRequest"]["additionalProperties"], false);
}

#[test]
fn the_schemas_of_models_match_the_responses() {
    let schemas = &document()["components"]["schemas"];
    assert_eq!(schemas["ModelStateView"].get("required"), None, "a vendor's model has no state");
    for holder in ["ModelView", "DefaultModel"] {
        assert_eq!(schemas[holder]["allOf"][0]["$ref"], "#/components/schemas/ModelStateView", "{holder}");
    }
}

fn assert_references_resolve(document: &Value, part: &Value) {
    match part {
        Value::Object(fields) => {
            if let Some(Value::String(pointer)) = fields.get("$ref") {
                let pointer = pointer.strip_prefix('#').unwrap();
                assert!(document.pointer(pointer).is_some(), "{pointer} does not exist");
            }
            fields.values().for_each(|value| assert_references_resolve(document, value));
        }
        Value::Array(items) => items.iter().for_each(|item| assert_references_resolve(document, item)),
        _ => {}
    }
}

fn assert_error_schemas(what: &str, operation: &Value) {
    for (status, response) in operation["responses"].as_object().unwrap() {
        let schema = &response["content"]["application/json"]["schema"]["$ref"];
        match (what, status.as_str()) {
            (_, "204") => assert!(response.get("content").is_none(), "{what}: a 204 has no body"),
            (_, "200" | "201" | "202") => {
                assert!(response["content"].is_object(), "{what}: the response has no schema");
            }
            ("get /ready", "503") => assert_eq!(schema, "#/components/schemas/Readiness"),
            _ => assert_eq!(schema, "#/components/schemas/ErrorBody", "{what}: {status}"),
        }
    }
}

/// The names between braces in a path.
fn parameters_of(path: &str) -> BTreeSet<&str> {
    path.split('{').skip(1).map(|rest| rest.split_once('}').unwrap().0).collect()
}

fn described_parameters(operation: &Value) -> BTreeSet<&str> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    parameters
        .filter(|parameter| parameter["in"] == "path")
        .map(|parameter| parameter["name"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn the_docs_page_is_served_with_all_its_assets() {
    let server = Server::start().await;
    let get = |path: String| Answer::of(server.bare(Method::GET, &path));
    // Without the slash, the browser is redirected to the page.
    for path in ["/docs", "/docs/", "/docs/index.html"] {
        let page = get(path.to_owned()).await;
        assert_eq!(page.status, 200, "{path}");
        assert!(page.header("content-type").starts_with("text/html"), "{path}");
        assert!(page.text.contains("swagger-ui"), "{path}: {}", page.text);
    }
    let page = get("/docs/".to_owned()).await.text;
    let assets: Vec<&str> = ["src=\"", "href=\""]
        .iter()
        .flat_map(|attribute| page.split(attribute).skip(1).map(|rest| rest.split_once('"').unwrap().0))
        .collect();
    assert!(assets.len() >= 5, "{assets:?}");
    for asset in assets {
        assert!(!asset.contains("//"), "{asset} would be loaded from another host");
        let answer = get(format!("/docs/{}", asset.trim_start_matches("./"))).await;
        assert_eq!((answer.status.as_u16(), answer.text.is_empty()), (200, false), "{asset}");
        let expected = match asset.rsplit_once('.').unwrap().1 {
            "js" => "javascript",
            "css" => "text/css",
            "png" => "image/png",
            other => panic!("{other}"),
        };
        assert!(
            answer.header("content-type").contains(expected),
            "{asset}: {}",
            answer.header("content-type")
        );
    }
    let start = get("/docs/swagger-initializer.js".to_owned()).await.text;
    assert!(start.contains("/openapi.json"), "the page shows the document of this server: {start}");

    let nothing = get("/docs/no-such-file".to_owned()).await;
    assert_eq!((nothing.status.as_u16(), nothing.code()), (404, "not_found"));
}
