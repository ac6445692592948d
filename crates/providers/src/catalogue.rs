//! Limits and properties of vendors' models, as data (`catalogue.yaml`) that the configuration can override. An unknown
//! model gets the limits of its vendor; its dimensions are taken from its first response.

use std::{collections::BTreeMap, num::NonZeroUsize};

use embeddery_core::{CallLimits, ProviderKind, SupportedDimensions};
use serde::Deserialize;

use crate::{local_api::Dialect, token_counter::VendorTokenizer};

const BUILT_IN: &str = include_str!("catalogue.yaml");

/// All vendors and their models.
#[derive(Clone, Debug, Default)]
pub struct Catalogue(BTreeMap<String, CatalogueVendor>);

/// Limits and models of one vendor.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogueVendor {
    /// Limits of one call, for all models.
    pub limits: CatalogueLimits,
    /// Models by the vendor's name.
    pub models: BTreeMap<String, CatalogueModel>,
}

/// Properties of one model.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogueModel {
    /// Default dimensions of a vector.
    pub dimensions: Option<NonZeroUsize>,
    /// Other dimensions that a request can ask for.
    pub lengths: Option<ConfiguredDimensions>,
    /// Whether vectors can be reduced to fewer dimensions and brought back to unit length.
    pub matryoshka: Option<bool>,
    /// Maximum tokens of one input.
    pub max_tokens: Option<NonZeroUsize>,
    /// The tokenizer that counts the tokens of documents before they are split.
    pub tokenizer: Option<VendorTokenizer>,
    /// Models with the same space have comparable vectors.
    pub space: Option<String>,
    /// US dollars per million input tokens.
    pub price: Option<f64>,
    /// Limits of one call that differ from the vendor's.
    pub limits: CatalogueLimits,
}

/// Limits of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CatalogueLimits {
    /// Maximum inputs.
    pub items: Option<NonZeroUsize>,
    /// Maximum tokens of all inputs together.
    pub tokens: Option<NonZeroUsize>,
    /// Maximum bytes of the body.
    pub bytes: Option<NonZeroUsize>,
}

/// Supported dimensions, as they are configured.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum ConfiguredDimensions {
    /// Exactly these.
    List(Vec<NonZeroUsize>),
    /// All numbers of a range.
    Range {
        /// The minimum.
        from: NonZeroUsize,
        /// The maximum.
        to: NonZeroUsize,
    },
}

impl Catalogue {
    /// The built-in catalogue.
    ///
    /// # Errors
    /// The built-in file cannot be parsed, which is a defect.
    pub fn built_in() -> Result<Self, String> {
        serde_saphyr::from_str(BUILT_IN).map(Self).map_err(|error| error.to_string())
    }

    /// Overrides entries of a vendor by configured ones. Returns the problems of the configured entries.
    pub fn overlay(&mut self, kind: ProviderKind, configured: &CatalogueVendor) -> Vec<String> {
        let vendors: Vec<String> = if kind == ProviderKind::LocalApi {
            Dialect::LOCAL.map(|dialect| key(kind, dialect)).into()
        } else {
            vec![kind.as_str().to_owned()]
        };
        for name in vendors {
            let vendor = self.0.entry(name).or_default();
            vendor.limits = configured.limits.or(vendor.limits);
            for (name, model) in &configured.models {
                let entry = vendor.models.entry(name.clone()).or_default();
                *entry = model.clone().or(entry);
            }
        }
        configured.models.iter().flat_map(|(name, model)| problems(name, model)).collect()
    }

    /// The vendor that has a model of this name.
    pub fn vendor_of(&self, model: &str) -> Option<ProviderKind> {
        self.vendor_models().find(|(_, name)| *name == model).map(|(kind, _)| kind)
    }

    /// The models of all vendors. Local servers have none here: their models are the user's own.
    pub fn vendor_models(&self) -> impl Iterator<Item = (ProviderKind, &str)> {
        self.0.iter().filter_map(|(name, vendor)| Some((name.parse().ok()?, vendor))).flat_map(
            |(kind, vendor): (ProviderKind, &CatalogueVendor)| {
                vendor.models.keys().map(move |name| (kind, name.as_str()))
            },
        )
    }

    /// The price in US dollars per million input tokens.
    pub fn price(&self, kind: ProviderKind, model: &str) -> Option<f64> {
        self.0.get(kind.as_str())?.models.get(model)?.price
    }

    /// The entry of a model, completed by the limits of its vendor.
    pub(crate) fn model(&self, kind: ProviderKind, dialect: Dialect, model: &str) -> CatalogueModel {
        let Some(vendor) = self.0.get(&key(kind, dialect)) else { return CatalogueModel::default() };
        let entry = vendor.models.get(model).cloned().unwrap_or_default();
        CatalogueModel { limits: entry.limits.or(vendor.limits), ..entry }
    }
}

