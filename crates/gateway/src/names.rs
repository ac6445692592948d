//! From the model string of a request to a provider and its own name for the model. Pure; the order of the
//! rules is the specification's (SPEC §3, "Model choice").

use embeddery_core::{ModelRef, ProviderKind};

/// Families of sentence-transformers that users call by their short names.
const SENTENCE_TRANSFORMERS: [&str; 4] = ["all-", "multi-qa-", "paraphrase-", "msmarco-"];

/// `provider:model` where what stands before the first colon is a known provider; a colon of another
/// meaning (an Ollama tag as in `nomic-embed-text:latest`) is left alone.
pub(crate) fn split_prefix(model: &str) -> Option<(ProviderKind, &str)> {
    let (prefix, rest) = model.split_once(':')?;
    let provider = prefix.parse().ok()?;
    (!rest.is_empty()).then_some((provider, rest))
}

/// The full hub name of a huggingface model: `all-MiniLM-L6-v2` means the one of sentence-transformers.
pub fn hub_name(model: &str) -> ModelRef {
    if !model.contains('/') && SENTENCE_TRANSFORMERS.iter().any(|family| model.starts_with(family)) {
        ModelRef::new(format!("sentence-transformers/{model}"))
    } else {
        ModelRef::new(model)
    }
}

/// Whether an unprefixed, unconfigured name is one of a huggingface model.
pub(crate) fn looks_like_hub_name(model: &str) -> bool {
    model.contains('/') || SENTENCE_TRANSFORMERS.iter().any(|family| model.starts_with(family))
}

/// Whether a request's model string is a path. Only configuration may name places on this machine's disk.
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
    fn paths_are_seen() {
        assert!(["/etc", "./x", "../x", "a/../b", "~/m", "a\\b"].into_iter().all(looks_like_path));
        assert!(!looks_like_path("sentence-transformers/all-MiniLM-L6-v2"));
    }
}
