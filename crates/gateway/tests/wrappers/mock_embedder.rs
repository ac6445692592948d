//! An embedder whose result a test decides, and which records its calls.

use std::{
    num::NonZeroUsize,
    sync::{Arc, Mutex},
    time::Duration,
};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, Embeddings, ErrorKind, Fault, Input,
    ModelInfo, Priority, ProviderKind, RequestContext, Retry, SpaceId, TokenCount, UpstreamServer,
};
use tokio::time::Instant;

type Behaviour = dyn Fn(&EmbedRequest) -> Result<(), EmbedError> + Send + Sync;

pub struct MockEmbedder {
    info: Arc<ModelInfo>,
    limits: CallLimits,
    behaviour: Box<Behaviour>,
    server: UpstreamServer,
    /// Duration of a call.
    pub latency: Duration,
    /// The time and the texts of each call.
    pub calls: Mutex<Vec<(Instant, Vec<String>)>>,
}

impl MockEmbedder {
    pub fn new(
        limits: CallLimits,
        behaviour: impl Fn(&EmbedRequest) -> Result<(), EmbedError> + Send + Sync + 'static,
    ) -> Self {
        let info = ModelInfo {
            name: "mock".into(),
            provider: ProviderKind::OpenAi,
            dimensions: NonZeroUsize::new(1),
            max_tokens: None,
            matryoshka: false,
        };
        Self {
            info: Arc::new(info),
            limits,
            behaviour: Box::new(behaviour),
            server: UpstreamServer::in_process(ProviderKind::OpenAi),
            latency: Duration::ZERO,
            calls: Mutex::default(),
        }
    }

    /// The same model at another server.
    pub fn at(mut self, address: &str, account: u64) -> Self {
        self.server = UpstreamServer { address: Some(address.into()), account, ..self.server };
        self
    }

    /// The time of each call, in seconds since `start`.
    pub fn seconds(&self, start: Instant) -> Vec<u64> {
        self.calls.lock().unwrap().iter().map(|(at, _)| at.duration_since(start).as_secs()).collect()
    }

    /// The first text of each call.
    pub fn first_texts(&self) -> Vec<String> {
        self.calls.lock().unwrap().iter().map(|(_, texts)| texts[0].clone()).collect()
    }
}

/// The only number of a text's vector, a hash of the text.
pub fn vector_of(text: &str) -> f32 {
    text.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte))) as f32
}

pub fn request(texts: &[String], priority: Priority) -> EmbedRequest {
    let inputs: Vec<Input> = texts.iter().map(|text| Input::Text(text.as_str().into())).collect();
    EmbedRequest::with_defaults(inputs, RequestContext { priority, ..RequestContext::new("t", "r") })
}

pub fn failure(kind: ErrorKind, fault: Fault, retry: Retry) -> EmbedError {
    EmbedError::new(kind, fault, retry, "mock failure")
}

impl Embedder for MockEmbedder {
    fn model(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    fn limits(&self) -> &CallLimits {
        &self.limits
    }

    fn count_tokens(&self, text: &str) -> TokenCount {
        TokenCount::Estimate(text.len())
    }

    fn server(&self) -> UpstreamServer {
        self.server.clone()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(async move {
            let texts: Vec<String> = request.inputs.iter().map(|i| i.text().unwrap().to_owned()).collect();
            self.calls.lock().unwrap().push((Instant::now(), texts.clone()));
            if self.latency > Duration::ZERO {
                tokio::time::sleep(self.latency).await;
            }
            (self.behaviour)(&request)?;
            Ok(Embeddings {
                data: texts.iter().map(|text| vector_of(text)).collect(),
                dim: 1,
                space: SpaceId::new("mock"),
                tokens: texts.iter().map(|text| text.len() as u32).collect(),
                billed_tokens: texts.len() as u64,
                truncated: 0,
                failed: Vec::new(),
                served_by: Arc::clone(&self.info),
            })
        })
    }
}
