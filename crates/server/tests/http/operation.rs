//! Health, readiness, metrics and request ids.

use std::{collections::HashSet, io::Read as _};

use embeddery_core::ModelState;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Answer, PLAIN, Server};

const SERVICE: &str = "/api/v1/embeddings/health";

#[tokio::test]
async fn health_is_ok_in_every_state_of_the_models() {
    let server = Server::start().await;
    for state in [None, Some(ModelState::Loaded), Some(ModelState::Failed { reason: "torn".into() })] {
        server.fake.set_state(state);
        let answer = server.get("/health").await;
        assert_eq!((answer.status.as_u16(), answer.json), (200, json!({"status": "ok"})));
    }
}

#[tokio::test]
async fn the_health_of_the_service_is_a_200_and_names_what_is_degraded() {
    let server = Server::start().await;
    let torn = || ModelState::Failed { reason: "torn".into() };
    for (state, status, model) in [
        (None, "healthy", json!({"id": "small"})),
        (Some(ModelState::Loaded), "healthy", json!({"id": "small", "state": "loaded"})),
        (Some(ModelState::OnDisk), "healthy", json!({"id": "small", "state": "on_disk"})),
        (Some(torn()), "degraded", json!({"id": "small", "state": "failed", "reason": "torn"})),
        (Some(ModelState::Absent), "degraded", json!({"id": "small", "state": "absent"})),
    ] {
        server.fake.set_state(state);
        let answer = server.get(SERVICE).await;
        assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &json!(status)), "{model}");
        assert_eq!(answer.json["default_model"], model);
        assert_eq!(answer.json["service"], "embeddery");
        assert_eq!(answer.json["version"], env!("CARGO_PKG_VERSION"));
        let time = answer.json["timestamp"].as_str().unwrap();
        assert!(time.ends_with('Z') && time.parse::<jiff::Timestamp>().is_ok(), "{time}");
    }
}

#[tokio::test]
async fn readiness_names_the_part_that_is_not_ready() {
    let server = Server::start().await;
    for state in [None, Some(ModelState::Loaded)] {
        server.fake.set_state(state);
        let answer = server.get("/ready").await;
        assert_eq!((answer.status.as_u16(), &answer.json["status"]), (200, &json!("ready")));
        assert_eq!(answer.json["parts"]["default_model"], json!(null));
        assert!(answer.json["parts"]["jobs"].as_str().unwrap().contains("no worker"), "{}", answer.json);
    }
    for (state, reason) in [
        (ModelState::Absent, "not on this machine"),
        (ModelState::Downloading { percent: 42 }, "downloading, 42 % is here"),
        (ModelState::OnDisk, "loading"),
        (ModelState::Failed { reason: "the weights are torn".into() }, "the weights are torn"),
    ] {
        server.fake.set_state(state);
        let answer = server.get("/ready").await;
        assert_eq!((answer.status.as_u16(), &answer.json["status"]), (503, &json!("not_ready")));
        assert_eq!(answer.json["parts"]["default_model"], reason);
        assert_eq!(server.get(SERVICE).await.status, 200, "only /ready gives a 503");
    }
}

#[tokio::test]
async fn metrics_have_the_requested_format() {
    let server = Server::start().await;
    let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let plain = "text/plain; version=0.0.4; charset=utf-8";
    let scraper = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    for path in ["/metrics", "/api/v1/metrics/text"] {
        for (accept, expected) in [("", plain), ("*/*", plain), ("text/plain", plain), (scraper, openmetrics)]
        {
            let answer = Answer::of(server.bare(Method::GET, path).header("accept", accept)).await;
            assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, expected), "{accept}");
            assert_eq!(
                answer.text.ends_with("# EOF\n"),
                expected == openmetrics,
                "{accept}: {}",
                answer.text
            );
        }
    }
}

#[tokio::test]
async fn metrics_have_the_four_families_of_the_guide() {
    let server = Server::start().await;
    for model in ["small", "small", "test/failing", "smal", "unlisted/one", "unlisted/two"] {
        server.post("/v1/embeddings", &json!({"input": "a", "model": model})).await;
    }
    let text = server.get("/metrics").await.text;
    let requests = |model: &str, status: &str| {
        format!(
            "\nembedding_requests_total{{provider=\"huggingface\",model=\"{model}\",status=\"{status}\"}} "
        )
    };
    for line in [
        "\n# TYPE embedding_requests_total counter\n".to_owned(),
        requests(PLAIN, "success") + "2\n",
        requests("test/failing", "error") + "1\n",
        // Unknown names must not become labels.
        requests("other", "invalid") + "2\n",
        "\nembedding_requests_total{provider=\"other\",model=\"other\",status=\"invalid\"} 1\n".to_owned(),
        "# TYPE embedding_request_duration_seconds histogram\n".to_owned(),
        format!(
            "\nembedding_request_duration_seconds_count{{provider=\"huggingface\",model=\"{PLAIN}\"}} 2\n"
        ),
        format!("\nembedding_cache_hits_total{{provider=\"huggingface\",model=\"{PLAIN}\"}} 0\n"),
        "\nactive_embedding_requests 0\n".to_owned(),
    ] {
        assert!(format!("\n{text}").contains(&line), "{line:?} is not in:\n{text}");
    }
    assert!(!text.contains("unlisted") && !text.contains("smal\""), "{text}");
}

