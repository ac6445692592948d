//! Search: documents that count by SQL, candidates by the matrix, their order by the exact vectors, or by words, or
//! by both. One search sees one moment.

use rusqlite::{Transaction, params, types::Value as Sql};

use super::{
    Inner,
    collections::{Found, find, read_metadata},
    filter,
    matrix_cache::GenerationVersion,
    read::floats,
    write::{headings, span},
};
use crate::{
    CollectionRef, Filter, Hit, Mode, Query, StoreError, check_vector, fusion,
    matrix::{Kernel, Matrix, Scan},
    query_terms::query_terms,
    types::ChunkKey,
    vector_id,
};

/// Candidates beyond the results asked for: the scan's scores are right to about a thousandth, so that what
/// belongs among the results is hardly ever further down.
fn oversampled(top_k: usize) -> usize {
    top_k + 3 * top_k.min(100) + 20
}

/// How deep each ranking is read before they are fused.
fn fused_depth(top_k: usize) -> usize {
    (2 * top_k).max(50)
}

pub(super) fn search(inner: &Inner, place: CollectionRef<'_>, query: &Query) -> Result<Vec<Hit>, StoreError> {
    let user = inner.users.get(place.tenant)?;
    loop {
        let done = user.read(|tx| {
            let search =
                Search { inner, place, query, tx, found: find(tx, place.collection)?, inode: user.inode() };
            search.run()
        })?;
        // Somebody else's search has seen a later moment than this one; so shall this one.
        if let Some(hits) = done {
            return Ok(hits);
        }
    }
}

struct Search<'a> {
    inner: &'a Inner,
    place: CollectionRef<'a>,
    query: &'a Query,
    tx: &'a Transaction<'a>,
    found: Found,
    inode: u64,
}

/// Vector ids with scores, best first.
type Ranking = Vec<(i64, f32)>;

