//! Search. SQL selects the documents that match the filter, the matrix finds candidates among their vectors, and the
//! exact vectors rank the candidates. A text query is ranked by the full-text index. A search is one transaction, so it
//! sees one state of the database.

use rusqlite::{Transaction, params, types::Value as Sql};

use super::{
    Inner,
    collections::{CollectionRow, find, metadata_from_json},
    filter,
    matrix_cache::{GenerationVersion, MatrixKey},
    read::decode_vector,
    write::{headings_from_row, span_from_row},
};
use crate::{
    ChunkKey, CollectionRef, Filter, Hit, Query, SearchMode, StoreError, check_vector,
    fusion::{self, Ranked, Ranking},
    matrix::{Kernel, Matrix, Scan},
    vector_id,
    words::{Phrase, collection_prefix, query_phrases},
};

/// Returns the number of candidates for `top_k` results. The scores of the scan are accurate to about 0.001, so a result
/// is hardly ever ranked lower than this.
fn candidate_count(top_k: usize) -> usize {
    top_k + 3 * top_k.min(100) + 20
}

pub(super) fn search(
    inner: &Inner,
    collection_ref: CollectionRef<'_>,
    query: &Query,
) -> Result<Vec<Hit>, StoreError> {
    let user = inner.users.get(collection_ref.tenant)?;
    loop {
        let hits = user.read(|tx| {
            let search = Search {
                inner,
                collection_ref,
                query,
                tx,
                collection: find(tx, collection_ref.collection)?,
                inode: user.inode(),
            };
            search.run()
        })?;
        // `None`: a concurrent search has refreshed the matrix to a later state than this transaction sees.
        if let Some(hits) = hits {
            return Ok(hits);
        }
    }
}

struct Search<'a> {
    inner: &'a Inner,
    collection_ref: CollectionRef<'a>,
    query: &'a Query,
    tx: &'a Transaction<'a>,
    collection: CollectionRow,
    /// File of the database, see [`MatrixKey::inode`].
    inode: u64,
}

