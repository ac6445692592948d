//! A search and its results.

use embeddery_store::{Filter, Hit};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::documents::PlaceView;
use crate::{Settings, collections::SearchParams, error::ApiError, wire::fields::Fields};

/// What to find.
#[derive(ToSchema)]
#[expect(dead_code, reason = "the documentation's picture of the request")]
pub(crate) struct SearchRequest {
    /// What to look for. Embedded with the collection's model, unless `vector` is sent, too.
    #[schema(example = "How do I get a refund?")]
    query: Option<String>,
    /// A vector of the collection's space and length.
    vector: Option<Vec<f32>>,
    /// The space of `vector`, as the header X-Embeddings-Space told it; another one than the collection's is a 409.
    space: Option<String>,
    /// How many results.
    #[schema(minimum = 1, maximum = 1000, default = 10)]
    top_k: Option<u32>,
    /// `{"field": value}`, or with operators: `$eq $ne $gt $gte $lt $lte $in $nin`, and `$and $or $not` around.
    #[schema(value_type = Option<Object>, example = json!({"year": {"$gte": 2020}}))]
    filter: Option<Value>,
    #[schema(inline, default = "vector")]
    mode: Option<ModeName>,
    /// Whether results carry their texts.
    #[schema(default = true)]
    with_text: Option<bool>,
}

/// `vector` by meaning, `text` by words, `hybrid` by both.
#[derive(ToSchema)]
#[schema(rename_all = "lowercase")]
#[expect(dead_code, reason = "the documentation's picture of `mode`")]
pub(crate) enum ModeName {
    Vector,
    Text,
    Hybrid,
}

impl SearchRequest {
    pub(crate) fn read(mut fields: Fields, settings: &Settings) -> Result<SearchParams, ApiError> {
        let query = fields.text("query")?;
        let vector = vector(&mut fields)?;
        let space = fields.text("space")?;
        let top_k = fields.bounded("top_k", 1..=1000)?.unwrap_or(10);
        let filter = fields.take("filter");
        let modes = [("vector", (true, false)), ("text", (false, true)), ("hybrid", (true, true))];
        let (by_vector, by_words) = fields.choice("mode", &modes)?.unwrap_or((true, false));
        let with_text = fields.switch("with_text")?.unwrap_or(true);
        if query.is_none() && vector.is_none() {
            return Err(
                fields.unfit(Some("query".into()), "query is missing; send a text or a vector".into())
            );
        }
        fields.finish()?;
        if by_words && query.is_none() {
            return Err(ApiError::invalid("query", "query is missing; this mode looks for words"));
        }
        if !by_vector && vector.is_some() {
            return Err(ApiError::invalid(
                "vector",
                "mode \"text\" takes no vector; choose \"hybrid\" to use both",
            ));
        }
        if !by_words && query.is_some() && vector.is_some() {
            let message = "query and vector are both sent; send one, or choose mode \"hybrid\"";
            return Err(ApiError::invalid("query", message));
        }
        if let Some(query) = &query {
            if query.trim().is_empty() {
                return Err(ApiError::invalid("query", "query is blank"));
            }
            if query.len() > settings.text_limit {
                let message = format!("query has {} bytes, {} are allowed", query.len(), settings.text_limit);
                return Err(ApiError::invalid("query", message));
            }
        }
        let filter = filter.map(|filter| Filter::parse(&filter)).transpose()?;
        Ok(SearchParams { by_vector, by_words, query, vector, space, top_k, filter, with_text })
    }
}

fn vector(fields: &mut Fields) -> Result<Option<Vec<f32>>, ApiError> {
    let Some(value) = fields.take("vector") else { return Ok(None) };
    let numbers = match &value {
        Value::Array(items) => items.iter().map(|item| item.as_f64().map(|number| number as f32)).collect(),
        _ => None,
    };
    match numbers {
        Some(numbers) => Ok(Some(numbers)),
        None => Err(fields.mismatch("vector", &value, "a list of numbers")),
    }
}

/// What was found, best first.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchAnswer {
    results: Vec<HitView>,
}

/// A found chunk.
#[derive(Serialize, ToSchema)]
struct HitView {
    /// The vector's id.
    id: String,
    document_id: String,
    /// Higher is nearer: the cosine; in mode `text` how well words match; in `hybrid` the fused rank.
    score: f32,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(flatten)]
    place: PlaceView,
    /// The headings above it, outermost first.
    headings: Vec<String>,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

impl From<Vec<Hit>> for SearchAnswer {
    fn from(hits: Vec<Hit>) -> Self {
        let results = hits
            .into_iter()
            .map(|hit| HitView {
                id: hit.id.to_string(),
                document_id: hit.document,
                score: hit.score,
                text: hit.text,
                place: hit.span.into(),
                headings: hit.headings,
                metadata: hit.metadata,
            })
            .collect();
        Self { results }
    }
}
