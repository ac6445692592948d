//! Two servers of one provider: a failure or a rate limit of one does not affect the other.

use embeddery_core::ProviderKind;
use embeddery_test_support::vendors::{Behaviour, VendorApi, Vendors};
use reqwest::Method;
use serde_json::{Value, json};

use crate::gateway::{ApiResponse, Gateway};

const BREAKERS: &str = "/api/v1/embeddings/circuit-breakers";

/// A gateway with two `local_api` servers of its own.
struct TwoServers {
    gateway: Gateway,
    one: Vendors,
    two: Vendors,
}

impl TwoServers {
    /// `one` and `two` are the same model at two servers; `other` is another model at the first one. `rest` are settings
    /// of `one`.
    async fn start(rest: &str, file: &str) -> Self {
        let (one, two) = (Vendors::start().await, Vendors::start().await);
        let models = Self::models(&one, &two, rest);
        let gateway = Gateway::with(&format!("cache: {{max_size: 0}}\n{file}{models}"), &[]).await;
        Self { gateway, one, two }
    }

    fn models(one: &Vendors, two: &Vendors, rest: &str) -> String {
        let url = |server: &Vendors| server.base_url(VendorApi::LocalOpenAi);
        let other = one.base_url(VendorApi::Tei);
        format!(
            "models:
  one: {{provider: local_api, model_name_or_path: shared, api_url: '{}'{rest}}}
  two: {{provider: local_api, model_name_or_path: shared, api_url: '{}'}}
  other: {{provider: local_api, model_name_or_path: another, api_url: '{other}'}}
",
            url(one),
            url(two)
        )
    }

    async fn ask(&self, model: &str) -> ApiResponse {
        self.gateway.embed(&json!({"input": "text", "model": model})).await
    }

    async fn assert_serves(&self, model: &str) {
        self.ask(model).await.assert_vectors_of_dim(&["text"], 16);
    }

    /// Sends requests until the breaker of the first server is open.
    async fn open_breaker(&self) {
        while self.ask("one").await.code() != "breaker_open" {}
    }

    async fn state(&self, name: &str) -> Value {
        self.gateway.get(BREAKERS).await[name]["state"].clone()
    }

    async fn reset(&self, path: &str) -> ApiResponse {
        ApiResponse::of(self.gateway.request(Method::POST, &format!("{BREAKERS}/{path}"))).await
    }
}

#[tokio::test]
async fn a_local_server_that_is_down_does_not_affect_another_one() {
    let servers = TwoServers::start("", "").await;
    servers.one.set_default(Some(Behaviour::Status(500)));
    servers.open_breaker().await;
    assert_eq!(servers.one.requests().len(), 5, "the fifth failure opens the breaker");
    servers.assert_serves("two").await;
    assert_eq!(
        servers.ask("other").await.code(),
        "breaker_open",
        "the models at one address share the breaker"
    );
    assert_eq!(servers.one.requests().len(), 5);

    let list = servers.gateway.get(BREAKERS).await;
    for (name, state, address) in [
        ("embeddings_one", "OPEN", Some(servers.one.url())),
        ("embeddings_other", "OPEN", Some(servers.one.url())),
        ("embeddings_two", "CLOSED", Some(servers.two.url())),
        ("embeddings_openai", "CLOSED", Some(servers.gateway.vendors.url())),
        ("embeddings_local_api", "CLOSED", None),
        ("embeddings_huggingface", "CLOSED", None),
    ] {
        let breaker = &list[name];
        assert_eq!(
            (breaker["state"].as_str(), breaker["address"].as_str()),
            (Some(state), address.as_deref()),
            "{name}"
        );
    }
    for (service, state) in [("one", 1.0), ("other", 1.0), ("two", 0.0), ("local_api", 0.0), ("openai", 0.0)]
    {
        let series = format!("circuit_breaker_state{{service=\"embeddings_{service}\",operation=\"embed\"}}");
        assert_eq!(servers.gateway.metric(&series).await, Some(state), "{series}");
    }
    // The health needs no key, so it shows no address.
    let health = servers.gateway.get("/api/v1/embeddings/health").await;
    assert_eq!(health["circuit_breakers"]["embeddings_local_api"]["state"], "OPEN");
    assert_eq!(health["circuit_breakers"]["embeddings_openai"]["state"], "CLOSED");
    let names = health["circuit_breakers"].as_object().unwrap().keys();
    assert!(
        names.clone().all(|name| ProviderKind::ALL.iter().any(|kind| *name == format!("embeddings_{kind}"))),
        "no key, no ids: {health}"
    );
    assert!(!health["circuit_breakers"].to_string().contains("127.0.0.1"), "{health}");
}

#[tokio::test]
async fn the_breakers_of_a_provider_or_of_one_address_are_reset() {
    let servers = TwoServers::start("", "").await;
    let (one, two) = (servers.one.url(), servers.two.url());
    let cases = [
        ("local_api/reset".to_owned(), true),
        ("one/reset".to_owned(), true),
        ("embeddings_other/reset".to_owned(), true),
        (format!("local_api/reset?address={one}"), true),
        (format!("local_api/reset?address={two}"), false),
        ("two/reset".to_owned(), false),
        ("openai/reset".to_owned(), false),
    ];
    servers.one.set_default(Some(Behaviour::Status(500)));
    for (path, closes) in cases {
        servers.open_breaker().await;
        let response = servers.reset(&path).await;
        assert_eq!(response.status, 200, "{path}: {}", response.json);
        let expected = if closes { "CLOSED" } else { "OPEN" };
        assert_eq!(servers.state("embeddings_one").await, expected, "{path}");
    }
    for (path, named) in
        [("local_api/reset?address=http://127.0.0.1:1", &one), ("two/reset?address=http://127.0.0.1:1", &two)]
    {
        let unknown = servers.reset(path).await;
        assert_eq!((unknown.status.as_u16(), unknown.code()), (404, "not_found"), "{}", unknown.json);
        assert!(unknown.message().contains(named.as_str()), "{}", unknown.json);
    }
    assert_eq!(servers.reset("three/reset").await.status, 404);
    assert_eq!(servers.reset("openai/reset?adress=x").await.status, 400);
}

