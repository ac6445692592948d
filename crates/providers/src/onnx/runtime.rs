//! The library of ONNX Runtime: it is found, loaded once, and queried for its execution providers.

use std::{
    num::NonZeroUsize,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use ort::{
    environment::{Environment, GlobalThreadPoolOptions},
    ep::{self, ExecutionProvider as _, ExecutionProviderDispatch},
    logging::LogLevel,
};

/// The name of the CPU's execution provider.
pub const CPU: &str = "CPUExecutionProvider";
/// The name of the execution provider for NVIDIA GPUs.
pub const CUDA: &str = "CUDAExecutionProvider";

/// The configuration of ONNX Runtime.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Paths of the library, in order. A bare file name is searched by the dynamic loader.
    pub libraries: Vec<PathBuf>,
    /// Compute threads.
    pub threads: NonZeroUsize,
    /// Whether CUDA may compute in TF32; `None` is the library's default.
    pub allow_tf32: Option<bool>,
}

/// ONNX Runtime. It is loaded on first use.
pub struct OnnxRuntime {
    config: RuntimeConfig,
    /// The environment of the library, one per process.
    environment: Mutex<Option<Environment>>,
}

/// An execution provider: the hardware and library that compute a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionProvider {
    /// The CPU.
    Cpu,
    /// NVIDIA GPUs with CUDA.
    Cuda,
    /// NVIDIA GPUs with graphs compiled by TensorRT.
    TensorRt,
    /// Intel's OpenVINO.
    OpenVino,
    /// Apple's Core ML.
    CoreMl,
}

impl ExecutionProvider {
    /// All execution providers.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Cuda, Self::TensorRt, Self::OpenVino, Self::CoreMl];

    /// The name in ONNX Runtime.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => CPU,
            Self::Cuda => CUDA,
            Self::TensorRt => "TensorrtExecutionProvider",
            Self::OpenVino => "OpenVINOExecutionProvider",
            Self::CoreMl => "CoreMLExecutionProvider",
        }
    }

    /// The execution provider of this name.
    ///
    /// # Errors
    /// The name is unknown.
    pub fn from_name(name: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|provider| provider.as_str() == name)
            .ok_or_else(|| format!("'{name}' is unknown; write {}", Self::ALL.map(Self::as_str).join(", ")))
    }

    fn is_available(self) -> bool {
        let available = match self {
            Self::Cpu => ep::CPU::is_available(),
            Self::Cuda => ep::CUDA::is_available(),
            Self::TensorRt => ep::TensorRT::is_available(),
            Self::OpenVino => ep::OpenVINO::is_available(),
            Self::CoreMl => ep::CoreML::is_available(),
        };
        available.unwrap_or(false)
    }
}

impl OnnxRuntime {
    /// Creates the runtime without loading the library.
    pub fn new(config: RuntimeConfig) -> Arc<Self> {
        Arc::new(Self { config, environment: Mutex::default() })
    }

    /// Loads the library if necessary, and returns its execution providers.
    ///
    /// # Errors
    /// The library is not found or cannot be used.
    pub fn available(&self) -> Result<Vec<ExecutionProvider>, String> {
        self.environment()?;
        Ok(ExecutionProvider::ALL.into_iter().filter(|provider| provider.is_available()).collect())
    }

    /// The environment of all sessions. Loads the library if necessary. A library that was not found is searched again the
    /// next time.
    pub(super) fn environment(&self) -> Result<Environment, String> {
        let mut environment = self.environment.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(environment) = &*environment {
            return Ok(environment.clone());
        }
        let created = self.create_environment()?;
        Ok(environment.insert(created).clone())
    }

    fn create_environment(&self) -> Result<Environment, String> {
        let mut tried = Vec::new();
        for library in &self.config.libraries {
            let is_bare = library.parent().is_none_or(|parent| parent.as_os_str().is_empty());
            if !is_bare && !library.is_file() {
                tried.push(format!("{}: no such file", library.display()));
                continue;
            }
            match ort::init_from(library) {
                Ok(builder) => {
                    // One pool for all sessions, as the engine has one for all models. Its threads do not spin, because
                    // the engine's threads may need the cores.
                    let pool = GlobalThreadPoolOptions::default()
                        .with_intra_threads(self.config.threads.get())
                        .and_then(|pool| pool.with_inter_threads(1))
                        .and_then(|pool| pool.with_spin_control(false))
                        .map_err(|error| error.to_string())?;
                    let builder = builder.with_name("embeddery").with_telemetry(false);
                    let logger = |level, category: &str, _: &str, location: &str, message: &str| {
                        log(level, category, location, message);
                    };
                    let builder = builder.with_logger(Arc::new(logger)).with_global_thread_pool(pool);
                    let environment =
                        builder.build().map_err(|error| format!("ONNX Runtime did not start: {error}"))?;
                    tracing::info!(library = %library.display(), build = ort::info(), "ONNX Runtime loaded");
                    return Ok(environment);
                }
                Err(error) => tried.push(error.to_string()),
            }
        }
        Err(format!(
            "ONNX Runtime's library is not installed ({}); install it with `make onnxruntime`, or with `pip install \
             onnxruntime` and set ORT_DYLIB_PATH (onnx.library) to its capi/libonnxruntime.so.<version>",
            tried.join("; ")
        ))
    }

    /// The execution providers of these names, in order of preference.
    ///
    /// # Errors
    /// A name is unknown, or the library does not have the execution provider.
    pub(super) fn dispatch(&self, names: &[String]) -> Result<Vec<ExecutionProviderDispatch>, String> {
        let dispatch = |name: &String| {
            let provider =
                ExecutionProvider::from_name(name).map_err(|error| format!("onnx_providers: {error}"))?;
            if !provider.is_available() {
                let available = ExecutionProvider::ALL.into_iter().filter(|other| other.is_available());
                let available = available.map(ExecutionProvider::as_str);
                return Err(format!(
                    "onnx_providers: '{name}' is not in this ONNX Runtime; available: {} (the package onnxruntime-gpu \
                     has CUDA)",
                    available.collect::<Vec<_>>().join(", ")
                ));
            }
            let dispatch = match provider {
                ExecutionProvider::Cpu => ep::CPU::default().build(),
                ExecutionProvider::Cuda => {
                    let cuda = ep::CUDA::default();
                    self.config.allow_tf32.map_or(cuda.clone(), |allow| cuda.with_tf32(allow)).build()
                }
                ExecutionProvider::TensorRt => ep::TensorRT::default().build(),
                ExecutionProvider::OpenVino => ep::OpenVINO::default().build(),
                ExecutionProvider::CoreMl => ep::CoreML::default().build(),
            };
            Ok(dispatch.error_on_failure())
        };
        names.iter().map(dispatch).collect()
    }
}

/// Writes a message of the library to our log. Its level info becomes debug, because it logs a lot at that level.
fn log(level: LogLevel, category: &str, location: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(category, location, "ONNX Runtime: {message}"),
        LogLevel::Warning => tracing::warn!(category, location, "ONNX Runtime: {message}"),
        LogLevel::Info => tracing::debug!(category, location, "ONNX Runtime: {message}"),
        LogLevel::Verbose => tracing::trace!(category, location, "ONNX Runtime: {message}"),
    }
}

impl std::fmt::Debug for OnnxRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxRuntime").field("config", &self.config).finish_non_exhaustive()
    }
}
