//! `embeddery import-chroma`: copies the collections of a running Chroma server, with their vectors.
//!
//! Chroma does not record which model computed a vector. The import therefore embeds a few of the texts with the model
//! that the collection's metadata name, or with the default model. If the vectors are equal to the stored ones, the
//! collection is bound to the model's space: it can be searched by text, and documents can be added. Otherwise it gets a
//! space of its own: it can be searched by vector and by words, and moved to a model with `reembed`.

use std::{process::ExitCode, sync::Arc};

use embeddery_accounts::UserId;
use embeddery_core::{EmbedRequest, Input, RequestContext, SpaceId, vector_defect};
use embeddery_gateway::{ModelSelector, Router};
use embeddery_store::{
    CheckedDocument, ChromaClient, ChromaCollection, ChromaRecord, CollectionRef, Document, DocumentChunk,
    ModelBinding, NewCollection, StoreErrorKind, TextSpan, VectorStore,
};
use prometheus_client::registry::Registry;

use super::println_stdout;
use crate::{cli, config::Config, stores, wiring};

/// Records in one request to Chroma and in one write.
const BATCH_RECORDS: usize = 256;

/// Maximum texts that are embedded to test a model.
const SAMPLE_TEXTS: usize = 3;

pub(crate) fn run(options: &cli::ImportChroma, config: &Config) -> anyhow::Result<ExitCode> {
    super::runtime()?.block_on(async {
        let (router, _) = wiring::router(config, &mut Registry::default())?;
        let store = stores::vector_store(config, &mut Registry::default())?;
        let user = UserId::new(options.user.as_str()).directory_name();
        let chroma = ChromaClient::new(&options.url, &options.tenant, &options.database)?;
        let import = Import { chroma, store, router, user: &user };
        let mut complete = true;
        for collection in import.chroma.collections().await? {
            if !options.collection.is_empty() && !options.collection.contains(&collection.name) {
                continue;
            }
            match import.collection(&collection).await {
                Ok(report) => {
                    complete &= report.skipped.is_empty();
                    println_stdout(report);
                }
                Err(error) => {
                    complete = false;
                    println_stdout(format_args!("{}: not imported: {error:#}", collection.name));
                }
            }
        }
        Ok(ExitCode::from(u8::from(!complete)))
    })
}

struct Import<'a> {
    chroma: ChromaClient,
    store: Arc<dyn VectorStore>,
    router: Arc<Router>,
    user: &'a str,
}

/// The result for one collection.
struct Report {
    name: String,
    records: u64,
    bound_to: String,
    /// The records that could not be imported, each with the reason.
    skipped: Vec<String>,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} records imported, {}", self.name, self.records, self.bound_to)?;
        if !self.skipped.is_empty() {
            write!(f, "; {} could not be imported", self.skipped.len())?;
        }
        self.skipped.iter().take(10).try_for_each(|skipped| write!(f, "\n  {skipped}"))
    }
}

