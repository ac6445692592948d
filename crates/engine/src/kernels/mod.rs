//! The kernels: matrix product with packed weights, attention, norms, gated activations, rotary positions, and
//! conversions of activations between them.
//!
//! Each kernel is written once, over [`simd::Simd`] (a vector) and [`tile::MicroKernel`] (the multiplication of one
//! precision). An instruction set is one file that implements both and instantiates the kernels with its CPU features
//! enabled. The set is selected once, when a model is loaded, by the features of the CPU. The methods of [`Kernels`]
//! are safe: they check all lengths before they call the `unsafe` kernels.

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

use attention::AttentionArgs;
use glu::GluArgs;
use matmul::MatMulArgs;
use norm::{NormArgs, RoundArgs};
use packed::WeightDtype;
use quantise::QuantiseArgs;
use rotary::RotaryArgs;

pub(crate) use attention::{AttentionInput, AttentionShape, AttentionWindow, DistanceBias};
pub(crate) use buffer::{ActivationDtype, Buffer, MatrixMut, MatrixRef, Operand, ensure_len, stride};
pub(crate) use glu::GluActivation;
pub(crate) use matmul::Activation;
pub(crate) use norm::Norm;
pub(crate) use packed::{Linear, PackedMatrix, Part};

use crate::Precision;

/// Which kernels to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KernelChoice {
    /// The fastest kernels that this CPU supports.
    #[default]
    Auto,
    /// Sixteen lanes. Requires AVX-512 (F, BW, DQ, VL), and uses BF16 and VNNI if available.
    Avx512,
    /// Eight lanes. Requires AVX2 and FMA, and uses AVX-VNNI if available.
    Avx2,
    /// Runs on any CPU.
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
    /// Attention with queries, keys and values in bf16, if the CPU multiplies bf16.
    attention_bf16: Option<AttentionFns>,
    norm: unsafe fn(&NormArgs<'_>),
    glu: unsafe fn(&GluArgs),
    rotate: unsafe fn(&RotaryArgs),
    quantise: unsafe fn(&QuantiseArgs),
    /// Rounds f32 to bf16, if the CPU multiplies bf16.
    round: Option<unsafe fn(&RoundArgs)>,
}

