//! Which providers and models may be used at all.

use embeddery_core::ProviderKind;

/// An allow-list. What is not listed is refused; a list that is absent allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether it holds; without it the lists only show in the lists of models.
    pub enforced: bool,
    /// Providers that may be used.
    pub providers: Option<Vec<ProviderKind>>,
    /// Models that may be used: a configured id or a provider's name, a `*` at the end standing for any ending.
    pub models: Option<Vec<String>>,
}

/// What an allow-list refused a model for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// Its provider is not listed.
    Provider,
    /// It is not listed itself.
    Model,
}

impl Denied {
    /// The `policy_type` label.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Model => "model",
        }
    }
}

impl Policy {
    /// Whether a model may be used: it is on the lists, or they only advise.
    pub(crate) fn permit(&self, provider: ProviderKind, names: &[&str]) -> Result<(), Denied> {
        if self.enforced { self.check(provider, names) } else { Ok(()) }
    }

    /// Whether a model is on the lists, under any of its names.
    pub fn check(&self, provider: ProviderKind, names: &[&str]) -> Result<(), Denied> {
        if self.providers.as_ref().is_some_and(|providers| !providers.contains(&provider)) {
            return Err(Denied::Provider);
        }
        let listed = |patterns: &Vec<String>| {
            patterns.iter().any(|pattern| names.iter().any(|name| matches(pattern, name)))
        };
        if self.models.as_ref().is_some_and(|models| !listed(models)) {
            return Err(Denied::Model);
        }
        Ok(())
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_allow_what_they_name_and_no_list_allows_all() {
        let all = Policy::default();
        assert_eq!(all.check(ProviderKind::OpenAi, &["anything"]), Ok(()));
        let some = Policy {
            enforced: true,
            providers: Some(vec![ProviderKind::OpenAi]),
            models: Some(vec!["text-embedding-3-*".into(), "notes".into()]),
        };
        assert_eq!(some.check(ProviderKind::OpenAi, &["text-embedding-3-small"]), Ok(()));
        assert_eq!(some.check(ProviderKind::OpenAi, &["text-embedding-ada-002", "notes"]), Ok(()));
        assert_eq!(some.check(ProviderKind::OpenAi, &["text-embedding-ada-002"]), Err(Denied::Model));
        assert_eq!(some.check(ProviderKind::Cohere, &["text-embedding-3-small"]), Err(Denied::Provider));
    }
}
