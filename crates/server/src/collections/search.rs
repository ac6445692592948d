//! A search as a caller asks for it becomes one that the store can answer.

use embeddery_core::{InputType, SpaceId};
use embeddery_store::{Filter, Hit, Query, SearchMode};

use super::{CollectionService, embed::same_space};
use crate::error::ApiError;

/// A search as a request sends it; checked, so that the mode has what it needs.
#[derive(Clone, Debug)]
pub(crate) struct SearchParams {
    /// By meaning.
    pub(crate) by_vector: bool,
    /// By words.
    pub(crate) by_words: bool,
    pub(crate) query: Option<String>,
    pub(crate) vector: Option<Vec<f32>>,
    /// The space of `vector`, where the caller knows it.
    pub(crate) space: Option<String>,
    pub(crate) top_k: usize,
    pub(crate) filter: Option<Filter>,
    pub(crate) with_text: bool,
}

impl CollectionService {
    /// The hits, and the space they were found in.
    pub(crate) async fn search(
        &self,
        collection: &str,
        asked: SearchParams,
    ) -> Result<(SpaceId, Vec<Hit>), ApiError> {
        let place = self.collection_ref(collection);
        let binding = self.store().get(place).await?.binding;
        if let Some(space) = &asked.space {
            same_space(collection, &binding.space, &SpaceId::new(space.as_str()))?;
        }
        let text = asked.query.unwrap_or_default();
        let vector = match asked.vector {
            Some(vector) => Some(vector),
            None if asked.by_vector => {
                let texts = [text.as_str().into()];
                self.vectors((collection, &binding), &texts, InputType::Query).await?.pop()
            }
            None => None,
        };
        let mode = match vector {
            Some(vector) if asked.by_words => SearchMode::Hybrid(vector, text),
            Some(vector) => SearchMode::Vector(vector),
            None => SearchMode::Text(text),
        };
        let query = Query { mode, top_k: asked.top_k, filter: asked.filter, with_text: asked.with_text };
        let search = self.store().search(place, query);
        let hits = match self.deadline {
            Some(deadline) => tokio::time::timeout_at(deadline.into(), search).await.map_err(|_| {
                ApiError::from(embeddery_core::EmbedError::timeout("the search took too long"))
            })?,
            None => search.await,
        }?;
        Ok((binding.space, hits))
    }
}
