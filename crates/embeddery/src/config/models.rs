//! The section `models`: entries by an id of the operator's choice, and one switch among them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
    sync::Arc,
};

use embeddery_core::{InputType, ModelRef, ProviderKind};
use embeddery_engine::Precision;
use embeddery_gateway::ConfiguredModel;
use embeddery_providers::{Dialect, Endpoint, ModelSettings, local::ModelOptions};
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{
    onnx,
    providers::{ProvidersConfig, check, read_address},
    reader::SettingReader,
    units::{Parsed, Positive, UnusedSeconds},
};

/// The section `models`.
#[derive(Default)]
pub(super) struct ModelsSection {
    pub(super) auto_download: bool,
    entries: Vec<(String, ModelEntry)>,
}

/// One entry of `models`: all keys of the replaced service's schema, and ours.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ModelEntry {
    provider: Parsed<ProviderKind>,
    model_name_or_path: String,
    revision: Option<String>,
    precision: Option<Parsed<Precision>>,
    max_length: Option<Positive>,
    matryoshka: Option<bool>,
    unload_timeout_seconds: Option<UnusedSeconds>,
    #[serde(default)]
    fallback: OneOrMany,
    #[serde(default)]
    allow_space_change: bool,
    #[serde(default)]
    prompts: BTreeMap<String, String>,
    // Of providers elsewhere.
    api_url: Option<String>,
    api_dialect: Option<Parsed<Dialect>>,
    api_key: Option<SecretString>,
    #[serde(default)]
    api_keys: Vec<SecretString>,
    base_url: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, SecretString>,
    dimensions: Option<Positive>,
    // Of graphs.
    onnx_file: Option<String>,
    onnx_providers: Option<Vec<String>>,
}

/// A name, or a list of names.
#[derive(Deserialize)]
#[serde(untagged, expecting = "must be a name or a list of names")]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl<'de> Deserialize<'de> for ModelsSection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = ModelsSection;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map from model ids to models")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ModelsSection, A::Error> {
                let mut models = ModelsSection::default();
                while let Some(id) = map.next_key::<String>()? {
                    if id == "auto_download" {
                        models.auto_download = map.next_value()?;
                    } else {
                        models.entries.push((id, map.next_value()?));
                    }
                }
                Ok(models)
            }
        }
        deserializer.deserialize_map(Entries)
    }
}

/// The models with an entry of their own.
pub(super) struct Models {
    pub(super) configured: Vec<ConfiguredModel>,
    /// What entries say of the engine's models, by model name.
    pub(super) engine: HashMap<Arc<str>, ModelOptions>,
    /// What entries say of graphs, by model name.
    pub(super) graphs: HashMap<Arc<str>, ModelOptions>,
}

/// Checks the entries, and gives providers elsewhere what they say of access.
pub(super) fn resolve(
    reader: &mut SettingReader,
    section: ModelsSection,
    providers: &mut ProvidersConfig,
) -> Models {
    let mut models = Models { configured: Vec::new(), engine: HashMap::new(), graphs: HashMap::new() };
    let mut elsewhere = Entries::new(providers);
    for (id, mut entry) in section.entries {
        if entry.model_name_or_path.trim().is_empty() {
            reader.problem_at(&format!("models.{id}.model_name_or_path"), "is empty");
        }
        let fallback = match std::mem::take(&mut entry.fallback) {
            OneOrMany::One(name) => vec![name],
            OneOrMany::Many(names) => names,
        };
        for name in fallback.iter().filter(|name| name.trim().is_empty() || **name == id) {
            reader.problem_at(
                &format!("models.{id}.fallback"),
                format_args!("'{name}' is not another model; name a key of `models`"),
            );
        }
        let (provider, allow_space_change) = (entry.provider.0, entry.allow_space_change);
        let model = elsewhere.add(reader, &id, &mut entry);
        let options = match provider {
            ProviderKind::HuggingFace => Some(&mut models.engine),
            ProviderKind::Onnx => Some(&mut models.graphs),
            _ => None,
        };
        if let Some(options) = options {
            options.insert(Arc::clone(&model.name), local_options(reader, &id, entry));
        }
        models.configured.push(ConfiguredModel {
            fallback,
            allow_space_change,
            ..ConfiguredModel::new(id, provider, model)
        });
    }
    models
}

/// What an entry says of a model on this machine.
fn local_options(reader: &mut SettingReader, id: &str, entry: ModelEntry) -> ModelOptions {
    if let Some(name) = &entry.onnx_file {
        onnx::check_file(reader, id, name);
    }
    if let Some(names) = &entry.onnx_providers {
        onnx::check_providers(reader, &format!("models.{id}.onnx_providers"), names);
    }
    ModelOptions {
        max_length: entry.max_length.map(Positive::non_zero),
        precision: entry.precision.map(|precision| precision.0),
        prompts: entry.prompts,
        matryoshka: entry.matryoshka.unwrap_or(false),
        unload_after: entry.unload_timeout_seconds.map(|seconds| seconds.0),
        onnx_file: entry.onnx_file,
        onnx_providers: entry.onnx_providers,
    }
}

/// The entries of `models` that are about providers elsewhere.
struct Entries<'a> {
    providers: &'a mut ProvidersConfig,
    seen: HashSet<(ProviderKind, ModelRef)>,
}

impl<'a> Entries<'a> {
    fn new(providers: &'a mut ProvidersConfig) -> Self {
        Self { providers, seen: HashSet::new() }
    }

    /// Takes what an entry says of access. Returns how the model is called: by its name, and of two entries
    /// with the same name and different settings the second by its id besides.
    fn add(&mut self, reader: &mut SettingReader, id: &str, entry: &mut ModelEntry) -> ModelRef {
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
