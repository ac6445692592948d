//! The key of a cached vector: a hash of the text and of everything else that the numbers depend on. Texts may be long,
//! and a persistent cache must not hold what users wrote.

use embeddery_core::{DimensionPolicy, EmbedRequest, Embedder, EmbeddingIdentity, Input, Truncate};

/// BLAKE3 of what a vector depends on.
pub type Key = [u8; 32];

/// Which tenants share entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All tenants share them: there is one user, or users may learn that others sent the same text.
    Shared,
    /// Each tenant has its own: no tenant can find out what others sent.
    Tenant,
}

/// Computes the keys of the inputs of one request.
pub(crate) struct Keys(blake3::Hasher);

impl Keys {
    /// The hasher of a request to a model with this identity.
    pub(crate) fn new(
        embedder: &dyn Embedder,
        identity: &EmbeddingIdentity,
        request: &EmbedRequest,
        scope: Scope,
    ) -> Self {
        let card = embedder.model();
        let mut keys = Self(blake3::Hasher::new());
        // Models may share a space and still give other numbers, so the model is named as well.
        keys.part(card.provider.as_str().as_bytes());
        keys.part(card.name.as_bytes());
        keys.part(variant(identity, request).as_bytes());
        if scope == Scope::Tenant {
            keys.part(request.context.tenant.as_bytes());
        }
        let dimensions = request.dimensions.map_or(0, std::num::NonZeroUsize::get) as u64;
        keys.part(&dimensions.to_le_bytes());
        keys.part(&[policy(request.dimension_policy), truncate(request.truncate)]);
        keys
    }

    fn part(&mut self, bytes: &[u8]) {
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    /// The key of one input.
    pub(crate) fn for_input(&self, input: &Input) -> Key {
        let mut hasher = self.0.clone();
        match input {
            Input::Text(text) => hasher.update(b"text").update(text.as_bytes()),
            Input::Tokens(ids) => {
                hasher.update(b"tokens");
                ids.iter().fold(&mut hasher, |hasher, id| hasher.update(&id.to_le_bytes()))
            }
        };
        *hasher.finalize().as_bytes()
    }
}

/// The variant id: what a vector's numbers depend on besides the text. It is reported and never a reason to refuse a
/// request; the space decides which vectors may be compared.
pub(crate) fn variant(identity: &EmbeddingIdentity, request: &EmbedRequest) -> String {
    format!(
        "{}/{}/{}/{}",
        identity.space,
        identity.precision.unwrap_or("native"),
        request.input_type.map_or("plain", embeddery_core::InputType::as_str),
        if request.normalize { "unit" } else { "raw" },
    )
}

fn policy(policy: DimensionPolicy) -> u8 {
    match policy {
        DimensionPolicy::Strict => 0,
        DimensionPolicy::Reduce => 1,
        DimensionPolicy::Pad => 2,
        DimensionPolicy::Ignore => 3,
    }
}

fn truncate(truncate: Option<Truncate>) -> u8 {
    match truncate {
        None => 0,
        Some(Truncate::End) => 1,
        Some(Truncate::Start) => 2,
        Some(Truncate::None) => 3,
    }
}
