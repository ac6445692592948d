//! `make bench-store`: benchmark of the embedded store on clustered vectors, and of pgvector if a database is given.
//!
//! bench DIRECTORY ROWS...            the embedded store; writes the vectors and queries to DIRECTORY for the comparison
//! bench --postgres URL ROWS          the distributed store with four tenants, of which one is searched
//!
//! The vectors are synthetic: 384 dimensions, points around 200 centres, as if from texts on a few subjects. A seed gives
//! the same bytes on every machine.

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program for developers")]

#[path = "support/random.rs"]
mod random;

use std::{
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use embeddery_core::SpaceId;
use embeddery_store::{
    CheckedDocument, CollectionRef, Document, DocumentChunk, Filter, ModelBinding, NewCollection,
    PostgresConfig, PostgresStore, Query, SearchMode, SqliteConfig, SqliteStore, TextSpan, VectorStore,
};
use serde_json::{Map, json};

use random::Random;

const DIM: usize = 384;
const CENTRES: u64 = 200;
const QUERIES: usize = 200;
const TOP_K: usize = 10;

/// An approximately normal number: a sum of uniform ones.
fn normal(random: &mut Random) -> f32 {
    (0..4).map(|_| (random.next() >> 40) as f32 / (1 << 24) as f32 - 0.5).sum::<f32>() * 1.73
}

fn vector(seed: u64) -> Vec<f32> {
    let mut own = Random(seed.wrapping_mul(0x1000_0001) ^ 0xabcd);
    let mut centre = Random(own.next() % CENTRES);
    let numbers: Vec<f32> = (0..DIM).map(|_| normal(&mut centre) + 0.7 * normal(&mut own)).collect();
    let norm = numbers.iter().map(|x| x * x).sum::<f32>().sqrt();
    numbers.iter().map(|x| x / norm).collect()
}

fn queries() -> Vec<Vec<f32>> {
    (0..QUERIES as u64).map(|i| vector(1 << 40 | i)).collect()
}

fn document(i: u64) -> CheckedDocument {
    let text = format!("note {i} on subject {}", i % 977);
    let metadata: Map<_, _> =
        [("one_in_hundred".to_owned(), json!(i.is_multiple_of(100)))].into_iter().collect();
    let document = Document {
        id: i.to_string(),
        metadata,
        chunks: vec![DocumentChunk {
            text,
            span: TextSpan::default(),
            headings: Vec::new(),
            vector: Some(vector(i)),
        }],
        submission: None,
    };
    document.check().unwrap()
}

fn new_collection() -> NewCollection {
    let space = SpaceId::new("bench");
    let binding = ModelBinding {
        provider: "bench".into(),
        model: "synthetic".into(),
        space,
        dim: DIM,
        custom_dimensions: false,
    };
    NewCollection { binding, metadata: Map::new(), submission: None }
}

fn query(vector: &[f32], filter: Option<&Filter>) -> Query {
    Query {
        mode: SearchMode::Vector(vector.to_vec()),
        top_k: TOP_K,
        filter: filter.cloned(),
        with_text: false,
    }
}

/// The ids of the nearest documents, by an exact search in f32.
fn exact(all: &[f32], query: &[f32], matches: impl Fn(usize) -> bool) -> Vec<String> {
    let mut scores: Vec<(f32, usize)> = all
        .chunks_exact(DIM)
        .enumerate()
        .filter(|(i, _)| matches(*i))
        .map(|(i, row)| (row.iter().zip(query).map(|(a, b)| a * b).sum(), i))
        .collect();
    let top = TOP_K.min(scores.len());
    scores.select_nth_unstable_by(top - 1, |a, b| b.0.total_cmp(&a.0));
    scores[..top].iter().map(|(_, i)| i.to_string()).collect()
}

fn percentile(times: &mut [Duration], share: f64) -> f64 {
    times.sort();
    times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e3
}

fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS"));
    line.and_then(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok()).unwrap_or(0) / 1024
}

async fn insert(
    store: &dyn VectorStore,
    collection_ref: CollectionRef<'_>,
    rows: std::ops::Range<u64>,
) -> f64 {
    let (start, end) = (rows.start, rows.end);
    let mut spent = Duration::ZERO;
    let mut from = start;
    while from < end {
        let batch: Vec<CheckedDocument> = (from..end.min(from + 1000)).map(document).collect();
        from += batch.len() as u64;
        let start = Instant::now();
        store.upsert(collection_ref, Some(SpaceId::new("bench")), batch).await.unwrap();
        spent += start.elapsed();
    }
    (end - start) as f64 / spent.as_secs_f64()
}