/// The matrix product of one precision.
#[derive(Clone, Copy, Debug)]
struct Product {
    /// The type of activations that it reads.
    activation_dtype: ActivationDtype,
    weight_dtype: WeightDtype,
    /// Weights of a column that one step multiplies.
    depth: usize,
    /// Columns that are packed together.
    panel: usize,
    /// Writes f32.
    run: unsafe fn(&MatMulArgs<'_>),
    /// Writes bf16, if the CPU has the conversion.
    run_to_bf16: Option<unsafe fn(&MatMulArgs<'_>)>,
    quantise: unsafe fn(&QuantiseArgs),
}

/// Attention for one type of queries, keys and values, with f32 or bf16 results.
#[derive(Clone, Copy, Debug)]
struct AttentionFns {
    to_f32: unsafe fn(&AttentionArgs<'_>),
    to_bf16: Option<unsafe fn(&AttentionArgs<'_>)>,
}

impl Kernels {
    /// The chosen kernels, or `None` if this CPU lacks their instructions.
    pub(crate) fn select(choice: KernelChoice) -> Option<Self> {
        match choice {
            KernelChoice::Auto => avx512().or_else(avx2).or(Some(portable::KERNELS)),
            KernelChoice::Avx512 => avx512(),
            KernelChoice::Avx2 => avx2(),
            KernelChoice::Portable => Some(portable::KERNELS),
        }
    }

    /// Resolves [`Precision::Auto`]: bf16 if the CPU multiplies it, else f32.
    pub(crate) fn resolve(&self, precision: Precision) -> Precision {
        match precision {
            Precision::Auto if self.bf16.activation_dtype == ActivationDtype::Bf16 => Precision::Bf16,
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
        PackedMatrix::pack(self.product(precision), self.resolve(precision), linear)
    }

    /// The type of activations that a product of this precision reads.
    pub(crate) fn activation_dtype(&self, precision: Precision) -> ActivationDtype {
        self.product(precision).activation_dtype
    }

    /// The type of queries, keys and values for this precision and head width.
    pub(crate) fn attention_dtype(&self, precision: Precision, head_width: usize) -> ActivationDtype {
        let can_write = self.product(precision).run_to_bf16.is_some();
        // A step of a bf16 product multiplies two values.
        let can_read = self.attention_bf16.is_some() && head_width.is_multiple_of(2);
        if can_write && can_read { ActivationDtype::Bf16 } else { ActivationDtype::F32 }
    }

    /// `out[rows × outputs] = activation(x[rows × inputs] · Wᵀ + bias)`.
    pub(crate) fn matmul(&self, x: Operand<'_>, matrix: &PackedMatrix, out: MatrixMut<'_>) {
        let product = self.product(matrix.precision);
        assert_eq!(x.dtype(), product.activation_dtype, "activations have the type that the product reads");
        assert!(matrix.fits(product), "the matrix was packed for this product");
        let padded_inputs = matrix.inputs.next_multiple_of(product.depth);
        assert!(x.holds(padded_inputs), "activations have rows of whole groups");
        assert!(out.holds(x.rows(), matrix.outputs), "out has a row for each row of x");
        let args = |out, out_stride| MatMulArgs {
            rows: x.rows(),
            x: x.bytes(),
            x_stride: x.stride_bytes(),
            row_scales: x.scales(),
            matrix,
            out,
            out_stride,
        };
        match out {
            MatrixMut::F32 { values, stride } => {
                // SAFETY: the operands have the lengths that the product reads and writes, as asserted.
                unsafe { (product.run)(&args(values.as_mut_ptr().cast(), stride)) }
            }
            MatrixMut::Bf16 { values, stride } => {
                let run = product
                    .run_to_bf16
                    .unwrap_or_else(|| unreachable!("bf16 is requested only if the CPU has it"));
                // SAFETY: as above.
                unsafe { run(&args(values.as_mut_ptr().cast(), stride)) }
            }
        }
    }

    /// Computes attention of consecutive tokens of one text, one per row of `out`. `scratch` is extended as needed and
    /// can be reused.
    pub(crate) fn attention(&self, input: AttentionInput<'_>, scratch: &mut Vec<u32>, out: MatrixMut<'_>) {
        let AttentionInput { qkv, first, shape } = input;
        let width = shape.heads * shape.head_width;
        let tokens = qkv.rows();
        let rows = out.rows();
        if rows == 0 {
            return;
        }
        assert!(shape.heads.is_multiple_of(shape.key_value_heads), "key heads divide query heads");
        assert!(qkv.holds(shape.row_len()), "rows of qkv hold queries, keys and values");
        assert!(out.holds(rows, width), "out has a row for each query");
        assert!(first + rows <= tokens, "queries are tokens of the text");
        if let Some(bias) = shape.bias {
            assert!(tokens <= bias.max_tokens, "the bias covers the text");
            assert_eq!(bias.values.len(), shape.heads * (2 * bias.max_tokens - 1), "every head has a bias");
        }
        let needed = attention::scratch_len(tokens, shape.head_width, self.lanes);
        if scratch.len() < needed {
            scratch.resize(needed, 0);
        }
        let functions = match qkv {
            MatrixRef::F32 { .. } => Some(self.attention),
            MatrixRef::Bf16 { .. } => self.attention_bf16.filter(|_| shape.head_width.is_multiple_of(2)),
        };
        let functions = functions.unwrap_or_else(|| unreachable!("attention_dtype returns a supported type"));
        let (run, out, out_stride) = match out {
            MatrixMut::F32 { values, stride } => (Some(functions.to_f32), values.as_mut_ptr().cast(), stride),
            MatrixMut::Bf16 { values, stride } => (functions.to_bf16, values.as_mut_ptr().cast(), stride),
        };
        let run = run.unwrap_or_else(|| unreachable!("bf16 is requested only if the CPU has it"));
        let args = AttentionArgs {
            tokens,
            first,
            rows,
            shape,
            qkv: qkv.bytes(),
            qkv_stride: qkv.stride(),
            out,
            out_stride,
            scratch: scratch.as_mut_ptr(),
        };
        // SAFETY: the operands have the asserted lengths, and the scratch is as long as they need.
        unsafe { run(&args) }
    }

    /// Computes `x = norm(x + residual)` for each row, or `x = norm(x)` without a residual.
    pub(crate) fn norm(&self, x: &mut [f32], residual: Option<&[f32]>, norm: &Norm) {
        let width = norm.gamma.len();
        let rows = x.len() / width.max(1);
        assert!(
            norm.beta.as_ref().is_none_or(|beta| beta.len() == width),
            "gamma and beta have the same length"
        );
        assert_eq!(x.len(), rows * width, "x is whole rows");
        assert!(residual.is_none_or(|residual| residual.len() == x.len()), "residual is as long as x");
        let residual = residual.map_or(std::ptr::null(), <[f32]>::as_ptr);
        // SAFETY: the lengths are as asserted.
        unsafe { (self.norm)(&NormArgs { rows, width, x: x.as_mut_ptr(), residual, norm }) }
    }

    /// Computes `out = activation(x[..width]) · x[width..]` for each row of x, which is twice as wide as a row of out.
    /// The computation is exact if `dtype`, the type of the next product, is f32.
    pub(crate) fn glu(
        &self,
        activation: GluActivation,
        dtype: ActivationDtype,
        x: &[f32],
        out: &mut [f32],
        width: usize,
    ) {
        let rows = out.len() / width.max(1);
        assert_eq!(out.len(), rows * width, "out is whole rows");
        assert_eq!(x.len(), 2 * out.len(), "x has two halves");
        let exact = dtype == ActivationDtype::F32;
        // SAFETY: the lengths are as asserted.
        unsafe {
            (self.glu)(&GluArgs { activation, exact, rows, width, x: x.as_ptr(), out: out.as_mut_ptr() });
        }
    }

    /// Rotates the heads of one token. `angles` holds the cosines of a head's pairs, then their sines, and is as long
    /// as a head.
    pub(crate) fn rotate(&self, x: &mut [f32], angles: &[f32]) {
        let width = angles.len();
        assert!(width.is_multiple_of(2) && width > 0, "a head consists of pairs");
        assert!(x.len().is_multiple_of(width), "x is whole heads");
        let heads = x.len() / width;
        // SAFETY: the lengths are as asserted.
        unsafe { (self.rotate)(&RotaryArgs { heads, width, x: x.as_mut_ptr(), angles: angles.as_ptr() }) }
    }

    /// Writes rows of f32 (`[rows × width]`) in the type of `out`.
    pub(crate) fn write(&self, x: &[f32], width: usize, out: MatrixMut<'_>) {
        let rows = x.len() / width.max(1);
        assert_eq!(x.len(), rows * width, "x is whole rows");
        assert!(out.holds(rows, width), "out has a row for each row of x");
        match out {
            MatrixMut::F32 { values, stride } => {
                for (row, out) in x.chunks_exact(width).zip(values.chunks_mut(stride)) {
                    out[..width].copy_from_slice(row);
                }
            }
            MatrixMut::Bf16 { values, stride } => {
                let round =
                    self.round.unwrap_or_else(|| unreachable!("bf16 is requested only if the CPU has it"));
                // SAFETY: both have `rows` rows, as asserted.
                unsafe { round(&RoundArgs { rows, width, x: x.as_ptr(), out: values.as_mut_ptr(), stride }) }
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
