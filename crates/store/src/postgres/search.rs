//! Search: by HNSW, by words, or by both. The index is asked to go on until enough rows pass the filter, in the
//! order of distance; when it gives up before that, the vectors are compared one by one. So are those of a filter
//! that few chunks pass: the index would walk past most of them and still miss some.

use std::collections::HashMap;

use deadpool_postgres::Transaction;

use super::{
    collections::{Found, LockMode, find, object},
    connection::{Connections, Parameters},
    filter,
    schema::MAX_INDEXED_DIMENSIONS,
    write::{headings, key, span, to_half_unit},
};
use crate::{
    CollectionRef, Filter, Hit, Mode, Query, StoreError, check_vector, fusion, query_terms::query_terms,
    vector_id,
};

/// How many rows the index keeps in sight while it looks; more find more, and take longer.
const HNSW_EF_SEARCH: usize = 100;

/// Chunks that are compared one by one in a few milliseconds.
const EXACT_SCAN_THRESHOLD: usize = 10_000;

/// How deep each ranking is read before they are fused.
fn fused_depth(top_k: usize) -> usize {
    (2 * top_k).max(50)
}

/// Chunks with scores, best first.
type Ranking = Vec<(i64, f32)>;

pub(super) async fn search(
    connections: &Connections,
    place: CollectionRef<'_>,
    query: Query,
) -> Result<Vec<Hit>, StoreError> {
    let mut client = connections.client().await?;
    let tx = connections.begin_snapshot(&mut client, place.tenant).await?;
    let found = find(&tx, place, LockMode::No).await?;
    let search = Search { tx: &tx, place, query: &query, found };
    let ranking = match &query.mode {
        Mode::Vector(vector) => search.nearest(vector, query.top_k).await?,
        Mode::Text(text) => search.matching(text, query.top_k).await?,
        Mode::Hybrid(vector, text) => {
            let depth = fused_depth(query.top_k);
            let ids = |ranking: Ranking| -> Vec<i64> { ranking.into_iter().map(|(id, _)| id).collect() };
            let near = ids(search.nearest(vector, depth).await?);
            let matching = ids(search.matching(text, depth).await?);
            fusion::fuse([&near, &matching], query.top_k)
        }
    };
    search.hits(ranking).await
}

struct Search<'a> {
    tx: &'a Transaction<'a>,
    place: CollectionRef<'a>,
    query: &'a Query,
    found: Found,
}