/// The key of a vendor in the catalogue.
fn key(kind: ProviderKind, dialect: Dialect) -> String {
    match kind {
        ProviderKind::LocalApi => format!("{kind}/{dialect}"),
        _ => kind.to_string(),
    }
}

impl CatalogueModel {
    /// These values, completed by those of `other`.
    fn or(self, other: &Self) -> Self {
        Self {
            dimensions: self.dimensions.or(other.dimensions),
            lengths: self.lengths.or_else(|| other.lengths.clone()),
            matryoshka: self.matryoshka.or(other.matryoshka),
            max_tokens: self.max_tokens.or(other.max_tokens),
            tokenizer: self.tokenizer.or(other.tokenizer),
            space: self.space.or_else(|| other.space.clone()),
            price: self.price.or(other.price),
            limits: self.limits.or(other.limits),
        }
    }

    /// The limits as the type of core.
    pub(crate) fn limits(&self) -> CallLimits {
        let CatalogueLimits { items, tokens, bytes } = self.limits;
        let lengths = match &self.lengths {
            None => SupportedDimensions::Own,
            Some(ConfiguredDimensions::List(lengths)) => {
                SupportedDimensions::OneOf(lengths.as_slice().into())
            }
            Some(ConfiguredDimensions::Range { from, to }) => SupportedDimensions::Between(*from, *to),
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

/// Implausible values of a model. Published price lists contain prices that are wrong by a factor of a thousand.
fn problems(name: &str, model: &CatalogueModel) -> Vec<String> {
    let mut problems = Vec::new();
    if let Some(price) = model.price.filter(|price| !(0.0..=2.0).contains(price)) {
        problems.push(format!(
            "models.{name}.price: {price} dollars per million tokens is implausible; write a price of at most 2"
        ));
    }
    if let Some(ConfiguredDimensions::Range { from, to }) = model.lengths.as_ref()
        && from > to
    {
        problems.push(format!(
            "models.{name}.lengths: the range from {from} to {to} is empty; `from` must not exceed `to`"
        ));
    }
    if let Some(dimensions) = model.dimensions.filter(|dimensions| dimensions.get() > 65_536) {
        problems.push(format!("models.{name}.dimensions: {dimensions} is implausible; write at most 65536"));
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_catalogue_is_complete_and_plausible() {
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
                assert_eq!(problems(name, model), Vec::<String>::new());
                let price = model.price.unwrap();
                assert!((0.01..=0.25).contains(&price), "{name} costs {price} per million tokens");
                let dimensions = model.dimensions.unwrap();
                assert!((256..=4096).contains(&dimensions.get()), "{name}");
                assert!((512..=128_000).contains(&model.max_tokens.unwrap().get()), "{name}");
                let limits = catalogue.model(kind, Dialect::OpenAi, name).limits();
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
                catalogue.model(ProviderKind::LocalApi, dialect, "x").limits.items.is_some(),
                "{dialect}"
            );
        }
    }

    #[test]
    fn vendors_are_found_by_model_name() {
        let catalogue = Catalogue::built_in().unwrap();
        assert_eq!(catalogue.vendor_of("text-embedding-3-small"), Some(ProviderKind::OpenAi));
        assert_eq!(catalogue.vendor_of("voyage-4-lite"), Some(ProviderKind::Voyage));
        assert_eq!(catalogue.vendor_of("nomic-embed-text"), None);
    }

    #[test]
    fn configured_values_override_single_fields() {
        let mut catalogue = Catalogue::built_in().unwrap();
        let configured: CatalogueVendor = serde_saphyr::from_str(
            "limits: {items: 7}\nmodels:\n  text-embedding-3-small: {price: 0.5}\n  mine: {dimensions: 8, space: text-embedding-3-small}\n",
        )
        .unwrap();
        assert_eq!(catalogue.overlay(ProviderKind::OpenAi, &configured), Vec::<String>::new());
        let entry = catalogue.model(ProviderKind::OpenAi, Dialect::OpenAi, "text-embedding-3-small");
        assert_eq!((entry.price, entry.dimensions), (Some(0.5), NonZeroUsize::new(1536)));
        assert_eq!(
            (entry.limits.items, entry.limits.tokens),
            (NonZeroUsize::new(7), NonZeroUsize::new(300_000))
        );
        assert_eq!(catalogue.vendor_of("mine"), Some(ProviderKind::OpenAi));
    }

    #[test]
    fn an_implausible_price_is_reported() {
        let mut catalogue = Catalogue::built_in().unwrap();
        let configured: CatalogueVendor = serde_saphyr::from_str("models: {m: {price: 100}}").unwrap();
        assert!(catalogue.overlay(ProviderKind::Cohere, &configured)[0].starts_with("models.m.price: 100"));
    }
}
