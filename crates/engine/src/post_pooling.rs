//! The steps after pooling: sentence-transformers' linear layers and normalizations. They are computed in f32, because
//! a text is a single row here.

use crate::{
    LoadError, Precision,
    files::{DenseConfig, Modules, PostPooling},
    kernels::{Activation, Kernels, Linear, MatrixMut, MatrixRef, Operand, PackedMatrix, Part},
    pooling::normalize,
    weights::{self, WeightFiles},
};

/// The steps with their weights in memory.
pub(crate) struct PostPoolingLayers {
    kernels: Kernels,
    steps: Vec<Step>,
}

enum Step {
    Dense { matrix: PackedMatrix, tanh: bool },
    Normalize { width: usize },
}

impl PostPoolingLayers {
    pub(crate) fn load(modules: &Modules, kernels: Kernels) -> Result<Self, LoadError> {
        let mut steps = Vec::with_capacity(modules.post_pooling.len());
        let mut width = None;
        for step in &modules.post_pooling {
            steps.push(match step {
                PostPooling::Dense(config) => {
                    width = Some(config.outputs);
                    Step::Dense { matrix: dense(config, kernels)?, tanh: config.tanh }
                }
                PostPooling::Normalize => Step::Normalize { width: width.unwrap_or(modules.hidden) },
            });
        }
        Ok(Self { kernels, steps })
    }

    /// Applies all steps to the concatenated vectors of all texts.
    pub(crate) fn apply(&self, mut vectors: Vec<f32>) -> Vec<f32> {
        for step in &self.steps {
            match step {
                Step::Normalize { width } => vectors.chunks_exact_mut(*width).for_each(normalize),
                Step::Dense { matrix, tanh } => {
                    let (inputs, outputs) = (matrix.inputs, matrix.outputs);
                    let mut out = vec![0.0; vectors.len() / inputs * outputs];
                    let x = Operand::Matrix(MatrixRef::F32 { values: &vectors, stride: inputs });
                    let out_matrix = MatrixMut::F32 { values: &mut out, stride: outputs };
                    self.kernels.matmul(x, matrix, out_matrix);
                    if *tanh {
                        out.iter_mut().for_each(|x| *x = x.tanh());
                    }
                    vectors = out;
                }
            }
        }
        vectors
    }

    /// Bytes of weights in memory.
    pub(crate) fn bytes(&self) -> usize {
        let bytes = |step: &Step| match step {
            Step::Dense { matrix, .. } => matrix.bytes(),
            Step::Normalize { .. } => 0,
        };
        self.steps.iter().map(bytes).sum()
    }
}

fn dense(config: &DenseConfig, kernels: Kernels) -> Result<PackedMatrix, LoadError> {
    let (files, _) = weights::find(&config.directory)?;
    let files = WeightFiles::open(&files)?;
    let tensors = files.tensors()?;
    let weight = tensors.get("linear.weight", &[config.outputs, config.inputs])?;
    let bias = match config.bias {
        true => tensors.get("linear.bias", &[config.outputs])?.into_owned(),
        false => vec![0.0; config.outputs],
    };
    let part = Part { weight: &weight, bias: &bias, factor: 1.0 };
    let linear = Linear { parts: &[part], inputs: config.inputs, activation: Activation::None };
    Ok(kernels.pack(Precision::F32, &linear))
}