async fn measure(
    store: &dyn VectorStore,
    collection_ref: CollectionRef<'_>,
    filter: Option<&Filter>,
    expected: &[Vec<String>],
) -> String {
    let queries = queries();
    store.search(collection_ref, query(&queries[0], filter)).await.unwrap();
    let (mut times, mut right, mut few) = (Vec::new(), 0, 0);
    for (vector, expected) in queries.iter().zip(expected) {
        let start = Instant::now();
        let hits = store.search(collection_ref, query(vector, filter)).await.unwrap();
        times.push(start.elapsed());
        right += hits.iter().filter(|hit| expected.contains(&hit.document)).count();
        few += usize::from(hits.len() < expected.len());
    }
    let total: usize = expected.iter().map(Vec::len).sum();
    format!(
        "p50 {:.2} ms, p99 {:.2} ms, recall {:.4}, too few {few} times",
        percentile(&mut times, 0.5),
        percentile(&mut times, 0.99),
        right as f64 / total as f64
    )
}

async fn embedded(directory: &Path, rows: u64) {
    println!("embedded, {rows} x {DIM}");
    let config = |threads| SqliteConfig {
        base_dir: directory.join(format!("embeddery-{rows}")),
        open_users: 1,
        matrix_bytes: 4 << 30,
        search_threads: threads,
        min_free_bytes: 0,
    };
    let collection_ref = CollectionRef { tenant: "1", collection: "bench" };
    let all: Vec<f32> = (0..rows).flat_map(vector).collect();
    let queries = queries();
    let expected: Vec<_> = queries.iter().map(|query| exact(&all, query, |_| true)).collect();
    let expected_filtered: Vec<_> =
        queries.iter().map(|query| exact(&all, query, |i: usize| i.is_multiple_of(100))).collect();
    write(&directory.join(format!("vectors-{rows}.f32")), &all);
    write(&directory.join("queries.f32"), &queries.concat());
    drop(all);

    let store = SqliteStore::new(config(1));
    store.create(collection_ref, new_collection()).await.unwrap();
    println!("  insert, batches of 1000: {:.0} a second", insert(&store, collection_ref, 0..rows).await);
    drop(store);
    let filter = Filter::parse(&json!({"one_in_hundred": true})).unwrap();
    for threads in [1, 2] {
        let before = resident_mib();
        let store = SqliteStore::new(config(threads));
        let start = Instant::now();
        store.search(collection_ref, query(&queries[0], None)).await.unwrap();
        println!(
            "  {threads} thread(s): first search, which loads, {:.0} ms",
            start.elapsed().as_secs_f64() * 1e3
        );
        println!("    top {TOP_K}: {}", measure(&store, collection_ref, None, &expected).await);
        println!(
            "    1 % filter: {}",
            measure(&store, collection_ref, Some(&filter), &expected_filtered).await
        );
        println!("    resident: {} MiB more", resident_mib().saturating_sub(before));
    }
}

fn write(path: &PathBuf, numbers: &[f32]) {
    let mut file = BufWriter::new(File::create(path).unwrap());
    for number in numbers {
        file.write_all(&number.to_le_bytes()).unwrap();
    }
}

/// Four tenants share the rows, and one of them is searched.
async fn distributed(url: &str, rows: u64) {
    println!("pgvector, {rows} x {DIM}, four tenants");
    let timeout = Duration::from_secs(600);
    let store = PostgresStore::new(&PostgresConfig { url: url.to_owned(), connections: 4, timeout }).unwrap();
    let share = rows / 4;
    for tenant in 0..4 {
        let name = format!("bench{tenant}");
        let collection_ref = CollectionRef { tenant: &name, collection: "bench" };
        store.delete_tenant(&name).await.unwrap();
        store.create(collection_ref, new_collection()).await.unwrap();
        let rate = insert(&store, collection_ref, tenant * share..(tenant + 1) * share).await;
        println!("  insert, tenant {tenant}: {rate:.0} a second");
    }
    let all: Vec<f32> = (0..share).flat_map(vector).collect();
    let expected: Vec<_> = queries().iter().map(|query| exact(&all, query, |_| true)).collect();
    let expected_filtered: Vec<_> =
        queries().iter().map(|query| exact(&all, query, |i: usize| i.is_multiple_of(100))).collect();
    let collection_ref = CollectionRef { tenant: "bench0", collection: "bench" };
    println!("    top {TOP_K}: {}", measure(&store, collection_ref, None, &expected).await);
    let filter = Filter::parse(&json!({"one_in_hundred": true})).unwrap();
    println!("    1 % filter: {}", measure(&store, collection_ref, Some(&filter), &expected_filtered).await);
}

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let rows = |text: &String| text.parse::<u64>().unwrap();
    match arguments.as_slice() {
        [flag, url, count] if flag == "--postgres" => distributed(url, rows(count)).await,
        [directory, counts @ ..] if !counts.is_empty() => {
            for count in counts {
                embedded(Path::new(directory), rows(count)).await;
            }
        }
        _ => println!("bench DIRECTORY ROWS... | bench --postgres URL ROWS"),
    }
}
