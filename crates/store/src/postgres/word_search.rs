//! Search in the index of words. The score is the BM25 of the embedded store, with the numbers of the collection: the number
//! of chunks and the sum of their lengths are kept in `word_totals`, and the frequency of a phrase is counted by each
//! search.

use deadpool_postgres::Transaction;

use super::{
    connection::Parameters,
    filter::{self, FilterParameters},
};
use crate::{
    Filter, StoreError,
    fusion::Ranking,
    words::{Phrase, collection_prefix, query_phrases},
};

/// BM25's saturation of the frequency of a word in a chunk, as in the embedded store's index.
const K1: f64 = 1.2;

/// BM25's weight of the length of a chunk, as in the embedded store's index.
const B: f64 = 0.75;

/// Weight of a phrase that half of the chunks have, as in the embedded store's index.
const MIN_IDF: f64 = 1e-6;

/// A search by words in a collection.
pub(super) struct WordSearch<'a> {
    pub(super) tx: &'a Transaction<'a>,
    pub(super) tenant: &'a str,
    pub(super) collection: i64,
    pub(super) filter: Option<&'a Filter>,
}

/// A phrase that at least one chunk has.
struct WeightedPhrase {
    /// The phrase as a `tsquery`.
    query: String,
    /// Whether `ts_rank` gives the frequency of the phrase.
    is_one_token: bool,
    /// Number of chunks with the phrase, at most about half of all.
    chunks: i64,
    idf: f64,
}