impl Search<'_> {
    /// Runs the search. Returns `None` if it must be repeated with a later transaction.
    fn run(&self) -> Result<Option<Vec<Hit>>, StoreError> {
        let top_k = self.query.top_k;
        let ranking = match &self.query.mode {
            SearchMode::Vector(vector) => self.nearest(vector, top_k)?.map(fusion::by_vector),
            SearchMode::Text(text) => Some(fusion::by_words(self.matching(text, top_k)?)),
            SearchMode::Hybrid(vector, text) => {
                let depth = fusion::fused_depth(top_k);
                self.nearest(vector, depth)?
                    .map(|near| {
                        let fused = fusion::fuse(near, self.matching(text, depth)?, top_k);
                        self.with_cosines(vector, fused)
                    })
                    .transpose()?
            }
        };
        ranking.map(|ranking| ranking.into_iter().map(|ranked| self.hit(ranked)).collect()).transpose()
    }

    /// Adds the cosines that a ranking does not have.
    fn with_cosines(&self, vector: &[f32], mut ranking: Vec<Ranked>) -> Result<Vec<Ranked>, StoreError> {
        let exact = ExactQuery::new(vector);
        for ranked in ranking.iter_mut().filter(|ranked| ranked.cosine.is_none()) {
            ranked.cosine = Some(self.cosine(&exact, ranked.id)?);
        }
        Ok(ranking)
    }

    /// Compares the stored vector of this id.
    fn cosine(&self, query: &ExactQuery<'_>, id: i64) -> Result<f32, StoreError> {
        let mut statement = self.tx.prepare_cached("SELECT vector FROM vectors WHERE id = ?1")?;
        Ok(statement.query_row([id], |row| Ok(query.cosine(&decode_vector(row.get_ref(0)?.as_blob()?))))?)
    }

    /// Ranks by cosine similarity. Returns `None` if the search must be repeated.
    fn nearest(&self, vector: &[f32], top: usize) -> Result<Option<Ranking>, StoreError> {
        let (generation, dim) = (self.collection.active, self.collection.view.binding.dim);
        check_vector(vector, dim)?;
        let mask = self.query.filter.as_ref().map(|filter| self.mask(filter)).transpose()?;
        let rows = GenerationVersion::load(self.tx, generation)?.vectors as usize;
        let key = MatrixKey { user: self.collection_ref.tenant.to_owned(), inode: self.inode, generation };
        let cached = self.inner.matrices.get(key, Matrix::estimate_bytes(rows, dim), dim);
        let Some(cached) = cached else {
            return Ok(Some(self.nearest_on_disk(vector, mask.as_deref(), top)?));
        };
        let scan = Scan {
            top: candidate_count(top),
            mask: mask.as_deref(),
            threads: self.inner.search_threads,
            kernel: Kernel::best(),
        };
        let candidates = cached.with(self.tx, generation, |matrix| matrix.candidates(vector, scan))?;
        let Some(candidates) = candidates else { return Ok(None) };
        let exact = ExactQuery::new(vector);
        let mut ranking = Vec::with_capacity(candidates.len());
        for id in candidates {
            ranking.push((id, self.cosine(&exact, id)?));
        }
        Ok(Some(best(ranking, top)))
    }

    /// Compares all vectors on disk, for a collection whose matrix does not fit into memory. Slower, and as exact.
    fn nearest_on_disk(
        &self,
        vector: &[f32],
        mask: Option<&[u64]>,
        top: usize,
    ) -> Result<Ranking, StoreError> {
        let exact = ExactQuery::new(vector);
        let mut statement =
            self.tx.prepare_cached("SELECT id, document, vector FROM vectors WHERE generation = ?1")?;
        let mut rows = statement.query([self.collection.active])?;
        let mut ranking = Vec::new();
        while let Some(row) = rows.next()? {
            if mask.is_none_or(|mask| is_set(mask, row.get(1).unwrap_or(0))) {
                ranking.push((row.get(0)?, exact.cosine(&decode_vector(row.get_ref(2)?.as_blob()?))));
                if ranking.len() >= 4096.max(2 * top) {
                    ranking = best(ranking, top);
                }
            }
        }
        Ok(best(ranking, top))
    }

    /// Returns the documents that match a filter, as a bit set over document ids.
    fn mask(&self, filter: &Filter) -> Result<Vec<u64>, StoreError> {
        let (sql, values) = filter::documents(filter, self.collection.id);
        let mut statement = self.tx.prepare(&sql)?;
        let mut rows = statement.query(rusqlite::params_from_iter(values))?;
        let mut mask = Vec::new();
        while let Some(row) = rows.next()? {
            let document = row.get::<_, i64>(0)? as usize;
            if mask.len() <= document / 64 {
                mask.resize(document / 64 + 1, 0);
            }
            mask[document / 64] |= 1 << (document % 64);
        }
        Ok(mask)
    }

    /// Ranks by the words of a text, with the full-text index's BM25. Frequencies of words are those of the collection.
    /// The number of chunks and their mean length are those of all collections of the user.
    fn matching(&self, text: &str, top: usize) -> Result<Ranking, StoreError> {
        let prefix = collection_prefix(self.collection.id);
        let phrases: Vec<String> =
            query_phrases(text).iter().map(|phrase| match_expression(&prefix, phrase)).collect();
        if phrases.is_empty() {
            return Ok(Vec::new());
        }
        let (sql, mut values) = match &self.query.filter {
            // The words of a collection have its prefix, so only its chunks match. Their vectors are looked up when the
            // best are known.
            None => (
                "SELECT v.id, m.score
                 FROM (SELECT rowid AS chunk, -bm25(words) AS score FROM words WHERE words MATCH ?1
                       ORDER BY score DESC, chunk LIMIT ?2) m
                 JOIN vectors v ON v.chunk = m.chunk AND v.generation = ?3
                 ORDER BY m.score DESC, v.id"
                    .to_owned(),
                Vec::new(),
            ),
            Some(filter) => {
                let (condition, values) = filter::compile(filter, self.collection.id);
                let first = values.len() + 1;
                let sql = format!(
                    "SELECT v.id, -bm25(words) AS score FROM words
                     JOIN chunks c ON c.id = words.rowid
                     JOIN documents d ON d.id = c.document
                     JOIN vectors v ON v.chunk = c.id AND v.generation = ?{}
                     WHERE words MATCH ?{first} AND {condition}
                     ORDER BY score DESC, v.id LIMIT ?{}",
                    first + 2,
                    first + 1
                );
                (sql, values)
            }
        };
        values.push(Sql::Text(phrases.join(" OR ")));
        values.push(Sql::Integer(top as i64));
        values.push(Sql::Integer(self.collection.active));
        let mut statement = self.tx.prepare(&sql)?;
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
            Ok((row.get(0)?, row.get::<_, f64>(1)? as f32))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    /// Reads the document and the chunk of a vector.
    fn hit(&self, ranked: Ranked) -> Result<Hit, StoreError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT d.name, d.metadata, c.fingerprint, c.occurrence, c.byte_from, c.byte_to, c.char_from, c.char_to,
                    iif(?2, c.text, NULL), c.headings
             FROM vectors v JOIN chunks c ON c.id = v.chunk JOIN documents d ON d.id = v.document WHERE v.id = ?1",
        )?;
        let space = &self.collection.view.binding.space;
        let (hit, metadata) = statement.query_row(params![ranked.id, self.query.with_text], |row| {
            let document: String = row.get(0)?;
            let key = ChunkKey { fingerprint: row.get(2)?, occurrence: row.get(3)? };
            let id = vector_id(self.collection_ref, &document, key, space);
            let metadata: String = row.get(1)?;
            let hit = Hit {
                id,
                document,
                score: ranked.score,
                cosine: ranked.cosine,
                text_rank: ranked.text_rank,
                text_score: ranked.text_score,
                text: row.get(8)?,
                span: span_from_row(row, 4)?,
                headings: headings_from_row(row, 9)?,
                metadata: Default::default(),
            };
            Ok((hit, metadata))
        })?;
        Ok(Hit { metadata: metadata_from_json(&metadata)?, ..hit })
    }
}

