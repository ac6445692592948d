//! The section `models`: entries by an id of the operator's choice, and one switch among them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::Arc,
};

use embeddery_core::ProviderKind;
use embeddery_engine::Precision;
use embeddery_gateway::ConfiguredModel;
use embeddery_providers::{Dialect, local::ModelOptions};
use secrecy::SecretString;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::{
    onnx,
    providers::{self, ProvidersConfig},
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
pub(super) struct ModelEntry {
    pub(super) provider: Parsed<ProviderKind>,
    pub(super) model_name_or_path: String,
    pub(super) revision: Option<String>,
    precision: Option<Parsed<Precision>>,
    pub(super) max_length: Option<Positive>,
    pub(super) matryoshka: Option<bool>,
    unload_timeout_seconds: Option<UnusedSeconds>,
    #[serde(default)]
    fallback: OneOrMany,
    #[serde(default)]
    allow_space_change: bool,
    #[serde(default)]
    pub(super) prompts: BTreeMap<String, String>,
    // Of providers elsewhere.
    pub(super) api_url: Option<String>,
    pub(super) api_dialect: Option<Parsed<Dialect>>,
    pub(super) api_key: Option<SecretString>,
    #[serde(default)]
    pub(super) api_keys: Vec<SecretString>,
    pub(super) base_url: Option<String>,
    #[serde(default)]
    pub(super) headers: BTreeMap<String, SecretString>,
    pub(super) dimensions: Option<Positive>,
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
    let mut elsewhere = providers::Entries::new(providers);
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
