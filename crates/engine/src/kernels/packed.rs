//! Weights in the layout that the products read, packed once when a model is loaded: panels of a few vectors of output
//! columns, each panel in the order in which the innermost loop reads it.

use super::{Activation, Product, QuantiseArgs, buffer, quantise};
use crate::Precision;

/// A weight matrix in panels, with its bias.
pub(crate) struct PackedMatrix {
    /// `[panels][steps][panel columns][depth]`; padded with zeros.
    weights: Vec<u8>,
    /// One value per column, as the next two fields; padded with zeros to whole panels.
    pub(super) bias: Vec<f32>,
    /// The scale of each column; only for eight-bit weights.
    pub(super) scales: Vec<f32>,
    /// The part of a column's sum that comes from the activations' offset of 128; only for eight-bit weights.
    pub(super) offsets: Vec<i32>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Groups of inputs.
    pub(super) steps: usize,
    /// The precision of the packed weights, never `Auto`.
    pub(super) precision: Precision,
    pub(super) activation: Activation,
    panel: usize,
    step_bytes: usize,
}

/// Linear layers with the same input, to be packed together, and the activation of their outputs.
pub(crate) struct Linear<'a> {
    /// Stacked along the outputs.
    pub(crate) parts: &'a [Part<'a>],
    pub(crate) inputs: usize,
    pub(crate) activation: Activation,
}

/// One linear layer of a [`Linear`].
pub(crate) struct Part<'a> {
    /// `[outputs × inputs]`, row-major, as PyTorch stores a linear layer.
    pub(crate) weight: &'a [f32],
    /// `[outputs]`
    pub(crate) bias: &'a [f32],
    /// Factor of weight and bias.
    pub(crate) factor: f32,
}

/// The type of packed weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WeightDtype {
    F32,
    Bf16,
    /// Signed bytes with a scale per output, rotated like the activations.
    I8,
}

impl PackedMatrix {
    /// Packs layers for one product.
    pub(super) fn pack(product: &Product, precision: Precision, linear: &Linear<'_>) -> Self {
        let Linear { parts, inputs, activation } = *linear;
        let outputs: usize = parts.iter().map(|part| part.bias.len()).sum();
        let (panel, depth) = (product.panel, product.depth);
        let (panels, steps) = (outputs.div_ceil(panel), inputs.div_ceil(depth));
        let group = depth * product.weight_dtype.bytes();
        let eight_bits = if product.weight_dtype == WeightDtype::I8 { panels * panel } else { 0 };
        let mut packed = Self {
            weights: vec![0; panels * steps * panel * group],
            bias: vec![0.0; panels * panel],
            scales: vec![0.0; eight_bits],
            offsets: vec![0; eight_bits],
            inputs,
            outputs,
            steps,
            precision,
            activation,
            panel,
            step_bytes: panel * group,
        };
        let mut column = 0;
        let mut row = vec![0.0; inputs];
        let mut encoded = vec![0; steps * group];
        for part in parts {
            for (weights, bias) in part.weight.chunks_exact(inputs).zip(part.bias) {
                row.iter_mut().zip(weights).for_each(|(to, weight)| *to = weight * part.factor);
                packed.bias[column] = bias * part.factor;
                match product.weight_dtype {
                    WeightDtype::F32 => {
                        for (to, weight) in encoded.as_chunks_mut().0.iter_mut().zip(&row) {
                            *to = weight.to_ne_bytes();
                        }
                    }
                    WeightDtype::Bf16 => {
                        for (to, weight) in encoded.as_chunks_mut().0.iter_mut().zip(&row) {
                            *to = half::bf16::from_f32(*weight).to_ne_bytes();
                        }
                    }
                    WeightDtype::I8 => {
                        (packed.scales[column], packed.offsets[column]) =
                            product.quantise_weights(&row, &mut encoded);
                    }
                }
                packed.write_column(column, group, &encoded);
                column += 1;
            }
        }
        packed
    }

    /// Writes a column's groups to the steps of its panel.
    fn write_column(&mut self, column: usize, group: usize, encoded: &[u8]) {
        let (panel, lane) = (column / self.panel, column % self.panel);
        let first = panel * self.steps * self.step_bytes + lane * group;
        let slots = self.weights[first..].chunks_mut(self.step_bytes);
        for (slot, bytes) in slots.zip(encoded.chunks_exact(group)) {
            slot[..group].copy_from_slice(bytes);
        }
    }

    /// Pointer to the panel that starts with this column.
    #[inline(always)]
    pub(super) fn panel_at(&self, first_column: usize) -> *const u8 {
        self.weights.as_ptr().wrapping_add(first_column / self.panel * self.steps * self.step_bytes)
    }

    /// Whether the matrix was packed for this product.
    pub(super) fn fits(&self, product: &Product) -> bool {
        self.panel == product.panel
            && self.step_bytes == product.panel * product.depth * product.weight_dtype.bytes()
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.len() + 4 * (self.bias.len() + self.scales.len() + self.offsets.len())
    }
}

impl WeightDtype {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::I8 => 1,
        }
    }
}

impl Product {
    /// Rotates and quantises a column's weights to signed bytes. Returns the column's scale, and the part of its sum
    /// that comes from the activations' offset.
    fn quantise_weights(&self, row: &[f32], encoded: &mut [u8]) -> (f32, i32) {
        let width = row.len();
        let mut scale = [0.0];
        let stride = buffer::stride(width);
        let (mut bytes, mut scratch) = (vec![0; stride], vec![0.0; width]);
        let args = QuantiseArgs {
            rows: 1,
            width,
            x: row.as_ptr(),
            out: bytes.as_mut_ptr(),
            stride,
            scales: scale.as_mut_ptr(),
            scratch: scratch.as_mut_ptr(),
        };
        // SAFETY: all buffers have the length of one row.
        unsafe { (self.quantise)(&args) }
        let mut sum = 0;
        for (to, byte) in encoded.iter_mut().zip(&bytes[..width]) {
            let weight = byte.wrapping_sub(128).cast_signed();
            sum += i32::from(weight);
            *to = weight.cast_unsigned();
        }
        // Both operands of the product are multiplied by H, and H·H = block·I.
        (scale[0] / quantise::block(width) as f32, 128 * sum)
    }
}
