//! The allow-list of providers and models.

use embeddery_core::ProviderKind;

/// An allow-list. Unlisted providers and models are denied; an absent list allows everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// Whether requests for unlisted models fail. Otherwise the lists only show in the lists of models.
    pub enforced: bool,
    /// Allowed providers.
    pub providers: Option<Vec<ProviderKind>>,
    /// Allowed models: configured ids or providers' names. A `*` at the end matches any suffix.
    pub models: Option<Vec<String>>,
}

/// The reason why an allow-list denies a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyDenial {
    /// The provider is not listed.
    Provider,
    /// The model is not listed.
    Model,
}

impl PolicyDenial {
    /// The value of the metric label `policy_type`.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Provider => "provider",
            Self::Model => "model",
        }
    }
}

impl Policy {
    /// Fails for a model that is not listed, if the policy is enforced.
    pub(crate) fn permit(&self, provider: ProviderKind, names: &[&str]) -> Result<(), PolicyDenial> {
        if self.enforced { self.check(provider, names) } else { Ok(()) }
    }

    /// Fails for a model that is not listed under any of its names.
    pub fn check(&self, provider: ProviderKind, names: &[&str]) -> Result<(), PolicyDenial> {
        if self.providers.as_ref().is_some_and(|providers| !providers.contains(&provider)) {
            return Err(PolicyDenial::Provider);
        }
        let listed = |patterns: &Vec<String>| {
            patterns.iter().any(|pattern| names.iter().any(|name| matches(pattern, name)))
        };
        if self.models.as_ref().is_some_and(|models| !listed(models)) {
            return Err(PolicyDenial::Model);
        }
        Ok(())
    }
}

fn matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => name == pattern,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_allow_their_entries_and_no_list_allows_everything() {
        let all = Policy::default();
        assert_eq!(all.check(ProviderKind::OpenAi, &["anything"]), Ok(()));
        let some = Policy {
            enforced: true,
            providers: Some(vec![ProviderKind::OpenAi]),
            models: Some(vec!["text-embedding-3-*".into(), "notes".into()]),
        };
        assert_eq!(some.check(ProviderKind::OpenAi, &["text-embedding-3-small"]), Ok(()));
        assert_eq!(some.check(ProviderKind::OpenAi, &["text-embedding-ada-002", "notes"]), Ok(()));
        assert_eq!(some.check(ProviderKind::OpenAi, &["text-embedding-ada-002"]), Err(PolicyDenial::Model));
        assert_eq!(
            some.check(ProviderKind::Cohere, &["text-embedding-3-small"]),
            Err(PolicyDenial::Provider)
        );
    }
}
