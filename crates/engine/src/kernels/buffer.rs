//! Activations between kernels: rows of f32, of bf16, or of bytes with scales, and the room they are kept in.

use std::ops::Range;

use super::{Kernels, Quantise, Round};

/// How activations are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ActivationDtype {
    F32,
    Bf16,
    /// Bytes around 128 with a scale for each row, rotated.
    U8,
}

/// Rows of numbers, read.
#[derive(Clone, Copy)]
pub(crate) enum MatrixRef<'a> {
    F32 { numbers: &'a [f32], stride: usize },
    Bf16 { numbers: &'a [u16], stride: usize },
}

/// Rows of numbers, to be written. Numbers between a row's end and the next row are left alone.
pub(crate) enum NumbersMut<'a> {
    F32 { numbers: &'a mut [f32], stride: usize },
    Bf16 { numbers: &'a mut [u16], stride: usize },
}

/// Rows of activations in the form that a product reads, with zeros (or 128) to the end of each row's last group.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a> {
    Numbers(MatrixRef<'a>),
    U8 { bytes: &'a [u8], stride: usize, scales: &'a [f32] },
}

/// Rows begin at multiples of this many numbers, so that vectors do not straddle cache lines more than they must.
const ALIGNED: usize = 32;

/// The stride that rows of `width` numbers are kept with.
pub(crate) fn stride(width: usize) -> usize {
    width.next_multiple_of(ALIGNED)
}

impl MatrixRef<'_> {
    pub(super) fn stride(&self) -> usize {
        match self {
            Self::F32 { stride, .. } | Self::Bf16 { stride, .. } => *stride,
        }
    }

    pub(super) fn bytes(&self) -> *const u8 {
        match self {
            Self::F32 { numbers, .. } => numbers.as_ptr().cast(),
            Self::Bf16 { numbers, .. } => numbers.as_ptr().cast(),
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::F32 { numbers, stride } => numbers.len() / stride,
            Self::Bf16 { numbers, stride } => numbers.len() / stride,
        }
    }

    pub(super) fn holds(&self, width: usize) -> bool {
        width <= self.stride()
    }
}

impl NumbersMut<'_> {
    /// Some of the rows.
    pub(crate) fn slice(self, rows: Range<usize>) -> Self {
        match self {
            Self::F32 { numbers, stride } => {
                Self::F32 { numbers: &mut numbers[rows.start * stride..rows.end * stride], stride }
            }
            Self::Bf16 { numbers, stride } => {
                Self::Bf16 { numbers: &mut numbers[rows.start * stride..rows.end * stride], stride }
            }
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::F32 { numbers, stride } => numbers.len() / stride,
            Self::Bf16 { numbers, stride } => numbers.len() / stride,
        }
    }

    pub(super) fn holds(&self, rows: usize, width: usize) -> bool {
        match self {
            Self::F32 { stride, .. } | Self::Bf16 { stride, .. } => width <= *stride && rows <= self.rows(),
        }
    }
}

impl Operand<'_> {
    pub(super) fn form(&self) -> ActivationDtype {
        match self {
            Self::Numbers(MatrixRef::F32 { .. }) => ActivationDtype::F32,
            Self::Numbers(MatrixRef::Bf16 { .. }) => ActivationDtype::Bf16,
            Self::U8 { .. } => ActivationDtype::U8,
        }
    }

    pub(super) fn rows(&self) -> usize {
        match self {
            Self::Numbers(numbers) => numbers.rows(),
            Self::U8 { bytes, stride, scales } => (bytes.len() / stride).min(scales.len()),
        }
    }

    pub(super) fn bytes(&self) -> *const u8 {
        match self {
            Self::Numbers(numbers) => numbers.bytes(),
            Self::U8 { bytes, .. } => bytes.as_ptr(),
        }
    }

    pub(super) fn stride_bytes(&self) -> usize {
        match self {
            Self::Numbers(MatrixRef::F32 { stride, .. }) => 4 * stride,
            Self::Numbers(MatrixRef::Bf16 { stride, .. }) => 2 * stride,
            Self::U8 { stride, .. } => *stride,
        }
    }

    pub(super) fn scales(&self) -> *const f32 {
        match self {
            Self::Numbers(_) => std::ptr::null(),
            Self::U8 { scales, .. } => scales.as_ptr(),
        }
    }

    /// Whether a row, with what follows it up to the next, has `numbers`.
    pub(super) fn holds(&self, numbers: usize) -> bool {
        match self {
            Self::Numbers(rows) => rows.holds(numbers),
            Self::U8 { stride, .. } => numbers <= *stride,
        }
    }
}

