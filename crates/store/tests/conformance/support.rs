//! A tenant of its own for each test, and short ways to say what is stored and asked.

use std::sync::Arc;

use embeddery_core::SpaceId;
use embeddery_store::{
    Chunk, CollectionRef, Document, Filter, Hit, Mode, ModelBinding, NewCollection, Query, Span, StoreError,
    StoreErrorKind, UpsertResult, VectorStore,
};
use serde_json::{Map, Value, json};

pub const DIM: usize = 8;
pub const C: &str = "notes";

pub struct Tenant {
    pub store: Arc<dyn VectorStore>,
    pub name: String,
}

pub fn binding(space: &str, dim: usize) -> ModelBinding {
    ModelBinding {
        provider: "huggingface".into(),
        model: format!("model-of-{space}"),
        space: SpaceId::new(space),
        dim,
        custom_dimensions: false,
    }
}

pub fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("{other}"),
    }
}

/// Numbers between -1 and 1 that depend on the seed alone.
pub fn vector(seed: u64, dim: usize) -> Vec<f32> {
    let mut state = seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..dim)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// The vector that stands for a text in these tests.
pub fn vector_of(text: &str) -> Vec<f32> {
    vector(text.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(131).wrapping_add(byte.into())), DIM)
}

/// A document whose chunks are the given texts, with their vectors.
pub fn document(id: &str, texts: &[&str], metadata: Value) -> Document {
    let mut at = 0;
    let chunks = texts
        .iter()
        .map(|text| {
            let from = at;
            at += text.len() as u64 + 1;
            let span = Span { bytes: (from, at - 1), characters: (from, at - 1) };
            Chunk { text: (*text).into(), span, headings: Vec::new(), vector: Some(vector_of(text)) }
        })
        .collect();
    Document { id: id.into(), metadata: object(metadata), chunks, submission: None }
}

/// The same document without vectors.
pub fn bare(mut document: Document) -> Document {
    document.chunks.iter_mut().for_each(|chunk| chunk.vector = None);
    document
}

pub fn filter(value: &Value) -> Filter {
    Filter::parse(value).unwrap()
}

impl Tenant {
    pub fn new(store: Arc<dyn VectorStore>) -> Self {
        Self { store, name: format!("t{}", uuid::Uuid::now_v7().simple()) }
    }

    pub fn place<'a>(&'a self, collection: &'a str) -> CollectionRef<'a> {
        CollectionRef { tenant: &self.name, collection }
    }

    pub fn here(&self) -> CollectionRef<'_> {
        self.collection_ref(C)
    }

    pub async fn create(&self, collection: &str) {
        let new = NewCollection {
            binding: binding("space-a", DIM),
            metadata: object(json!({"made": "here"})),
            submission: None,
        };
        self.store.create(self.collection_ref(collection), new).await.unwrap();
    }

    /// The collection every test writes to, with these documents.
    pub async fn with(&self, documents: Vec<Document>) {
        self.create(C).await;
        self.add(documents).await.unwrap();
    }

    pub async fn add(&self, documents: Vec<Document>) -> Result<UpsertResult, StoreError> {
        self.store.upsert(self.here(), Some(SpaceId::new("space-a")), documents).await
    }

    pub async fn counts(&self) -> (u64, u64) {
        let counts = self.store.stats(self.here()).await.unwrap().counts;
        (counts.documents, counts.vectors)
    }

    pub async fn search(&self, mode: Mode, top_k: usize, condition: Option<Value>) -> Vec<Hit> {
        let query = Query { mode, top_k, filter: condition.as_ref().map(filter), with_text: true };
        self.store.search(self.here(), query).await.unwrap()
    }

    /// The texts nearest to a text.
    pub async fn near(&self, text: &str, top_k: usize) -> Vec<String> {
        texts(self.search(Mode::Vector(vector_of(text)), top_k, None).await)
    }
}

pub fn texts(hits: Vec<Hit>) -> Vec<String> {
    hits.into_iter().map(|hit| hit.text.unwrap()).collect()
}

pub fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.document.as_str()).collect()
}

pub fn kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind
}