impl Search<'_> {
    async fn nearest(&self, vector: &[f32], top: usize) -> Result<Ranking, StoreError> {
        let dim = self.found.view.binding.dim;
        check_vector(vector, dim)?;
        if let Some(filter) = &self.query.filter
            && self.few_pass(filter).await?
        {
            return self.nearest_of_few(vector, (filter, top)).await;
        }
        let in_sight = HNSW_EF_SEARCH.max(top).min(1000);
        self.tx
            .batch_execute(&format!(
                "SET LOCAL hnsw.iterative_scan = strict_order; SET LOCAL hnsw.ef_search = {in_sight}"
            ))
            .await?;
        let ranking = self.nearest_once(vector, top).await?;
        if ranking.len() == top || dim > MAX_INDEXED_DIMENSIONS {
            return Ok(ranking);
        }
        // Fewer may be all there are, or the index gave up early; this looks at every one.
        self.tx.batch_execute("SET LOCAL enable_indexscan = off").await?;
        let ranking = self.nearest_once(vector, top).await?;
        self.tx.batch_execute("SET LOCAL enable_indexscan = on").await?;
        Ok(ranking)
    }

    async fn few_pass(&self, filter: &Filter) -> Result<bool, StoreError> {
        let mut values = filter::Values::default();
        let condition = filter::compile(filter, &mut values, 2);
        let sql = format!(
            "SELECT count(*) FROM (
                 SELECT 1 FROM embeddery.documents d JOIN embeddery.chunks c ON c.document = d.id
                 WHERE d.collection = $1 AND {condition} LIMIT {EXACT_SCAN_THRESHOLD} + 1) AS passed"
        );
        let count: i64 = self.tx.query_one(&sql, &values.after(vec![&self.found.id])).await?.get(0);
        Ok(count <= EXACT_SCAN_THRESHOLD as i64)
    }

    async fn nearest_of_few(
        &self,
        vector: &[f32],
        (filter, top): (&Filter, usize),
    ) -> Result<Ranking, StoreError> {
        let (dim, vector, top) = (self.found.view.binding.dim, to_half_unit(vector), top as i64);
        let mut values = filter::Values::default();
        let condition = filter::compile(filter, &mut values, 5);
        // The distance plus nothing: an order that no index has.
        let sql = format!(
            "WITH passed AS MATERIALIZED (
                 SELECT c.id FROM embeddery.documents d JOIN embeddery.chunks c ON c.document = d.id
                 WHERE d.collection = $3 AND {condition})
             SELECT v.chunk, 1 - (v.embedding::halfvec({dim}) <=> $1::halfvec) AS score
             FROM passed JOIN embeddery.vectors v ON v.generation = $2 AND v.chunk = passed.id
             ORDER BY (v.embedding::halfvec({dim}) <=> $1::halfvec) + 0, v.chunk LIMIT $4"
        );
        let parameters: Parameters<'_> = vec![&vector, &self.found.live, &self.found.id, &top];
        let rows = self.tx.query(&sql, &values.after(parameters)).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, f64>(1) as f32)).collect())
    }

    async fn nearest_once(&self, vector: &[f32], top: usize) -> Result<Ranking, StoreError> {
        let (dim, vector, top) = (self.found.view.binding.dim, to_half_unit(vector), top as i64);
        let mut values = filter::Values::default();
        let condition = self.condition(&mut values, 5);
        let sql = format!(
            "SELECT v.chunk, 1 - (v.embedding::halfvec({dim}) <=> $1::halfvec) AS score
             FROM embeddery.vectors v
             WHERE v.generation = $2 AND v.tenant = $3 AND vector_dims(v.embedding) = {dim}{condition}
             ORDER BY v.embedding::halfvec({dim}) <=> $1::halfvec LIMIT $4"
        );
        let parameters: Parameters<'_> = vec![&vector, &self.found.live, &self.place.tenant, &top];
        let rows = self.tx.query(&sql, &values.after(parameters)).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, f64>(1) as f32)).collect())
    }

    async fn matching(&self, text: &str, top: usize) -> Result<Ranking, StoreError> {
        // Words are letters and digits only: nothing in them can end the quotes.
        let words: Vec<String> = query_terms(text).into_iter().map(|word| format!("'{word}'")).collect();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let (words, top) = (words.join(" | "), top as i64);
        let mut values = filter::Values::default();
        let condition = match &self.query.filter {
            Some(filter) => format!(" AND {}", filter::compile(filter, &mut values, 4)),
            None => String::new(),
        };
        let sql = format!(
            "SELECT c.id, ts_rank(c.words, q) AS score
             FROM to_tsquery('simple', $1) q, embeddery.chunks c JOIN embeddery.documents d ON d.id = c.document
             WHERE c.words @@ q AND d.collection = $2{condition} ORDER BY score DESC, c.id LIMIT $3"
        );
        let parameters: Parameters<'_> = vec![&words, &self.found.id, &top];
        let rows = self.tx.query(&sql, &values.after(parameters)).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get(1))).collect())
    }

    /// The filter as a condition on a vector.
    fn condition(&self, values: &mut filter::Values, first: usize) -> String {
        let Some(filter) = &self.query.filter else { return String::new() };
        let condition = filter::compile(filter, values, first);
        // A number, not a parameter: it is ours.
        let collection = self.found.id;
        format!(
            " AND EXISTS (SELECT 1 FROM embeddery.documents d
                          WHERE d.id = v.document AND d.collection = {collection} AND {condition})"
        )
    }

    async fn hits(&self, ranking: Ranking) -> Result<Vec<Hit>, StoreError> {
        let chunks: Vec<i64> = ranking.iter().map(|(id, _)| *id).collect();
        let statement = self
            .tx
            .prepare_cached(
                "SELECT c.id, d.name, d.metadata, c.fingerprint, c.occurrence, c.span,
                        CASE WHEN $2 THEN c.text END, c.headings
                 FROM embeddery.chunks c JOIN embeddery.documents d ON d.id = c.document WHERE c.id = ANY($1)",
            )
            .await?;
        let rows = self.tx.query(&statement, &[&chunks, &self.query.with_text]).await?;
        let by_chunk: HashMap<i64, _> = rows.iter().map(|row| (row.get(0), row)).collect();
        let space = &self.found.view.binding.space;
        let hits = ranking.into_iter().filter_map(|(chunk, score)| {
            let row = by_chunk.get(&chunk)?;
            let document: String = row.get(1);
            Some(Hit {
                id: vector_id(self.place, &document, key(row.get(3), row.get(4)), space),
                document,
                score,
                text: row.get(6),
                span: span(&row.get::<_, Vec<i64>>(5)),
                headings: headings(row, 7),
                metadata: object(row.get(2)),
            })
        });
        Ok(hits.collect())
    }
}