impl WordSearch<'_> {
    /// Returns the `top` chunks with words of a text, best first.
    pub(super) async fn ranking(&self, text: &str, top: usize) -> Result<Ranking, StoreError> {
        let phrases = query_phrases(text);
        if phrases.is_empty() {
            return Ok(Vec::new());
        }
        let (phrases, mean_length) = self.weighted(&phrases).await?;
        if phrases.is_empty() {
            return Ok(Vec::new());
        }
        // The rarest phrases decide which chunks are first. If enough chunks with one of these are found, and no other
        // chunk can have a higher score, chunks with only frequent words need not be scored.
        let enough = 4 * top as i64;
        let found =
            phrases.iter().scan(0, |found, phrase| Some(std::mem::replace(found, *found + phrase.chunks)));
        let (rare, frequent) = phrases.split_at(found.take_while(|found| *found < enough).count());
        let ranking = self.score(rare, &phrases, mean_length, top).await?;
        let max_of_others: f64 = frequent.iter().map(|phrase| phrase.idf * (K1 + 1.0)).sum();
        let is_complete = frequent.is_empty()
            || (ranking.len() == top && ranking.last().is_some_and(|last| f64::from(last.1) > max_of_others));
        if is_complete { Ok(ranking) } else { self.score(&phrases, &phrases, mean_length, top).await }
    }

    /// Returns the phrases that chunks of the collection have, the rarest first, and the mean number of tokens of a
    /// chunk.
    async fn weighted(&self, phrases: &[Phrase]) -> Result<(Vec<WeightedPhrase>, f64), StoreError> {
        let totals = self
            .tx
            .prepare_cached(
                "SELECT coalesce(sum(chunks), 0)::bigint, coalesce(sum(words), 0)::bigint
                 FROM embeddery.word_totals WHERE collection = $1",
            )
            .await?;
        let row = self.tx.query_one(&totals, &[&self.collection]).await?;
        // A wrong total must not end a search.
        let (chunks, words) = (row.get::<_, i64>(0).max(0), row.get::<_, i64>(1).max(0));
        let prefix = collection_prefix(self.collection);
        let queries: Vec<String> = phrases.iter().map(|phrase| to_tsquery(&prefix, phrase)).collect();
        let counts = self.tx.prepare_cached("SELECT embeddery.count_matches($1, $2)").await?;
        // A phrase in more than half of the chunks has the lowest weight, so no more are counted.
        let counts = self.tx.query_one(&counts, &[&queries, &(chunks / 2 + 1)]).await?;
        let counts: Vec<i64> = counts.get(0);
        let weighted = phrases.iter().zip(queries).zip(counts).filter(|(_, count)| *count > 0);
        let mut weighted: Vec<WeightedPhrase> = weighted
            .map(|((phrase, query), count)| WeightedPhrase {
                query,
                is_one_token: phrase.tokens.len() == 1 && !phrase.is_prefix,
                chunks: count,
                idf: idf(chunks, count),
            })
            .collect();
        weighted.sort_by(|a, b| b.idf.total_cmp(&a.idf));
        Ok((weighted, (words as f64 / chunks.max(1) as f64).max(1.0)))
    }

    /// Returns the `top` chunks with one of the phrases `required`, by the BM25 score of all phrases.
    async fn score(
        &self,
        required: &[WeightedPhrase],
        phrases: &[WeightedPhrase],
        mean_length: f64,
        top: usize,
    ) -> Result<Ranking, StoreError> {
        let required: Vec<String> = required.iter().map(|phrase| format!("({})", phrase.query)).collect();
        let required = required.join(" | ");
        let setting = self.tx.prepare_cached("SELECT set_config('embeddery.words', $1, true)").await?;
        self.tx.execute(&setting, &[&required]).await?;

        let mut parameters: Parameters<'_> = vec![&required, &self.tenant];
        let mut score = String::from("0");
        for phrase in phrases {
            parameters.push(&phrase.query);
            let query = format!("${}::text::tsquery", parameters.len());
            let frequency = if phrase.is_one_token { frequency(&query) } else { presence(&query) };
            let weight = phrase.idf * (K1 + 1.0);
            // The same as weight * frequency / (frequency + norm), with the frequency computed once.
            score.push_str(&format!(" + {weight:?}::float8 * (1 - norm / ({frequency} + norm))"));
        }
        let mut filter_parameters = FilterParameters::default();
        let filtered = match self.filter {
            Some(filter) => {
                parameters.push(&self.collection);
                let condition = filter::compile(filter, &mut filter_parameters, parameters.len() + 1);
                format!(
                    " AND EXISTS (SELECT 1 FROM embeddery.chunks c JOIN embeddery.documents d ON d.id = c.document
                                  WHERE c.id = w.chunk AND d.collection = ${} AND {condition})",
                    parameters.len()
                )
            }
            None => String::new(),
        };
        let sql = format!(
            "SELECT chunk, {score} AS score
             FROM (SELECT chunk, tokens, {K1} * ({} + {B} * word_count / {mean_length:?}::float8) AS norm
                   FROM embeddery.words w
                   WHERE tokens @@ $1::text::tsquery AND tenant = $2{filtered} OFFSET 0) AS w
             ORDER BY score DESC, chunk LIMIT {top}",
            1.0 - B
        );
        let rows = self.tx.query(&sql, &filter_parameters.append_to(parameters)).await?;
        Ok(rows.iter().map(|row| (row.get(0), row.get::<_, f64>(1) as f32)).collect())
    }
}

/// Weight of a phrase that `count` of `chunks` chunks have, as in the embedded store's index.
fn idf(chunks: i64, count: i64) -> f64 {
    let (chunks, count) = (chunks as f64, count as f64);
    ((chunks - count + 0.5) / (count + 0.5)).ln().max(MIN_IDF)
}

/// Returns an expression for how often a chunk has a token. For a query of one token of equal weights, `ts_rank` is
/// `Σ 1/i²` for `i` from 1 to the frequency, divided by its limit `π²/6`. The rest of the sum is close to
/// `1 / (frequency + 1/2)`, so the frequency is found exactly by rounding.
fn frequency(query: &str) -> String {
    format!(
        "round(1 / (1.644934066848 - 1.64493406685 * ts_rank('{{1,1,1,1}}', tokens, {query})::float8) - 0.5)"
    )
}

/// Returns an expression that is 1 if a chunk has a phrase and 0 if not.
fn presence(query: &str) -> String {
    format!("(tokens @@ {query})::integer")
}

/// Returns a phrase as a `tsquery`. A token holds no quote and no backslash, so it cannot end its quotes.
fn to_tsquery(prefix: &str, phrase: &Phrase) -> String {
    let tokens: Vec<String> = phrase.tokens.iter().map(|token| format!("'{prefix}{token}'")).collect();
    tokens.join(" <-> ") + if phrase.is_prefix { ":*" } else { "" }
}
