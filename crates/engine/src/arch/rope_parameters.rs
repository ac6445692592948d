//! The parameters of rotary position embeddings (RoPE), read from the configuration, and their inverse frequencies.

use crate::{LoadError, files::Config};

/// The parameters of a rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct RopeParameters {
    /// The base θ of the frequencies.
    pub(super) theta: f64,
    /// The factor s of GTE's fixed NTK scaling; 1 for no scaling.
    pub(super) scaling_factor: f64,
}

impl RopeParameters {
    pub(super) fn unscaled(theta: f64) -> Self {
        Self { theta, scaling_factor: 1.0 }
    }

    /// Inverse frequencies in radians per position: θ^(-2i/w) for pair i of w/2. With NTK factor s:
    /// (θ·s)^(-2i/w) / s^(2/w). They are computed in f32, as in the references.
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
/// If the configuration has RoPE parameters other than the base, such as a scaling.
pub(super) fn read(config: &Config, key: &str, default: f64) -> Result<RopeParameters, LoadError> {
    let parameters = config.section("rope_parameters")?;
    require_standard_rope(&parameters)?;
    require_standard_rope(&config.section("rope_scaling")?)?;
    read_theta(config, &parameters, key, default)
}

/// As [`read`], for configurations with separate parameters per layer type.
pub(super) fn read_for_layer_type(
    config: &Config,
    layer_type: &str,
    key: &str,
    default: f64,
) -> Result<RopeParameters, LoadError> {
    let parameters = config.section("rope_parameters")?.section(layer_type)?;
    require_standard_rope(&parameters)?;
    require_standard_rope(&config.section("rope_scaling")?)?;
    read_theta(config, &parameters, key, default)
}

/// Reads the base from `rope_theta` of the parameters, or else from `key` of the configuration.
fn read_theta(
    config: &Config,
    parameters: &Config,
    key: &str,
    default: f64,
) -> Result<RopeParameters, LoadError> {
    if parameters.has("rope_theta") {
        return with_theta(parameters, "rope_theta", default);
    }
    with_theta(config, key, default)
}

/// Rejects scaling and partial rotation.
fn require_standard_rope(parameters: &Config) -> Result<(), LoadError> {
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

/// Unscaled parameters with the base from `key`.
///
/// # Errors
/// If the base is below 1 or not finite.
pub(super) fn with_theta(config: &Config, key: &str, default: f64) -> Result<RopeParameters, LoadError> {
    let theta = config.f64_or(key, default)?;
    if theta >= 1.0 && theta.is_finite() {
        return Ok(RopeParameters::unscaled(theta));
    }
    Err(config.unsupported(key, &theta.to_string(), "a number of at least 1"))
}

#[cfg(test)]
mod tests {
    use super::RopeParameters;

    /// Values of the formulas in f64. The scaled formula is that of vLLM's `NTKScalingRotaryEmbedding`.
    #[test]
    fn frequencies_equal_the_reference() {
        let near = |found: Vec<f32>, expected: [f64; 4]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) / expected - 1.0).abs() < 1e-6, "{found} {expected}");
            }
        };
        near(RopeParameters::unscaled(10_000.0).frequencies(8), [1.0, 0.1, 0.01, 0.001]);
        let scaled = |pair: i32| {
            let exponent = f64::from(2 * pair) / 8.0;
            1.0 / (20_000.0 * 8.0_f64).powf(exponent) / 8.0_f64.powf(2.0 / 8.0)
        };
        near(
            RopeParameters { theta: 20_000.0, scaling_factor: 8.0 }.frequencies(8),
            [0, 1, 2, 3].map(scaled),
        );
    }
}
