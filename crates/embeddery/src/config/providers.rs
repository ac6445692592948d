//! Providers whose models are elsewhere: the section `providers`, the keys of `models` that are about them,
//! the variables of the deployment guide, and how requests leave this machine (`outbound`).

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    num::NonZeroUsize,
    path::PathBuf,
    sync::Arc,
};

use embeddery_core::{InputType, ModelRef, ProviderKind};
use embeddery_providers::{
    BaseUrl, Catalogue, CatalogueLimits, CatalogueModel, CatalogueVendor, Dialect, Endpoint, ModelSettings,
    Outbound,
};
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};

use super::{file::Model, resolve::Found};

/// What the program needs to reach providers elsewhere.
pub(crate) struct Upstreams {
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

/// A provider as the guide's variables know it.
struct Variables {
    kind: ProviderKind,
    key: &'static str,
    address: &'static [&'static str],
}

const VARIABLES: [Variables; 6] = [
    Variables {
        kind: ProviderKind::OpenAi,
        key: "OPENAI_API_KEY",
        // The second and third are the replaced service's.
        address: &["OPENAI_BASE_URL", "OPENAI_API_BASE_URL", "OPENAI_API_BASE"],
    },
    Variables { kind: ProviderKind::Cohere, key: "COHERE_API_KEY", address: &["COHERE_BASE_URL"] },
    Variables { kind: ProviderKind::Google, key: "GOOGLE_API_KEY", address: &["GOOGLE_BASE_URL"] },
    Variables { kind: ProviderKind::Mistral, key: "MISTRAL_API_KEY", address: &["MISTRAL_BASE_URL"] },
    Variables { kind: ProviderKind::Voyage, key: "VOYAGE_API_KEY", address: &["VOYAGE_BASE_URL"] },
    Variables {
        kind: ProviderKind::LocalApi,
        key: "LOCAL_API_KEY",
        address: &["LOCAL_API_BASE_URL", "LOCAL_API_URL"],
    },
];

/// The section `providers`, or the list of that name in the replaced service's files.
#[derive(Debug, Default)]
pub(in crate::config) enum Providers {
    #[default]
    Absent,
    Written(Box<Section>),
    /// `notices` says what became of it.
    OldList,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct Section {
    openai: Provider,
    cohere: Provider,
    google: Provider,
    mistral: Provider,
    voyage: Provider,
    local_api: Provider,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Provider {
    base_url: Option<String>,
    api_dialect: Option<String>,
    api_key: Option<SecretString>,
    api_keys: Vec<SecretString>,
    headers: BTreeMap<String, SecretString>,
    limits: CatalogueLimits,
    models: BTreeMap<String, CatalogueModel>,
}

/// The section `outbound`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(in crate::config) struct OutboundSection {
    proxy: Option<SecretString>,
    no_proxy: Option<String>,
    ca_file: Option<PathBuf>,
}

impl OutboundSection {
    /// These settings, and another's where these say nothing.
    pub(super) fn or(self, other: Self) -> Self {
        Self {
            proxy: self.proxy.or(other.proxy),
            no_proxy: self.no_proxy.or(other.no_proxy),
            ca_file: self.ca_file.or(other.ca_file),
        }
    }
}

impl<'de> Deserialize<'de> for Providers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = Providers;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from providers to their settings")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Providers, A::Error> {
                Section::deserialize(MapAccessDeserializer::new(map)).map(Box::new).map(Providers::Written)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Providers, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Providers::OldList)
            }

            fn visit_unit<E>(self) -> Result<Providers, E> {
                Ok(Providers::Absent) // `providers:` with only comments below it
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Section {
    fn of(&mut self, kind: ProviderKind) -> Option<&mut Provider> {
        Some(match kind {
            ProviderKind::OpenAi => &mut self.openai,
            ProviderKind::Cohere => &mut self.cohere,
            ProviderKind::Google => &mut self.google,
            ProviderKind::Mistral => &mut self.mistral,
            ProviderKind::Voyage => &mut self.voyage,
            ProviderKind::LocalApi => &mut self.local_api,
            ProviderKind::HuggingFace | ProviderKind::Onnx => return None,
        })
    }
}

/// Reads everything that is about providers elsewhere, except the entries of `models` ([`Entries`]).
pub(super) fn resolve(found: &mut Found<'_>, written: Providers, outbound: OutboundSection) -> Upstreams {
    let mut section = match written {
        Providers::Written(section) => *section,
        Providers::Absent | Providers::OldList => Section::default(),
    };
    let mut catalogue = Catalogue::built_in().unwrap_or_else(|error| {
        // A test reads it, so this is a build that nobody tested.
        found.problem(format!("the built-in catalogue of models cannot be read: {error}"));
        Catalogue::default()
    });
    let vendors = VARIABLES
        .iter()
        .map(|variables| {
            let written = section.of(variables.kind).map(std::mem::take).unwrap_or_default();
            let family = CatalogueVendor { limits: written.limits, models: written.models.clone() };
            for problem in catalogue.overlay(variables.kind, &family) {
                found.problem(format!("providers.{}.{problem}", variables.kind));
            }
            Upstream {
                kind: variables.kind,
                access: provider_access(found, variables, written),
                models: HashMap::new(),
            }
        })
        .collect();
    Upstreams { vendors, catalogue: Arc::new(catalogue), outbound: resolve_outbound(found, outbound) }
}

fn provider_access(found: &mut Found<'_>, variables: &Variables, written: Provider) -> Endpoint {
    let section = format!("providers.{}", variables.kind);
    let from_variable = found.environment.first(variables.address);
    let address = match from_variable {
        Some((name, text)) => Some((name.to_owned(), text.to_owned())),
        None => written.base_url.map(|text| (format!("{section}.base_url"), text)),
    };
    let keys = match found.environment.get(variables.key) {
        // No vendor's key has a comma in it.
        Some(list) => split_keys(list),
        None => written.api_key.into_iter().chain(written.api_keys).collect(),
    };
    let access = Endpoint {
        url: address.and_then(|(setting, text)| read_address(found, &setting, &text)),
        dialect: written.api_dialect.and_then(|name| read_dialect(found, &section, &name)),
        keys,
        key_setting: variables.key.to_owned(),
        headers: written.headers.into_iter().collect(),
    };
    check(found, &section, variables.kind, access)
}

/// Says what of an access cannot be sent.
fn check(found: &mut Found<'_>, section: &str, kind: ProviderKind, access: Endpoint) -> Endpoint {
    if let Err(problem) = access.check(kind) {
        found.problem(format!("{section}: {problem}"));
    }
    access
}

fn split_keys(list: &str) -> Vec<SecretString> {
    list.split(',').map(str::trim).filter(|key| !key.is_empty()).map(SecretString::from).collect()
}

fn read_address(found: &mut Found<'_>, setting: &str, text: &str) -> Option<BaseUrl> {
    BaseUrl::parse(text).map_err(|problem| found.problem(format!("{setting}: {problem}"))).ok()
}

fn read_dialect(found: &mut Found<'_>, section: &str, name: &str) -> Option<Dialect> {
    name.parse().map_err(|problem| found.problem(format!("{section}.api_dialect: {problem}"))).ok()
}

fn resolve_outbound(found: &mut Found<'_>, written: OutboundSection) -> Outbound {
    let proxy = found.environment.get("EMBEDDINGS_PROXY").map(SecretString::from).or(written.proxy);
    let no_proxy = found.environment.get("EMBEDDINGS_NO_PROXY").map(str::to_owned).or(written.no_proxy);
    let (setting, ca_file) = match found.environment.get("EMBEDDINGS_CA_FILE") {
        Some(path) => ("EMBEDDINGS_CA_FILE", Some(PathBuf::from(path))),
        None => ("outbound.ca_file", written.ca_file),
    };
    let certificates = ca_file.and_then(|path| {
        std::fs::read(&path)
            .map_err(|error| {
                found.problem(format!("{setting}: {} cannot be read ({error})", path.display()));
            })
            .ok()
    });
    let outbound = Outbound { proxy, no_proxy: no_proxy.unwrap_or_default(), certificates };
    if let Err(problem) = outbound.check() {
        found.problem(format!("outbound: {problem}"));
    }
    outbound
}

/// The entries of `models` that are about providers elsewhere.
pub(super) struct Entries<'a> {
    upstreams: &'a mut Upstreams,
    seen: HashSet<(ProviderKind, ModelRef)>,
}

