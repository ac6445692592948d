//! Graphs for ONNX Runtime: the section `onnx`, and the keys of `models` that are about them.

use std::{
    collections::HashMap,
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use embeddery_model_store::WeightsFormat;
use embeddery_providers::{
    local::ModelOptions,
    onnx::{CUDA, ExecutionProvider},
};
use serde::Deserialize;

use super::{reader::SettingReader, units::filled};

/// Where `make onnxruntime` puts the library.
const UNPACKED: &str = ".cache/onnxruntime/libonnxruntime.so";
/// What the system's own is called.
const SYSTEM: &str = if cfg!(target_os = "macos") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };

/// The section `onnx`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OnnxSection {
    #[serde(deserialize_with = "filled")]
    library: Option<PathBuf>,
    providers: Vec<String>,
    allow_tf32: Option<bool>,
}

/// Graphs, and what runs them.
#[derive(Clone, Debug)]
pub(crate) struct OnnxSettings {
    /// Where the library may lie, in order.
    pub(crate) libraries: Vec<PathBuf>,
    /// What computes graphs that have no setting of their own.
    pub(crate) providers: Vec<String>,
    /// Whether CUDA may compute in TF32.
    pub(crate) allow_tf32: Option<bool>,
    /// What entries of `models` say, by model name.
    pub(crate) models: HashMap<Arc<str>, ModelOptions>,
}

impl OnnxSettings {
    /// Which files the store looks for and fetches.
    pub(crate) fn format(&self) -> WeightsFormat {
        let file = |(name, options): (&Arc<str>, &ModelOptions)| {
            Some((name.to_string(), options.onnx_file.clone()?))
        };
        WeightsFormat::Onnx(self.models.iter().filter_map(file).collect())
    }
}

/// Checks the section.
pub(super) fn resolve(
    reader: &mut SettingReader,
    section: OnnxSection,
    models: HashMap<Arc<str>, ModelOptions>,
) -> OnnxSettings {
    let libraries = match section.library {
        Some(path) => vec![path],
        None => vec![std::path::absolute(UNPACKED).unwrap_or_else(|_| UNPACKED.into()), SYSTEM.into()],
    };
    check_providers(reader, "onnx.providers", &section.providers);
    OnnxSettings { libraries, providers: section.providers, allow_tf32: section.allow_tf32, models }
}

/// Checks that the names of execution providers are right; whether the library has them shows when it is loaded.
pub(super) fn check_providers(reader: &mut SettingReader, key: &str, names: &[String]) {
    if names.is_empty() {
        reader.problem_at(key, "is empty; write for example [CPUExecutionProvider]");
    }
    for name in names {
        if let Err(error) = ExecutionProvider::from_name(name) {
            reader.problem_at(key, error);
        }
    }
}

/// Checks that a graph's file is in the model's directory.
pub(super) fn check_file(reader: &mut SettingReader, id: &str, name: &str) {
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    if name.is_empty() || !inside {
        reader.problem_at(
            &format!("models.{id}.onnx_file"),
            format_args!(
                "'{name}' is not a file of the model's directory; write for example onnx/model_quantized.onnx"
            ),
        );
    }
}

/// TF32 is a matter of CUDA, which a model or `onnx.providers` has to ask for.
pub(super) fn warn_unused_tf32(settings: &OnnxSettings) -> Option<String> {
    settings.allow_tf32?;
    let of_models = settings.models.values().filter_map(|options| options.onnx_providers.as_ref());
    let is_used = std::iter::once(&settings.providers).chain(of_models).flatten().any(|name| name == CUDA);
    (!is_used).then(|| format!("CUDA_ALLOW_TF32 has no effect: no onnx_providers has {CUDA}"))
}

#[cfg(test)]
mod tests {
    use super::{super::tests_support::resolved, *};

    const KEY: (&str, &str) = ("SINGLE_USER_API_KEY", "a-key-for-tests-only");

    #[test]
    fn the_library_is_where_somebody_says_or_in_two_places() {
        let libraries = |text: &str, variables: &[(&str, &str)]| {
            let config = resolved(text, &[variables, &[KEY]].concat());
            config.map_err(|error| error.to_string()).unwrap().onnx.libraries
        };
        let two = libraries("", &[]);
        assert!(two[0].ends_with(UNPACKED) && two[0].is_absolute() && two[1] == Path::new(SYSTEM), "{two:?}");
        let file = "onnx: {library: /opt/libonnxruntime.so}\n";
        assert_eq!(libraries(file, &[]), [Path::new("/opt/libonnxruntime.so")]);
        assert_eq!(libraries(file, &[("ORT_DYLIB_PATH", "/usr/o.so")]), [Path::new("/usr/o.so")]);
    }

    #[test]
    fn entries_are_checked_and_reach_the_store() {
        let entry = |keys: &str| {
            format!(
                "models: {{a: {{provider: onnx, model_name_or_path: sentence-transformers/all-MiniLM-L6-v2, {keys}}}}}\n"
            )
        };
        let good = resolved(
            &entry("onnx_file: onnx/model_int8.onnx, onnx_providers: [CPUExecutionProvider]"),
            &[KEY],
        );
        let onnx = good.map_err(|error| error.to_string()).unwrap().onnx;
        assert_eq!(onnx.providers, ["CPUExecutionProvider"]);
        let WeightsFormat::Onnx(files) = onnx.format() else { panic!("not of graphs") };
        let file = files.get("sentence-transformers/all-MiniLM-L6-v2").map(String::as_str);
        assert_eq!(file, Some("onnx/model_int8.onnx"), "{files:?}");
        for (keys, said) in [
            ("onnx_file: ../other/model.onnx", "models.a.onnx_file"),
            ("onnx_file: /etc/passwd", "models.a.onnx_file"),
            ("onnx_providers: [GPU]", "'GPU' is unknown; write CPUExecutionProvider"),
            ("onnx_providers: []", "models.a.onnx_providers: is empty"),
        ] {
            let error =
                resolved(&entry(keys), &[KEY]).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(said), "{keys}: {error}");
        }
    }

    #[test]
    fn tf32_without_cuda_is_told_once() {
        let told = |text: &str| {
            let config = resolved(text, &[KEY, ("CUDA_ALLOW_TF32", "1")]).map_err(|error| error.to_string());
            config.unwrap().notices.iter().filter(|notice| notice.contains("TF32")).count()
        };
        assert_eq!(told(""), 1);
        assert_eq!(told("onnx: {providers: [CUDAExecutionProvider, CPUExecutionProvider]}\n"), 0);
    }
}
