//! Helpers of the conformance suite: a tenant per test, and short forms of documents, vectors and searches.

use std::sync::Arc;

use embeddery_core::SpaceId;
use embeddery_store::{
    CollectionRef, Document, DocumentChunk, Filter, Hit, ModelBinding, NewCollection, Query, SearchMode,
    StoreError, StoreErrorKind, TextSpan, UpsertResult, VectorStore,
};
use serde_json::{Map, Value, json};

pub const DIM: usize = 8;
pub const COLLECTION: &str = "notes";

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

/// Pseudo-random numbers between -1 and 1; a seed always gives the same ones.
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

/// The vector of a text in these tests.
pub fn vector_of(text: &str) -> Vec<f32> {
    vector(text.bytes().fold(7, |hash: u64, byte| hash.wrapping_mul(131).wrapping_add(byte.into())), DIM)
}

/// A document with these chunks and their vectors.
pub fn document(id: &str, texts: &[&str], metadata: Value) -> Document {
    let mut offset = 0;
    let chunks = texts
        .iter()
        .map(|text| {
            let start = offset;
            offset += text.len() as u64 + 1;
            let span = TextSpan { bytes: (start, offset - 1), characters: (start, offset - 1) };
            DocumentChunk { text: (*text).into(), span, headings: Vec::new(), vector: Some(vector_of(text)) }
        })
        .collect();
    Document { id: id.into(), metadata: object(metadata), chunks, submission: None }
}

/// The same document without vectors.
pub fn without_vectors(mut document: Document) -> Document {
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

    pub fn collection_ref<'a>(&'a self, collection: &'a str) -> CollectionRef<'a> {
        CollectionRef { tenant: &self.name, collection }
    }

    /// The collection that most tests use.
    pub fn collection(&self) -> CollectionRef<'_> {
        self.collection_ref(COLLECTION)
    }

    pub async fn create(&self, collection: &str) {
        let new = NewCollection {
            binding: binding("space-a", DIM),
            metadata: object(json!({"source": "test"})),
            submission: None,
        };
        self.store.create(self.collection_ref(collection), new).await.unwrap();
    }

    /// Creates the collection with these documents.
    pub async fn create_with(&self, documents: Vec<Document>) {
        self.create(COLLECTION).await;
        self.upsert(documents).await.unwrap();
    }

    pub async fn upsert(&self, documents: Vec<Document>) -> Result<UpsertResult, StoreError> {
        let checked = documents.into_iter().map(Document::check).collect::<Result<_, _>>()?;
        self.store.upsert(self.collection(), Some(SpaceId::new("space-a")), checked).await
    }

    pub async fn counts(&self) -> (u64, u64) {
        let counts = self.store.stats(self.collection()).await.unwrap().counts;
        (counts.documents, counts.vectors)
    }

    pub async fn search(&self, mode: SearchMode, top_k: usize, condition: Option<Value>) -> Vec<Hit> {
        let query = Query { mode, top_k, filter: condition.as_ref().map(filter), with_text: true };
        self.store.search(self.collection(), query).await.unwrap()
    }

    /// The texts of the nearest chunks.
    pub async fn near(&self, text: &str, top_k: usize) -> Vec<String> {
        texts(self.search(SearchMode::Vector(vector_of(text)), top_k, None).await)
    }
}

pub fn texts(hits: Vec<Hit>) -> Vec<String> {
    hits.into_iter().map(|hit| hit.text.unwrap()).collect()
}

pub fn ids(hits: &[Hit]) -> Vec<&str> {
    hits.iter().map(|hit| hit.document.as_str()).collect()
}

pub fn error_kind<T: std::fmt::Debug>(result: Result<T, StoreError>) -> StoreErrorKind {
    result.unwrap_err().kind
}
