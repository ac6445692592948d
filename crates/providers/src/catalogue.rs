//! What is known of vendors and their models without asking: data (`catalogue.yaml`), which configuration can
//! override. An unknown model gets its vendor's limits and shows its dimension in its first answer.

use std::{collections::BTreeMap, num::NonZeroUsize};

use embeddery_core::{CallLimits, ProviderKind, SupportedDimensions};
use serde::Deserialize;

use crate::local_api::Dialect;

const BUILT_IN: &str = include_str!("catalogue.yaml");

/// Everything that is known.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(BTreeMap<String, Family>);

/// What is known of one vendor.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Family {
    /// Of one call, whatever the model.
    pub limits: CatalogueLimits,
    /// By the vendor's name for them.
    pub models: BTreeMap<String, Known>,
}

/// What is known of one model.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Known {
    /// Length of a vector when nobody asks for another.
    pub dimensions: Option<NonZeroUsize>,
    /// Which other lengths can be asked for.
    pub lengths: Option<WrittenLengths>,
    /// Whether a cut vector, renormalised, is itself a good vector.
    pub matryoshka: Option<bool>,
    /// Most tokens of one input.
    pub max_tokens: Option<NonZeroUsize>,
    /// Models with the same space have comparable vectors.
    pub space: Option<String>,
    /// US dollars for a million input tokens.
    pub price: Option<f64>,
    /// Of one call, where they differ from the vendor's.
    pub limits: CatalogueLimits,
}

/// What one call may carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogueLimits {
    /// Inputs.
    pub items: Option<NonZeroUsize>,
    /// Tokens over all inputs.
    pub tokens: Option<NonZeroUsize>,
    /// Bytes of the body.
    pub bytes: Option<NonZeroUsize>,
}

/// Vector lengths as they are written.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum WrittenLengths {
    /// Each of these.
    List(Vec<NonZeroUsize>),
    /// Everything in between.
    Range {
        /// The least.
        from: NonZeroUsize,
        /// The most.
        to: NonZeroUsize,
    },
}

impl Catalogue {
    /// What we know ourselves.
    pub fn built_in() -> Result<Self, String> {
        serde_saphyr::from_str(BUILT_IN).map(Self).map_err(|error| error.to_string())
    }

    /// Puts what configuration says of a vendor over what we know. Returns what is wrong with it.
    pub fn overlay(&mut self, kind: ProviderKind, written: &Family) -> Vec<String> {
        let families: Vec<String> = if kind == ProviderKind::LocalApi {
            Dialect::LOCAL.map(|dialect| key(kind, dialect)).into()
        } else {
            vec![kind.as_str().to_owned()]
        };
        for name in families {
            let family = self.0.entry(name).or_default();
            family.limits = written.limits.or(family.limits);
            for (name, model) in &written.models {
                let known = family.models.entry(name.clone()).or_default();
                *known = model.clone().or(known);
            }
        }
        written.models.iter().flat_map(|(name, model)| implausible(name, model)).collect()
    }

    /// The vendor of a model, if the name is one of a vendor's models.
    pub fn vendor_of(&self, model: &str) -> Option<ProviderKind> {
        self.vendor_models().find(|(_, name)| *name == model).map(|(kind, _)| kind)
    }

    /// Every vendor's models. Servers near by have none: their models are the user's own.
    pub fn vendor_models(&self) -> impl Iterator<Item = (ProviderKind, &str)> {
        self.0.iter().filter_map(|(family, known)| Some((family.parse().ok()?, known))).flat_map(
            |(kind, family): (ProviderKind, &Family)| {
                family.models.keys().map(move |name| (kind, name.as_str()))
            },
        )
    }

    /// US dollars for a million input tokens.
    pub fn price(&self, kind: ProviderKind, model: &str) -> Option<f64> {
        self.0.get(kind.as_str())?.models.get(model)?.price
    }

    /// What is known of a model, its vendor's limits included.
    pub(crate) fn known(&self, kind: ProviderKind, dialect: Dialect, model: &str) -> Known {
        let Some(family) = self.0.get(&key(kind, dialect)) else { return Known::default() };
        let known = family.models.get(model).cloned().unwrap_or_default();
        Known { limits: known.limits.or(family.limits), ..known }
    }
}

fn key(kind: ProviderKind, dialect: Dialect) -> String {
    match kind {
        ProviderKind::LocalApi => format!("{kind}/{dialect}"),
        _ => kind.to_string(),
    }
}

impl Known {
    /// These values, and another's where these say nothing.
    fn or(self, other: &Self) -> Self {
        Self {
            dimensions: self.dimensions.or(other.dimensions),
            lengths: self.lengths.or_else(|| other.lengths.clone()),
            matryoshka: self.matryoshka.or(other.matryoshka),
            max_tokens: self.max_tokens.or(other.max_tokens),
            space: self.space.or_else(|| other.space.clone()),
            price: self.price.or(other.price),
            limits: self.limits.or(other.limits),
        }
    }

