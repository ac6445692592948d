//! Reads the collections of a running Chroma server over version 2 of its HTTP API, for an import. Nothing is written
//! to the server.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{StoreError, StoreErrorKind};

/// A client of one database of a Chroma server.
pub struct ChromaClient {
    client: reqwest::Client,
    /// `…/api/v2/tenants/<tenant>/databases/<database>`
    base: String,
}

/// A collection of the server.
#[derive(Clone, Debug)]
pub struct ChromaCollection {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Metadata that its creator gave it.
    pub metadata: Map<String, Value>,
}

/// A record of a collection. Everything but the id may be missing.
#[derive(Clone, Debug)]
pub struct ChromaRecord {
    /// Its id.
    pub id: String,
    /// Its vector.
    pub vector: Option<Vec<f32>>,
    /// Its text.
    pub text: Option<String>,
    /// Its metadata.
    pub metadata: Map<String, Value>,
}

/// Time limit of one request.
const TIMEOUT: Duration = Duration::from_secs(60);

impl ChromaClient {
    /// A client of the server at `url`, for example `http://127.0.0.1:8000`.
    pub fn new(url: &str, tenant: &str, database: &str) -> Result<Self, StoreError> {
        let is_plain = |name: &str| !name.is_empty() && !name.contains(['/', '?', '#', '%']);
        if !is_plain(tenant) || !is_plain(database) {
            return Err(StoreError::invalid(
                "the tenant and the database of Chroma must not be empty or contain '/', '?', '#' or '%'",
            ));
        }
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(StoreError::internal)?;
        let url = url.trim_end_matches('/');
        Ok(Self { client, base: format!("{url}/api/v2/tenants/{tenant}/databases/{database}") })
    }

    /// Lists all collections.
    pub async fn collections(&self) -> Result<Vec<ChromaCollection>, StoreError> {
        let mut all = Vec::new();
        loop {
            let url = format!("{}/collections?limit=100&offset={}", self.base, all.len());
            let page = self.send(self.client.get(url)).await?;
            let page = page.as_array().ok_or_else(|| malformed("a list of collections"))?;
            if page.is_empty() {
                return Ok(all);
            }
            for item in page {
                let text = |key: &str| {
                    item[key].as_str().map(str::to_owned).ok_or_else(|| malformed("a collection"))
                };
                let metadata = item["metadata"].as_object().cloned().unwrap_or_default();
                all.push(ChromaCollection { id: text("id")?, name: text("name")?, metadata });
            }
        }
    }

    /// Returns at most `limit` records from `offset` on.
    pub async fn records(
        &self,
        collection: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<ChromaRecord>, StoreError> {
        let url = format!("{}/collections/{collection}/get", self.base);
        let include = ["documents", "metadatas", "embeddings"];
        let body = json!({"limit": limit, "offset": offset, "include": include});
        let page = self.send(self.client.post(url).json(&body)).await?;
        let ids = page["ids"].as_array().ok_or_else(|| malformed("records"))?;
        let records = ids.iter().enumerate().map(|(index, id)| ChromaRecord {
            id: id.as_str().unwrap_or_default().to_owned(),
            vector: numbers(&page["embeddings"][index]),
            text: page["documents"][index].as_str().map(str::to_owned),
            metadata: page["metadatas"][index].as_object().cloned().unwrap_or_default(),
        });
        Ok(records.collect())
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Value, StoreError> {
        let unreachable = |error: reqwest::Error| {
            // The URL is left out, because it may contain a password.
            StoreError::unavailable(format!("Chroma does not answer: {}", error.without_url()))
        };
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if !status.is_success() {
            let body: String = response.text().await.unwrap_or_default().chars().take(300).collect();
            return Err(StoreError::new(
                StoreErrorKind::NotFound,
                format!("Chroma responded with {status}: {body}"),
            ));
        }
        response.json().await.map_err(unreachable)
    }
}

fn numbers(value: &Value) -> Option<Vec<f32>> {
    value.as_array()?.iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
}

fn malformed(expected: &str) -> StoreError {
    StoreError::unavailable(format!(
        "the server does not speak version 2 of the Chroma API: its response is not {expected}"
    ))
}
