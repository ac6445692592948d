//! Rotary position embeddings (RoPE): their configuration and the angle of each pair per position.

use crate::{LoadError, files::Config};

/// The parameters of a rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rotary {
    /// The base of the angles.
    pub(super) theta: f64,
    /// Factor of GTE's fixed NTK scaling; 1 for no scaling.
    pub(super) scaling_factor: f64,
}

impl Rotary {
    pub(super) fn unscaled(theta: f64) -> Self {
        Self { theta, scaling_factor: 1.0 }
    }

    /// The angle per position of each of the w/2 pairs, computed in f32 as in the references: θ^(-2i/w). With a scaling
    /// factor s, the base is θ·s, and all angles are divided by s^(2/w).
    pub(super) fn frequencies(self, width: usize) -> Vec<f32> {
        let (theta, scaling) = ((self.theta * self.scaling_factor) as f32, self.scaling_factor as f32);
        let divisor = scaling.powf(2.0 / width as f32);
        (0..width / 2).map(|pair| 1.0 / theta.powf((2 * pair) as f32 / width as f32) / divisor).collect()
    }
}

/// Returns the head width, or an error if it is odd: rotation works on pairs.
pub(super) fn require_even(config: &Config, width: usize) -> Result<usize, LoadError> {
    if width.is_multiple_of(2) {
        return Ok(width);
    }
    Err(config.unsupported("the head width", &width.to_string(), "an even number"))
}

/// Reads `rope_parameters` of newer configurations, or the base from `key` of older ones.
///
/// # Errors
/// The configuration asks for scaling.
pub(super) fn read(config: &Config, key: &str, default: f64) -> Result<Rotary, LoadError> {
    let parameters = config.section("rope_parameters")?;
    require_unscaled(&parameters)?;
    require_unscaled(&config.section("rope_scaling")?)?;
    with_theta(config, parameters.f64_or("rope_theta", config.f64_or(key, default)?)?)
}

/// As [`read`], for configurations with separate parameters per layer type.
pub(super) fn read_for_layer_type(
    config: &Config,
    layer_type: &str,
    key: &str,
    default: f64,
) -> Result<Rotary, LoadError> {
    let parameters = config.section("rope_parameters")?.section(layer_type)?;
    require_unscaled(&parameters)?;
    require_unscaled(&config.section("rope_scaling")?)?;
    with_theta(config, parameters.f64_or("rope_theta", config.f64_or(key, default)?)?)
}

fn require_unscaled(parameters: &Config) -> Result<(), LoadError> {
    parameters.require_value("rope_type", "default")?;
    parameters.require_value("type", "default")?;
    match parameters.f64_or("partial_rotary_factor", 1.0)? {
        1.0 => Ok(()),
        factor => Err(parameters.unsupported(
            "partial_rotary_factor",
            &factor.to_string(),
            "1: the whole head is rotated",
        )),
    }
}

/// An unscaled embedding with the base `theta`.
pub(super) fn with_theta(config: &Config, theta: f64) -> Result<Rotary, LoadError> {
    if theta >= 1.0 && theta.is_finite() {
        return Ok(Rotary::unscaled(theta));
    }
    Err(config.unsupported("rope_theta", &theta.to_string(), "a number of at least 1"))
}

#[cfg(test)]
mod tests {
    use super::Rotary;

    /// Values of the formulas in f64. The scaled formula is that of vLLM's `NTKScalingRotaryEmbedding`.
    #[test]
    fn frequencies_equal_the_reference() {
        let near = |found: Vec<f32>, expected: [f64; 4]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) / expected - 1.0).abs() < 1e-6, "{found} {expected}");
            }
        };
        near(Rotary::unscaled(10_000.0).frequencies(8), [1.0, 0.1, 0.01, 0.001]);
        let scaled = |pair: i32| {
            let exponent = f64::from(2 * pair) / 8.0;
            1.0 / (20_000.0 * 8.0_f64).powf(exponent) / 8.0_f64.powf(2.0 / 8.0)
        };
        near(Rotary { theta: 20_000.0, scaling_factor: 8.0 }.frequencies(8), [0, 1, 2, 3].map(scaled));
    }
}
