//! Rotary positions: the angles by which a head's pairs of numbers turn from one position to the next.

use crate::{LoadError, files::Config};

/// How fast heads turn.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rotary {
    /// The base of the angles.
    pub(super) theta: f64,
    /// By how much GTE's fixed NTK scaling stretches the positions; 1 is not at all.
    pub(super) stretch: f64,
}

impl Rotary {
    pub(super) fn plain(theta: f64) -> Self {
        Self { theta, stretch: 1.0 }
    }

    /// The angle of each of the w/2 pairs, in f32 as the references compute them: θ^(-2i/w); stretched, the base grows
    /// by the stretch, and what then turns turns less.
    pub(super) fn frequencies(self, width: usize) -> Vec<f32> {
        let (theta, stretch) = ((self.theta * self.stretch) as f32, self.stretch as f32);
        let less = stretch.powf(2.0 / width as f32);
        (0..width / 2).map(|pair| 1.0 / theta.powf((2 * pair) as f32 / width as f32) / less).collect()
    }
}

/// Heads whose numbers go in pairs.
pub(super) fn even(config: &Config, width: usize) -> Result<usize, LoadError> {
    if width.is_multiple_of(2) {
        return Ok(width);
    }
    Err(config.unsupported("the heads' width", &width.to_string(), "an even number"))
}

/// What newer configurations write (`rope_parameters`), or as older ones do, under `key`.
/// Other kinds of scaling than none are refused.
pub(super) fn read(config: &Config, key: &str, default: f64) -> Result<Rotary, LoadError> {
    let parameters = config.below("rope_parameters")?;
    plain(&parameters)?;
    plain(&config.below("rope_scaling")?)?;
    base(config, parameters.number_or("rope_theta", config.number_or(key, default)?)?)
}

/// As [`read`], where layers of one `kind` have parameters of their own.
pub(super) fn read_of(config: &Config, kind: &str, (key, default): (&str, f64)) -> Result<Rotary, LoadError> {
    let parameters = config.below("rope_parameters")?.below(kind)?;
    plain(&parameters)?;
    plain(&config.below("rope_scaling")?)?;
    base(config, parameters.number_or("rope_theta", config.number_or(key, default)?)?)
}

fn plain(parameters: &Config) -> Result<(), LoadError> {
    parameters.require_value("rope_type", "default")?;
    parameters.require_value("type", "default")?;
    match parameters.number_or("partial_rotary_factor", 1.0)? {
        1.0 => Ok(()),
        part => Err(parameters.unsupported(
            "partial_rotary_factor",
            &part.to_string(),
            "1: all of a head is turned",
        )),
    }
}

pub(super) fn base(config: &Config, theta: f64) -> Result<Rotary, LoadError> {
    if theta >= 1.0 && theta.is_finite() {
        return Ok(Rotary::plain(theta));
    }
    Err(config.unsupported("rope_theta", &theta.to_string(), "a number from 1 on"))
}

#[cfg(test)]
mod tests {
    use super::Rotary;

    /// Values of the formulas in f64; the scaled one is that of vLLM's `NTKScalingRotaryEmbedding`.
    #[test]
    fn angles_are_the_references() {
        let near = |found: Vec<f32>, expected: [f64; 4]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((f64::from(*found) / expected - 1.0).abs() < 1e-6, "{found} {expected}");
            }
        };
        near(Rotary::plain(10_000.0).frequencies(8), [1.0, 0.1, 0.01, 0.001]);
        let scaled = |pair: i32| {
            let exponent = f64::from(2 * pair) / 8.0;
            1.0 / (20_000.0 * 8.0_f64).powf(exponent) / 8.0_f64.powf(2.0 / 8.0)
        };
        near(Rotary { theta: 20_000.0, stretch: 8.0 }.frequencies(8), [0, 1, 2, 3].map(scaled));
    }
}