    /// As core has them.
    pub(crate) fn limits(&self) -> CallLimits {
        let CatalogueLimits { items, tokens, bytes } = self.limits;
        let lengths = match &self.lengths {
            None => SupportedDimensions::Own,
            Some(WrittenLengths::List(lengths)) => SupportedDimensions::OneOf(lengths.as_slice().into()),
            Some(WrittenLengths::Range { from, to }) => SupportedDimensions::Between(*from, *to),
        };
        CallLimits { items, tokens, bytes, dimensions: lengths }
    }
}

impl CatalogueLimits {
    fn or(self, other: Self) -> Self {
        Self {
            items: self.items.or(other.items),
            tokens: self.tokens.or(other.tokens),
            bytes: self.bytes.or(other.bytes),
        }
    }
}

/// What cannot be right about a model. Price lists in circulation have errors of a thousand times.
fn implausible(name: &str, model: &Known) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(price) = model.price.filter(|price| !(0.0..=2.0).contains(price)) {
        problems.push(format!(
            "models.{name}.price: {price} dollars for a million tokens cannot be right; none costs more than 2"
        ));
    }
    if let Some(WrittenLengths::Range { from, to }) = model.lengths.as_ref()
        && from > to
    {
        problems.push(format!("models.{name}.lengths: from {from} to {to} is nothing"));
    }
    if let Some(dimensions) = model.dimensions.filter(|dimensions| dimensions.get() > 65_536) {
        problems.push(format!("models.{name}.dimensions: {dimensions} is more than any model has"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_we_know_is_whole_and_plausible() {
        let catalogue = Catalogue::built_in().unwrap();
        for kind in [
            ProviderKind::OpenAi,
            ProviderKind::Cohere,
            ProviderKind::Google,
            ProviderKind::Mistral,
            ProviderKind::Voyage,
        ] {
            let family = &catalogue.0[kind.as_str()];
            assert!(family.limits.items.is_some() && !family.models.is_empty(), "{kind}");
            for (name, model) in &family.models {
                assert_eq!(implausible(name, model), Vec::<String>::new());
                let price = model.price.unwrap();
                assert!((0.01..=0.25).contains(&price), "{name} costs {price} for a million tokens");
                let dimensions = model.dimensions.unwrap();
                assert!((256..=4096).contains(&dimensions.get()), "{name}");
                assert!((512..=128_000).contains(&model.max_tokens.unwrap().get()), "{name}");
                let known = catalogue.known(kind, Dialect::OpenAi, name);
                let limits = known.limits();
                assert!(
                    limits.dimensions == SupportedDimensions::Own || limits.dimensions.contains(dimensions),
                    "{name}"
                );
                assert!(
                    limits.dimensions == SupportedDimensions::Own || model.matryoshka == Some(true),
                    "{name}"
                );
            }
        }
        for dialect in Dialect::LOCAL {
            assert!(
                catalogue.known(ProviderKind::LocalApi, dialect, "x").limits.items.is_some(),
                "{dialect}"
            );
        }
    }

    #[test]
    fn names_find_their_vendor() {
        let catalogue = Catalogue::built_in().unwrap();
        assert_eq!(catalogue.vendor_of("text-embedding-3-small"), Some(ProviderKind::OpenAi));
        assert_eq!(catalogue.vendor_of("voyage-4-lite"), Some(ProviderKind::Voyage));
        assert_eq!(catalogue.vendor_of("nomic-embed-text"), None);
    }

    #[test]
    fn configuration_wins_and_the_rest_stays() {
        let mut catalogue = Catalogue::built_in().unwrap();
        let written: Family = serde_saphyr::from_str(
            "limits: {items: 7}\nmodels:\n  text-embedding-3-small: {price: 0.5}\n  mine: {dimensions: 8, space: text-embedding-3-small}\n",
        )
        .unwrap();
        assert_eq!(catalogue.overlay(ProviderKind::OpenAi, &written), Vec::<String>::new());
        let known = catalogue.known(ProviderKind::OpenAi, Dialect::OpenAi, "text-embedding-3-small");
        assert_eq!((known.price, known.dimensions), (Some(0.5), NonZeroUsize::new(1536)));
        assert_eq!(
            (known.limits.items, known.limits.tokens),
            (NonZeroUsize::new(7), NonZeroUsize::new(300_000))
        );
        assert_eq!(catalogue.vendor_of("mine"), Some(ProviderKind::OpenAi));
    }

    #[test]
    fn a_price_that_cannot_be_right_is_named() {
        let mut catalogue = Catalogue::built_in().unwrap();
        let written: Family = serde_saphyr::from_str("models: {m: {price: 100}}").unwrap();
        assert!(catalogue.overlay(ProviderKind::Cohere, &written)[0].starts_with("models.m.price: 100"));
    }
}
