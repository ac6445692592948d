//! Part of `make bench-store`: search by words, beside the databases' own full-text search on the same passages.
//!
//! bench_words DIRECTORY PASSAGES       the embedded store, and a plain FTS5 table
//! bench_words --postgres URL PASSAGES  the distributed store, and a plain table with PostgreSQL's `to_tsvector`
//!
//! The passages are synthetic: 60 words each, of a vocabulary of 50,000 words in which the n-th word has the frequency
//! 1/n, as in a language. It compiles against earlier versions of the store, too, so that insert rates can be compared.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for developers")]

#[path = "support/random.rs"]
mod random;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use embeddery_core::SpaceId;
use embeddery_store::{
    CollectionRef, Document, DocumentChunk, ModelBinding, NewCollection, PostgresConfig, PostgresStore,
    Query, SearchMode, SqliteConfig, SqliteStore, TextSpan, VectorStore,
};
use rusqlite::Connection;
use serde_json::Map;

use random::Random;
use tokio_postgres::NoTls;

const DIM: usize = 384;
const VOCABULARY: f64 = 50_000.0;
const WORDS_PER_PASSAGE: usize = 60;
const QUERIES: u64 = 200;
const TOP_K: usize = 10;
const COLLECTION: CollectionRef<'_> = CollectionRef { tenant: "words", collection: "bench" };

fn share(random: &mut Random) -> f64 {
    (random.next() >> 11) as f64 / (1u64 << 53) as f64
}

/// The word of this rank: syllables, so that words look like words.
fn word(rank: usize) -> String {
    let (mut word, mut rest) = (String::new(), rank + 1);
    while rest > 0 {
        word.push(b"bdfgklmnprstvz"[rest % 14] as char);
        word.push(b"aeiou"[rest / 14 % 5] as char);
        rest /= 70;
    }
    word
}

/// A word of a language: the frequency is the inverse of the rank.
fn zipf(random: &mut Random) -> String {
    word(VOCABULARY.powf(share(random)) as usize)
}

fn passage(i: u64) -> String {
    let mut random = Random(i.wrapping_mul(0x1000_0001));
    let words: Vec<String> = (0..WORDS_PER_PASSAGE).map(|_| zipf(&mut random)).collect();
    words.join(" ")
}

/// Queries of a frequent word, as articles are, and two others.
fn queries() -> Vec<String> {
    let query = |i: u64| {
        let mut random = Random(i << 40 | 7);
        let frequent = word((random.next() % 10) as usize);
        let mut rarer = || word(50 + (VOCABULARY.powf(share(&mut random))) as usize);
        format!("{frequent} {} {}", rarer(), rarer())
    };
    (0..QUERIES).map(query).collect()
}

fn document(i: u64) -> Document {
    let mut random = Random(i);
    let vector = (0..DIM).map(|_| share(&mut random) as f32 - 0.5).collect();
    let chunk = DocumentChunk {
        text: passage(i),
        span: TextSpan::default(),
        headings: Vec::new(),
        vector: Some(vector),
    };
    Document { id: i.to_string(), metadata: Map::new(), chunks: vec![chunk], submission: None }
}

/// Inserts passages in batches of 1000 and returns the passages a second.
async fn insert(store: &dyn VectorStore, passages: u64) -> f64 {
    let binding = ModelBinding {
        provider: "bench".into(),
        model: "synthetic".into(),
        space: SpaceId::new("bench"),
        dim: DIM,
        custom_dimensions: false,
    };
    let new = NewCollection { binding, metadata: Map::new(), submission: None };
    store.create(COLLECTION, new).await.unwrap();
    let mut spent = Duration::ZERO;
    for start in (0..passages).step_by(1000) {
        let batch = (start..passages.min(start + 1000)).map(|i| document(i).check().unwrap()).collect();
        let begin = Instant::now();
        store.upsert(COLLECTION, Some(SpaceId::new("bench")), batch).await.unwrap();
        spent += begin.elapsed();
    }
    passages as f64 / spent.as_secs_f64()
}

/// The median and the 99th percentile of the times, in milliseconds.
fn percentiles(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3;
    format!("p50 {:.2} ms, p99 {:.2} ms", at(0.5), at(0.99))
}

async fn latency(store: &dyn VectorStore) -> String {
    let mut times = Vec::new();
    for text in queries() {
        let query = Query { mode: SearchMode::Text(text), top_k: TOP_K, filter: None, with_text: false };
        let begin = Instant::now();
        store.search(COLLECTION, query).await.unwrap();
        times.push(begin.elapsed());
    }
    percentiles(times)
}

/// Bytes of a full-text index of SQLite.
fn fts5_bytes(file: &Connection, table: &str) -> f64 {
    let sql = format!(
        "SELECT (SELECT sum(length(block)) FROM {table}_data) + (SELECT sum(length(sz) + 4) FROM {table}_docsize)"
    );
    file.query_row(&sql, [], |row| row.get::<_, i64>(0)).unwrap() as f64
}

