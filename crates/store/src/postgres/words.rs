//! The index of words, and its migration. `word_search` searches in it.
//!
//! The tokens are ours (see [`crate::words`]) and PostgreSQL's parser sees neither texts nor queries, so the locale of
//! the database has no influence. A row of `words` is one chunk. A policy lets a transaction read only the rows that match
//! the words in the setting `embeddery.words`. PostgreSQL uses an index for a condition of a policy. It does not for a
//! condition of a query that runs after a policy, unless the operator is leakproof, and `@@` is not.

use std::error::Error;

use bytes::BytesMut;
use deadpool_postgres::Transaction;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};

use crate::{
    StoreError,
    words::{IndexedWords, collection_prefix, index_words},
};

/// Highest position in a `tsvector`. Positions after it begin again at 1, so that phrases are still found.
const MAX_POSITION: usize = 16_383;

/// Maximum number of positions of a token in a `tsvector`. More are not stored.
const MAX_POSITIONS: usize = 255;

/// The tokens of a chunk in the binary form of `tsvector`.
#[derive(Debug)]
pub(super) struct TsVector(Vec<u8>);

impl TsVector {
    pub(super) fn new(indexed: &IndexedWords) -> Self {
        let words = indexed.words.split_terminator(' ');
        let spellings = indexed.spellings.split_terminator(' ');
        // No phrase reaches from the words to the spellings.
        let first_spelling = words.clone().count() + 1;
        let position = |index: usize| (index % MAX_POSITION + 1) as u16;
        let mut tokens: Vec<(&str, u16)> = (0..)
            .zip(words)
            .chain((first_spelling..).zip(spellings))
            .map(|(index, token)| (token, position(index)))
            .collect();
        tokens.sort_unstable();
        tokens.dedup();
        let lexemes: Vec<&[(&str, u16)]> = tokens.chunk_by(|a, b| a.0 == b.0).collect();
        let mut bytes =
            Vec::with_capacity(indexed.words.len() + indexed.spellings.len() + 4 * tokens.len() + 4);
        bytes.extend((lexemes.len() as u32).to_be_bytes());
        for lexeme in lexemes {
            let positions = &lexeme[..lexeme.len().min(MAX_POSITIONS)];
            bytes.extend(positions[0].0.as_bytes());
            bytes.push(0);
            bytes.extend((positions.len() as u16).to_be_bytes());
            bytes.extend(positions.iter().flat_map(|(_, position)| position.to_be_bytes()));
        }
        Self(bytes)
    }
}

impl ToSql for TsVector {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.extend_from_slice(&self.0);
        Ok(IsNull::No)
    }

    fn accepts(ty: &Type) -> bool {
        *ty == Type::TS_VECTOR
    }

    to_sql_checked!();
}

/// Rows of `words` to add, as columns.
#[derive(Debug, Default)]
pub(super) struct NewWords {
    tokens: Vec<TsVector>,
    /// Number of tokens of each row.
    pub(super) counts: Vec<i32>,
}

impl NewWords {
    /// Makes the words of chunks, each with the key of its collection, on a thread that may block: it takes some 20
    /// milliseconds for a megabyte of text.
    pub(super) async fn from_texts(texts: impl Iterator<Item = (i64, &str)>) -> Result<Self, StoreError> {
        let texts: Vec<(i64, String)> =
            texts.map(|(collection, text)| (collection, text.to_owned())).collect();
        let index = move || {
            let mut new = Self::default();
            for (collection, text) in &texts {
                new.push(&collection_prefix(*collection), text);
            }
            new
        };
        tokio::task::spawn_blocking(index).await.map_err(StoreError::internal)
    }

    fn push(&mut self, prefix: &str, text: &str) {
        let indexed = index_words(prefix, text);
        self.tokens.push(TsVector::new(&indexed));
        self.counts.push(indexed.count as i32);
    }

    /// Writes the rows. `chunks` are the keys of the chunks.
    pub(super) async fn write(
        &self,
        tx: &Transaction<'_>,
        tenant: &str,
        chunks: &[i64],
    ) -> Result<(), StoreError> {
        let statement = tx
            .prepare_cached(
                "INSERT INTO embeddery.words (chunk, tenant, tokens, word_count)
                 SELECT chunk, $1, tokens, word_count
                 FROM unnest($2::bigint[], $3::tsvector[], $4::integer[]) AS new (chunk, tokens, word_count)",
            )
            .await?;
        tx.execute(&statement, &[&tenant, &chunks, &self.tokens, &self.counts]).await?;
        Ok(())
    }
}

