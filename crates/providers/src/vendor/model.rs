//! One model of a vendor as an [`Embedder`]: sends a batch in one call, and checks the dimensions of the response.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, EmbeddingIdentity, Embeddings, ErrorKind,
    Fault, Input, InputType, ModelInfo, ProviderKind, Retry, SpaceId, TokenCount, TokenCounter,
    UpstreamServer, estimate_tokens, squared_length, to_unit_length,
};

use super::base64_support::Base64Support;
use crate::{
    billed_tokens,
    http::{Call, HttpClient, MAX_RESPONSE_BYTES, Target},
    token_counter::{VendorTokenizer, token_counter},
    vendor_protocol::{VendorProtocol, VendorRequest},
};

/// Maximum length of a number in JSON: Python writes a 32-bit float as `-1.2345678901234567e-05, `.
const MAX_NUMBER_BYTES: usize = 26;
/// The dimensions of a model whose dimensions are not known. No vendor of the catalogue has more.
const ASSUMED_DIMENSIONS: usize = 4096;

/// One model of a vendor.
pub(super) struct Model {
    pub(super) info: Arc<ModelInfo>,
    /// `info` with the dimensions of the first response, for a model whose dimensions are not configured.
    pub(super) observed_info: OnceLock<Arc<ModelInfo>>,
    pub(super) limits: CallLimits,
    /// The tokenizer, if its vocabulary is known.
    pub(super) tokenizer: Option<VendorTokenizer>,
    /// The space id without the dimensions.
    pub(super) space: String,
    pub(super) prompts: HashMap<InputType, Arc<str>>,
    pub(super) protocol: &'static dyn VendorProtocol,
    pub(super) target: Target,
    /// Whether the server is asked for base64. The models at one address share it.
    pub(super) base64_support: Arc<Base64Support>,
    pub(super) client: Arc<HttpClient>,
}

impl Model {
    fn current_info(&self) -> &Arc<ModelInfo> {
        self.observed_info.get().unwrap_or(&self.info)
    }

