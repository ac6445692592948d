//! Decodes token ids to text for models that are not OpenAI's. OpenAI's clients, LangChain by default, send ids of
//! OpenAI's tokenizers to any model. Another model would read them as ids of its own vocabulary and return meaningless
//! vectors.

use std::sync::Arc;

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, Input, InputError, ProviderKind,
};
use tiktoken_rs::CoreBPE;

use crate::delegate::delegate_embedder;

/// The encoding of token ids in requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEncoding {
    /// The encoding of OpenAI's embedding models, and the default of clients for unknown models.
    Cl100k,
    /// The encoding of OpenAI's newer models.
    O200k,
}

impl TokenEncoding {
    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cl100k => "cl100k_base",
            Self::O200k => "o200k_base",
        }
    }
}

/// Decodes token ids to text. The vocabulary is loaded on first use, once for the process.
pub struct TokenDecoder {
    encoding: TokenEncoding,
}

impl TokenDecoder {
    /// A decoder for ids of `encoding`.
    pub fn new(encoding: TokenEncoding) -> Self {
        Self { encoding }
    }

    /// Prepares a request for a model of `provider`: checks token ids, and decodes them unless the provider is OpenAI.
    ///
    /// # Errors
    /// For an id that the encoding does not have and for ids that decode to blank text; the error names the input.
    pub async fn prepare(
        self: &Arc<Self>,
        request: EmbedRequest,
        provider: ProviderKind,
    ) -> Result<EmbedRequest, EmbedError> {
        if request.inputs.iter().all(|input| matches!(input, Input::Text(_))) {
            return Ok(request);
        }
        // Loading the vocabulary and decoding many ids takes long enough to block the async runtime.
        let decoder = Arc::clone(self);
        tokio::task::spawn_blocking(move || decoder.decode_request(request, provider))
            .await
            .unwrap_or_else(|_| Err(EmbedError::internal("the token ids could not be decoded")))
    }

    fn decode_request(
        &self,
        request: EmbedRequest,
        provider: ProviderKind,
    ) -> Result<EmbedRequest, EmbedError> {
        let vocabulary = match self.encoding {
            TokenEncoding::Cl100k => tiktoken_rs::cl100k_base_singleton(),
            TokenEncoding::O200k => tiktoken_rs::o200k_base_singleton(),
        };
        let inputs: Result<Vec<Input>, EmbedError> = request
            .inputs
            .iter()
            .enumerate()
            .map(|(index, input)| {
                let Input::Tokens(ids) = input else { return Ok(input.clone()) };
                let text = self.decode(vocabulary, ids).map_err(|problem| {
                    EmbedError::invalid(problem).with_inputs(vec![InputError { index, tokens: None }])
                })?;
                Ok(if provider == ProviderKind::OpenAi { input.clone() } else { Input::Text(text.into()) })
            })
            .collect();
        Ok(EmbedRequest { inputs: inputs?.into(), ..request })
    }

    fn decode(&self, vocabulary: &CoreBPE, ids: &[u32]) -> Result<String, String> {
        let bytes = vocabulary.decode_bytes(ids).map_err(|unknown| {
            let name = self.encoding.as_str();
            format!("token id {} is not in the vocabulary of {name}; send text instead", unknown.token)
        })?;
        // Clients split long texts between any two tokens, possibly inside a character. The incomplete characters at the
        // ends are dropped.
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches(char::REPLACEMENT_CHARACTER);
        if text.trim().is_empty() {
            return Err("the token ids decode to blank text; omit them or send text".into());
        }
        Ok(text.to_owned())
    }
}

/// Decodes the token ids of a request before it reaches a model that is not OpenAI's, as with a fallback.
pub struct DecodeTokens {
    inner: Arc<dyn Embedder>,
    decoder: Arc<TokenDecoder>,
}

impl DecodeTokens {
    /// Wraps `inner`.
    pub fn new(inner: Arc<dyn Embedder>, decoder: Arc<TokenDecoder>) -> Self {
        Self { inner, decoder }
    }
}

impl Embedder for DecodeTokens {
    delegate_embedder!(inner);

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, EmbedError>> {
        if request.inputs.iter().all(|input| matches!(input, Input::Text(_))) {
            return self.inner.embed(request);
        }
        Box::pin(async move {
            let request = self.decoder.prepare(request, self.model().provider).await?;
            self.inner.embed(request).await
        })
    }
}

#[cfg(test)]
mod tests {
    use embeddery_core::RequestContext;

    use super::*;

    async fn prepared(ids: Vec<u32>, provider: ProviderKind) -> Result<Input, EmbedError> {
        let inputs = vec![Input::Text("a text".into()), Input::Tokens(ids.into())];
        let request = EmbedRequest::with_defaults(inputs, RequestContext::new("t", "r"));
        let decoder = Arc::new(TokenDecoder::new(TokenEncoding::Cl100k));
        decoder.prepare(request, provider).await.map(|request| request.inputs[1].clone())
    }

    #[tokio::test]
    async fn ids_become_text_except_for_openai() {
        let text = "Füchse springen 🦊";
        let ids = tiktoken_rs::cl100k_base().unwrap().encode_ordinary(text);
        let decoded = prepared(ids.clone(), ProviderKind::Voyage).await.unwrap();
        assert_eq!(decoded, Input::Text(text.into()));
        let kept = prepared(ids.clone(), ProviderKind::OpenAi).await.unwrap();
        assert_eq!(kept, Input::Tokens(ids.into()));
    }

    #[tokio::test]
    async fn an_unknown_id_names_the_input_and_incomplete_characters_at_the_ends_are_dropped() {
        for provider in [ProviderKind::OpenAi, ProviderKind::Cohere] {
            let error = prepared(vec![9906, 4_000_000], provider).await.unwrap_err();
            assert!(error.message.contains("4000000") && error.message.contains("cl100k_base"), "{error}");
            assert_eq!(error.inputs, [InputError { index: 1, tokens: None }]);
        }
        let fox = tiktoken_rs::cl100k_base().unwrap().encode_ordinary("word 🦊");
        let truncated = prepared(fox[..fox.len() - 1].to_vec(), ProviderKind::Cohere).await.unwrap();
        assert_eq!(truncated, Input::Text("word ".into()));
        assert!(prepared(vec![220], ProviderKind::Cohere).await.is_err(), "blank text");
    }
}
