//! A running gateway with stand-in vendors behind it, and short ways to ask it.

use embeddery_test_support::vendors::{VendorApi, Vendors, vector};
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{KEY, Server};

/// Retries wait next to nothing, so that tests do not.
const QUICK: &str =
    "retry: {base_delay_seconds: 0.001, max_delay_seconds: 0.001, attempt_timeout_seconds: 30}\n";
pub const MODEL: &str = "text-embedding-3-small";
pub const DIM: usize = 1536;

pub struct Gateway {
    pub vendors: Vendors,
    pub server: Server,
    _config: TempDir,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub json: Value,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::with("", &[]).await
    }

    /// With more configuration: text of a file, and variables.
    pub async fn with(file: &str, variables: &[(&str, &str)]) -> Self {
        let vendors = Vendors::start().await;
        Self::before(vendors, file, variables)
    }

    /// In front of these vendors.
    pub fn before(vendors: Vendors, file: &str, variables: &[(&str, &str)]) -> Self {
        let config = tempfile::tempdir().unwrap();
        let path = config.path().join("gateway.yaml");
        let quick = if file.contains("retry:") { "" } else { QUICK };
        std::fs::write(&path, format!("default_model_id: {MODEL}\n{quick}{file}")).unwrap();
        let server = Server::with(|command| {
            command.arg("--config").arg(&path).env("SINGLE_USER_API_KEY", KEY);
            for (name, form) in [
                ("OPENAI", VendorApi::OpenAi),
                ("COHERE", VendorApi::Cohere),
                ("GOOGLE", VendorApi::Google),
                ("MISTRAL", VendorApi::Mistral),
                ("VOYAGE", VendorApi::Voyage),
            ] {
                command.env(format!("{name}_API_KEY"), format!("key-of-{name}"));
                command.env(format!("{name}_BASE_URL"), vendors.base_url(form));
            }
            command.envs(variables.iter().copied());
        });
        Self { vendors, server, _config: config }
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        reqwest::Client::new().request(method, format!("{}{path}", self.server.url)).bearer_auth(KEY)
    }

    pub async fn get(&self, path: &str) -> Value {
        Answer::of(self.request(Method::GET, path)).await.json
    }

    /// Asks for vectors.
    pub async fn embed(&self, body: &Value) -> Answer {
        Answer::of(self.request(Method::POST, "/v1/embeddings").json(body)).await
    }

    /// How a provider's breaker stands.
    pub async fn breaker(&self, provider: &str) -> String {
        let all = self.get("/api/v1/embeddings/circuit-breakers").await;
        all[format!("embeddings_{provider}")]["state"].as_str().unwrap().to_owned()
    }

    /// Texts that the vendors were asked for since the last time: what they would have billed.
    pub fn billed(&self) -> Vec<String> {
        let texts = self.vendors.texts();
        self.vendors.clear_requests();
        texts
    }

    /// The value of a series.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = reqwest::get(format!("{}/metrics", self.server.url)).await.unwrap().text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }
}

impl Answer {
    pub async fn of(request: RequestBuilder) -> Self {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.text().await.unwrap();
        let json = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
        Self { status, headers, json }
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    pub fn code(&self) -> &str {
        self.json["error"]["code"].as_str().unwrap_or_default()
    }

    pub fn message(&self) -> &str {
        self.json["error"]["message"].as_str().unwrap_or_default()
    }

    pub fn vector(&self, index: usize) -> Vec<f32> {
        serde_json::from_value(self.json["data"][index]["embedding"].clone()).unwrap()
    }

    /// Every text has the vector that is its own, in its place.
    pub fn is_right_for(&self, texts: &[impl AsRef<str>]) {
        self.is_right_for_length(texts, DIM);
    }

    pub fn is_right_for_length(&self, texts: &[impl AsRef<str>], length: usize) {
        assert_eq!(self.status, 200, "{}", self.json);
        assert_eq!(self.json["data"].as_array().unwrap().len(), texts.len());
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(self.json["data"][index]["index"], json!(index));
            let (got, due) = (self.vector(index), vector(text.as_ref(), length));
            assert_eq!(got.len(), due.len());
            let worst = got.iter().zip(&due).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(worst < 1e-5, "the vector of '{}' is off by {worst}", text.as_ref());
        }
    }
}
