//! Stages in requests and responses: how they are named, and how they flow.

use embeddery_pipeline::{Stage, StageMode};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::ApiError;

/// A change of a stage's mode.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ControlStageRequest {
    /// `chunking`, `embedding`, `storage` or `all`
    stage: String,
    /// `pause`: no task is handed out; `drain`: what is there is finished, nothing enters; `resume`
    action: String,
}

/// A change of stages' modes, checked.
pub(crate) struct StageControl {
    pub(crate) stages: Vec<Stage>,
    pub(crate) action: &'static str,
    pub(crate) flow: StageMode,
}

impl ControlStageRequest {
    pub(crate) fn check(&self) -> Result<StageControl, ApiError> {
        let stages = if self.stage == "all" { Stage::ALL.to_vec() } else { vec![parse_stage(&self.stage)?] };
        let known = [("pause", StageMode::Pause), ("resume", StageMode::Run), ("drain", StageMode::Drain)];
        let found = known.into_iter().find(|(name, _)| *name == self.action);
        let unknown = || ApiError::invalid("action", "action must be pause, resume or drain");
        let (action, flow) = found.ok_or_else(unknown)?;
        Ok(StageControl { stages, action, flow })
    }
}

/// The stage with this name.
pub(crate) fn parse_stage(name: &str) -> Result<Stage, ApiError> {
    Stage::ALL.into_iter().find(|stage| stage.as_str() == name).ok_or_else(|| {
        ApiError::invalid("stage", format!("stage is '{name}'; it must be chunking, embedding or storage"))
    })
}

/// The stage's queue, as metrics name it.
pub(crate) fn queue_name(stage: Stage) -> String {
    format!("embeddings:{}", stage.as_str())
}

/// The stage's dead-letter queue.
pub(crate) fn dlq_name(stage: Stage) -> String {
    format!("embeddings:{}:dlq", stage.as_str())
}

/// How a stage flows.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) struct StageFlags {
    /// No task is handed out.
    pub(crate) paused: bool,
    /// Nothing enters; what is there is finished.
    pub(crate) drain: bool,
}

impl From<StageMode> for StageFlags {
    fn from(flow: StageMode) -> Self {
        Self { paused: flow == StageMode::Pause, drain: flow == StageMode::Drain }
    }
}

/// The stages flow as requested.
#[derive(Serialize, ToSchema)]
pub(crate) struct ControlStageResponse {
    pub(crate) ok: bool,
    pub(crate) stages: Vec<&'static str>,
    pub(crate) action: &'static str,
}
