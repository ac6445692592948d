//! The precision of a model's linear layers.

/// The precision of a model's linear layers. Sums, softmax and norms are computed in f32 in every precision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Precision {
    /// bf16 if the CPU multiplies it (AVX-512 BF16), else f32.
    #[default]
    Auto,
    /// As the reference computes. Vectors differ by about 1e-6.
    F32,
    /// Weights and activations rounded to bf16: half the memory, a cosine of about 0.99999 to f32. On a CPU without
    /// bf16 arithmetic, only weights are bf16: half the memory at the speed of f32.
    Bf16,
    /// Weights in eight bits with a scale per output, and activations in eight bits with a scale per token: a quarter
    /// of the memory, a cosine of about 0.9997 to f32. Both are rotated in blocks first if 16 divides the width.
    /// Attention stays in bf16 or f32. Fast on a CPU with VNNI.
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
        // `pad` honours the width of a format string.
        f.pad(self.as_str())
    }
}
