//! Providers whose models are elsewhere: the section `providers`, and how requests leave this machine (`outbound`).

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use embeddery_core::{ModelRef, ProviderKind};
use embeddery_providers::{
    BaseUrl, Catalogue, CatalogueLimits, CatalogueModel, CatalogueVendor, Dialect, Endpoint, ModelSettings,
    Outbound,
};
use secrecy::SecretString;
use serde::Deserialize;

use super::{reader::SettingReader, units::Parsed};

/// What the program needs to reach providers elsewhere.
pub(crate) struct ProvidersConfig {
    /// Each provider, with a key or without.
    pub(crate) vendors: Vec<Upstream>,
    /// What is known of their models.
    pub(crate) catalogue: Arc<Catalogue>,
    /// How requests leave this machine.
    pub(crate) outbound: Outbound,
}

/// One provider.
pub(crate) struct Upstream {
    pub(crate) kind: ProviderKind,
    pub(crate) access: Endpoint,
    pub(crate) models: HashMap<ModelRef, ModelSettings>,
}

/// The section `providers`.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ProvidersSection {
    openai: ProviderSection,
    cohere: ProviderSection,
    google: ProviderSection,
    mistral: ProviderSection,
    voyage: ProviderSection,
    local_api: ProviderSection,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProviderSection {
    base_url: Option<String>,
    api_dialect: Option<Parsed<Dialect>>,
    /// A variable's keys; they stand in for those of the file. No vendor's key has a comma in it.
    environment_keys: Option<Vec<SecretString>>,
    api_key: Option<SecretString>,
    api_keys: Vec<SecretString>,
    headers: BTreeMap<String, SecretString>,
    limits: CatalogueLimits,
    models: BTreeMap<String, CatalogueModel>,
}

/// The section `outbound`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OutboundSection {
    proxy: Option<SecretString>,
    no_proxy: String,
    ca_file: Option<PathBuf>,
}

/// Checks everything that is about providers elsewhere, except the entries of `models`.
pub(super) fn resolve(
    reader: &mut SettingReader,
    section: ProvidersSection,
    outbound: OutboundSection,
) -> ProvidersConfig {
    let mut catalogue = Catalogue::built_in().unwrap_or_else(|error| {
        // A test reads it, so this is a build that was not tested.
        reader.problem(format!("the built-in catalogue of models cannot be read: {error}"));
        Catalogue::default()
    });
    let sections = [
        (ProviderKind::OpenAi, "OPENAI_API_KEY", section.openai),
        (ProviderKind::Cohere, "COHERE_API_KEY", section.cohere),
        (ProviderKind::Google, "GOOGLE_API_KEY", section.google),
        (ProviderKind::Mistral, "MISTRAL_API_KEY", section.mistral),
        (ProviderKind::Voyage, "VOYAGE_API_KEY", section.voyage),
        (ProviderKind::LocalApi, "LOCAL_API_KEY", section.local_api),
    ];
    let vendors = sections.map(|(kind, key_variable, mut section)| {
        let family = CatalogueVendor { limits: section.limits, models: std::mem::take(&mut section.models) };
        for problem in catalogue.overlay(kind, &family) {
            reader.problem(format!("providers.{kind}.{problem}"));
        }
        Upstream {
            kind,
            access: provider_access(reader, kind, key_variable, section),
            models: HashMap::new(),
        }
    });
    ProvidersConfig {
        vendors: vendors.into(),
        catalogue: Arc::new(catalogue),
        outbound: resolve_outbound(reader, outbound),
    }
}

fn provider_access(
    reader: &mut SettingReader,
    kind: ProviderKind,
    key_variable: &str,
    section: ProviderSection,
) -> Endpoint {
    let key = format!("providers.{kind}");
    let keys = section
        .environment_keys
        .unwrap_or_else(|| section.api_key.into_iter().chain(section.api_keys).collect());
    let access = Endpoint {
        url: section.base_url.and_then(|text| read_address(reader, &format!("{key}.base_url"), &text)),
        dialect: section.api_dialect.map(|dialect| dialect.0),
        keys,
        key_setting: key_variable.to_owned(),
        headers: section.headers.into_iter().collect(),
    };
    check(reader, &key, kind, access)
}

/// Says what of an access cannot be sent.
pub(super) fn check(reader: &mut SettingReader, key: &str, kind: ProviderKind, access: Endpoint) -> Endpoint {
    if let Err(problem) = access.check(kind) {
        reader.problem(format!("{key}: {problem}"));
    }
    access
}

pub(super) fn read_address(reader: &mut SettingReader, key: &str, text: &str) -> Option<BaseUrl> {
    BaseUrl::parse(text).map_err(|problem| reader.problem_at(key, problem)).ok()
}

fn resolve_outbound(reader: &mut SettingReader, section: OutboundSection) -> Outbound {
    let certificates = section.ca_file.and_then(|path| reader.file_at("outbound.ca_file", &path));
    let outbound = Outbound { proxy: section.proxy, no_proxy: section.no_proxy, certificates };
    if let Err(problem) = outbound.check() {
        reader.problem(format!("outbound: {problem}"));
    }
    outbound
}

#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