async fn embedded(directory: &Path, passages: u64) {
    println!("search by words, embedded, {passages} passages of {WORDS_PER_PASSAGE} words");
    let base_dir = directory.join(format!("words-{passages}"));
    let store = SqliteStore::new(SqliteConfig {
        base_dir: base_dir.clone(),
        open_users: 1,
        matrix_bytes: 1 << 30,
        search_threads: 1,
        min_free_bytes: 0,
    });
    println!("  insert: {:.0} passages a second", insert(&store, passages).await);
    let times = latency(&store).await;
    let file = Connection::open(base_dir.join(COLLECTION.tenant).join("vectors.db")).unwrap();
    println!("    {times}, index {:.1} MiB", fts5_bytes(&file, "words") / 1048576.0);

    let plain = Connection::open(directory.join(format!("fts5-{passages}.db"))).unwrap();
    plain
        .execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA page_size = 8192; PRAGMA cache_size = -16384;
             CREATE TABLE passages (id INTEGER PRIMARY KEY, text TEXT);
             CREATE VIRTUAL TABLE words USING fts5 (text, content = 'passages', content_rowid = 'id');",
        )
        .unwrap();
    let begin = Instant::now();
    for start in (0..passages).step_by(1000) {
        let tx = plain.unchecked_transaction().unwrap();
        for i in start..passages.min(start + 1000) {
            let text = passage(i);
            tx.execute("INSERT INTO passages VALUES (?1, ?2)", (i as i64, &text)).unwrap();
            tx.execute("INSERT INTO words (rowid, text) VALUES (?1, ?2)", (i as i64, &text)).unwrap();
        }
        tx.commit().unwrap();
    }
    println!(
        "  plain FTS5, without vectors: insert {:.0} passages a second",
        passages as f64 / begin.elapsed().as_secs_f64()
    );
    let sql = "SELECT rowid FROM words WHERE words MATCH ?1 ORDER BY rank LIMIT ?2";
    let mut statement = plain.prepare(sql).unwrap();
    let mut times = Vec::new();
    for text in queries() {
        let query = text.split(' ').collect::<Vec<_>>().join(" OR ");
        let begin = Instant::now();
        let rows = statement.query_map((query, TOP_K as i64), |row| row.get::<_, i64>(0)).unwrap();
        assert!(rows.count() > 0);
        times.push(begin.elapsed());
    }
    println!("    {}, index {:.1} MiB", percentiles(times), fts5_bytes(&plain, "words") / 1048576.0);
}

async fn distributed(url: &str, passages: u64) {
    println!("search by words, PostgreSQL, {passages} passages of {WORDS_PER_PASSAGE} words");
    let timeout = Duration::from_secs(600);
    let store = PostgresStore::new(&PostgresConfig { url: url.to_owned(), connections: 2, timeout }).unwrap();
    store.delete_tenant(COLLECTION.tenant).await.unwrap();
    println!("  insert: {:.0} passages a second", insert(&store, passages).await);
    let (plain, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    plain.batch_execute("ANALYZE").await.unwrap();
    println!("    {}", latency(&store).await);
    let size = "SELECT coalesce(sum(pg_total_relation_size(oid)), 0)::bigint FROM pg_class
                WHERE oid IN (to_regclass('embeddery.words'), to_regclass('embeddery.chunks_by_words'))";
    let bytes: i64 = plain.query_one(size, &[]).await.unwrap().get(0);
    println!("    index {:.1} MiB with its column", bytes as f64 / 1048576.0);

    plain
        .batch_execute(
            "CREATE TEMPORARY TABLE passages (id bigint PRIMARY KEY, text text,
                 words tsvector GENERATED ALWAYS AS (to_tsvector('simple', text)) STORED);
             CREATE INDEX passages_by_words ON passages USING gin (words)",
        )
        .await
        .unwrap();
    let begin = Instant::now();
    for start in (0..passages).step_by(1000) {
        let ids: Vec<i64> = (start..passages.min(start + 1000)).map(|i| i as i64).collect();
        let texts: Vec<String> = ids.iter().map(|i| passage(*i as u64)).collect();
        let sql = "INSERT INTO passages (id, text) SELECT * FROM unnest($1::bigint[], $2::text[])";
        plain.execute(sql, &[&ids, &texts]).await.unwrap();
    }
    println!(
        "  PostgreSQL's own, without vectors: insert {:.0} passages a second",
        passages as f64 / begin.elapsed().as_secs_f64()
    );
    plain.batch_execute("ANALYZE passages").await.unwrap();
    let mut times = Vec::new();
    for text in queries() {
        let query = text.split(' ').collect::<Vec<_>>().join(" | ");
        let sql = "SELECT id FROM passages, to_tsquery('simple', $1) q WHERE words @@ q
                   ORDER BY ts_rank(words, q) DESC LIMIT 10";
        let begin = Instant::now();
        assert!(!plain.query(sql, &[&query]).await.unwrap().is_empty());
        times.push(begin.elapsed());
    }
    let size = "SELECT (pg_relation_size('passages_by_words') + (SELECT sum(pg_column_size(words)) FROM passages))::bigint";
    let bytes: i64 = plain.query_one(size, &[]).await.unwrap().get(0);
    println!("    {}, index {:.1} MiB with its column", percentiles(times), bytes as f64 / 1048576.0);
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let passages = |text: &String| text.parse::<u64>().unwrap();
    match arguments.as_slice() {
        [flag, url, count] if flag == "--postgres" => distributed(url, passages(count)).await,
        [directory, count] => embedded(Path::new(directory), passages(count)).await,
        _ => println!("bench_words DIRECTORY PASSAGES | bench_words --postgres URL PASSAGES"),
    }
}