#[tokio::test]
async fn a_compressed_response_has_the_same_content() {
    let server = Server::start().await;
    for path in ["/v1/embeddings", "/api/v1/embeddings"] {
        let body = json!({"input": vec!["a text"; 500]});
        let request = server.request(Method::POST, path).header("accept-encoding", "gzip").json(&body);
        let response = request.send().await.unwrap();
        assert_eq!(response.headers()["content-encoding"], "gzip");
        assert_eq!(response.headers()["vary"], "accept-encoding");
        let packed = response.bytes().await.unwrap();
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        let plain = server.post(path, &body).await;
        assert_eq!(plain.header("content-encoding"), "");
        assert!(text == plain.text && packed.len() < text.len() / 2, "{}", packed.len());
    }
    let short = server.request(Method::GET, "/health").header("accept-encoding", "gzip");
    assert_eq!(Answer::of(short).await.header("content-encoding"), "", "a short response is not compressed");
    let unknown = server.request(Method::GET, "/openapi.json").header("accept-encoding", "zstd;q=1, x");
    assert_eq!(Answer::of(unknown).await.header("content-encoding"), "", "the encoding is not supported");
}

#[tokio::test]
async fn every_response_has_a_request_id() {
    let server = Server::start().await;
    let mut seen = HashSet::new();
    for (method, path) in [
        (Method::GET, "/health"),
        (Method::GET, "/nothing"),
        (Method::DELETE, "/v1/models"),
        (Method::GET, "/docs/"),
        (Method::GET, "/openapi.json"),
        (Method::POST, "/v1/embeddings"),
    ] {
        let answer = Answer::of(server.bare(method, path)).await;
        let id = answer.header("x-request-id");
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7, "{path}: {id}");
        assert!(seen.insert(id.to_owned()), "{path}: {id} was used before");
    }
}

#[tokio::test]
async fn a_valid_request_id_of_the_caller_is_kept_and_an_invalid_one_is_replaced() {
    let server = Server::start().await;
    let ask = async |id: &[u8]| {
        let request = server.request(Method::POST, "/v1/embeddings").header("x-request-id", id);
        let answer = Answer::of(request.json(&json!({"input": "a"}))).await;
        assert_eq!(answer.status, 200);
        let shown = answer.header("x-request-id").to_owned();
        assert_eq!(&*server.fake.last().context.request_id, shown, "the provider sees the same id");
        shown
    };
    let longest = "x".repeat(128);
    for id in ["a", "trace-01:span/2", "5fd924625f6ab16a19cc9807c7c506ae", &longest] {
        assert_eq!(ask(id.as_bytes()).await, id);
    }
    let too_long = "x".repeat(129);
    for id in [&b""[..], b"two words", b"tab\there", b"\xff\xfe", "é".as_bytes(), too_long.as_bytes()] {
        let shown = ask(id).await;
        assert!(uuid::Uuid::parse_str(&shown).is_ok(), "{id:?} became {shown}");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let server = Server::start().await;
    for path in ["/health", "/ready", "/metrics"] {
        let answer = Answer::of(server.bare(Method::HEAD, path)).await;
        assert_eq!((answer.status.as_u16(), answer.text.as_str()), (200, ""), "{path}");
        assert_eq!(answer.json, Value::Null);
    }
}

#[tokio::test]
async fn requests_are_counted_by_route_with_bounded_labels() {
    let server = Server::start().await;
    server.post("/v1/embeddings", &json!({"input": "a"})).await;
    server.post("/v1/embeddings", &json!({"input": ""})).await;
    server.get("/nowhere/7").await;
    Answer::of(server.request(Method::from_bytes(b"BREW").unwrap(), "/nowhere/8")).await;
    let text = server.get("/metrics").await.text;
    for line in [
        r#"http_requests_total{method="POST",endpoint="/v1/embeddings",status="200"} 1"#,
        r#"http_requests_total{method="POST",endpoint="/v1/embeddings",status="400"} 1"#,
        r#"http_requests_total{method="GET",endpoint="none",status="404"} 1"#,
        r#"http_requests_total{method="other",endpoint="none",status="404"} 1"#,
        r#"http_request_duration_seconds_count{method="POST",endpoint="/v1/embeddings"} 2"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}
