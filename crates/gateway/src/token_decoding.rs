//! Token arrays for any model. OpenAI's clients send ids of OpenAI's tokenizers, whatever the model; LangChain
//! does so by default. A model of another family would read them as ids of its own vocabulary and give vectors
//! without meaning, so for every model that is not OpenAI's the ids become the text that they stand for.

use std::sync::{Arc, OnceLock};

use embeddery_core::{
    BoxFuture, EmbedError, EmbedRequest, Embedder, Embeddings, Input, InputError, ProviderKind,
};
use tiktoken_rs::CoreBPE;

use crate::delegate::delegate_embedder;

/// Whose ids clients send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenEncoding {
    /// Of OpenAI's embedding models, and what clients fall back to for unknown names.
    Cl100k,
    /// Of OpenAI's newer models.
    O200k,
}

impl TokenEncoding {
    /// Its name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cl100k => "cl100k_base",
            Self::O200k => "o200k_base",
        }
    }
}

/// Makes texts of token ids. The vocabulary is read at first use.
pub struct TokenDecoder {
    encoding: TokenEncoding,
    vocabulary: OnceLock<Option<CoreBPE>>,
}

impl TokenDecoder {
    /// For ids of this encoding.
    pub fn new(encoding: TokenEncoding) -> Self {
        Self { encoding, vocabulary: OnceLock::new() }
    }

    /// The request as a model of this provider can take it: ids checked, and decoded unless they are its own.
    ///
    /// # Errors
    /// The caller's, naming the input: an id that the encoding does not have, or ids that stand for nothing.
    pub async fn prepare(
        self: &Arc<Self>,
        request: EmbedRequest,
        provider: ProviderKind,
    ) -> Result<EmbedRequest, EmbedError> {
        if request.inputs.iter().all(|input| matches!(input, Input::Text(_))) {
            return Ok(request);
        }
        // Reading the vocabulary takes a while, and so do many ids.
        let decoder = Arc::clone(self);
        tokio::task::spawn_blocking(move || decoder.all(request, provider))
            .await
            .unwrap_or_else(|_| Err(EmbedError::internal("reading the token ids failed")))
    }

    fn all(&self, request: EmbedRequest, provider: ProviderKind) -> Result<EmbedRequest, EmbedError> {
        let vocabulary = self.vocabulary.get_or_init(|| {
            match self.encoding {
                TokenEncoding::Cl100k => tiktoken_rs::cl100k_base(),
                TokenEncoding::O200k => tiktoken_rs::o200k_base(),
            }
            .ok()
        });
        let vocabulary = vocabulary
            .as_ref()
            .ok_or_else(|| EmbedError::internal("the token vocabulary could not be read"))?;
        let inputs: Result<Vec<Input>, EmbedError> = request
            .inputs
            .iter()
            .enumerate()
            .map(|(index, input)| {
                let Input::Tokens(ids) = input else { return Ok(input.clone()) };
                let text = self.text(vocabulary, ids).map_err(|problem| {
                    EmbedError::invalid(problem).with_inputs(vec![InputError { index, tokens: None }])
                })?;
                Ok(if provider == ProviderKind::OpenAi { input.clone() } else { Input::Text(text.into()) })
            })
            .collect();
        Ok(EmbedRequest { inputs: inputs?.into(), ..request })
    }

    fn text(&self, vocabulary: &CoreBPE, ids: &[u32]) -> Result<String, String> {
        let bytes = vocabulary.decode_bytes(ids).map_err(|unknown| {
            let name = self.encoding.as_str();
            format!("token id {} is not in the vocabulary of {name}; send text instead", unknown.token)
        })?;
        // Clients cut long texts between any two tokens, also in the middle of a character: what is left of it
        // at the ends is dropped, as it cannot be read.
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim_matches(char::REPLACEMENT_CHARACTER);
        if text.trim().is_empty() {
            return Err("the token ids stand for no text; leave them out or send a text".into());
        }
        Ok(text.to_owned())
    }
}

/// Decodes what reaches a model as ids that are not its own: of a request that a fallback answers.
pub struct DecodeTokens {
    inner: Arc<dyn Embedder>,
    decoder: Arc<TokenDecoder>,
}

impl DecodeTokens {
    /// Around `inner`.
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
    async fn unknown_ids_name_the_input_and_broken_characters_at_the_ends_are_dropped() {
        for provider in [ProviderKind::OpenAi, ProviderKind::Cohere] {
            let error = prepared(vec![9906, 4_000_000], provider).await.unwrap_err();
            assert!(error.message.contains("4000000") && error.message.contains("cl100k_base"), "{error}");
            assert_eq!(error.inputs, [InputError { index: 1, tokens: None }]);
        }
        let fox = tiktoken_rs::cl100k_base().unwrap().encode_ordinary("word 🦊");
        let cut = prepared(fox[..fox.len() - 1].to_vec(), ProviderKind::Cohere).await.unwrap();
        assert_eq!(cut, Input::Text("word ".into()));
        assert!(prepared(vec![220], ProviderKind::Cohere).await.is_err(), "a blank");
    }
}
