//! One model that is elsewhere: asks for one batch in one call, and proves that the answer fits.

use std::{
    collections::HashMap,
    num::NonZeroUsize,
    sync::{Arc, OnceLock},
};

use embeddery_core::{
    BoxFuture, CallLimits, EmbedError, EmbedRequest, Embedder, EmbeddingIdentity, Embeddings, Input,
    InputType, ModelInfo, ProviderKind, Retry, SpaceId, TokenCount, estimate_tokens, squared_length,
    to_unit_length,
};

use crate::{
    billed_tokens,
    http::{Call, HttpClient, Target},
    vendor_protocol::{VendorProtocol, VendorRequest},
};

/// One model of a vendor.
pub(super) struct Model {
    pub(super) card: Arc<ModelInfo>,
    /// The card with the dimension that the first answer showed.
    pub(super) learnt: OnceLock<Arc<ModelInfo>>,
    pub(super) limits: CallLimits,
    /// Without the length.
    pub(super) space: String,
    pub(super) prompts: HashMap<InputType, Arc<str>>,
    pub(super) wire: &'static dyn VendorProtocol,
    pub(super) target: Target,
    pub(super) sender: Arc<HttpClient>,
}

impl Model {
    fn card(&self) -> &Arc<ModelInfo> {
        self.learnt.get().unwrap_or(&self.card)
    }

    fn ask<'a>(
        &'a self,
        request: &'a EmbedRequest,
        inputs: &'a [Input],
    ) -> Result<VendorRequest<'a>, EmbedError> {
        let own = self.card().dimensions;
        let dimensions = request.dimensions.filter(|wanted| Some(*wanted) != own);
        if let Some(wanted) = dimensions.filter(|wanted| !self.limits.lengths.contains(*wanted)) {
            return Err(EmbedError::invalid(format!(
                "dimensions: '{}' of {} does not give {wanted} numbers; leave `dimensions` out",
                self.card.name, self.card.provider
            )));
        }
        if !self.wire.takes_tokens() && inputs.iter().any(|input| input.text().is_none()) {
            return Err(EmbedError::internal("token ids reached a model of text"));
        }
        Ok(VendorRequest {
            model: &self.card.name,
            inputs,
            input_type: request.input_type,
            dimensions,
            truncate: request.truncate,
            max_tokens: self.card.max_tokens,
        })
    }

    /// The inputs with the prompt of their purpose before them.
    fn prompted(&self, request: &EmbedRequest) -> Arc<[Input]> {
        match request.input_type.and_then(|purpose| self.prompts.get(&purpose)) {
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
        let inputs = self.prompted(&request);
        let ask = self.ask(&request, &inputs)?;
        let wanted = ask.dimensions;
        let call = Call {
            body: self.wire.build_request(&ask)?.into(),
            items: inputs.len(),
            deadline: request.context.deadline,
        };
        let body = self.sender.post(&self.target, &call).await?;
        let nonsense = |what: String| self.target.malformed(&what, Retry::Backoff);
        let answer = self.wire.parse_response(&body).map_err(nonsense)?;
        let (mut data, dim) = answer.rows.into_flat(inputs.len()).map_err(nonsense)?;
        self.check_length(dim, wanted)?;
        if request.normalize {
            data.chunks_exact_mut(dim).for_each(normalize);
        }
        let counts = billed_tokens::distribute(&inputs, answer.tokens);
        let billed = match self.card.provider {
            ProviderKind::LocalApi => 0,
            _ => answer.tokens.unwrap_or_else(|| counts.iter().map(|count| u64::from(*count)).sum()),
        };
        Ok(Embeddings {
            data,
            dim,
            space: SpaceId::new(format!("{}:{dim}", self.space)),
            tokens: counts,
            billed_tokens: billed,
            truncated: 0,
            failed: Vec::new(),
            served_by: Arc::clone(self.card()),
        })
    }

    /// Refuses vectors of another length than was asked for, or than the model had before: a server whose
    /// model was exchanged must not go unnoticed.
    fn check_length(&self, dim: usize, wanted: Option<NonZeroUsize>) -> Result<(), EmbedError> {
        let Some(got) = NonZeroUsize::new(dim) else { return Ok(()) };
        let (due, hint) = match wanted.or(self.card.dimensions) {
            Some(due) => (due, ""),
            None => {
                let learnt = self.learnt.get_or_init(|| {
                    Arc::new(ModelInfo { dimensions: Some(got), ..ModelInfo::clone(&self.card) })
                });
                let hint = ", as before; if its model was exchanged on purpose, start this server anew";
                (learnt.dimensions.unwrap_or(got), hint)
            }
        };
        if due == got {
            return Ok(());
        }
        let what = format!("vectors of {got} numbers where {due} were due{hint}");
        Err(self.target.malformed(&what, Retry::Backoff))
    }
}

impl Embedder for Model {
    fn model(&self) -> &Arc<ModelInfo> {
        self.card()
    }

    fn limits(&self) -> &CallLimits {
        &self.limits
    }

    fn count_tokens(&self, text: &str) -> TokenCount {
        TokenCount::Estimate(estimate_tokens(text))
    }

    /// By what was known before the first answer, so that it stays the same.
    fn identity(&self) -> Option<EmbeddingIdentity> {
        let space = match self.card.dimensions {
            Some(length) => format!("{}:{length}", self.space),
            None => self.space.clone(),
        };
        Some(EmbeddingIdentity { space: SpaceId::new(space), precision: None })
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        Box::pin(self.call(request))
    }

    /// There is nothing to load; whether there is a key can be said.
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