    /// The parameters of a call.
    ///
    /// # Errors
    /// The model cannot return vectors of the requested dimensions.
    fn vendor_request<'a>(
        &'a self,
        request: &'a EmbedRequest,
        inputs: &'a [Input],
    ) -> Result<VendorRequest<'a>, EmbedError> {
        let own = self.current_info().dimensions;
        let dimensions = request.dimensions.filter(|requested| Some(*requested) != own);
        if let Some(requested) = dimensions.filter(|requested| !self.limits.dimensions.contains(*requested)) {
            return Err(EmbedError::invalid(format!(
                "dimensions: '{}' of {} does not have vectors of {requested} dimensions; leave `dimensions` out",
                self.info.name, self.info.provider
            )));
        }
        if !self.protocol.accepts_tokens() && inputs.iter().any(|input| input.text().is_none()) {
            return Err(EmbedError::internal("token ids reached a model that accepts text only"));
        }
        Ok(VendorRequest {
            model: &self.info.name,
            inputs,
            input_type: request.input_type,
            dimensions,
            truncate: request.truncate,
            max_tokens: self.info.max_tokens,
            base64: self.protocol.has_base64() && self.base64_support.is_expected(Instant::now()),
        })
    }

    /// The inputs with the prompt of their input type before them.
    fn with_prompts(&self, request: &EmbedRequest) -> Arc<[Input]> {
        match request.input_type.and_then(|input_type| self.prompts.get(&input_type)) {
            None => Arc::clone(&request.inputs),
            Some(prompt) => request
                .inputs
                .iter()
                .map(|input| match input.text() {
                    Some(text) => Input::Text(format!("{prompt}{text}").into()),
                    None => input.clone(),
                })
                .collect(),
        }
    }

    async fn call(&self, request: EmbedRequest) -> Result<Embeddings, EmbedError> {
        self.target.check()?;
        let inputs = self.with_prompts(&request);
        let vendor_request = self.vendor_request(&request, &inputs)?;
        let requested = vendor_request.dimensions;
        let body = self.send(vendor_request, request.context.deadline).await?;
        let malformed = |problem: String| self.target.malformed(&problem, Retry::Backoff);
        let response = self.protocol.parse_response(&body).map_err(malformed)?;
        let (mut data, dim) = response.vectors.into_flat(inputs.len()).map_err(malformed)?;
        self.check_dimensions(dim, requested)?;
        if request.normalize {
            data.chunks_exact_mut(dim).for_each(normalize);
        }
        let reported = billed_tokens::plausible(&inputs, response.tokens);
        let counts = billed_tokens::distribute(&inputs, reported);
        let billed = match self.info.provider {
            ProviderKind::LocalApi => 0,
            _ => reported.unwrap_or_else(|| counts.iter().map(|count| u64::from(*count)).sum()),
        };
        Ok(Embeddings {
            data,
            dim,
            space: SpaceId::new(format!("{}:{dim}", self.space)),
            tokens: counts,
            billed_tokens: billed,
            truncated: 0,
            failed: Vec::new(),
            served_by: Arc::clone(self.current_info()),
        })
    }

    /// Sends a request. A server that refuses base64 is asked again for numbers, at once: some servers with OpenAI's API
    /// do not have it. A call whose vectors as numbers may exceed the maximum size of a response is refused as too large, so
    /// that the gateway halves it.
    async fn send(
        &self,
        mut request: VendorRequest<'_>,
        deadline: Option<Instant>,
    ) -> Result<Bytes, EmbedError> {
        let inputs = request.inputs.len();
        let call = |body: Vec<u8>| Call { body: body.into(), inputs, deadline };
        if request.base64 {
            let first = call(self.protocol.build_request(&request)?);
            match self.client.post(&self.target, &first).await {
                Err(failure) if failure.refuses_base64 => request.base64 = false,
                // Some servers return numbers although they are asked for base64.
                Err(failure) if failure.is_response_too_long => {
                    self.check_size_as_numbers(&request)?;
                    return Err(failure.into());
                }
                result => return Ok(result?),
            }
            self.check_size_as_numbers(&request)?;
            let second = call(self.protocol.build_request(&request)?);
            let body = self.client.post(&self.target, &second).await?;
            self.record_refusal();
            return Ok(body);
        }
        self.check_size_as_numbers(&request)?;
        let only = call(self.protocol.build_request(&request)?);
        Ok(self.client.post(&self.target, &only).await?)
    }

    fn record_refusal(&self) {
        if self.base64_support.record_refusal(Instant::now()) {
            let provider = self.info.provider;
            tracing::info!(%provider, address = %self.target.server, "the server refuses base64; vectors are requested as numbers");
        }
    }

    /// Refuses a call of several inputs whose vectors as JSON numbers may exceed the maximum size of a response.
    fn check_size_as_numbers(&self, request: &VendorRequest<'_>) -> Result<(), EmbedError> {
        let dimensions = request.dimensions.or(self.current_info().dimensions);
        let dimensions = dimensions.map_or(ASSUMED_DIMENSIONS, NonZeroUsize::get);
        let max_inputs = (MAX_RESPONSE_BYTES / dimensions.saturating_mul(MAX_NUMBER_BYTES)).max(1);
        if request.inputs.len() <= max_inputs {
            return Ok(());
        }
        let message = format!(
            "input: too large for one call; the vectors of at most {max_inputs} inputs as numbers fit a response"
        );
        Err(EmbedError::new(ErrorKind::BatchTooLarge, Fault::Caller, Retry::Never, message))
    }

    /// Refuses vectors whose dimensions differ from the requested ones, or from those of the first response. The latter
    /// detects a server whose model was replaced.
    fn check_dimensions(&self, dim: usize, requested: Option<NonZeroUsize>) -> Result<(), EmbedError> {
        let Some(actual) = NonZeroUsize::new(dim) else { return Ok(()) };
        let (expected, hint) = match requested.or(self.info.dimensions) {
            Some(expected) => (expected, ""),
            None => {
                let observed = self.observed_info.get_or_init(|| {
                    Arc::new(ModelInfo { dimensions: Some(actual), ..ModelInfo::clone(&self.info) })
                });
                let hint = " as before; if its model was replaced on purpose, restart this server";
                (observed.dimensions.unwrap_or(actual), hint)
            }
        };
        if expected == actual {
            return Ok(());
        }
        let problem = format!("vectors of {actual} dimensions instead of {expected}{hint}");
        Err(self.target.malformed(&problem, Retry::Backoff))
    }
}

impl Embedder for Model {
    fn model(&self) -> &Arc<ModelInfo> {
        self.current_info()
    }

    fn limits(&self) -> &CallLimits {
        &self.limits
    }

    fn count_tokens(&self, text: &str) -> TokenCount {
        TokenCount::Estimate(estimate_tokens(text))
    }

    fn server(&self) -> UpstreamServer {
        self.target.server.clone()
    }

    fn token_counter(&self) -> BoxFuture<'_, Result<Arc<dyn TokenCounter>, EmbedError>> {
        let prompt = self.prompts.get(&InputType::Document).map_or("", |prompt| &**prompt);
        let added = format!("{}{prompt}", self.protocol.document_prefix(&self.info.name));
        let tokenizer = self.tokenizer;
        Box::pin(async move {
            let counter = tokio::task::spawn_blocking(move || token_counter(tokenizer, &added)).await;
            counter.map_err(|_| EmbedError::internal("the token vocabulary could not be loaded"))
        })
    }

    /// The identity depends on what was known before the first response, so that it does not change.
    fn identity(&self) -> Option<EmbeddingIdentity> {
        let space = match self.info.dimensions {
            Some(dimensions) => format!("{}:{dimensions}", self.space),
            None => self.space.clone(),
        };
        Some(EmbeddingIdentity { space: SpaceId::new(space), precision: None })
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(self.call(request))
    }

    /// Checks that there is a key. There is nothing to load.
    fn warm_up(&self) -> BoxFuture<'_, Result<(), EmbedError>> {
        Box::pin(async { self.target.check() })
    }
}

/// Brings a vector to unit length. A vector that has unit length already keeps its bits: most vendors return such
/// vectors, but not all of them, and not at every number of dimensions.
fn normalize(vector: &mut [f32]) {
    const TOLERANCE: f64 = 1e-4;
    if (squared_length(vector) - 1.0).abs() > TOLERANCE {
        to_unit_length(vector);
    }
}
