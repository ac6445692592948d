//! ONNX Runtime's library: found, loaded once, asked what can compute here.

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

/// The processor itself.
pub const CPU: &str = "CPUExecutionProvider";
/// NVIDIA's GPUs.
pub const CUDA: &str = "CUDAExecutionProvider";

/// Where the library is, and how it works.
#[derive(Clone, Debug)]
pub struct RuntimeConfig {
    /// Places where the library may lie, in order. A bare name is looked for where the system looks.
    pub libraries: Vec<PathBuf>,
    /// Threads that compute.
    pub threads: NonZeroUsize,
    /// Whether CUDA may compute in TF32; `None`: as the library likes.
    pub allow_tf32: Option<bool>,
}

/// ONNX Runtime, loaded when it is needed for the first time.
pub struct OnnxRuntime {
    config: RuntimeConfig,
    /// The library has one for a process.
    environment: Mutex<Option<Environment>>,
}

/// What computes a graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecutionProvider {
    /// The processor.
    Cpu,
    /// NVIDIA's GPUs.
    Cuda,
    /// NVIDIA's GPUs, with graphs compiled for them.
    TensorRt,
    /// Intel's.
    OpenVino,
    /// Apple's.
    CoreMl,
}

impl ExecutionProvider {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Cpu, Self::Cuda, Self::TensorRt, Self::OpenVino, Self::CoreMl];

    /// ONNX Runtime's name for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => CPU,
            Self::Cuda => CUDA,
            Self::TensorRt => "TensorrtExecutionProvider",
            Self::OpenVino => "OpenVINOExecutionProvider",
            Self::CoreMl => "CoreMLExecutionProvider",
        }
    }

    /// The one of this name.
    ///
    /// # Errors
    /// Nobody has it.
    pub fn named(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|provider| provider.as_str() == name).ok_or_else(|| {
            format!("'{name}' is unknown; known are {}", Self::ALL.map(Self::as_str).join(", "))
        })
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
    /// The library stays where it is until somebody needs it.
    pub fn new(config: RuntimeConfig) -> Arc<Self> {
        Arc::new(Self { config, environment: Mutex::default() })
    }

    /// Loads the library if it is not, and says which of the execution providers it has.
    ///
    /// # Errors
    /// It is nowhere, or cannot be used.
    pub fn available(&self) -> Result<Vec<ExecutionProvider>, String> {
        self.environment()?;
        Ok(ExecutionProvider::ALL.into_iter().filter(|provider| provider.is_available()).collect())
    }

    /// The environment of all sessions. A library that was not found is looked for again the next time.
    pub(super) fn environment(&self) -> Result<Environment, String> {
        let mut environment = self.environment.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(environment) = &*environment {
            return Ok(environment.clone());
        }
        let made = self.make()?;
        Ok(environment.insert(made).clone())
    }

    fn make(&self) -> Result<Environment, String> {
        let mut tried = Vec::new();
        for library in &self.config.libraries {
            let is_bare = library.parent().is_none_or(|parent| parent.as_os_str().is_empty());
            if !is_bare && !library.is_file() {
                tried.push(format!("{}: no such file", library.display()));
                continue;
            }
            match ort::init_from(library) {
                Ok(builder) => {
                    // One pool for all sessions, as the engine has one for all models. It does not spin: the engine's
                    // threads may have work meanwhile.
                    let pool = GlobalThreadPoolOptions::default()
                        .with_intra_threads(self.config.threads.get())
                        .and_then(|pool| pool.with_inter_threads(1))
                        .and_then(|pool| pool.with_spin_control(false))
                        .map_err(|error| error.to_string())?;
                    let builder = builder.with_name("embeddery").with_telemetry(false);
                    let logger = |level, category: &str, _: &str, place: &str, message: &str| {
                        log(level, category, place, message);
                    };
                    let builder = builder.with_logger(Arc::new(logger)).with_global_thread_pool(pool);
                    let made =
                        builder.build().map_err(|error| format!("ONNX Runtime did not start: {error}"))?;
                    tracing::info!(library = %library.display(), build = ort::info(), "ONNX Runtime is here");
                    return Ok(made);
                }
                Err(error) => tried.push(error.to_string()),
            }
        }
        Err(format!(
            "ONNX Runtime's library is not on this machine ({}); get it with `make onnxruntime`, or with `pip install \
             onnxruntime` and set ORT_DYLIB_PATH (onnx.library) to its capi/libonnxruntime.so.<version>",
            tried.join("; ")
        ))
    }

    /// What is to compute a graph, in the order of preference.
    pub(super) fn dispatch(&self, names: &[String]) -> Result<Vec<ExecutionProviderDispatch>, String> {
        let dispatch = |name: &String| {
            let provider =
                ExecutionProvider::named(name).map_err(|error| format!("onnx_providers: {error}"))?;
            if !provider.is_available() {
                let available = ExecutionProvider::ALL.into_iter().filter(|other| other.is_available());
                let available = available.map(ExecutionProvider::as_str);
                return Err(format!(
                    "onnx_providers: '{name}' is not in this ONNX Runtime; available: {} (the package onnxruntime-gpu \
                     has CUDA's)",
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

/// The library's messages, in our log. It is talkative: what it calls information is ours to debug with.
fn log(level: LogLevel, category: &str, place: &str, message: &str) {
    match level {
        LogLevel::Fatal | LogLevel::Error => tracing::error!(category, place, "ONNX Runtime: {message}"),
        LogLevel::Warning => tracing::warn!(category, place, "ONNX Runtime: {message}"),
        LogLevel::Info => tracing::debug!(category, place, "ONNX Runtime: {message}"),
        LogLevel::Verbose => tracing::trace!(category, place, "ONNX Runtime: {message}"),
    }
}

impl std::fmt::Debug for OnnxRuntime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnnxRuntime").field("config", &self.config).finish_non_exhaustive()
    }
}
