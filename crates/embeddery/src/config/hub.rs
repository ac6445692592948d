//! Where models come from: the section `hub`, and the variables that the hub's own tools know.

use std::path::PathBuf;

use embeddery_model_store::{DiskLimits, StoreConfig, WeightsFormat};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;

use super::units::Bytes;

/// The section `hub`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct HubSection {
    endpoint: String,
    offline: bool,
    min_free_bytes: Bytes,
    max_bytes: Bytes,
    token: Option<SecretString>,
    token_file: Option<PathBuf>,
    cache_dir: Option<PathBuf>,
    home: Option<PathBuf>,
    user_cache_dir: Option<PathBuf>,
    user_home: Option<PathBuf>,
}

impl HubSection {
    pub(super) fn store(self, base_dir: PathBuf) -> StoreConfig {
        StoreConfig {
            base_dir,
            hub_cache: self.cache_dir.clone().or_else(|| Some(self.home()?.join("hub"))),
            token: self.token(),
            endpoint: self.endpoint,
            offline: self.offline,
            disk: DiskLimits {
                min_free_bytes: self.min_free_bytes.0,
                max_bytes: Some(self.max_bytes.0).filter(|most| *most > 0),
            },
            format: WeightsFormat::Safetensors,
        }
    }

    /// HF_TOKEN, or what `hf auth login` has stored.
    fn token(&self) -> Option<SecretString> {
        let stored = || {
            let path = self.token_file.clone().or_else(|| Some(self.home()?.join("token")))?;
            std::fs::read_to_string(path).ok().map(SecretString::from)
        };
        let token = self.token.clone().or_else(stored)?;
        Some(token.expose_secret().trim()).filter(|token| !token.is_empty()).map(SecretString::from)
    }

    /// The directory of the hub's own tools.
    fn home(&self) -> Option<PathBuf> {
        let cache = || self.user_cache_dir.clone().or_else(|| Some(self.user_home.as_ref()?.join(".cache")));
        self.home.clone().or_else(|| Some(cache()?.join("huggingface")))
    }
}
