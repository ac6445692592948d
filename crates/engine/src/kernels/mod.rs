//! The arithmetic, behind a small face: matrix product over packed weights, attention within a text, LayerNorm,
//! and the forms that activations take between them.
//!
//! Each kernel is written once, over [`simd::Simd`] (a vector) and [`tile::MicroKernel`] (how a precision multiplies);
//! an instruction set is one file that implements them and instantiates the kernels with its features switched
//! on. What runs is decided once, when a model is loaded, by what the CPU has. All `unsafe` of the crate's
//! arithmetic is below this face: the methods of [`Kernels`] check lengths, so that callers need no care.

mod activations;
mod attention;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod buffer;
mod glu;
mod matmul;
mod norm;
mod packed;
mod portable;
mod quantise;
mod rotary;
mod simd;
mod tile;

#[cfg(test)]
mod tests;

use attention::Attention;
use glu::Gating;
use matmul::MatMul;
use norm::{NormArgs, Round};
use packed::Stored;
use quantise::Quantise;
use rotary::Rotation;

pub(crate) use attention::{AttentionInput, AttentionShape, AttentionWindow, DistanceBias};
pub(crate) use buffer::{ActivationDtype, Buffer, MatrixRef, NumbersMut, Operand, ensure_len, stride};
pub(crate) use glu::GluActivation;
pub(crate) use matmul::Activation;
pub(crate) use norm::Norm;
pub(crate) use packed::{Linear, PackedMatrix, Part};

use crate::Precision;

/// Which kernels to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The fastest that this CPU has.
    #[default]
    Auto,
    /// Sixteen lanes; needs AVX-512 (F, BW, DQ, VL), and uses its BF16 and VNNI where they are.
    Avx512,
    /// Eight lanes; needs AVX2 and FMA, and uses AVX-VNNI where it is.
    Avx2,
    /// Runs everywhere.
    Portable,
}

/// The kernels of one instruction set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernels {
    pub(crate) name: &'static str,
    lanes: usize,
    f32: Product,
    bf16: Product,
    int8: Product,
    attention: AttentionFns,
    /// Queries, keys and values in bf16, where the CPU multiplies them.
    attention_bf16: Option<AttentionFns>,
    norm: unsafe fn(&NormArgs<'_>),
    gate: unsafe fn(&Gating),
    rotate: unsafe fn(&Rotation),
    quantise: unsafe fn(&Quantise),
    /// Where the CPU multiplies bf16.
    round: Option<unsafe fn(&Round)>,
}