impl Import<'_> {
    async fn collection(&self, source: &ChromaCollection) -> anyhow::Result<Report> {
        let target = CollectionRef { tenant: self.user, collection: &source.name };
        let first = self.chroma.records(&source.id, 0, BATCH_RECORDS).await?;
        let Some(dim) = first.iter().find_map(|record| record.vector.as_ref().map(Vec::len)) else {
            anyhow::bail!("it has no vectors");
        };
        let (binding, bound_to) = self.binding(source, &first, dim).await;
        let new =
            NewCollection { binding: binding.clone(), metadata: source.metadata.clone(), submission: None };
        match self.store.create(target, new).await {
            Err(error) if error.kind == StoreErrorKind::Exists => {}
            created => drop(created?),
        }
        let mut report = Report { name: source.name.clone(), records: 0, bound_to, skipped: Vec::new() };
        let (mut page, mut offset) = (first, 0);
        while !page.is_empty() {
            offset += page.len();
            let mut documents = Vec::with_capacity(page.len());
            for record in page {
                let id = record.id.clone();
                match document(record, dim) {
                    Ok(document) => documents.push(document),
                    Err(reason) => report.skipped.push(format!("{id}: {reason}")),
                }
            }
            report.records += documents.len() as u64;
            self.store.upsert(target, Some(binding.space.clone()), documents).await?;
            page = self.chroma.records(&source.id, offset, BATCH_RECORDS).await?;
        }
        Ok(report)
    }

    /// The model that the collection is bound to, and its description for the report.
    async fn binding(
        &self,
        source: &ChromaCollection,
        sample: &[ChromaRecord],
        dim: usize,
    ) -> (ModelBinding, String) {
        let named = source.metadata.get("embedding_model").and_then(|name| name.as_str());
        let name = named.map_or_else(|| self.router.default_model(), str::to_owned);
        match self.try_model(&name, sample).await {
            Ok(binding) => {
                let description = format!("bound to {}, which computes the same vectors", binding.model);
                (binding, description)
            }
            Err(reason) => {
                let binding = ModelBinding {
                    provider: "unknown".into(),
                    model: named.unwrap_or("unknown").to_owned(),
                    space: SpaceId::new(format!("chroma:{}", source.id)),
                    dim,
                    custom_dimensions: false,
                };
                (
                    binding,
                    format!(
                        "in a space of its own ({reason}); search it by vector or words, or move it with reembed"
                    ),
                )
            }
        }
    }

    async fn try_model(&self, name: &str, sample: &[ChromaRecord]) -> Result<ModelBinding, String> {
        let known: Vec<(&str, &[f32])> = sample
            .iter()
            .filter_map(|record| Some((record.text.as_deref()?, record.vector.as_deref()?)))
            .filter(|(text, _)| !text.trim().is_empty())
            .take(SAMPLE_TEXTS)
            .collect();
        if known.is_empty() {
            return Err("no record has a text to test a model with".into());
        }
        let selector = ModelSelector { model: Some(name), provider: None };
        let inputs: Vec<Input> = known.iter().map(|(text, _)| Input::Text((*text).into())).collect();
        let request = EmbedRequest::with_defaults(inputs, RequestContext::new(self.user, "import-chroma"));
        self.router.download(selector).await.map_err(|error| error.to_string())?;
        let response = self.router.embed(selector, request).await.map_err(|error| error.to_string())?;
        let resolved = self.router.resolve(selector).map_err(|error| error.to_string())?;
        if !response.rows().zip(&known).all(|(computed, (_, stored))| nearly_equal(computed, stored)) {
            return Err(format!("{name} computes other vectors"));
        }
        Ok(ModelBinding {
            provider: resolved.provider.to_string(),
            model: resolved.model.name.to_string(),
            dim: response.dim,
            space: response.space,
            custom_dimensions: false,
        })
    }
}

/// Whether two vectors are equal up to rounding: a cosine of at least 0.999.
fn nearly_equal(a: &[f32], b: &[f32]) -> bool {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    a.len() == b.len() && dot(a, b) >= 0.999 * (dot(a, a) * dot(b, b)).sqrt()
}

fn document(record: ChromaRecord, dim: usize) -> Result<CheckedDocument, String> {
    let vector = record.vector.ok_or("it has no vector")?;
    if vector.len() != dim {
        return Err(format!("its vector has {} dimensions, the collection has {dim}", vector.len()));
    }
    if let Some(defect) = vector_defect(&vector) {
        return Err(format!("its vector {defect}"));
    }
    let text = record.text.filter(|text| !text.trim().is_empty()).ok_or("it has no text")?;
    let span = TextSpan { bytes: (0, text.len() as u64), characters: (0, text.chars().count() as u64) };
    let document = Document {
        id: record.id,
        metadata: record.metadata,
        chunks: vec![DocumentChunk { text, span, headings: Vec::new(), vector: Some(vector) }],
        submission: None,
    };
    document.check().map_err(|error| error.message)
}
