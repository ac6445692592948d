//! A running gateway with fake vendors as its providers, and helpers for requests.

use embeddery_test_support::vendors::{VendorApi, Vendors, vector};
use reqwest::{Method, RequestBuilder, StatusCode, header::HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{KEY, Server};

/// Retries without a noticeable backoff, so that tests are fast.
const FAST_RETRIES: &str =
    "retry: {base_delay_seconds: 0.001, max_delay_seconds: 0.001, attempt_timeout_seconds: 30}\n";
pub const MODEL: &str = "text-embedding-3-small";
pub const DIM: usize = 1536;

const CONFIG: &str = "gateway.yaml";

fn config_text(file: &str) -> String {
    let retries = if file.contains("retry:") { "" } else { FAST_RETRIES };
    format!("default_model_id: {MODEL}\n{retries}{file}")
}

pub struct Gateway {
    pub vendors: Vendors,
    pub server: Server,
    config: TempDir,
}

pub struct ApiResponse {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub json: Value,
}

impl Gateway {
    pub async fn start() -> Self {
        Self::with("", &[]).await
    }

    /// Starts a gateway with additional text of the configuration file, and environment variables.
    pub async fn with(file: &str, variables: &[(&str, &str)]) -> Self {
        let vendors = Vendors::start().await;
        Self::for_vendors(vendors, file, variables)
    }

    /// Starts a gateway with these vendors as its providers.
    pub fn for_vendors(vendors: Vendors, file: &str, variables: &[(&str, &str)]) -> Self {
        let config = tempfile::tempdir().unwrap();
        let path = config.path().join(CONFIG);
        std::fs::write(&path, config_text(file)).unwrap();
        let server = Server::with(|command| {
            command.arg("--config").arg(&path).env("SINGLE_USER_API_KEY", KEY);
            for (name, api) in [
                ("OPENAI", VendorApi::OpenAi),
                ("COHERE", VendorApi::Cohere),
                ("GOOGLE", VendorApi::Google),
                ("MISTRAL", VendorApi::Mistral),
                ("VOYAGE", VendorApi::Voyage),
            ] {
                command.env(format!("{name}_API_KEY"), format!("key-of-{name}"));
                command.env(format!("{name}_BASE_URL"), vendors.base_url(api));
            }
            command.envs(variables.iter().copied());
        });
        Self { vendors, server, config }
    }

    /// Reloads the configuration with another additional text.
    pub async fn reload(&self, file: &str) {
        std::fs::write(self.config.path().join(CONFIG), config_text(file)).unwrap();
        let reload = self.request(Method::POST, "/api/v1/embeddings/config/reload");
        let response = ApiResponse::of(reload).await;
        assert_eq!(response.status, 200, "{}", response.json);
    }

    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        reqwest::Client::new().request(method, format!("{}{path}", self.server.url)).bearer_auth(KEY)
    }

    pub async fn get(&self, path: &str) -> Value {
        ApiResponse::of(self.request(Method::GET, path)).await.json
    }

    /// Sends a request for embeddings.
    pub async fn embed(&self, body: &Value) -> ApiResponse {
        ApiResponse::of(self.request(Method::POST, "/v1/embeddings").json(body)).await
    }

    /// The state of a provider's circuit breaker.
    pub async fn breaker(&self, provider: &str) -> String {
        let all = self.get("/api/v1/embeddings/circuit-breakers").await;
        all[format!("embeddings_{provider}")]["state"].as_str().unwrap().to_owned()
    }

    /// The texts of all requests to the vendors since the last call: what they would have billed.
    pub fn billed(&self) -> Vec<String> {
        let texts = self.vendors.texts();
        self.vendors.clear_requests();
        texts
    }

    /// The value of a metric series.
    pub async fn metric(&self, series: &str) -> Option<f64> {
        let text = reqwest::get(format!("{}/metrics", self.server.url)).await.unwrap().text().await.unwrap();
        text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }
}

impl ApiResponse {
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

    /// Asserts that the response has the vector of each text, in order.
    pub fn assert_vectors_of(&self, texts: &[impl AsRef<str>]) {
        self.assert_vectors_of_dim(texts, DIM);
    }

    /// Asserts the same for vectors of `dim` dimensions.
    pub fn assert_vectors_of_dim(&self, texts: &[impl AsRef<str>], dim: usize) {
        assert_eq!(self.status, 200, "{}", self.json);
        assert_eq!(self.json["data"].as_array().unwrap().len(), texts.len());
        for (index, text) in texts.iter().enumerate() {
            assert_eq!(self.json["data"][index]["index"], json!(index));
            let (actual, expected) = (self.vector(index), vector(text.as_ref(), dim));
            assert_eq!(actual.len(), expected.len());
            let max_error = actual.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(max_error < 1e-5, "the vector of '{}' differs by {max_error}", text.as_ref());
        }
    }
}