/// Where activations are kept in the form that a product reads. One for each width: what lies between a row's end
/// and the next row is zero once and stays so.
#[derive(Default)]
pub(crate) struct Buffer {
    bf16: Vec<u16>,
    bytes: Vec<u8>,
    scales: Vec<f32>,
    rotated: Vec<f32>,
}

impl Buffer {
    /// `rows` rows of bf16 to be written.
    pub(crate) fn bf16(&mut self, rows: usize, width: usize) -> NumbersMut<'_> {
        let stride = stride(width);
        ensure_len(&mut self.bf16, rows * stride);
        NumbersMut::Bf16 { numbers: &mut self.bf16[..rows * stride], stride }
    }

    /// Some of those rows.
    pub(crate) fn written(&self, rows: Range<usize>, width: usize) -> Operand<'_> {
        let stride = stride(width);
        Operand::Numbers(MatrixRef::Bf16 {
            numbers: &self.bf16[rows.start * stride..rows.end * stride],
            stride,
        })
    }
}

/// Makes a buffer at least this long.
pub(crate) fn ensure_len<T: Clone + Default>(buffer: &mut Vec<T>, len: usize) {
    if buffer.len() < len {
        buffer.resize(len, T::default());
    }
}

impl Kernels {
    /// Rows of f32 (`[rows × width]`) in the form that a product reads; f32 are read where they are.
    pub(crate) fn prepare<'a>(
        &self,
        form: ActivationDtype,
        (x, width): (&'a [f32], usize),
        room: &'a mut Buffer,
    ) -> Operand<'a> {
        let rows = x.len() / width.max(1);
        assert_eq!(x.len(), rows * width, "x is whole rows");
        let stride = stride(width);
        match form {
            ActivationDtype::F32 => Operand::Numbers(MatrixRef::F32 { numbers: x, stride: width }),
            ActivationDtype::Bf16 => {
                ensure_len(&mut room.bf16, rows * stride);
                let out = &mut room.bf16[..rows * stride];
                let round = self.round.unwrap_or_else(|| unreachable!("bf16 is asked for where it is"));
                // SAFETY: both are of `rows` rows, as grown and asserted.
                unsafe { round(&Round { rows, width, x: x.as_ptr(), out: out.as_mut_ptr(), stride }) }
                Operand::Numbers(MatrixRef::Bf16 { numbers: out, stride })
            }
            ActivationDtype::U8 => {
                ensure_len(&mut room.bytes, rows * stride);
                ensure_len(&mut room.scales, rows);
                ensure_len(&mut room.rotated, width);
                let (bytes, scales) = (&mut room.bytes[..rows * stride], &mut room.scales[..rows]);
                let call = Quantise {
                    rows,
                    width,
                    x: x.as_ptr(),
                    out: bytes.as_mut_ptr(),
                    stride,
                    scales: scales.as_mut_ptr(),
                    room: room.rotated.as_mut_ptr(),
                };
                // SAFETY: all are of `rows` rows, as grown and asserted, and the room of one.
                unsafe { (self.quantise)(&call) }
                Operand::U8 { bytes, stride, scales }
            }
        }
    }
}
