//! Searches a collection. The query is embedded if the mode needs a vector.

use embeddery_core::{EmbedError, InputType, SpaceId, to_comparable_length};
use embeddery_ingest::check_space;
use embeddery_store::{Filter, Hit, Query, ScoreKind, SearchMode};

use super::{CollectionService, embed::BoundCollection};
use crate::error::ApiError;

/// The parameters of a search. Each mode has the inputs that it needs.
#[derive(Clone, Debug)]
pub(crate) struct SearchParams {
    /// Whether vectors are compared.
    pub(crate) by_vector: bool,
    /// Whether words are matched.
    pub(crate) by_words: bool,
    pub(crate) query: Option<String>,
    pub(crate) vector: Option<Vec<f32>>,
    /// The space of `vector`, if the caller names it.
    pub(crate) space: Option<String>,
    pub(crate) top_k: usize,
    pub(crate) filter: Option<Filter>,
    pub(crate) with_text: bool,
}

/// The result of a search.
pub(crate) struct Found {
    /// The space of the collection.
    pub(crate) space: SpaceId,
    pub(crate) score_kind: ScoreKind,
    pub(crate) hits: Vec<Hit>,
}

impl CollectionService {
    /// Searches a collection.
    pub(crate) async fn search(&self, collection: &str, params: SearchParams) -> Result<Found, ApiError> {
        let target = self.collection_ref(collection);
        let binding = self.store().get(target).await?.binding;
        if let Some(space) = &params.space {
            check_space(collection, &binding.space, &SpaceId::new(space.as_str()))?;
        }
        let text = params.query.unwrap_or_default();
        let vector = match params.vector {
            Some(mut vector) => {
                to_comparable_length(&mut vector);
                Some(vector)
            }
            None if params.by_vector => {
                let bound = BoundCollection { name: collection, binding: &binding };
                let texts = [text.as_str().into()];
                self.vectors(bound, &texts, InputType::Query).await?.pop()
            }
            None => None,
        };
        let mode = match vector {
            Some(vector) if params.by_words => SearchMode::Hybrid(vector, text),
            Some(vector) => SearchMode::Vector(vector),
            None => SearchMode::Text(text),
        };
        let score_kind = mode.score_kind();
        let query = Query { mode, top_k: params.top_k, filter: params.filter, with_text: params.with_text };
        let search = self.store().search(target, query);
        let hits = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), search)
                .await
                .map_err(|_| EmbedError::timeout("the search took too long"))?,
            None => search.await,
        }?;
        Ok(Found { space: binding.space, score_kind, hits })
    }
}