impl<'a> Entries<'a> {
    pub(super) fn new(upstreams: &'a mut Upstreams) -> Self {
        Self { upstreams, seen: HashSet::new() }
    }

    /// Takes what an entry says of access. Returns how the model is called: by its name, and of two entries
    /// with the same name and different settings the second by its id besides.
    pub(super) fn add(
        &mut self,
        found: &mut Found<'_>,
        (id, kind): (&str, ProviderKind),
        entry: &mut Model,
    ) -> ModelRef {
        let plain = ModelRef::new(entry.model_name_or_path.as_str());
        let Some(upstream) = self.upstreams.vendors.iter_mut().find(|upstream| upstream.kind == kind) else {
            return ModelRef { revision: entry.revision.take().map(Into::into), ..plain };
        };
        let settings = model_settings(found, id, kind, entry);
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
fn model_settings(
    found: &mut Found<'_>,
    id: &str,
    kind: ProviderKind,
    entry: &mut Model,
) -> Option<ModelSettings> {
    let section = format!("models.{id}");
    let address = match (entry.api_url.take(), entry.base_url.take()) {
        (Some(_), Some(_)) => {
            found.problem(format!("{section}: has both api_url and base_url; keep one"));
            None
        }
        (Some(text), None) => read_address(found, &format!("{section}.api_url"), &text),
        (None, Some(text)) => read_address(found, &format!("{section}.base_url"), &text),
        (None, None) => None,
    };
    let access = Endpoint {
        url: address,
        dialect: entry.api_dialect.take().and_then(|name| read_dialect(found, &section, &name)),
        keys: entry.api_key.take().into_iter().chain(entry.api_keys.take().unwrap_or_default()).collect(),
        key_setting: format!("{section}.api_key"),
        headers: entry.headers.take().unwrap_or_default().into_iter().collect(),
    };
    if entry.dimensions == Some(0) {
        found.problem(format!("{section}.dimensions: must be above zero"));
    }
    let settings = ModelSettings {
        dimensions: entry.dimensions.and_then(NonZeroUsize::new),
        matryoshka: entry.matryoshka,
        max_tokens: entry.max_length.and_then(NonZeroUsize::new),
        prompts: prompts(found, &section, entry.prompts.take().unwrap_or_default()),
        endpoint: check(found, &section, kind, access),
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
    found: &mut Found<'_>,
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
            None => found.problem(format!(
                "{section}.prompts: '{name}' is no purpose; known are {}",
                known.map(InputType::as_str).join(", ")
            )),
        }
    }
    prompts
}

#[cfg(test)]
#[path = "providers_tests.rs"]
mod tests;
