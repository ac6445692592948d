//! Search by the HNSW index, by words, or by both. The index scan is iterative: it continues in order of distance until
//! enough rows pass the filter. If it ends before that, all vectors are compared. If a filter matches few chunks, their
//! vectors are compared directly, because the index scan would visit most of the graph and still miss some.

use std::collections::HashMap;

use deadpool_postgres::Transaction;

use super::{
    collections::{CollectionRow, LockMode, find},
    connection::{Connections, Parameters},
    filter::{self, FilterParameters},
    metadata,
    schema::MAX_INDEXED_DIMENSIONS,
    word_search::WordSearch,
    write::{chunk_key, headings_from_row, span_from_array, to_half_unit},
};
use crate::{
    CollectionRef, Filter, Hit, Query, SearchMode, StoreError, check_vector,
    fusion::{self, Ranked, Ranking},
    vector_id,
};

/// Minimum of pgvector's `hnsw.ef_search`, the size of the candidate list of an index scan. A larger list finds more of
/// the nearest vectors and takes longer.
const MIN_EF_SEARCH: usize = 100;

/// Maximum that pgvector allows for `hnsw.ef_search`.
const MAX_EF_SEARCH: usize = 1000;

/// Up to this number of matching chunks, all are compared. It takes a few milliseconds.
const MAX_EXACT_SCAN_CHUNKS: usize = 10_000;

pub(super) async fn search(
    connections: &Connections,
    collection_ref: CollectionRef<'_>,
    query: Query,
) -> Result<Vec<Hit>, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin_snapshot(&mut client, collection_ref.tenant).await?;
    let collection = find(&tx, collection_ref, LockMode::None).await?;
    let search = Search { tx: &tx, collection_ref, query: &query, collection };
    let ranking = match &query.mode {
        SearchMode::Vector(vector) => fusion::by_vector(search.nearest(vector, query.top_k).await?),
        SearchMode::Text(text) => fusion::by_words(search.matching(text, query.top_k).await?),
        SearchMode::Hybrid(vector, text) => {
            let depth = fusion::fused_depth(query.top_k);
            let near = search.nearest(vector, depth).await?;
            let matching = search.matching(text, depth).await?;
            search.with_cosines(vector, fusion::fuse(near, matching, query.top_k)).await?
        }
    };
    search.hits(ranking).await
}

struct Search<'a> {
    tx: &'a Transaction<'a>,
    collection_ref: CollectionRef<'a>,
    query: &'a Query,
    collection: CollectionRow,
}