/// A matrix product of one precision.
#[derive(Clone, Copy, Debug)]
struct Product {
    /// The form that activations must have.
    form: ActivationDtype,
    stored: Stored,
    /// Weights of a column that one step takes.
    depth: usize,
    /// Columns that are packed together.
    panel: usize,
    /// Writes f32.
    run: unsafe fn(&MatMul<'_>),
    /// Writes bf16, where the CPU has it.
    run_to_bf16: Option<unsafe fn(&MatMul<'_>)>,
    quantise: unsafe fn(&Quantise),
}

/// Attention for one form of queries, keys and values.
#[derive(Clone, Copy, Debug)]
struct AttentionFns {
    to_f32: unsafe fn(&Attention<'_>),
    to_bf16: Option<unsafe fn(&Attention<'_>)>,
}

impl Kernels {
    /// The kernels asked for; `None` when this CPU lacks their instructions.
    pub(crate) fn select(choice: KernelChoice) -> Option<Self> {
        match choice {
            KernelChoice::Auto => avx512().or_else(avx2).or(Some(portable::KERNELS)),
            KernelChoice::Avx512 => avx512(),
            KernelChoice::Avx2 => avx2(),
            KernelChoice::Portable => Some(portable::KERNELS),
        }
    }

    /// What [`Precision::Auto`] means here: bf16 where the CPU multiplies it.
    pub(crate) fn resolve(&self, precision: Precision) -> Precision {
        match precision {
            Precision::Auto if self.bf16.form == ActivationDtype::Bf16 => Precision::Bf16,
            Precision::Auto => Precision::F32,
            chosen => chosen,
        }
    }

    fn product(&self, precision: Precision) -> &Product {
        match self.resolve(precision) {
            Precision::Bf16 => &self.bf16,
            Precision::Int8 => &self.int8,
            Precision::F32 | Precision::Auto => &self.f32,
        }
    }

    /// Packs linear layers for products in this precision.
    pub(crate) fn pack(&self, precision: Precision, linear: &Linear<'_>) -> PackedMatrix {
        PackedMatrix::pack((self.product(precision), self.resolve(precision)), linear)
    }

    /// The form in which a product of this precision wants its activations.
    pub(crate) fn form(&self, precision: Precision) -> ActivationDtype {
        self.product(precision).form
    }

    /// The form in which queries, keys and values of this precision are best kept.
    pub(crate) fn attention_form(&self, precision: Precision, head: usize) -> ActivationDtype {
        let written = self.product(precision).run_to_bf16.is_some();
        // A step of bf16 takes two numbers.
        let read = self.attention_bf16.is_some() && head.is_multiple_of(2);
        if written && read { ActivationDtype::Bf16 } else { ActivationDtype::F32 }
    }

    /// `out[rows × outputs] = activation(x[rows × inputs] · Wᵀ + bias)`.
    pub(crate) fn matmul(&self, x: Operand<'_>, matrix: &PackedMatrix, out: NumbersMut<'_>) {
        let product = self.product(matrix.precision);
        assert_eq!(x.form(), product.form, "activations have the form that the product reads");
        assert!(matrix.fits(product), "the matrix was packed for this product");
        let groups = matrix.inputs.next_multiple_of(product.depth);
        assert!(x.holds(groups), "activations have rows of whole groups");
        assert!(out.holds(x.rows(), matrix.outputs), "there is a row of results for each of x");
        let call = |out, out_stride| MatMul {
            rows: x.rows(),
            x: x.bytes(),
            x_stride: x.stride_bytes(),
            row_scales: x.scales(),
            matrix,
            out,
            out_stride,
        };
        match out {
            NumbersMut::F32 { numbers, stride } => {
                // SAFETY: the operands are of the lengths that the product reads and writes, as asserted.
                unsafe { (product.run)(&call(numbers.as_mut_ptr().cast(), stride)) }
            }
            NumbersMut::Bf16 { numbers, stride } => {
                let run =
                    product.run_to_bf16.unwrap_or_else(|| unreachable!("bf16 is asked for where it is"));
                // SAFETY: as above.
                unsafe { run(&call(numbers.as_mut_ptr().cast(), stride)) }
            }
        }
    }

    /// Attention of some tokens of one text, as many as `out` has rows. `room` is made as long as needed and kept for
    /// the next call.
    pub(crate) fn attention(&self, asking: AttentionInput<'_>, room: &mut Vec<u32>, out: NumbersMut<'_>) {
        let AttentionInput { qkv, first, heads } = asking;
        let width = heads.count * heads.width;
        let tokens = qkv.rows();
        let rows = out.rows();
        if rows == 0 {
            return;
        }
        assert!(heads.count.is_multiple_of(heads.key_values), "heads of queries share heads of keys");
        assert!(qkv.holds(heads.row()), "qkv has three parts");
        assert!(out.holds(rows, width), "out has a row for each query");
        assert!(first + rows <= tokens, "only tokens of the text ask");
        if let Some(bias) = heads.bias {
            assert!(tokens <= bias.reach, "the bias reaches over the text");
            assert_eq!(bias.values.len(), heads.count * (2 * bias.reach - 1), "every head has its bias");
        }
        let needed = attention::scratch_len(tokens, heads.width, self.lanes);
        if room.len() < needed {
            room.resize(needed, 0);
        }
        let attending = match qkv {
            MatrixRef::F32 { .. } => Some(self.attention),
            MatrixRef::Bf16 { .. } => self.attention_bf16.filter(|_| heads.width.is_multiple_of(2)),
        };
        let attending = attending.unwrap_or_else(|| unreachable!("attention_form chose the form"));
        let (run, out, out_stride) = match out {
            NumbersMut::F32 { numbers, stride } => {
                (Some(attending.to_f32), numbers.as_mut_ptr().cast(), stride)
            }
            NumbersMut::Bf16 { numbers, stride } => (attending.to_bf16, numbers.as_mut_ptr().cast(), stride),
        };
        let run = run.unwrap_or_else(|| unreachable!("bf16 is asked for where it is"));
        let call = Attention {
            tokens,
            first,
            rows,
            heads,
            qkv: qkv.bytes(),
            qkv_stride: qkv.stride(),
            out,
            out_stride,
            room: room.as_mut_ptr(),
        };
        // SAFETY: the operands are of the lengths that were asserted, and the room was made for them.
        unsafe { run(&call) }
    }

    /// `x = norm(x + residual)` for each row; without a residual, of `x` alone.
    pub(crate) fn norm(&self, x: &mut [f32], residual: Option<&[f32]>, norm: &Norm) {
        let width = norm.gamma.len();
        let rows = x.len() / width.max(1);
        assert!(
            norm.beta.as_ref().is_none_or(|beta| beta.len() == width),
            "gamma and beta are of one length"
        );
        assert_eq!(x.len(), rows * width, "x is whole rows");
        assert!(
            residual.is_none_or(|residual| residual.len() == x.len()),
            "there is a residual for every number"
        );
        let residual = residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
        // SAFETY: the lengths are as asserted.
        unsafe { (self.norm)(&NormArgs { rows, width, x: x.as_mut_ptr(), residual, norm }) }
    }

    /// `out = activation(x[..width]) · x[width..]` for each row of x, which is twice as wide as out's.
    pub(crate) fn gate(
        &self,
        gate: GluActivation,
        form: ActivationDtype,
        (x, out, width): (&[f32], &mut [f32], usize),
    ) {
        let rows = out.len() / width.max(1);
        assert_eq!(out.len(), rows * width, "out is whole rows");
        assert_eq!(x.len(), 2 * out.len(), "x has two halves");
        let exact = form == ActivationDtype::F32;
        // SAFETY: the lengths are as asserted.
        unsafe { (self.gate)(&Gating { gate, exact, rows, width, x: x.as_ptr(), out: out.as_mut_ptr() }) }
    }

    /// Turns one token's heads, as wide as `angles`, which are the pairs' cosines and then their sines.
    pub(crate) fn rotate(&self, x: &mut [f32], angles: &[f32]) {
        let width = angles.len();
        assert!(width.is_multiple_of(2) && width > 0, "a head is pairs");
        assert!(x.len().is_multiple_of(width), "x is whole heads");
        let heads = x.len() / width;
        // SAFETY: the lengths are as asserted.
        unsafe { (self.rotate)(&Rotation { heads, width, x: x.as_mut_ptr(), angles: angles.as_ptr() }) }
    }

    /// Writes rows of f32 (`[rows × width]`) in the form of `out`.
    pub(crate) fn write(&self, (x, width): (&[f32], usize), out: NumbersMut<'_>) {
        let rows = x.len() / width.max(1);
        assert_eq!(x.len(), rows * width, "x is whole rows");
        assert!(out.holds(rows, width), "out has a row for each of x");
        match out {
            NumbersMut::F32 { numbers, stride } => {
                for (from, to) in x.chunks_exact(width).zip(numbers.chunks_mut(stride)) {
                    to[..width].copy_from_slice(from);
                }
            }
            NumbersMut::Bf16 { numbers, stride } => {
                let round = self.round.unwrap_or_else(|| unreachable!("bf16 is asked for where it is"));
                // SAFETY: both are of `rows` rows, as asserted.
                unsafe { round(&Round { rows, width, x: x.as_ptr(), out: numbers.as_mut_ptr(), stride }) }
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn avx512() -> Option<Kernels> {
    avx512::kernels()
}

#[cfg(target_arch = "x86_64")]
fn avx2() -> Option<Kernels> {
    avx2::kernels()
}

#[cfg(not(target_arch = "x86_64"))]
fn avx512() -> Option<Kernels> {
    None
}

#[cfg(not(target_arch = "x86_64"))]
fn avx2() -> Option<Kernels> {
    None
}
