//! Parses the model string of a request into a provider and the provider's name for the model. The order of the rules
//! is that of the specification (SPEC §3, "Model choice").

use embeddery_core::{ModelRef, ProviderKind};

/// Prefixes of short model names that stand for models of sentence-transformers.
const SENTENCE_TRANSFORMERS: [&str; 4] = ["all-", "multi-qa-", "paraphrase-", "msmarco-"];

/// Splits `provider:model`. `None` if the text before the first colon is not a provider, as in the Ollama tag
/// `nomic-embed-text:latest`.
pub(crate) fn split_prefix(model: &str) -> Option<(ProviderKind, &str)> {
    let (prefix, rest) = model.split_once(':')?;
    let provider = prefix.parse().ok()?;
    (!rest.is_empty()).then_some((provider, rest))
}

/// The full hub name of a huggingface model: `all-MiniLM-L6-v2` stands for the model of sentence-transformers.
pub fn hub_name(model: &str) -> ModelRef {
    if !model.contains('/') && SENTENCE_TRANSFORMERS.iter().any(|family| model.starts_with(family)) {
        ModelRef::new(format!("sentence-transformers/{model}"))
    } else {
        ModelRef::new(model)
    }
}

/// Whether a name without a provider looks like a model name of the hub.
pub(crate) fn looks_like_hub_name(model: &str) -> bool {
    model.contains('/') || SENTENCE_TRANSFORMERS.iter().any(|family| model.starts_with(family))
}

/// Whether a model string is a path. Only the configuration may name directories of this machine.
pub(crate) fn looks_like_path(model: &str) -> bool {
    model.starts_with(['/', '.', '~']) || model.contains('\\') || model.split('/').any(|part| part == "..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_known_provider_is_a_prefix() {
        assert_eq!(
            split_prefix("openai:text-embedding-3-small"),
            Some((ProviderKind::OpenAi, "text-embedding-3-small"))
        );
        assert_eq!(split_prefix("HuggingFace:a/b"), Some((ProviderKind::HuggingFace, "a/b")));
        assert_eq!(split_prefix("nomic-embed-text:latest"), None);
        assert_eq!(split_prefix("openai:"), None);
    }

    #[test]
    fn short_names_are_sentence_transformers() {
        assert_eq!(hub_name("all-MiniLM-L6-v2").name.as_ref(), "sentence-transformers/all-MiniLM-L6-v2");
        assert_eq!(hub_name("BAAI/bge-small-en-v1.5").name.as_ref(), "BAAI/bge-small-en-v1.5");
    }

    #[test]
    fn paths_are_recognised() {
        assert!(["/etc", "./x", "../x", "a/../b", "~/m", "a\\b"].into_iter().all(looks_like_path));
        assert!(!looks_like_path("sentence-transformers/all-MiniLM-L6-v2"));
    }
}