impl Search<'_> {
    /// Ranks by cosine similarity.
    async fn nearest(&self, vector: &[f32], top: usize) -> Result<Ranking, StoreError> {
        let dim = self.collection.view.binding.dim;
        check_vector(vector, dim)?;
        if let Some(filter) = &self.query.filter
            && self.matches_few(filter).await?
        {
            return self.nearest_by_exact_scan(vector, filter, top).await;
        }
        let ef_search = top.clamp(MIN_EF_SEARCH, MAX_EF_SEARCH);
        self.tx
            .batch_execute(&format!(
                "SET LOCAL hnsw.iterative_scan = strict_order; SET LOCAL hnsw.ef_search = {ef_search}"
            ))
            .await?;
        let ranking = self.nearest_by_query(vector, top).await?;
        if ranking.len() == top || dim > MAX_INDEXED_DIMENSIONS {
            return Ok(ranking);
        }
        // Either there are no more rows, or the index scan ended early. A scan without the index tells which.
        self.tx.batch_execute("SET LOCAL enable_indexscan = off").await?;
        let ranking = self.nearest_by_query(vector, top).await?;
        self.tx.batch_execute("SET LOCAL enable_indexscan = on").await?;
        Ok(ranking)
    }

    /// Returns whether at most [`MAX_EXACT_SCAN_CHUNKS`] chunks match the filter.
    async fn matches_few(&self, filter: &Filter) -> Result<bool, StoreError> {
        let mut filter_parameters = FilterParameters::default();
        let condition = filter::compile(filter, &mut filter_parameters, 2);
        let sql = format!(
            "SELECT count(*) FROM (
                 SELECT 1 FROM embeddery.documents d JOIN embeddery.chunks c ON c.document = d.id
                 WHERE d.collection = $1 AND {condition} LIMIT {MAX_EXACT_SCAN_CHUNKS} + 1) AS passed"
        );
        let count: i64 =
            self.tx.query_one(&sql, &filter_parameters.append_to(vec![&self.collection.id])).await?.get(0);
        Ok(count <= MAX_EXACT_SCAN_CHUNKS as i64)
    }

    /// Compares the vectors of all chunks that match the filter.
    async fn nearest_by_exact_scan(
        &self,
        vector: &[f32],
        filter: &Filter,
        top: usize,
    ) -> Result<Ranking, StoreError> {
        let (dim, vector, top) = (self.collection.view.binding.dim, to_half_unit(vector), top as i64);
        let mut filter_parameters = FilterParameters::default();
        let condition = filter::compile(filter, &mut filter_parameters, 5);
        // Adding 0 to the distance keeps the planner from using the index.
        let sql = format!(
            "WITH passed AS MATERIALIZED (
                 SELECT c.id FROM embeddery.documents d JOIN embeddery.chunks c ON c.document = d.id
                 WHERE d.collection = $3 AND {condition})
             SELECT v.chunk, 1 - (v.embedding::halfvec({dim}) <=> $1::halfvec) AS score
             FROM passed JOIN embeddery.vectors v ON v.generation = $2 AND v.chunk = passed.id
             ORDER BY (v.embedding::halfvec({dim}) <=> $1::halfvec) + 0, v.chunk LIMIT $4"
        );
        let parameters: Parameters<'_> = vec![&vector, &self.collection.active, &self.collection.id, &top];
        let rows = self.tx.query(&sql, &filter_parameters.append_to(parameters)).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, f64>(1) as f32)).collect())
    }

    /// Ranks in the order of distance. The planner chooses between the index and a scan.
    async fn nearest_by_query(&self, vector: &[f32], top: usize) -> Result<Ranking, StoreError> {
        let (dim, vector, top) = (self.collection.view.binding.dim, to_half_unit(vector), top as i64);
        let mut filter_parameters = FilterParameters::default();
        let condition = self.condition(&mut filter_parameters, 5);
        let sql = format!(
            "SELECT v.chunk, 1 - (v.embedding::halfvec({dim}) <=> $1::halfvec) AS score
             FROM embeddery.vectors v
             WHERE v.generation = $2 AND v.tenant = $3 AND vector_dims(v.embedding) = {dim}{condition}
             ORDER BY v.embedding::halfvec({dim}) <=> $1::halfvec LIMIT $4"
        );
        let parameters: Parameters<'_> =
            vec![&vector, &self.collection.active, &self.collection_ref.tenant, &top];
        let rows = self.tx.query(&sql, &filter_parameters.append_to(parameters)).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, f64>(1) as f32)).collect())
    }

    /// Ranks by the words of a text.
    async fn matching(&self, text: &str, top: usize) -> Result<Ranking, StoreError> {
        let search = WordSearch {
            tx: self.tx,
            tenant: self.collection_ref.tenant,
            collection: self.collection.id,
            filter: self.query.filter.as_ref(),
        };
        search.ranking(text, top).await
    }

    /// Adds the cosines that a ranking does not have.
    async fn with_cosines(
        &self,
        vector: &[f32],
        mut ranking: Vec<Ranked>,
    ) -> Result<Vec<Ranked>, StoreError> {
        let missing: Vec<i64> =
            ranking.iter().filter(|ranked| ranked.cosine.is_none()).map(|ranked| ranked.id).collect();
        if missing.is_empty() {
            return Ok(ranking);
        }
        let dim = self.collection.view.binding.dim;
        let sql = format!(
            "SELECT chunk, 1 - (embedding::halfvec({dim}) <=> $1::halfvec) FROM embeddery.vectors
             WHERE generation = $2 AND chunk = ANY($3)"
        );
        let rows = self.tx.query(&sql, &[&to_half_unit(vector), &self.collection.active, &missing]).await?;
        let cosines: HashMap<i64, f64> = rows.iter().map(|row| (row.get(0), row.get(1))).collect();
        for ranked in &mut ranking {
            ranked.cosine = ranked.cosine.or_else(|| cosines.get(&ranked.id).map(|cosine| *cosine as f32));
        }
        Ok(ranking)
    }

    /// Returns the filter as a condition on a row of `vectors`.
    fn condition(&self, filter_parameters: &mut FilterParameters, first: usize) -> String {
        let Some(filter) = &self.query.filter else { return String::new() };
        let condition = filter::compile(filter, filter_parameters, first);
        // The id is not user input, so it needs no parameter.
        let collection = self.collection.id;
        format!(
            " AND EXISTS (SELECT 1 FROM embeddery.documents d
                          WHERE d.id = v.document AND d.collection = {collection} AND {condition})"
        )
    }

    /// Reads the documents and texts of the chunks.
    async fn hits(&self, ranking: Vec<Ranked>) -> Result<Vec<Hit>, StoreError> {
        let chunks: Vec<i64> = ranking.iter().map(|ranked| ranked.id).collect();
        let statement = self
            .tx
            .prepare_cached(
                "SELECT c.id, d.name, d.metadata::text, c.fingerprint, c.occurrence, c.span,
                        CASE WHEN $2 THEN c.text END, c.headings
                 FROM embeddery.chunks c JOIN embeddery.documents d ON d.id = c.document WHERE c.id = ANY($1)",
            )
            .await?;
        let rows = self.tx.query(&statement, &[&chunks, &self.query.with_text]).await?;
        let by_chunk: HashMap<i64, _> = rows.iter().map(|row| (row.get(0), row)).collect();
        let space = &self.collection.view.binding.space;
        let hits = ranking.into_iter().filter_map(|ranked| {
            let row = by_chunk.get(&ranked.id)?;
            let document: String = row.get(1);
            Some(metadata::from_text(row.get(2)).map(|metadata| Hit {
                id: vector_id(self.collection_ref, &document, chunk_key(row.get(3), row.get(4)), space),
                document,
                score: ranked.score,
                cosine: ranked.cosine,
                text_rank: ranked.text_rank,
                text_score: ranked.text_score,
                text: row.get(6),
                span: span_from_array(&row.get::<_, Vec<i64>>(5)),
                headings: headings_from_row(row, 7),
                metadata,
            }))
        });
        hits.collect()
    }
}
