//! Weights as the products read them, packed once when a model is loaded: panels of a few vectors of output
//! columns, each panel in the order in which the innermost loop takes it.

use super::{Activation, Product, Quantise, buffer, quantise};
use crate::Precision;

/// A weight matrix in panels, with its bias.
pub(crate) struct PackedMatrix {
    /// `[panels][steps][panel columns][depth]`; zero beyond the inputs and outputs there are.
    weights: Vec<u8>,
    /// One for each column, as the two below; zero beyond the outputs, to whole panels.
    pub(super) bias: Vec<f32>,
    /// The weight that one unit of a column stands for; only where weights have eight bits.
    pub(super) scales: Vec<f32>,
    /// What the activations' offset of 128 adds to a column's sum; only where weights have eight bits.
    pub(super) offsets: Vec<i32>,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Groups of inputs.
    pub(super) steps: usize,
    /// What it was packed for, never `Auto`.
    pub(super) precision: Precision,
    pub(super) activation: Activation,
    panel: usize,
    step_bytes: usize,
}

/// Linear layers with the same input, to be packed together, and what happens to their outputs.
pub(crate) struct Linear<'a> {
    /// Stacked along the outputs.
    pub(crate) parts: &'a [Part<'a>],
    pub(crate) inputs: usize,
    pub(crate) activation: Activation,
}

/// One of them.
pub(crate) struct Part<'a> {
    /// `[outputs × inputs]`, row major, as PyTorch keeps a linear layer.
    pub(crate) weight: &'a [f32],
    /// `[outputs]`
    pub(crate) bias: &'a [f32],
    /// For both.
    pub(crate) factor: f32,
}

/// How weights are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    F32,
    Bf16,
    /// Signed bytes with a scale for each output, rotated as the activations will be.
    I8,
}

impl PackedMatrix {
    /// Packs layers for one product.
    pub(super) fn pack((product, precision): (&Product, Precision), linear: &Linear<'_>) -> Self {
        let Linear { parts, inputs, activation } = *linear;
        let outputs: usize = parts.iter().map(|part| part.bias.len()).sum();
        let (panel, depth) = (product.panel, product.depth);
        let (panels, steps) = (outputs.div_ceil(panel), inputs.div_ceil(depth));
        let group = depth * product.stored.bytes();
        let eight_bits = if product.stored == Stored::I8 { panels * panel } else { 0 };
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
                match product.stored {
                    Stored::F32 => {
                        for (to, weight) in encoded.as_chunks_mut().0.iter_mut().zip(&row) {
                            *to = weight.to_ne_bytes();
                        }
                    }
                    Stored::Bf16 => {
                        for (to, weight) in encoded.as_chunks_mut().0.iter_mut().zip(&row) {
                            *to = half::bf16::from_f32(*weight).to_ne_bytes();
                        }
                    }
                    Stored::I8 => {
                        (packed.scales[column], packed.offsets[column]) =
                            product.quantise_weights(&row, &mut encoded);
                    }
                }
                packed.put(column, group, &encoded);
                column += 1;
            }
        }
        packed
    }

    /// Spreads a column's groups over its panel's steps.
    fn put(&mut self, column: usize, group: usize, encoded: &[u8]) {
        let (panel, lane) = (column / self.panel, column % self.panel);
        let first = panel * self.steps * self.step_bytes + lane * group;
        let slots = self.weights[first..].chunks_mut(self.step_bytes);
        for (slot, bytes) in slots.zip(encoded.chunks_exact(group)) {
            slot[..group].copy_from_slice(bytes);
        }
    }

    /// Where the panel that begins with this column lies.
    #[inline(always)]
    pub(super) fn panel_of(&self, first_column: usize) -> *const u8 {
        self.weights.as_ptr().wrapping_add(first_column / self.panel * self.steps * self.step_bytes)
    }

    /// Whether it was packed for this product.
    pub(super) fn fits(&self, product: &Product) -> bool {
        self.panel == product.panel
            && self.step_bytes == product.panel * product.depth * product.stored.bytes()
    }

    /// Bytes in memory.
    pub(crate) fn bytes(&self) -> usize {
        self.weights.len() + 4 * (self.bias.len() + self.scales.len() + self.offsets.len())
    }
}

impl Stored {
    pub(super) fn bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::Bf16 => 2,
            Self::I8 => 1,
        }
    }
}

impl Product {
    /// A column's weights as signed bytes, rotated as activations are, with the column's scale and what the
    /// activations' offset adds to its sum.
    fn quantise_weights(&self, row: &[f32], encoded: &mut [u8]) -> (f32, i32) {
        let width = row.len();
        let mut scale = [0.0];
        let stride = buffer::stride(width);
        let (mut bytes, mut room) = (vec![0; stride], vec![0.0; width]);
        let call = Quantise {
            rows: 1,
            width,
            x: row.as_ptr(),
            out: bytes.as_mut_ptr(),
            stride,
            scales: scale.as_mut_ptr(),
            room: room.as_mut_ptr(),
        };
        // SAFETY: everything is of one row.
        unsafe { (self.quantise)(&call) }
        let mut sum = 0;
        for (to, byte) in encoded.iter_mut().zip(&bytes[..width]) {
            let weight = byte.wrapping_sub(128).cast_signed();
            sum += i32::from(weight);
            *to = weight.cast_unsigned();
        }
        // Both sides of the product were multiplied by H, and H·H = block·I.
        (scale[0] / quantise::block(width) as f32, 128 * sum)
    }
}
