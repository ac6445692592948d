//! A model that does what a test says, and remembers what it was asked.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Input,
    ModelInfo, Priority, ProviderKind, RequestContext, Retry, SpaceId, TokenCount,
};
use tokio::time::Instant;

type Script = dyn Fn(&EmbedRequest) -> Result<(), EmbedError> + Send + Sync;

pub struct Scripted {
    card: Arc<ModelInfo>,
    limits: CallLimits,
    script: Box<Script>,
    /// How long it takes to answer.
    pub takes: Duration,
    /// When each call came, and for what.
    pub asked: Mutex<Vec<(Instant, Vec<String>)>>,
}

impl Scripted {
    pub fn new(
        limits: CallLimits,
        script: impl Fn(&EmbedRequest) -> Result<(), EmbedError> + Send + Sync + 'static,
    ) -> Self {
        let card = ModelInfo {
            name: "scripted".into(),
            provider: ProviderKind::OpenAi,
            dimensions: NonZeroUsize::new(1),
            max_tokens: None,
            matryoshka: false,
        };
        let takes = Duration::ZERO;
        Self { card: Arc::new(card), limits, script: Box::new(script), takes, asked: Mutex::default() }
    }

    /// The seconds since `began` at which calls came.
    pub fn seconds(&self, began: Instant) -> Vec<u64> {
        self.asked.lock().unwrap().iter().map(|(at, _)| at.duration_since(began).as_secs()).collect()
    }

    /// The first text of each call.
    pub fn firsts(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, texts)| texts[0].clone()).collect()
    }
}

/// The vector of a text: one number that tells texts apart.
pub fn number(text: &str) -> f32 {
    text.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) as f32
}

pub fn request(texts: &[String], priority: Priority) -> EmbedRequest {
    let inputs: Vec<Input> = texts.iter().map(|text| Input::Text(text.as_str().into())).collect();
    EmbedRequest::with_defaults(inputs, RequestContext { priority, ..RequestContext::new("t", "r") })
}

pub fn failure(kind: ErrorKind, fault: Fault, retry: Retry) -> EmbedError {
    EmbedError::new(kind, fault, retry, "as told")
}

impl Embedder for Scripted {
    fn model(&self) -> &Arc<ModelInfo> {
        &self.card
    }

    fn limits(&self) -> &CallLimits {
        &self.limits
    }

    fn count_tokens(&self, text: &str) -> TokenCount {
        TokenCount::Estimate(text.len())
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let texts: Vec<String> = request.inputs.iter().map(|i| i.text().unwrap().to_owned()).collect();
            self.asked.lock().unwrap().push((Instant::now(), texts.clone()));
            if self.takes > Duration::ZERO {
                tokio::time::sleep(self.takes).await;
            }
            (self.script)(&request)?;
            Ok(Embeddings {
                data: texts.iter().map(|text| number(text)).collect(),
                dim: 1,
                space: SpaceId::new("scripted"),
                tokens: texts.iter().map(|text| text.len() as u32).collect(),
                billed_tokens: texts.len() as u64,
                truncated: 0,
                failed: Vec::new(),
                served_by: Arc::clone(&self.card),
            })
        })
    }
}