impl Search<'_> {
    fn run(&self) -> Result<Option<Vec<Hit>>, StoreError> {
        let top_k = self.query.top_k;
        let ranking = match &self.query.mode {
            Mode::Vector(vector) => self.nearest(vector, top_k)?,
            Mode::Text(text) => Some(self.matching(text, top_k)?),
            Mode::Hybrid(vector, text) => {
                let depth = fused_depth(top_k);
                self.nearest(vector, depth)?
                    .map(|near| {
                        let near: Vec<i64> = near.into_iter().map(|(id, _)| id).collect();
                        let match_: Vec<i64> =
                            self.matching(text, depth)?.into_iter().map(|(id, _)| id).collect();
                        Ok::<_, StoreError>(fusion::fuse([&near, &match_], top_k))
                    })
                    .transpose()?
            }
        };
        ranking
            .map(|ranking| ranking.into_iter().map(|(id, score)| self.hit(id, score)).collect())
            .transpose()
    }

    fn nearest(&self, vector: &[f32], top: usize) -> Result<Option<Ranking>, StoreError> {
        let (generation, dim) = (self.found.live, self.found.view.binding.dim);
        check_vector(vector, dim)?;
        let mask = self.query.filter.as_ref().map(|filter| self.mask(filter)).transpose()?;
        let needs = Matrix::bytes_of(GenerationVersion::of(self.tx, generation)?.vectors as usize, dim);
        let cached = self.inner.matrices.get((self.place.tenant, self.inode, generation), needs, dim);
        let Some(cached) = cached else {
            return Ok(Some(self.nearest_on_disk(vector, mask.as_deref(), top)?));
        };
        let scan = Scan {
            top: oversampled(top),
            mask: mask.as_deref(),
            threads: self.inner.search_threads,
            kernel: Kernel::best(),
        };
        let candidates = cached.with(self.tx, generation, |matrix| matrix.candidates(vector, scan))?;
        let Some(candidates) = candidates else { return Ok(None) };
        let exact = Exact::new(vector);
        let mut statement = self.tx.prepare_cached("SELECT vector FROM vectors WHERE id = ?1")?;
        let mut ranking = Vec::with_capacity(candidates.len());
        for id in candidates {
            let score =
                statement.query_row([id], |row| Ok(exact.cosine(&floats(row.get_ref(0)?.as_blob()?))))?;
            ranking.push((id, score));
        }
        Ok(Some(best(ranking, top)))
    }

    /// For a collection larger than the memory for matrices: slower, and as exact.
    fn nearest_on_disk(
        &self,
        vector: &[f32],
        mask: Option<&[u64]>,
        top: usize,
    ) -> Result<Ranking, StoreError> {
        let exact = Exact::new(vector);
        let mut statement =
            self.tx.prepare_cached("SELECT id, document, vector FROM vectors WHERE generation = ?1")?;
        let mut rows = statement.query([self.found.live])?;
        let mut ranking = Vec::new();
        while let Some(row) = rows.next()? {
            if mask.is_none_or(|mask| is_set(mask, row.get(1).unwrap_or(0))) {
                ranking.push((row.get(0)?, exact.cosine(&floats(row.get_ref(2)?.as_blob()?))));
                if ranking.len() >= 4096.max(2 * top) {
                    ranking = best(ranking, top);
                }
            }
        }
        Ok(best(ranking, top))
    }

    /// The documents a filter fits, as bits.
    fn mask(&self, filter: &Filter) -> Result<Vec<u64>, StoreError> {
        let (sql, values) = filter::documents(filter, self.found.id);
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

    fn matching(&self, text: &str, top: usize) -> Result<Ranking, StoreError> {
        let words: Vec<String> = query_terms(text).into_iter().map(|word| format!("\"{word}\"")).collect();
        if words.is_empty() {
            return Ok(Vec::new());
        }
        let (condition, mut values) = match &self.query.filter {
            Some(filter) => filter::compile(filter, self.found.id),
            None => ("d.collection = ?1".to_owned(), vec![Sql::Integer(self.found.id)]),
        };
        let first = values.len() + 1;
        values.push(Sql::Text(words.join(" OR ")));
        values.push(Sql::Integer(self.found.live));
        values.push(Sql::Integer(top as i64));
        let sql = format!(
            "SELECT v.id, -bm25(words) FROM words
             JOIN chunks c ON c.id = words.rowid
             JOIN documents d ON d.id = c.document
             JOIN vectors v ON v.chunk = c.id AND v.generation = ?{}
             WHERE words MATCH ?{first} AND {condition}
             ORDER BY bm25(words), v.id LIMIT ?{}",
            first + 1,
            first + 2
        );
        let mut statement = self.tx.prepare(&sql)?;
        let rows = statement.query_map(rusqlite::params_from_iter(values), |row| {
            Ok((row.get(0)?, row.get::<_, f64>(1)? as f32))
        })?;
        Ok(rows.collect::<Result<_, _>>()?)
    }

    fn hit(&self, id: i64, score: f32) -> Result<Hit, StoreError> {
        let mut statement = self.tx.prepare_cached(
            "SELECT d.name, d.metadata, c.fingerprint, c.occurrence, c.byte_from, c.byte_to, c.char_from, c.char_to,
                    iif(?2, c.text, NULL), c.headings
             FROM vectors v JOIN chunks c ON c.id = v.chunk JOIN documents d ON d.id = v.document WHERE v.id = ?1",
        )?;
        let space = &self.found.view.binding.space;
        let (hit, metadata) = statement.query_row(params![id, self.query.with_text], |row| {
            let document: String = row.get(0)?;
            let key = ChunkKey { fingerprint: row.get(2)?, occurrence: row.get(3)? };
            let id = vector_id(self.place, &document, key, space);
            let metadata: String = row.get(1)?;
            let hit = Hit {
                id,
                document,
                score,
                text: row.get(8)?,
                span: span(row, 4)?,
                headings: headings(row, 9)?,
                metadata: Default::default(),
            };
            Ok((hit, metadata))
        })?;
        Ok(Hit { metadata: read_metadata(&metadata)?, ..hit })
    }
}

fn is_set(mask: &[u64], document: i64) -> bool {
    let document = document as usize;
    mask.get(document / 64).is_some_and(|bits| bits >> (document % 64) & 1 == 1)
}

/// The best so many; of equal scores the older.
fn best(mut ranking: Ranking, top: usize) -> Ranking {
    ranking.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    ranking.truncate(top);
    ranking
}

/// A query that is compared exactly.
struct Exact<'a> {
    query: &'a [f32],
    norm: f32,
}

impl<'a> Exact<'a> {
    fn new(query: &'a [f32]) -> Self {
        Self { query, norm: dot(query, query).sqrt() }
    }

    fn cosine(&self, vector: &[f32]) -> f32 {
        let norm = self.norm * dot(vector, vector).sqrt();
        if norm > 0.0 { (dot(self.query, vector) / norm).clamp(-1.0, 1.0) } else { 0.0 }
    }
}

/// Sums in sixteen lanes, which the compiler turns into vector instructions.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut lanes = [0f32; 16];
    let (a, b) = (a.chunks_exact(16), b.chunks_exact(16));
    let rest: f32 = a.remainder().iter().zip(b.remainder()).map(|(a, b)| a * b).sum();
    for (a, b) in a.zip(b) {
        for lane in 0..16 {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f32>() + rest
}
