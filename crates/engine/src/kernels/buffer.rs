//! Activations between kernels, as rows of f32, of bf16 or of bytes with scales, and the buffers that hold them.

use std::ops::Range;

use super::{Kernels, QuantiseArgs, RoundArgs};

/// The type of stored activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActivationDtype {
    F32,
    Bf16,
    /// Rotated bytes around 128, with a scale per row.
    U8,
}

/// A borrowed matrix. `stride` is the distance between the starts of two rows, in values.
#[derive(Clone, Copy)]
pub(crate) enum MatrixRef<'a> {
    F32 { values: &'a [f32], stride: usize },
    Bf16 { values: &'a [u16], stride: usize },
}

/// A mutable matrix. Values between a row's end and the next row are not written.
pub(crate) enum MatrixMut<'a> {
    F32 { values: &'a mut [f32], stride: usize },
    Bf16 { values: &'a mut [u16], stride: usize },
}

/// Activations in the type that a product reads, padded with zeros (or 128) to the end of each row's last group.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    Matrix(MatrixRef<'a>),
    U8 { bytes: &'a [u8], stride: usize, scales: &'a [f32] },
}

/// The stride of rows is a multiple of this many values, so that fewer vectors straddle cache lines.
const STRIDE_ALIGNMENT: usize = 32;

/// The stride of rows of `width` values in a [`Buffer`].
pub(crate) fn stride(width: usize) -> usize {
    width.next_multiple_of(STRIDE_ALIGNMENT)
}

impl MatrixRef<'_> {
    pub(super) fn stride(&self) -> usize {
        match self {
            Self::F32 { stride, .. } | Self::Bf16 { stride, .. } => *stride,
        }
    }

    pub(super) fn bytes(&self) -> *const u8 {
        match self {
            Self::F32 { values, .. } => values.as_ptr().cast(),
            Self::Bf16 { values, .. } => values.as_ptr().cast(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::F32 { values, stride } => values.len() / stride,
            Self::Bf16 { values, stride } => values.len() / stride,
        }
    }

    pub(super) fn holds(&self, width: usize) -> bool {
        width <= self.stride()
    }
}

impl MatrixMut<'_> {
    /// A range of the rows.
    pub(crate) fn slice(self, rows: Range<usize>) -> Self {
        match self {
            Self::F32 { values, stride } => {
                Self::F32 { values: &mut values[rows.start * stride..rows.end * stride], stride }
            }
            Self::Bf16 { values, stride } => {
                Self::Bf16 { values: &mut values[rows.start * stride..rows.end * stride], stride }
            }
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::F32 { values, stride } => values.len() / stride,
            Self::Bf16 { values, stride } => values.len() / stride,
        }
    }

    pub(super) fn holds(&self, rows: usize, width: usize) -> bool {
        match self {
            Self::F32 { stride, .. } | Self::Bf16 { stride, .. } => width <= *stride && rows <= self.rows(),
        }
    }
}

impl Operand<'_> {
    pub(super) fn dtype(&self) -> ActivationDtype {
        match self {
            Self::Matrix(MatrixRef::F32 { .. }) => ActivationDtype::F32,
            Self::Matrix(MatrixRef::Bf16 { .. }) => ActivationDtype::Bf16,
            Self::U8 { .. } => ActivationDtype::U8,
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Matrix(matrix) => matrix.rows(),
            Self::U8 { bytes, stride, scales } => (bytes.len() / stride).min(scales.len()),
        }
    }

    pub(super) fn bytes(&self) -> *const u8 {
        match self {
            Self::Matrix(matrix) => matrix.bytes(),
            Self::U8 { bytes, .. } => bytes.as_ptr(),
        }
    }

    pub(super) fn stride_bytes(&self) -> usize {
        match self {
            Self::Matrix(MatrixRef::F32 { stride, .. }) => 4 * stride,
            Self::Matrix(MatrixRef::Bf16 { stride, .. }) => 2 * stride,
            Self::U8 { stride, .. } => *stride,
        }
    }

    pub(super) fn scales(&self) -> *const f32 {
        match self {
            Self::Matrix(_) => std::ptr::null(),
            Self::U8 { scales, .. } => scales.as_ptr(),
        }
    }

    /// Whether a row including its padding has at least `count` values.
    pub(super) fn holds(&self, count: usize) -> bool {
        match self {
            Self::Matrix(matrix) => matrix.holds(count),
            Self::U8 { stride, .. } => count <= *stride,
        }
    }
}

/// Storage for activations in the type that a product reads. A buffer must be used with a single width, because rows of
/// another width would leave values in the padding between rows, which products read.
#[derive(Default)]
pub(crate) struct Buffer {
    bf16: Vec<u16>,
    bytes: Vec<u8>,
    scales: Vec<f32>,
    rotated: Vec<f32>,
}

impl Buffer {
    /// A bf16 matrix of `rows` rows, to be written.
    pub(crate) fn bf16(&mut self, rows: usize, width: usize) -> MatrixMut<'_> {
        let stride = stride(width);
        ensure_len(&mut self.bf16, rows * stride);
        MatrixMut::Bf16 { values: &mut self.bf16[..rows * stride], stride }
    }

    /// Rows that were written through [`bf16`](Self::bf16).
    pub(crate) fn written(&self, rows: Range<usize>, width: usize) -> Operand<'_> {
        let stride = stride(width);
        Operand::Matrix(MatrixRef::Bf16 {
            values: &self.bf16[rows.start * stride..rows.end * stride],
            stride,
        })
    }
}

/// Extends a buffer to at least `len` values.
pub(crate) fn ensure_len<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}

impl Kernels {
    /// Converts `x` (`[rows × width]`) to the type that a product reads, in `buffer`. f32 is borrowed without a copy.
    pub(crate) fn prepare<'a>(
        &self,
        dtype: ActivationDtype,
        x: &'a [f32],
        width: usize,
        buffer: &'a mut Buffer,
    ) -> Operand<'a> {
        let rows = x.len() / width.max(1);
        assert_eq!(x.len(), rows * width, "x is whole rows");
        let stride = stride(width);
        match dtype {
            ActivationDtype::F32 => Operand::Matrix(MatrixRef::F32 { values: x, stride: width }),
            ActivationDtype::Bf16 => {
                ensure_len(&mut buffer.bf16, rows * stride);
                let out = &mut buffer.bf16[..rows * stride];
                let round =
                    self.round.unwrap_or_else(|| unreachable!("bf16 is requested only if the CPU has it"));
                // SAFETY: both have `rows` rows, as resized and asserted.
                unsafe { round(&RoundArgs { rows, width, x: x.as_ptr(), out: out.as_mut_ptr(), stride }) }
                Operand::Matrix(MatrixRef::Bf16 { values: out, stride })
            }
            ActivationDtype::U8 => {
                ensure_len(&mut buffer.bytes, rows * stride);
                ensure_len(&mut buffer.scales, rows);
                ensure_len(&mut buffer.rotated, width);
                let (bytes, scales) = (&mut buffer.bytes[..rows * stride], &mut buffer.scales[..rows]);
                let args = QuantiseArgs {
                    rows,
                    width,
                    x: x.as_ptr(),
                    out: bytes.as_mut_ptr(),
                    stride,
                    scales: scales.as_mut_ptr(),
                    scratch: buffer.rotated.as_mut_ptr(),
                };
                // SAFETY: all have `rows` rows, as resized and asserted, and the scratch has one.
                unsafe { (self.quantise)(&args) }
                Operand::U8 { bytes, stride, scales }
            }
        }
    }
}
