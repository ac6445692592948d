//! The arithmetic, behind a small face: matrix product over packed weights, attention of one text, LayerNorm.
//!
//! Each kernel is written once over [`lanes::Lanes`]; an instruction set is one file that implements the trait
//! and instantiates the kernels with its features switched on. Which one runs is decided once, when a model is
//! loaded, by what the CPU has. All `unsafe` of the crate's arithmetic is below this face: the methods of
//! [`Kernels`] check lengths, so that callers need no care.

mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod lanes;
mod matmul;
mod portable;
mod rows;

#[cfg(test)]
mod tests;

use attention::Attention;
use matmul::MatMul;
use rows::LayerNorm;

pub(crate) use matmul::{Activation, PackedMatrix, Part};
pub(crate) use rows::Norm;

use crate::LoadOptions;

/// Which kernels to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The fastest that this CPU has.
    #[default]
    Auto,
    /// Sixteen lanes; needs AVX-512F.
    Avx512,
    /// Eight lanes; needs AVX2 and FMA.
    Avx2,
    /// Runs everywhere.
    Portable,
}

/// The kernels of one instruction set.
#[derive(Debug)]
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    /// Output columns that [`PackedMatrix`] keeps together.
    panel: usize,
    lanes: usize,
    matmul: fn(&MatMul<'_>),
    attention: fn(&Attention<'_>),
    layer_norm: fn(&LayerNorm<'_>),
}

impl Kernels {
    /// The kernels asked for; `None` when this CPU lacks their instructions.
    pub(crate) fn select(options: &LoadOptions) -> Option<&'static Self> {
        match options.kernels {
            KernelChoice::Auto => avx512().or_else(avx2).or(Some(&portable::KERNELS)),
            KernelChoice::Avx512 => avx512(),
            KernelChoice::Avx2 => avx2(),
            KernelChoice::Portable => Some(&portable::KERNELS),
        }
    }

    /// Packs linear layers for this instruction set.
    pub(crate) fn pack(&self, parts: &[Part<'_>], inputs: usize) -> PackedMatrix {
        PackedMatrix::pack(parts, inputs, self.panel)
    }

    /// `out[rows × outputs] = activation(x[rows × inputs] · Wᵀ + bias)`, with a matrix packed by
    /// [`pack`](Self::pack) of the same kernels.
    pub(crate) fn matmul(&self, x: &[f32], matrix: &PackedMatrix, activation: Activation, out: &mut [f32]) {
        let rows = x.len() / matrix.inputs.max(1);
        assert_eq!(x.len(), rows * matrix.inputs, "x is whole rows");
        assert_eq!(out.len(), rows * matrix.outputs, "out has a row for each of x");
        assert_eq!(matrix.panel, self.panel, "the matrix was packed for these kernels");
        (self.matmul)(&MatMul { rows, x, matrix, activation, out: out.as_mut_ptr() });
    }

    /// Attention of one text: `qkv` is `[tokens × 3 × heads × head]` with scaled queries, `out` is
    /// `[tokens × heads × head]`. `scratch` is made as long as needed and kept for the next call.
    pub(crate) fn attention(&self, qkv: &[f32], heads: Heads, scratch: &mut Vec<f32>, out: &mut [f32]) {
        let Heads { count, width } = heads;
        let tokens = out.len() / (count * width).max(1);
        assert_eq!(out.len(), tokens * count * width, "out is whole rows");
        assert_eq!(qkv.len(), 3 * out.len(), "qkv has three parts");
        let needed = attention::scratch_len(tokens, width, self.lanes);
        if scratch.len() < needed {
            scratch.resize(needed, 0.0);
        }
        let (out, scratch) = (out.as_mut_ptr(), scratch.as_mut_ptr());
        (self.attention)(&Attention { tokens, heads: count, head: width, qkv, out, scratch });
    }

    /// `x = LayerNorm(x + residual)` for each row.
    pub(crate) fn layer_norm(&self, x: &mut [f32], residual: &[f32], norm: &Norm) {
        let width = norm.gamma.len();
        let rows = x.len() / width.max(1);
        assert_eq!(norm.beta.len(), width, "gamma and beta are of one length");
        assert_eq!(x.len(), rows * width, "x is whole rows");
        assert_eq!(residual.len(), x.len(), "there is a residual for every number");
        (self.layer_norm)(&LayerNorm { rows, width, x: x.as_mut_ptr(), residual, norm });
    }
}

/// How a row of queries, keys or values is divided.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heads {
    pub(crate) count: usize,
    pub(crate) width: usize,
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> Option<&'static Kernels> {
    avx512::kernels()
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> Option<&'static Kernels> {
    avx2::kernels()
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> Option<&'static Kernels> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> Option<&'static Kernels> {
    None
}