#[tokio::test]
async fn a_429_of_one_server_does_not_delay_another_one() {
    let servers = TwoServers::start("", "").await;
    servers.one.next(Behaviour::RateLimited(100));
    for requests in [1, 1] {
        let response = servers.ask("one").await;
        assert_eq!((response.status.as_u16(), response.code()), (429, "upstream_rate_limited"));
        assert_eq!(servers.one.requests().len(), requests, "the limiter blocks the second request");
    }
    // The limit of the second server would delay its call by the same 100 s.
    servers.assert_serves("two").await;
    assert_eq!((servers.one.requests().len(), servers.two.requests().len()), (1, 1));
}

#[tokio::test]
async fn a_fallback_answers_before_the_deadline_when_a_server_hangs() {
    let servers = TwoServers::start(", fallback: [two]", "server: {request_timeout_seconds: 4}\n").await;
    servers.one.set_default(Some(Behaviour::Hang));
    let response = servers.ask("one").await;
    response.assert_vectors_of_dim(&["text"], 16);
    let fallbacks = r#"embedding_fallbacks_total{from_provider="local_api",to_provider="local_api"}"#;
    assert_eq!(servers.gateway.metric(fallbacks).await, Some(1.0));
    assert_eq!((servers.one.requests().len(), servers.two.requests().len()), (1, 1));
}

#[tokio::test]
async fn a_dead_server_is_not_asked_first_every_time() {
    let servers = TwoServers::start(", fallback: [two]", "").await;
    servers.one.set_default(Some(Behaviour::Reset));
    for asked in [4, 5, 5, 5] {
        servers.assert_serves("one").await;
        assert_eq!(servers.one.requests().len(), asked, "an open breaker skips the server");
    }
    assert_eq!(servers.two.requests().len(), 4);
    // Both are down: the caller gets the error of the requested model, and neither is asked when both breakers are open.
    servers.two.set_default(Some(Behaviour::Reset));
    servers.assert_fails_with_open_breakers().await;
}

impl TwoServers {
    async fn assert_fails_with_open_breakers(&self) {
        for _ in 0..2 {
            assert_eq!(self.ask("one").await.code(), "breaker_open");
        }
        let asked = (self.one.requests().len(), self.two.requests().len());
        assert_eq!(self.ask("one").await.code(), "breaker_open");
        assert_eq!((self.one.requests().len(), self.two.requests().len()), asked);
    }
}

#[tokio::test]
async fn a_reload_keeps_the_breaker_of_a_server_that_stays() {
    let servers = TwoServers::start("", "").await;
    servers.one.set_default(Some(Behaviour::Status(500)));
    servers.open_breaker().await;
    let TwoServers { gateway, one, .. } = &servers;
    let url = one.base_url(VendorApi::LocalOpenAi);
    let file = format!(
        "cache: {{max_size: 0}}\nmodels:\n  renamed: {{provider: local_api, model_name_or_path: shared, api_url: '{url}'}}\n"
    );
    gateway.reload(&file).await;
    let list = gateway.get(BREAKERS).await;
    assert_eq!(list["embeddings_renamed"]["state"], "OPEN", "{list}");
    assert!(["embeddings_one", "embeddings_two"].iter().all(|name| list[name].is_null()), "{list}");
    assert_eq!(servers.ask("renamed").await.code(), "breaker_open");
}

#[tokio::test]
async fn the_servers_of_one_vendor_are_one_series() {
    let elsewhere = Vendors::start().await;
    let url = elsewhere.base_url(VendorApi::OpenAi);
    let file = format!(
        "cache: {{max_size: 0}}\nmodels:\n  mine: {{provider: openai, model_name_or_path: text-embedding-3-large, base_url: '{url}', api_key: other}}\n"
    );
    let gateway = Gateway::with(&file, &[]).await;
    elsewhere.set_default(Some(Behaviour::Status(500)));
    let ask = async |model: &str| gateway.embed(&json!({"input": "x", "model": model})).await;
    while ask("mine").await.code() != "breaker_open" {}
    assert_eq!(ask("text-embedding-3-small").await.status, 200, "the vendor's own server is not affected");
    let list = gateway.get(BREAKERS).await;
    assert_eq!(list["embeddings_openai"]["state"], "CLOSED");
    assert_eq!(list[format!("embeddings_openai@{}", elsewhere.url())]["state"], "OPEN", "{list}");
    let value = async |name: &str| {
        gateway
            .metric(&format!("circuit_breaker_{name}{{service=\"embeddings_openai\",operation=\"embed\"}}"))
            .await
    };
    assert_eq!(
        [value("state").await, value("failures_total").await, value("successes_total").await],
        [1.0, 5.0, 1.0].map(Some)
    );
}
