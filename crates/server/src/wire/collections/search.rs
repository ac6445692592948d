//! A search and its results.

use embeddery_store::{Filter, Hit, ScoreKind};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::documents::SpanView;
use crate::{
    Settings,
    collections::SearchParams,
    error::{ApiError, ErrorStyle},
    wire::{
        exact_json::Exact,
        field::{variant, whole_number},
    },
};

/// What to find.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SearchRequest {
    /// What to look for. Embedded with the collection's model, unless `vector` is sent, too.
    #[schema(example = "How do I get a refund?")]
    query: Option<String>,
    /// A vector of the collection's space and length.
    vector: Option<Vec<f32>>,
    /// The space of `vector`, from the header X-Embeddings-Space; another space than the collection's is a 409.
    space: Option<String>,
    /// How many results.
    #[serde(default, deserialize_with = "whole_number::<1, 1000, _>")]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 1000, default = 10)]
    top_k: Option<usize>,
    /// `{"field": value}`, or with operators: `$eq $ne $gt $gte $lt $lte $in $nin`, and `$and $or $not` around.
    #[schema(value_type = Option<Object>, example = json!({"year": {"$gte": 2020}}))]
    filter: Option<Exact<Value>>,
    #[serde(default, deserialize_with = "variant")]
    #[schema(inline, default = "vector")]
    mode: Option<SearchMode>,
    /// Whether results have their texts.
    #[schema(default = true)]
    with_text: Option<bool>,
}

/// `vector` by meaning, `text` by words, `hybrid` by both. In a text, `"several words"` in double quotes is a phrase, and
/// `word*` finds the words with this start.
#[derive(Clone, Copy, PartialEq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SearchMode {
    Vector,
    Text,
    Hybrid,
}

impl SearchRequest {
    pub(crate) fn check(self, settings: &Settings) -> Result<SearchParams, ApiError> {
        let Self { query, vector, space, top_k, filter, mode, with_text } = self;
        let mode = mode.unwrap_or(SearchMode::Vector);
        let (by_vector, by_words) = (mode != SearchMode::Text, mode != SearchMode::Vector);
        if query.is_none() && vector.is_none() {
            let message = "query is missing; send a text or a vector";
            return Err(ApiError::schema(ErrorStyle::Native, Some("query".into()), message));
        }
        if by_words && query.is_none() {
            return Err(ApiError::invalid("query", "query is missing; this mode looks for words"));
        }
        if !by_vector && vector.is_some() {
            let message = "mode \"text\" takes no vector; choose \"hybrid\" to use both";
            return Err(ApiError::invalid("vector", message));
        }
        if !by_words && query.is_some() && vector.is_some() {
            let message = "query and vector are both sent; send one, or choose mode \"hybrid\"";
            return Err(ApiError::invalid("query", message));
        }
        if let Some(query) = &query {
            if query.trim().is_empty() {
                return Err(ApiError::invalid("query", "query is blank"));
            }
            if let Some(at) = query.find('\0') {
                let message = format!("query has a NUL character (U+0000), at byte {at}; remove it");
                return Err(ApiError::invalid("query", message));
            }
            if query.len() > settings.text_limit {
                let message =
                    format!("query has {} bytes; the limit is {}", query.len(), settings.text_limit);
                return Err(ApiError::invalid("query", message));
            }
        }
        Ok(SearchParams {
            by_vector,
            by_words,
            query,
            vector,
            space,
            top_k: top_k.unwrap_or(10),
            filter: filter.map(check_filter).transpose()?.filter(|filter| !filter.is_unconditional()),
            with_text: with_text.unwrap_or(true),
        })
    }
}

/// Parses a filter, in which every number is exact.
fn check_filter(filter: Exact<Value>) -> Result<Filter, ApiError> {
    Ok(Filter::parse(&filter.check("filter")?)?)
}

/// What was found, best first.
#[derive(Serialize, ToSchema)]
pub(crate) struct SearchResponse {
    results: Vec<SearchHit>,
}

/// A found chunk.
#[derive(Serialize, ToSchema)]
struct SearchHit {
    /// The vector's id.
    id: String,
    document_id: String,
    /// Higher is better. `score_kind` says what it is.
    score: f32,
    #[schema(inline)]
    score_kind: ScoreKindView,
    /// Cosine similarity of the chunk to the query, from -1 to 1: the number for a threshold, also in mode `hybrid`. Null in
    /// mode `text`, whose query has no vector.
    cosine: Option<f32>,
    /// Rank among the chunks with words of the query, from 1. Null if the chunk was not found by its words.
    text_rank: Option<u32>,
    /// BM25 score of the words. Null if the chunk was not found by its words.
    text_score: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(flatten)]
    span: SpanView,
    /// The headings above it, outermost first.
    headings: Vec<String>,
    #[schema(value_type = Object)]
    metadata: Map<String, Value>,
}

/// What a score is: `cosine` (mode `vector`, from -1 to 1), `bm25` (mode `text`, above 0, comparable within one response
/// only), or `rrf` (mode `hybrid`, reciprocal rank fusion: above 0 and at most 2/61).
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum ScoreKindView {
    Cosine,
    Bm25,
    Rrf,
}

impl From<ScoreKind> for ScoreKindView {
    fn from(kind: ScoreKind) -> Self {
        match kind {
            ScoreKind::Cosine => Self::Cosine,
            ScoreKind::Bm25 => Self::Bm25,
            ScoreKind::ReciprocalRankFusion => Self::Rrf,
        }
    }
}

impl SearchResponse {
    /// The response for the hits of a search whose scores are of this kind.
    pub(crate) fn new(kind: ScoreKind, hits: Vec<Hit>) -> Self {
        let results = hits
            .into_iter()
            .map(|hit| SearchHit {
                id: hit.id.to_string(),
                document_id: hit.document,
                score: hit.score,
                score_kind: kind.into(),
                cosine: hit.cosine,
                text_rank: hit.text_rank,
                text_score: hit.text_score,
                text: hit.text,
                span: hit.span.into(),
                headings: hit.headings,
                metadata: hit.metadata,
            })
            .collect();
        Self { results }
    }
}
