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
<<<<<<< HEAD
fn check(reader: &mut SettingReader, key: &str, kind: ProviderKind, access: Endpoint) -> Endpoint {
=======
pub(super) fn check(reader: &mut SettingReader, key: &str, kind: ProviderKind, access: Access) -> Access {
>>>>>>> config
    if let Err(problem) = access.check(kind) {
        reader.problem(format!("{key}: {problem}"));
    }
    access
}

<<<<<<< HEAD
fn read_address(reader: &mut SettingReader, key: &str, text: &str) -> Option<BaseUrl> {
    BaseUrl::parse(text).map_err(|problem| reader.problem_at(key, problem)).ok()
=======
pub(super) fn read_address(reader: &mut SettingReader, key: &str, text: &str) -> Option<Address> {
    Address::parse(text).map_err(|problem| reader.problem_at(key, problem)).ok()
>>>>>>> config
}

fn resolve_outbound(reader: &mut SettingReader, section: OutboundSection) -> Outbound {
    let certificates = section.ca_file.and_then(|path| reader.file_at("outbound.ca_file", &path));
    let outbound = Outbound { proxy: section.proxy, no_proxy: section.no_proxy, certificates };
    if let Err(problem) = outbound.check() {
        reader.problem(format!("outbound: {problem}"));
    }
    outbound
}

<<<<<<< HEAD
/// The entries of `models` that are about providers elsewhere.
pub(super) struct Entries<'a> {
    providers: &'a mut ProvidersConfig,
    seen: HashSet<(ProviderKind, ModelRef)>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(providers: &'a mut ProvidersConfig) -> Self {
        Self { providers, seen: HashSet::new() }
    }

    /// Takes what an entry says of access. Returns how the model is called: by its name, and of two entries
    /// with the same name and different settings the second by its id besides.
    pub(super) fn add(&mut self, reader: &mut SettingReader, id: &str, entry: &mut ModelEntry) -> ModelRef {
        let kind = entry.provider.0;
        let plain = ModelRef::new(entry.model_name_or_path.as_str());
        let Some(upstream) = self.providers.vendors.iter_mut().find(|upstream| upstream.kind == kind) else {
            return ModelRef { revision: entry.revision.take().map(Into::into), ..plain };
        };
        let settings = model_settings(reader, id, entry);
        let settled = upstream.models.contains_key(&plain);
        let mut model = plain;
        if settled || (settings.is_some() && self.seen.contains(&(kind, model.clone()))) {
            model.revision = Some(id.into());
        }
        self.seen.insert((kind, model.clone()));
        if let Some(settings) = settings {
            upstream.models.insert(model.clone(), settings);
        }
        model
    }
}

/// `None` when the entry says nothing but the model's name.
fn model_settings(reader: &mut SettingReader, id: &str, entry: &mut ModelEntry) -> Option<ModelSettings> {
    let section = format!("models.{id}");
    let address = match (entry.api_url.take(), entry.base_url.take()) {
        (Some(_), Some(_)) => {
            reader.problem_at(&section, "has both api_url and base_url; keep one");
            None
        }
        (Some(text), None) => read_address(reader, &format!("{section}.api_url"), &text),
        (None, Some(text)) => read_address(reader, &format!("{section}.base_url"), &text),
        (None, None) => None,
    };
    let access = Endpoint {
        url: address,
        dialect: entry.api_dialect.take().map(|dialect| dialect.0),
        keys: entry.api_key.take().into_iter().chain(std::mem::take(&mut entry.api_keys)).collect(),
        key_setting: format!("{section}.api_key"),
        headers: std::mem::take(&mut entry.headers).into_iter().collect(),
    };
    let settings = ModelSettings {
        dimensions: entry.dimensions.map(Positive::non_zero),
        matryoshka: entry.matryoshka,
        max_tokens: entry.max_length.map(Positive::non_zero),
        prompts: prompts(reader, &section, std::mem::take(&mut entry.prompts)),
        endpoint: check(reader, &section, entry.provider.0, access),
    };
    let Endpoint { url: address, dialect, keys, headers, .. } = &settings.endpoint;
    let silent = address.is_none() && dialect.is_none() && keys.is_empty() && headers.is_empty();
    let plain = settings.dimensions.is_none()
        && settings.matryoshka.is_none()
        && settings.max_tokens.is_none()
        && settings.prompts.is_empty();
    (!silent || !plain).then_some(settings)
}

fn prompts(
    reader: &mut SettingReader,
    section: &str,
    written: BTreeMap<String, String>,
) -> HashMap<InputType, Arc<str>> {
    use InputType::{Classification, Clustering, Document, Query};
    let known = [Query, Document, Classification, Clustering];
    let mut prompts = HashMap::new();
    for (name, text) in written {
        match known.into_iter().find(|purpose| purpose.as_str() == name) {
            Some(purpose) => {
                prompts.insert(purpose, text.into());
            }
            None => reader.problem_at(
                &format!("{section}.prompts"),
                format_args!("'{name}' is no purpose; known are {}", known.map(InputType::as_str).join(", ")),
            ),
        }
    }
    prompts
}

=======
>>>>>>> config
#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