/// Returns a phrase in the language of the full-text index. A token holds no quote and no space.
fn match_expression(prefix: &str, phrase: &Phrase) -> String {
    let tokens: Vec<String> = phrase.tokens.iter().map(|token| format!("{prefix}{token}")).collect();
    format!("\"{}\"{}", tokens.join(" "), if phrase.is_prefix { " *" } else { "" })
}

fn is_set(mask: &[u64], document: i64) -> bool {
    let document = document as usize;
    mask.get(document / 64).is_some_and(|bits| bits >> (document % 64) & 1 == 1)
}

/// Returns the `top` best, best first. Of equal scores the lower id, which is the older vector, comes first.
fn best(mut ranking: Ranking, top: usize) -> Ranking {
    ranking.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranking.truncate(top);
    ranking
}

/// A query vector for exact comparison.
struct ExactQuery<'a> {
    query: &'a [f32],
    norm: f32,
}

impl<'a> ExactQuery<'a> {
    fn new(query: &'a [f32]) -> Self {
        Self { query, norm: dot(query, query).sqrt() }
    }

    fn cosine(&self, vector: &[f32]) -> f32 {
        let norm = self.norm * dot(vector, vector).sqrt();
        if norm > 0.0 { (dot(self.query, vector) / norm).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

/// Dot product, summed in sixteen lanes, which the compiler turns into SIMD instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let remainder: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..16 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + remainder
}

#[cfg(test)]
mod tests {
    use embeddery_database::sqlite::{self, Layout, OpenOptions, Synchronous};

    use super::{super::schema::MIGRATIONS, *};
    use crate::{SqliteConfig, SqliteStore, VectorStore as _};

    /// A file of the version before the index of words had our tokens.
    #[tokio::test]
    async fn words_of_an_earlier_version_are_indexed_again() {
        let base = tempfile::tempdir().unwrap();
        let options = OpenOptions {
            busy_timeout: std::time::Duration::from_secs(5),
            synchronous: Synchronous::Normal,
            layout: Layout::LargeRows,
            statement_cache: 8,
        };
        let earlier = &MIGRATIONS[..MIGRATIONS.len() - 1];
        let file = sqlite::open(&base.path().join("1/vectors.db"), earlier, &options).unwrap();
        file.execute_batch(
            "INSERT INTO generations (id, provider, model, space, dim, cut, vectors, last_vector)
                 VALUES (1, 'p', 'm', 's', 1, 0, 2, 2);
             INSERT INTO collections (id, name, metadata, live, documents) VALUES (31, 'notes', '{}', 1, 1);
             INSERT INTO documents (id, collection, name, metadata) VALUES (7, 31, 'd', '{}');
             INSERT INTO chunks (id, document, ordinal, fingerprint, occurrence, byte_from, byte_to, char_from,
                                 char_to, text)
                 VALUES (1, 7, 0, zeroblob(16), 0, 0, 0, 0, 0, '使用Redis缓存'), (2, 7, 1, zeroblob(16), 1, 0, 0, 0, 0, 'Straße');
             INSERT INTO words (rowid, text) SELECT id, text FROM chunks;
             INSERT INTO vectors (generation, document, chunk, vector) VALUES (1, 7, 1, x'0000803f'), (1, 7, 2, x'0000803f');",
        )
        .unwrap();
        drop(file);
        let store = SqliteStore::new(SqliteConfig {
            base_dir: base.path().to_owned(),
            open_users: 1,
            matrix_bytes: 1 << 20,
            search_threads: 1,
            min_free_bytes: 0,
        });
        let notes = CollectionRef { tenant: "1", collection: "notes" };
        for (text, found) in [("缓存", "使用Redis缓存"), ("strasse", "Straße"), ("redis", "使用Redis缓存")]
        {
            let query =
                Query { mode: SearchMode::Text(text.into()), top_k: 5, filter: None, with_text: true };
            let hits = store.search(notes, query).await.unwrap();
            assert_eq!(hits.iter().map(|hit| hit.text.as_deref().unwrap()).collect::<Vec<_>>(), [found]);
        }
        // A row of the new index is removed without its text.
        store.delete(notes, crate::DeleteTarget::Ids(&["d".to_owned()])).await.unwrap();
        let query = Query { mode: SearchMode::Text("redis".into()), top_k: 5, filter: None, with_text: true };
        assert!(store.search(notes, query).await.unwrap().is_empty());
    }
}