/// A change of the number of chunks of a collection, and of the sum of their tokens.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TotalsChange {
    pub(super) chunks: i64,
    pub(super) words: i64,
}

impl TotalsChange {
    pub(super) fn add(&mut self, word_count: i32) {
        self.chunks += 1;
        self.words += i64::from(word_count);
    }

    pub(super) fn remove(&mut self, chunks: i64, words: i64) {
        self.chunks -= chunks;
        self.words -= words;
    }

    /// Writes the change. It is the last statement of a transaction, because it locks a row. Each connection has its own
    /// of a few rows of the collection, so that writers seldom wait for each other.
    pub(super) async fn write(
        self,
        tx: &Transaction<'_>,
        tenant: &str,
        collection: i64,
    ) -> Result<(), StoreError> {
        if self.chunks == 0 && self.words == 0 {
            return Ok(());
        }
        let statement = tx
            .prepare_cached(
                "INSERT INTO embeddery.word_totals AS old (tenant, collection, shard, chunks, words)
                 VALUES ($1, $2, pg_backend_pid() % 16, $3, $4)
                 ON CONFLICT (collection, shard) DO UPDATE SET
                     chunks = old.chunks + excluded.chunks, words = old.words + excluded.words",
            )
            .await?;
        tx.execute(&statement, &[&tenant, &collection, &self.chunks, &self.words]).await?;
        Ok(())
    }
}

/// Maximum number of chunks that are read in one step of the migration.
const MAX_CHUNKS_PER_STEP: i64 = 1000;

/// Bytes of text after which a step of the migration ends.
const BYTES_PER_STEP: i64 = 8 << 20;

/// Fills `words`, which is empty, with the words of the chunks of all tenants. It runs in the transaction of the
/// migration that makes the table.
pub(super) async fn index_all_words(tx: &tokio_postgres::Transaction<'_>) -> Result<(), StoreError> {
    // The owner of the tables sees the rows of all tenants while the policies do not bind it. No other transaction
    // sees that.
    let tables = ["collections", "documents", "chunks", "words", "word_totals"];
    for table in tables {
        tx.batch_execute(&format!("ALTER TABLE embeddery.{table} NO FORCE ROW LEVEL SECURITY")).await?;
    }
    let mut last = 0_i64;
    loop {
        let rows = tx
            .query(
                "SELECT id, tenant, collection, text
                 FROM (SELECT *, sum(octet_length(text)) OVER (ORDER BY id) - octet_length(text) AS bytes_before
                       FROM (SELECT c.id, c.tenant, d.collection, c.text
                             FROM embeddery.chunks c JOIN embeddery.documents d ON d.id = c.document
                             WHERE c.id > $1 ORDER BY c.id LIMIT $2) AS next) AS summed
                 WHERE bytes_before < $3 ORDER BY id",
                &[&last, &MAX_CHUNKS_PER_STEP, &BYTES_PER_STEP],
            )
            .await?;
        let Some(row) = rows.last() else { break };
        last = row.get(0);
        let ids: Vec<i64> = rows.iter().map(|row| row.get(0)).collect();
        let tenants: Vec<&str> = rows.iter().map(|row| row.get(1)).collect();
        let new = NewWords::from_texts(rows.iter().map(|row| (row.get(2), row.get(3)))).await?;
        tx.execute(
            "INSERT INTO embeddery.words (chunk, tenant, tokens, word_count)
             SELECT * FROM unnest($1::bigint[], $2::text[], $3::tsvector[], $4::integer[])",
            &[&ids, &tenants, &new.tokens, &new.counts],
        )
        .await?;
        tx.execute(
            "UPDATE embeddery.chunks c SET word_count = new.word_count
             FROM unnest($1::bigint[], $2::integer[]) AS new (id, word_count) WHERE c.id = new.id",
            &[&ids, &new.counts],
        )
        .await?;
    }
    // A search reads the index several times, and each time its list of pending entries, so the list is kept short.
    tx.batch_execute(
        "INSERT INTO embeddery.word_totals (tenant, collection, shard, chunks, words)
         SELECT d.tenant, d.collection, 0, count(*), sum(c.word_count)
         FROM embeddery.chunks c JOIN embeddery.documents d ON d.id = c.document
         GROUP BY d.tenant, d.collection;
         CREATE INDEX words_by_token ON embeddery.words USING gin (tokens) WITH (gin_pending_list_limit = 512)",
    )
    .await?;
    for table in tables {
        tx.batch_execute(&format!("ALTER TABLE embeddery.{table} FORCE ROW LEVEL SECURITY")).await?;
    }
    Ok(())
}
