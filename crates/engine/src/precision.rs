//! How exactly a model computes.

/// The precision of a model's linear layers. Sums, softmax and LayerNorm are in f32 in all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// bf16 where the CPU multiplies it (AVX-512 BF16), else f32.
    #[default]
    Auto,
    /// As the reference computes: vectors equal to about 1e-6.
    F32,
    /// Weights and activations rounded to bf16, half the memory; a cosine of about 0.99999 to f32. Where the CPU
    /// has no bf16 arithmetic, weights are bf16 and activations stay f32: half the memory, no faster.
    Bf16,
    /// Weights in eight bits with a scale per output, activations in eight bits with a scale per token, both
    /// rotated in blocks first (where 16 divides the width; else not); a quarter of the memory, a cosine of
    /// about 0.9997 to f32. Attention stays in bf16 or f32. Fast where the CPU has VNNI.
    Int8,
}

impl Precision {
    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
        }
    }
}

impl std::str::FromStr for Precision {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        [Self::Auto, Self::F32, Self::Bf16, Self::Int8]
            .into_iter()
            .find(|precision| precision.as_str() == name)
            .ok_or_else(|| format!("'{name}' is no precision; write f32, bf16, int8 or auto"))
    }
}

impl std::fmt::Display for Precision {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // With the width that a table asks for.
        f.pad(self.as_str())
    }
}
