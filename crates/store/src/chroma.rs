//! Reads what a running Chroma server holds, over its HTTP API of version 2. For moving away from it: nothing is
//! written there.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::{StoreError, StoreErrorKind};

/// A Chroma server, and which of its databases.
pub struct Chroma {
    client: reqwest::Client,
    /// `…/api/v2/tenants/<tenant>/databases/<database>`
    base: String,
}

/// A collection there.
#[derive(Clone, Debug)]
pub struct ChromaCollection {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// What the service that made it said of it.
    pub metadata: Map<String, Value>,
}

/// A record there; everything but the id may be missing.
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

/// How long the server may take for one answer.
const TIMEOUT: Duration = Duration::from_secs(60);

impl Chroma {
    /// The server at `url`, for example `http://127.0.0.1:8000`.
    pub fn new(url: &str, tenant: &str, database: &str) -> Result<Self, StoreError> {
        let plain = |name: &str| !name.is_empty() && !name.contains(['/', '?', '#', '%']);
        if !plain(tenant) || !plain(database) {
            return Err(StoreError::invalid("Chroma's tenant and database are plain names"));
        }
        let client = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(StoreError::internal)?;
        let url = url.trim_end_matches('/');
        Ok(Self { client, base: format!("{url}/api/v2/tenants/{tenant}/databases/{database}") })
    }

    /// All collections.
    pub async fn collections(&self) -> Result<Vec<ChromaCollection>, StoreError> {
        let mut all = Vec::new();
        loop {
            let url = format!("{}/collections?limit=100&offset={}", self.base, all.len());
            let page = self.ask(self.client.get(url)).await?;
            let page = page.as_array().ok_or_else(|| nonsense("a list of collections"))?;
            if page.is_empty() {
                return Ok(all);
            }
            for item in page {
                let text =
                    |key: &str| item[key].as_str().map(str::to_owned).ok_or_else(|| nonsense("a collection"));
                let metadata = item["metadata"].as_object().cloned().unwrap_or_default();
                all.push(ChromaCollection { id: text("id")?, name: text("name")?, metadata });
            }
        }
    }

    /// Records from a place on, at most `limit`.
    pub async fn records(
        &self,
        collection: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<ChromaRecord>, StoreError> {
        let url = format!("{}/collections/{collection}/get", self.base);
        let include = ["documents", "metadatas", "embeddings"];
        let body = json!({"limit": limit, "offset": offset, "include": include});
        let page = self.ask(self.client.post(url).json(&body)).await?;
        let ids = page["ids"].as_array().ok_or_else(|| nonsense("records"))?;
        let records = ids.iter().enumerate().map(|(index, id)| ChromaRecord {
            id: id.as_str().unwrap_or_default().to_owned(),
            vector: numbers(&page["embeddings"][index]),
            text: page["documents"][index].as_str().map(str::to_owned),
            metadata: page["metadatas"][index].as_object().cloned().unwrap_or_default(),
        });
        Ok(records.collect())
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Value, StoreError> {
        let unreachable = |error: reqwest::Error| {
            // Without the URL: it may hold a password.
            StoreError::unavailable(format!("Chroma does not answer: {}", error.without_url()))
        };
        let answer = request.send().await.map_err(unreachable)?;
        let status = answer.status();
        if !status.is_success() {
            let said: String = answer.text().await.unwrap_or_default().chars().take(300).collect();
            return Err(StoreError::new(
                StoreErrorKind::NotFound,
                format!("Chroma answers {status}: {said}"),
            ));
        }
        answer.json().await.map_err(unreachable)
    }
}

fn numbers(value: &Value) -> Option<Vec<f32>> {
    value.as_array()?.iter().map(|number| number.as_f64().map(|number| number as f32)).collect()
}

fn nonsense(due: &str) -> StoreError {
    StoreError::unavailable(format!("what answers is no Chroma server of API version 2: {due} was due"))
}
